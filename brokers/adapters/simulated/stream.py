"""The stream of a simulated broker's reports: in sequence, gaps asked for again, nonsense kept and passed by."""

import time
from collections.abc import Callable

import msgspec

from brokers.adapters.port import BrokerError, BrokerUnavailable, Frame, Report
from brokers.adapters.simulated.connection import Connection
from oms.kernel.decimals import BOUND

SILENCE_SECONDS = 5.0
"""A broker beats every second; a link silent for so long is dead, whatever the socket believes."""
RESEND_SECONDS = 5.0
REPORTS_MAX = 250
"""Once so many are at hand no further frame is read: what comes later waits in the socket. The caller applies them in one
transaction, which holds the accounts: those who place orders in them meanwhile wait some fifty milliseconds, not more."""
ID_LENGTH_MAX = 64


class _Line(msgspec.Struct):
    seq: int | None = None
    reports: tuple[Report, ...] = ()
    heartbeat: int | None = None
    resent: int | None = None


class _Numbered(msgspec.Struct):
    seq: int


_read_line = msgspec.json.Decoder(_Line).decode
_read_number = msgspec.json.Decoder(_Numbered).decode


class SimulatedStream:
    """Frames behind a sequence number. Used by one thread."""

    def __init__(
        self, connection: Connection, after: int | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._now = monotonic
        self._last = connection.last if after is None else after
        if after is not None and connection.last is not None and connection.last < after:
            connection.close()
            raise BrokerError(
                f"the broker's stream ends at {connection.last}, behind our {after}: it lost its memory", permanent=True
            )
        self._held: dict[int, Frame] = {}
        self._asked_at: float | None = None
        self._heard_at = self._now()

    def receive(self, timeout: float) -> list[Frame]:
        """See the port."""
        until = self._now() + timeout
        ready: list[Frame] = []
        weight = 0
        while weight < REPORTS_MAX:
            if (line := self._connection.next_line()) is not None:
                frames = self._take(line)
                weight += sum(max(len(f.reports), 1) for f in frames)
                ready += frames
                continue
            left = 0.0 if ready else until - self._now()
            if self._connection.wait(max(left, 0.0)):
                try:
                    self._connection.fill()
                except BrokerUnavailable:
                    if ready:  # hand over what came before the end; the next call meets it again
                        return ready
                    raise
                self._heard_at = self._now()
                continue
            self._check_alive()
            if ready or left <= 0:
                break
        return ready

    def close(self) -> None:
        """See the port."""
        self._connection.close()

    def _check_alive(self) -> None:
        now = self._now()
        if now - self._heard_at > SILENCE_SECONDS:
            raise BrokerUnavailable(f"nothing heard for {SILENCE_SECONDS:g} s")
        if self._asked_at is not None and now - self._asked_at > RESEND_SECONDS:
            raise BrokerUnavailable("a gap was not filled in time")

    def _take(self, raw: bytes) -> list[Frame]:
        """Return the frames that a line makes ready: none while something before it is missing."""
        try:
            line = _read_line(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._unreadable(raw, str(error))
        if line.seq is not None:
            return self._numbered(
                Frame(raw=raw, sequence=line.seq, reports=line.reports, error=_fault(raw, line.reports))
            )
        if line.resent is not None:
            return self._resent(line.resent)
        if line.heartbeat is not None:
            if self._last is None:
                self._last = line.heartbeat
            self._want(line.heartbeat)
            return []
        return [Frame(raw=raw, sequence=None, reports=(), error="neither a frame nor a heartbeat")]

    def _unreadable(self, raw: bytes, error: str) -> list[Frame]:
        """Keep nonsense; with its number it counts as received, without one the next number shows what it hid."""
        try:
            number = _read_number(raw).seq
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return [Frame(raw=raw, sequence=None, reports=(), error=error)]
        return self._numbered(Frame(raw=raw, sequence=number, reports=(), error=error))

    def _numbered(self, frame: Frame) -> list[Frame]:
        number = frame.sequence or 0
        if self._last is None:
            self._last = number - 1
        if number <= self._last:
            return []
        if frame.error is not None and frame.reports:
            frame = Frame(raw=frame.raw, sequence=number, reports=(), error=frame.error)
        self._held[number] = frame
        ready = self._release()
        self._want(max(self._held, default=self._last) - 1)
        return ready

    def _release(self) -> list[Frame]:
        ready: list[Frame] = []
        assert self._last is not None  # noqa: S101 - set before anything is held
        while (frame := self._held.pop(self._last + 1, None)) is not None:
            self._last += 1
            ready.append(frame)
        return ready

    def _want(self, up_to: int) -> None:
        """Ask again for what is missing up to a number; one wish at a time."""
        if self._last is None or up_to <= self._last or self._asked_at is not None:
            return
        missing = [n for n in range(self._last + 1, up_to + 1) if n not in self._held]
        if missing:
            wish = {"op": "resend", "first": missing[0], "last": missing[-1]}
            self._connection.write(msgspec.json.encode(wish), self._now() + RESEND_SECONDS)
            self._asked_at = self._now()

    def _resent(self, last: int) -> list[Frame]:
        """End a wish: what the broker can't show now either is passed by, loudly."""
        self._asked_at = None
        for number in range((self._last or 0) + 1, last + 1):
            if number not in self._held:
                error = "the broker could not send this frame again"
                self._held[number] = Frame(
                    raw=f"lost frame {number}".encode(), sequence=number, reports=(), error=error
                )
        ready = self._release()
        self._want(max(self._held, default=0) - 1)
        return ready


def read_reports(raw: bytes) -> tuple[Report, ...]:
    """Return the reports of a line; raises `ValueError` for one that can't be read or must not reach the books."""
    try:
        line = _read_line(raw)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if fault := _fault(raw, line.reports):
        raise ValueError(fault)
    return line.reports


def _fault(raw: bytes, reports: tuple[Report, ...]) -> str | None:
    """Return why reports must not reach the books: numbers out of all bounds, ids no column holds."""
    if b"\\u0000" in raw:
        return "a NUL character"
    for report in reports:
        quantities = (report.order_quantity, report.cumulative_quantity, report.leaves_quantity, report.last_quantity)
        for value in (*quantities, report.last_price, report.limit_price, report.stop_price):
            if value is not None and not (value.is_finite() and abs(value) < BOUND):
                return f"a number out of bounds: {value}"
        if any(q is not None and q < 0 for q in quantities):
            return "a quantity below zero"
        for fee in report.fees or ():
            if not (fee.amount.is_finite() and abs(fee.amount) < BOUND):
                return f"a fee out of bounds: {fee.amount}"
        for text in (report.client_order_id, report.broker_order_id, report.execution_id, report.ref_execution_id):
            if text is not None and len(text) > ID_LENGTH_MAX:
                return "an id longer than any column"
        if report.kind in ("trade", "bust", "correct") and not report.execution_id:
            return f"a {report.kind} without an execution id"
    return None
