"""One FIX session: numbers, heartbeats, gaps, resets and rejects, by the standard; orders and reports are its payload.

House rules, where the standard leaves a choice ([why](../../../docs/decisions/)):

- Nothing is written before its number is taken and its bytes are kept, in one commit that only the holder of the lease can make.
- A request to send again is answered by one gap fill. An application message is never written twice, so the session can't
  double an order; what became of one that was lost is found out by asking.
- Too low a number without PossDup ends the session, loudly: somebody's memory is wrong, and a person decides whose.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from brokers.adapters.fix.codec import Message, Reader, encode, masked, pairs_of, read_time, written
from brokers.adapters.fix.orders import Body
from brokers.adapters.fix.settings import Settings
from brokers.adapters.hosting import EPOCH_BITS, Numbers, Sent, SessionStore, expected
from brokers.adapters.port import BrokerError, BrokerUnavailable

LOGON_SECONDS = 10.0
LOGOUT_SECONDS = 2.0
TRANSMISSION = 0.2
"""Of the heartbeat interval, what a message may take on its way before silence counts."""
RESEND_SECONDS = 10.0
RESEND_TRIES = 3
HELD_MAX = 10_000
SETTLING_SECONDS = 0.25
"""After a logon that goes on with old numbers no order leaves for so long: first both sides tell what they miss."""
CLOCKS_APART_SECONDS = 120.0
SESSION_KINDS = frozenset("01245A")
log = structlog.get_logger(__name__)


class Link(Protocol):
    """The bytes' way to the broker."""

    def write(self, data: bytes) -> None:
        """Write all; raises `BrokerUnavailable`, after which some of it may have left."""

    def read(self, seconds: float) -> bytes:
        """Return what arrives within some seconds, b"" when nothing does; raises `BrokerUnavailable` at the end."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True, slots=True)
class Came:
    """A message in its turn; `number` is its place in the stream, None for what the session passes by.

    `session` marks the session's own, `error` tells what is wrong with it.
    """

    raw: bytes
    number: int | None
    message: Message | None = None
    error: str | None = None
    session: bool = False


@dataclass
class Gap:
    """What was asked for again: up to which number, when, how often."""

    up_to: int
    asked_at: float
    tries: int = 1


@dataclass
class Seen:
    """What people want to know of a session."""

    heard_at: datetime | None = None
    wrote_at: datetime | None = None
    gaps: int = 0
    garbled: int = 0
    rejected: int = 0
    extra: dict[str, str] = field(default_factory=dict)


class Session:
    """A session over one link. `receive` belongs to one thread; `send` may be called by any."""

    def __init__(self, settings: Settings, store: SessionStore, link: Link, clock: Callable[[], datetime]) -> None:
        self.settings = settings
        self.store = store
        self.link = link
        self.clock = clock
        self.reader = Reader()
        self.numbers: Numbers = store.load()
        self.next_in = 1
        self.logged_on = False
        self.leaving = False
        self.over: BrokerError | None = None
        self.held: dict[int, Message] = {}
        self.gap: Gap | None = None
        self.tested: str | None = None
        self.seen = Seen()
        self._settles_at = 0.0
        self._reset_sent = False
        self._heard = self._wrote = time.monotonic()
        self._tests = itertools.count(1)
        self._writing = threading.RLock()

    # -- coming and going

    def log_on(self, after: int | None, *, anew: bool, deadline: float) -> Iterator[Came]:
        """Log on and yield what came with the answer; raises `BrokerUnavailable` when there is none in time."""
        if anew or self.settings.reset_on_logon:
            self.numbers = self.store.begin_anew(self.clock())
        self.next_in = expected(after, self.numbers.epoch)
        self._reset_sent = self.settings.reset_on_logon
        self._write("A", self._logon_fields(reset=self._reset_sent))
        while not self.logged_on:
            left = deadline - time.monotonic()
            if self.over:
                raise self.over
            if left <= 0:
                raise BrokerUnavailable("no answer to our logon", sent=False)
            yield from self._take(self.link.read(min(left, 0.25)))

    def _logon_fields(self, *, reset: bool) -> Body:
        s = self.settings
        password: Body = [(553, s.username or None), (554, s.password or None)]
        if not s.is_44 and s.password:
            password = [(95, len(s.password.encode())), (96, s.password)]
        fields: Body = [(98, 0), (108, s.heartbeat_seconds), (141, "Y" if reset else None), *password]
        return fields + pairs_of(s.logon_fields)

    def log_out(self, text: str = "") -> None:
        """Say goodbye, wait for the answer, hang up."""
        try:
            if self.may_send:
                self._write("5", [(58, text or None)])
                self.leaving = True
                end = time.monotonic() + LOGOUT_SECONDS
                while self.over is None and time.monotonic() < end:
                    list(self._take(self.link.read(0.1)))  # not taken in: it comes again after the next logon
        except Exception as error:
            log.info("fix_logout_unfinished", broker=self.settings.target_comp_id, error=str(error))
        finally:
            self.over = self.over or BrokerUnavailable("we logged out", sent=False)
            self.link.close()

    @property
    def may_send(self) -> bool:
        """Tell whether the session stands."""
        return self.logged_on and not self.leaving and self.over is None

    # -- out

    def send(self, messages: Sequence[tuple[str, str, Body]], *, deadline: float) -> str:
        """Write application messages (kind, client order id, fields) in one go, once.

        Returns "" when they were written, else why nothing was; raises `BrokerUnavailable` when some may have left.
        """
        time.sleep(max(min(self._settles_at, deadline) - time.monotonic(), 0.0))
        with self._writing:
            if not self.may_send:
                return "not logged on"
            try:
                data = self._number(messages)
            except BrokerError as error:
                self.over = error
                raise
            if time.monotonic() >= deadline:
                return "the deadline passed before the write"  # their numbers are a gap, which the broker has filled
            self._put(data)
            return ""

    def _write(self, kind: str, body: Body) -> None:
        with self._writing:
            self._put(self._number([(kind, "", body)]))

    def _number(self, messages: Sequence[tuple[str, str, Body]]) -> bytes:
        """Take numbers for messages, keep them, and return their bytes."""
        first, out, kept = self.numbers.next_out, bytearray(), []
        for number, (kind, client_order_id, body) in enumerate(messages, first):
            raw = encode(self.settings.begin_string, kind, self._header(number), body)
            out += raw
            kept.append(Sent(number, kind, client_order_id, masked(raw)))
        self.store.keep(self.numbers.epoch, kept)
        self.numbers = Numbers(self.numbers.epoch, first + len(kept), self.numbers.began_at)
        return bytes(out)

    def _header(self, number: int) -> Body:
        s = self.settings
        return [
            (49, s.sender_comp_id), (50, s.sender_sub_id or None), (56, s.target_comp_id), (57, s.target_sub_id or None),
            (34, number), (52, written(self.clock())),
        ]  # fmt: skip

    def _put(self, data: bytes) -> None:
        try:
            self.link.write(data)
        except BrokerError as error:
            self.over = error
            raise
        self._wrote = time.monotonic()
        self.seen.wrote_at = self.clock()

    def _fill(self, begin: int, end: int) -> None:
        """Answer a request to send again: none of it is written twice, so its numbers are passed by."""
        with self._writing:
            following = self.numbers.next_out
            if end == 0 or end >= following:
                end = following - 1
            if begin > end:
                return
            self.store.confirm()
            now = written(self.clock())
            header: Body = [*self._header(begin), (43, "Y"), (122, now)]
            raw = encode(self.settings.begin_string, "4", header, [(123, "Y"), (36, end + 1)])
            self._put(raw)
        log.warning("fix_gap_filled", first=begin, last=end)

    # -- in

    def receive(self, seconds: float) -> list[Came]:
        """Return what has come in its turn, waiting for the first; keeps the session alive meanwhile."""
        if self.over:
            raise self.over
        came: list[Came] = []
        try:
            for one in self._take(self.link.read(seconds)):
                came.append(one)  # noqa: PERF402 - what came before the end counts, whatever ends it
            if self.over is None:
                self._keep_alive()
        except BrokerError as error:
            self.over = error
        if self.over and not came:
            raise self.over
        return came

    def _take(self, chunk: bytes) -> Iterator[Came]:
        if chunk:
            self._heard = time.monotonic()
            self.tested = None
            self.seen.heard_at = self.clock()
            self.reader.feed(chunk)
        for frame in self.reader.frames():
            if self.over:
                return
            if isinstance(frame, tuple):
                self.seen.garbled += 1
                yield Came(frame[0], None, error=f"garbled: {frame[1]}")
            else:
                yield from self._judge(frame)

    def _judge(self, m: Message) -> Iterator[Came]:
        """Pass a message on in its turn, hold it, or end the session over it."""
        s, number = self.settings, m.sequence
        if m.text(8) != s.begin_string:
            raise self._leave(f"BeginString {m.text(8)} is not {s.begin_string}")
        if number is None:
            raise self._leave("MsgSeqNum missing")
        if (m.text(49), m.text(56)) != (s.target_comp_id, s.sender_comp_id):
            self._reject(m, 9, 49 if m.text(49) != s.target_comp_id else 56, "CompID problem")
            raise self._leave("CompID problem")
        self._compare_clocks(m)
        if not self.logged_on and m.kind not in ("A", "5", "3"):
            raise self._leave("the first message is no Logon")
        if m.kind == "A":
            yield from self._logon(m, number)
            return
        if m.kind == "4" and not m.flag(123):
            yield from self._set_sequence(m)
            return
        if number < self.next_in:
            if m.flag(43):
                yield Came(m.raw, None, m, session=True)  # it had its turn
                return
            raise self._leave(f"MsgSeqNum too low, expecting {self.next_in} but received {number}")
        if m.kind == "2" and number > self.next_in:
            self._asked_again(m)  # at once: both sides may miss something, and neither may wait for the other
        if m.kind == "5" and number > self.next_in:
            self.over = self._farewell(m)
            yield Came(m.raw, None, m, session=True)
            return
        if number > self.next_in:
            self._hold(m, number)
            return
        yield from self._process(m, number)
        yield from self._release()

    def _release(self) -> Iterator[Came]:
        """Pass on what was held and is next by now."""
        while (held := self.held.pop(self.next_in, None)) is not None:
            yield from self._process(held, self.next_in)
        if self.gap and self.next_in > self.gap.up_to:
            self.gap = None
        self.held = {n: m for n, m in self.held.items() if n > self.next_in}
        if self.held and self.gap is None:
            self._ask_again(max(self.held))

    def _process(self, m: Message, number: int) -> Iterator[Came]:
        """Take a message whose turn it is."""
        self.next_in = number + 1
        if m.kind == "1":
            if m.text(112):
                self._write("0", [(112, m.text(112))])
            else:
                self._reject(m, 1, 112, "required tag missing")
        elif m.kind == "2":
            self._asked_again(m)
        elif m.kind == "4":
            yield from self._pass_by(m, number + 1)
            return
        elif m.kind == "5":
            self.over = self._farewell(m)
        yield Came(m.raw, self._place(number), m, session=m.kind in SESSION_KINDS)

    def _place(self, number: int) -> int:
        return (self.numbers.epoch << EPOCH_BITS) | number

    def _pass_by(self, m: Message, least: int) -> Iterator[Came]:
        """Go on at the number that a SequenceReset names; what is at hand of those passed by is taken all the same."""
        new = m.number(36)
        if new is None or new < least:
            self._reject(m, 1 if new is None else 5, 36, f"NewSeqNo is below {least}")
            yield Came(m.raw, self._place(self.next_in - 1), m, error="a SequenceReset that leads nowhere")
            return
        for number in sorted(n for n in self.held if n < new):
            yield from self._process(self.held.pop(number), number)
        self.next_in = max(new, self.next_in)
        yield Came(m.raw, self._place(self.next_in - 1), m, session=True)

    def _logon(self, m: Message, number: int) -> Iterator[Came]:
        """Take the answer to our logon, or a broker's wish to begin the numbers anew."""
        anew = m.flag(141)
        if self.logged_on and not anew:
            if number < self.next_in and m.flag(43):
                return  # it had its turn
            raise self._leave("a second Logon")
        asked, self._reset_sent = self._reset_sent, False
        if anew and not asked:
            if number != 1:
                raise self._leave("ResetSeqNumFlag with a MsgSeqNum other than 1")
            log.warning("fix_numbers_begin_anew", by=self.settings.target_comp_id)
            with self._writing:
                self.numbers = self.store.begin_anew(self.clock())
                self.next_in, self.held, self.gap = 1, {}, None
                if self.logged_on:
                    self._write("A", self._logon_fields(reset=True))
                else:
                    self._number([("A", "", self._logon_fields(reset=False))])  # the one that we sent is number 1
        if number < self.next_in:
            raise self._leave(f"MsgSeqNum too low, expecting {self.next_in} but received {number}")
        if beat := m.number(108):
            self.seen.extra["heartbeat_seconds"] = str(beat)
        if not self.logged_on and self.numbers.next_out > 2:
            self._settles_at = time.monotonic() + SETTLING_SECONDS
        self.logged_on = True
        if number > self.next_in:
            self._hold(m, number)
            yield Came(m.raw, None, m, session=True)
            return
        self.next_in = number + 1
        yield Came(m.raw, (self.numbers.epoch << EPOCH_BITS) | number, m, session=True)
        yield from self._release()

    def _set_sequence(self, m: Message) -> Iterator[Came]:
        """Take SequenceReset in its reset mode: its own number counts for nothing, and numbers only go up."""
        log.warning("fix_sequence_set", broker=self.settings.target_comp_id, was=self.next_in, becomes=m.text(36))
        yield from self._pass_by(m, self.next_in)
        yield from self._release()

    def _asked_again(self, m: Message) -> None:
        begin, end = m.number(7), m.number(16)
        if m.text(16).startswith("9999"):
            end = 0  # what was infinity before 0 was
        if begin is None or end is None:
            self._reject(m, 1, 7 if begin is None else 16, "required tag missing")
        else:
            self._fill(max(begin, 1), end)

    def _hold(self, m: Message, number: int) -> None:
        """Keep what came too early, and ask for what is missing before it."""
        if len(self.held) < HELD_MAX:
            self.held[number] = m
        if self.gap is None or self.next_in > self.gap.up_to:
            self._ask_again(number)

    def _ask_again(self, number: int) -> None:
        self.seen.gaps += 1
        self.gap = Gap(number - 1, time.monotonic())
        log.warning("fix_gap", first=self.next_in, last=number - 1, by=self.settings.target_comp_id)
        self._write("2", [(7, self.next_in), (16, 0)])

    # -- alive

    def _keep_alive(self) -> None:
        now, beat = time.monotonic(), float(self.settings.heartbeat_seconds)
        silent = now - self._heard
        if silent > 2 * beat * (1 + TRANSMISSION):
            self.link.close()
            raise BrokerUnavailable(f"nothing heard for {silent:.0f} s")
        if silent > beat * (1 + TRANSMISSION) and self.tested is None:
            self.tested = f"T{next(self._tests)}"
            self._write("1", [(112, self.tested)])
        elif now - self._wrote >= beat:
            self._write("0", [])
        if self.gap and now - self.gap.asked_at > RESEND_SECONDS:
            if self.gap.tries >= RESEND_TRIES:
                raise self._leave(f"messages from {self.next_in} to {self.gap.up_to} were not sent again")
            self.gap.tries, self.gap.asked_at = self.gap.tries + 1, now
            self._write("2", [(7, self.next_in), (16, 0)])

    def _compare_clocks(self, m: Message) -> None:
        told = read_time(m.get(52))
        if (
            told
            and abs((self.clock() - told).total_seconds()) > CLOCKS_APART_SECONDS
            and "clock" not in self.seen.extra
        ):
            self.seen.extra["clock"] = m.text(52)
            log.warning("fix_clocks_apart", broker=self.settings.target_comp_id, told=m.text(52))

    # -- refusing

    def reject(self, m: Message, reason: int, tag: int, text: str) -> None:
        """Tell that a message can't be read (Reject)."""
        self._reject(m, reason, tag, text)

    def _reject(self, m: Message, reason: int, tag: int, text: str) -> None:
        self.seen.rejected += 1
        fields: Body = [(45, m.sequence), (371, tag or None), (372, m.kind or None), (373, reason), (58, text[:120])]
        self._write("3", fields)

    def refuse(self, m: Message, text: str) -> None:
        """Tell that a kind of message is not taken here (BusinessMessageReject)."""
        self._write("j", [(45, m.sequence), (372, m.kind), (380, 3), (58, text[:120])])

    def _leave(self, text: str) -> BrokerUnavailable:
        """Log out over what can't be mended here; returns what to raise."""
        log.error("fix_session_ended", by="us", broker=self.settings.target_comp_id, why=text)
        with contextlib.suppress(BrokerError):  # it is over anyway
            self._write("5", [(58, text)])
        self.link.close()
        self.store.note("ended by us", text)
        self.over = BrokerUnavailable(text)
        return self.over

    def _farewell(self, m: Message) -> BrokerUnavailable:
        """Answer a Logout; returns what to raise."""
        text = m.text(58) or "without a reason"
        if self.logged_on and not self.leaving:
            with contextlib.suppress(BrokerError):  # it may have hung up already
                self._write("5", [])
        self.link.close()
        self.store.note("logged out by the broker", text)
        return BrokerUnavailable(f"the broker logged us out: {text}", sent=False)


def utc_now() -> datetime:
    """Return the time; the one clock of the adapter."""
    return datetime.now(UTC)
