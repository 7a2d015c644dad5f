"""The connection to a FIX broker: TCP, with TLS where it wants it."""

import contextlib
import select
import socket
import ssl
import threading
import time

from brokers.adapters.fix.settings import Settings
from brokers.adapters.port import BrokerUnavailable
from brokers.adapters.reach import HostRefused, addresses

CONNECT_SECONDS = 5.0
WRITE_SECONDS = 5.0
CHUNK_BYTES = 1 << 16


class TcpLink:
    """One connection. Reads belong to one thread, writes to whoever has the session's lock."""

    def __init__(self, settings: Settings) -> None:
        """Connect, or raise `BrokerUnavailable` with `sent=False`."""
        try:
            self.socket = _secured(_connected(settings), settings)
        except HostRefused as error:
            raise BrokerUnavailable(str(error), permanent=True, sent=False) from None
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"can't connect: {error}", sent=False) from error
        self.socket.settimeout(WRITE_SECONDS)
        self._secret = threading.Lock() if settings.tls else contextlib.nullcontext()
        """A TLS connection can't be read and written at once."""

    def write(self, data: bytes) -> None:
        """See `session.Link`."""
        try:
            with self._secret:
                self.socket.sendall(data)
        except OSError as error:
            self.close()
            raise BrokerUnavailable(f"the connection broke while writing: {error}") from error

    def read(self, seconds: float) -> bytes:
        """See `session.Link`."""
        try:
            waiting = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
            if not waiting and not select.select([self.socket], [], [], max(seconds, 0.0))[0]:
                return b""
            with self._secret:
                chunk = self.socket.recv(CHUNK_BYTES)
        except (ssl.SSLWantReadError, TimeoutError):
            return b""
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"the connection broke: {error}") from error
        if not chunk:
            raise BrokerUnavailable("the broker closed the connection")
        return chunk

    def close(self) -> None:
        """Hang up; twice is harmless."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _connected(settings: Settings) -> socket.socket:
    """Connect to the first address that answers, of those that the host's name leads to now."""
    trouble: OSError = OSError(f"{settings.host} leads nowhere")
    end = time.monotonic() + CONNECT_SECONDS
    for address in addresses(settings.host, settings.port):
        try:
            made = socket.create_connection(address, timeout=max(end - time.monotonic(), 0.1))
        except OSError as error:
            trouble = error
            continue
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    raise trouble


def _secured(plain: socket.socket, settings: Settings) -> socket.socket:
    if not settings.tls:
        return plain
    context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    return context.wrap_socket(plain, server_hostname=settings.tls_server_name or settings.host)
