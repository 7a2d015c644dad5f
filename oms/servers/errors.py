"""What can keep the embedded servers from serving."""


class ServersError(Exception):
    """A server cannot be started or found; the text says what to do."""


class NotRunning(ServersError):
    """No server of this data folder answers."""
