"""A FIX counterparty of the tests' own: raw sockets, a codec of a few lines, nothing of the house's.

It accepts one session, keeps what it sends so that it can send it again, answers the session's own messages by itself unless told
not to, and leaves everything else to the script of the test.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

SOH = "\x01"
Field = tuple[int, Any]


def now(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y%m%d-%H:%M:%S.%f")[:-3]


def build(begin: str, fields: Sequence[Field]) -> bytes:
    """Return the bytes of a message from its fields, MsgType first."""
    body = "".join(f"{tag}={value}{SOH}" for tag, value in fields if value is not None)
    text = f"8={begin}{SOH}9={len(body.encode())}{SOH}{body}"
    return f"{text}10={sum(text.encode()) % 256:03d}{SOH}".encode()


class Got(dict[int, str]):
    """A message that came, by tags; the first of each counts. `raw` keeps all."""

    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Got":
        made = cls()
        for pair in raw.decode().rstrip(SOH).split(SOH):
            tag, _, value = pair.partition("=")
            made.setdefault(int(tag), value)
        made.raw = raw
        return made


class Peer:
    """The broker's side of one session."""

    def __init__(self, begin: str = "FIX.4.4", *, us: str = "BROKER", them: str = "DESK") -> None:
        self.begin, self.us, self.them = begin, us, them
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.link: socket.socket | None = None
        self.next_out = self.next_in = 1
        self.asked_from: int | None = None
        self.store: dict[int, list[Field]] = {}
        self.inbox: queue.Queue[Got] = queue.Queue()
        self.log: list[Got] = []  # everything that came, over all connections
        self.logons = 0
        self.answers_logon = self.answers_tests = self.resends = True
        self.silent = False
        self.takes: Callable[[Got], bool] = lambda _: True  # False: as if it had never arrived
        self.on: dict[str, Callable[[Got], None]] = {}  # what to do by MsgType, at once
        self.lost = threading.Event()
        self.up = threading.Event()
        self._lock = threading.RLock()
        threading.Thread(target=self._serve, daemon=True).start()

    # -- the wire

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.link is not None and self.up.is_set():
                link.close()  # one session, one connection
                continue
            self.link = link
            self.lost.clear()
            threading.Thread(target=self._read, args=(link,), daemon=True).start()

    def _read(self, link: socket.socket) -> None:
        buffer = b""
        while True:
            try:
                chunk = link.recv(65536)
            except OSError:
                chunk = b""
            if not chunk:
                break
            buffer += chunk
            while (end := buffer.find(b"\x0110=")) >= 0 and len(buffer) >= end + 8:
                raw, buffer = buffer[: end + 8], buffer[end + 8 :]
                body = raw[raw.index(b"\x0135=") + 1 : end + 1]
                assert int(Got.of(raw)[9]) == len(body), "the desk's BodyLength is wrong"
                assert int(Got.of(raw)[10]) == sum(raw[:-7]) % 256, "the desk's CheckSum is wrong"
                self._take(Got.of(raw))
        link.close()
        if self.link is link:
            self.link = None
            self.up.clear()
            self.lost.set()

    def _take(self, m: Got) -> None:
        with self._lock:
            if not self.takes(m):
                return
            self.log.append(m)
            kind, number = m[35], int(m[34])
            if kind == "A":
                self.logons += 1
                if m.get(141) == "Y":
                    self.next_in = self.next_out = 1
                    self.store.clear()
                if self.answers_logon:
                    fields: list[Field] = [(98, 0), (108, m[108]), (141, m.get(141))]
                    self.tell("A", *fields)
                    self.up.set()
            if kind == "4" and m.get(123) == "Y" and number <= self.next_in:
                self.next_in = max(self.next_in, int(m[36]))
            elif number > self.next_in:
                if self.asked_from != self.next_in:
                    self.asked_from = self.next_in
                    self.tell("2", (7, self.next_in), (16, 0))
                if kind not in ("2", "5"):
                    return
            elif number == self.next_in:
                self.next_in += 1
            elif m.get(43) != "Y":
                self.inbox.put(m)
                return
            if kind == "1" and self.answers_tests:
                self.tell("0", (112, m[112]))
            elif kind == "2" and self.resends:
                self.send_again(int(m[7]), int(m[16]))
            elif kind == "5":
                if self.link and self.up.is_set():
                    self.tell("5")
                    self.up.clear()
                    self.hang_up()
            elif kind not in "0":
                if action := self.on.get(kind):
                    action(m)
                self.inbox.put(m)

    def write(self, raw: bytes) -> None:
        """Write bytes as they are."""
        if self.link is not None and not self.silent:
            try:
                self.link.sendall(raw)
            except OSError:
                self.lost.set()

    # -- the script

    def tell(self, kind: str, *fields: Field, number: int | None = None, keep: bool = True) -> int:
        """Send a message with the next number, and return the number; `keep` it only, where the link is down."""
        with self._lock:
            taken = self.next_out if number is None else number
            if number is None:
                self.next_out += 1
            if keep:
                self.store[taken] = [(35, kind), *fields]
            self.write(self.bytes_of(kind, taken, fields))
            return taken

    def bytes_of(self, kind: str, number: int, fields: Sequence[Field], *header: Field) -> bytes:
        head: list[Field] = [(35, kind), (49, self.us), (56, self.them), (34, number), *header, (52, now())]
        return build(self.begin, [*head, *fields])

    def send_again(self, begin: int, end: int) -> None:
        """Answer a request to send again, as the standard has it: reports once more, the rest passed by."""
        with self._lock:
            last = self.next_out - 1 if end == 0 else min(end, self.next_out - 1)
            number = begin
            while number <= last:
                kind = self.store.get(number, [(35, "0")])[0][1]
                if kind in ("8", "9", "3", "j") and number in self.store:
                    self.write(self.bytes_of(kind, number, self.store[number][1:], (43, "Y"), (122, now(seconds=1))))
                    number += 1
                    continue
                first = number
                while number <= last and self.store.get(number, [(35, "0")])[0][1] not in ("8", "9", "3", "j"):
                    number += 1
                gap: list[Field] = [(123, "Y"), (36, number)]
                self.write(self.bytes_of("4", first, gap, (43, "Y"), (122, now(seconds=1))))

    def expect(self, *kinds: str, seconds: float = 5.0) -> Got:
        """Return the next message of a kind; others before it are passed by."""
        end = time.monotonic() + seconds
        while True:
            try:
                m = self.inbox.get(timeout=max(end - time.monotonic(), 0.001))
            except queue.Empty:
                came = [x[35] for x in self.log]
                raise AssertionError(f"no {kinds} within {seconds} s; came {came[-20:]}") from None
            if m[35] in kinds:
                return m

    def report(self, exec_type: str, status: str, order: Got, *fields: Field, **more: Any) -> int:
        """Send an ExecutionReport about a request as it came."""
        quantity, filled, leaves = more.get("quantity", order.get(38, "0")), more.get("filled", 0), more.get("leaves")
        own = {tag for tag, _ in fields}
        base: list[Field] = [
            (37, f"O-{order[11][-10:]}"), (11, order[11]), (17, f"X{self.next_out}-{time.monotonic_ns()}"), (150, exec_type),
            (39, status), (1, order.get(1)), (55, order.get(55)), (54, order.get(54)), (38, quantity),
            (151, quantity if leaves is None else leaves), (14, filled), (6, 0), (60, now()),
        ]  # fmt: skip
        return self.tell("8", *(f for f in base if f[0] not in own), *fields)

    def cut(self) -> None:
        """Cut the connection without a word."""
        self.up.clear()
        if self.link is not None:
            with suppress(OSError):
                self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self.hang_up()

    def hang_up(self) -> None:
        """End the connection; its reader closes it."""
        if self.link is not None:
            with suppress(OSError):
                self.link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more."""
        self.listener.close()
        self.cut()

    def came(self, kind: str) -> list[Got]:
        """Return all messages of a kind that ever came."""
        return [m for m in self.log if m[35] == kind]
