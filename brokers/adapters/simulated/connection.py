"""A line-by-line connection to a simulated broker, with every failure told apart by whether bytes may have left."""

import select
import socket
import time
from typing import Any

import msgspec

from brokers.adapters.port import BrokerUnavailable
from brokers.adapters.reach import HostRefused, addresses

VERSION = 1
CONNECT_SECONDS = 2.0
LINE_BYTES_MAX = 64 * 1024 * 1024
CHUNK_BYTES = 1 << 18


class HelloAnswer(msgspec.Struct):
    """What the broker says to a new connection; `seq` is the number of its newest frame."""

    ok: bool = False
    error: str = ""
    seq: int | None = None


_read_hello = msgspec.json.Decoder(HelloAnswer).decode
_write = msgspec.json.Encoder().encode


class Connection:
    """One TCP connection, greeted. Not for two threads at once."""

    def __init__(self, settings: dict[str, Any], purpose: str, *, deadline: float, after: int | None = None) -> None:
        """Connect and greet, or raise `BrokerUnavailable` with `sent=False`: nothing that matters has left."""
        self.buffer = bytearray()
        try:
            left = max(min(deadline - time.monotonic(), CONNECT_SECONDS), 0.001)
            self.socket = _connect(settings.get("host", "127.0.0.1"), int(settings["port"]), left)
        except HostRefused as error:
            raise BrokerUnavailable(str(error), permanent=True, sent=False) from None
        except KeyError:
            raise BrokerUnavailable("the settings name no port", permanent=True, sent=False) from None
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"can't connect: {error}", sent=False) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._greet(settings, purpose, after, min(deadline, time.monotonic() + CONNECT_SECONDS))

    def _greet(self, settings: dict[str, Any], purpose: str, after: int | None, deadline: float) -> None:
        hello = {
            "type": purpose,
            "broker": settings.get("code", ""),
            "key": settings.get("key", ""),
            "hello": VERSION,
            "after": after,
        }
        try:
            self.write(_write(hello), deadline)
            answer = _read_hello(self.read_line(deadline))
        except (BrokerUnavailable, msgspec.MsgspecError) as error:
            self.close()
            raise BrokerUnavailable(f"the broker did not greet: {error}", sent=False) from error
        if not answer.ok:
            self.close()
            raise BrokerUnavailable(f"the broker refused: {answer.error}", permanent=True, sent=False)
        self.last = answer.seq

    def write(self, line: bytes, deadline: float) -> None:
        """Write one line; raises `BrokerUnavailable`, after which some of it may have left."""
        try:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self.socket.sendall(line + b"\n")
        except OSError as error:
            raise BrokerUnavailable(f"the connection broke while writing: {error}") from error

    def read_line(self, deadline: float) -> bytes:
        """Return the next line; raises `BrokerUnavailable` at the deadline or when the other side is gone."""
        while True:
            if (line := self.next_line()) is not None:
                return line
            left = deadline - time.monotonic()
            if left <= 0 or not self.wait(left):
                raise BrokerUnavailable("no answer in time")
            self.fill()

    def next_line(self) -> bytes | None:
        """Return a line that has arrived, or None."""
        end = self.buffer.find(b"\n")
        if end < 0:
            if len(self.buffer) > LINE_BYTES_MAX:
                raise BrokerUnavailable("the broker sends a line without end")
            return None
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def wait(self, seconds: float) -> bool:
        """Tell whether something arrives (or the other side hangs up) within some seconds."""
        try:
            return bool(select.select([self.socket], [], [], max(seconds, 0))[0])
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"the connection is closed: {error}") from error

    def fill(self) -> None:
        """Take in what has arrived; call after `wait`."""
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except OSError as error:
            raise BrokerUnavailable(f"the connection broke: {error}") from error
        if not chunk:
            raise BrokerUnavailable("the broker closed the connection")
        self.buffer += chunk

    def is_stale(self) -> bool:
        """Tell whether an idle connection is of no more use: hung up, or holding what nobody asked for."""
        try:
            return bool(self.buffer) or self.wait(0)
        except BrokerUnavailable:
            return True

    def close(self) -> None:
        """Hang up; twice is harmless."""
        self.socket.close()


def _connect(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to the first address that answers, of those that the host's name leads to now."""
    trouble: OSError = OSError(f"{host} leads nowhere")
    for address in addresses(host, port):
        try:
            return socket.create_connection(address, timeout=seconds)
        except OSError as error:
            trouble = error
    raise trouble
