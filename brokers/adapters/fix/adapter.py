"""A broker over FIX: the port on one side, one session on the other.

What the answers to a request prove:

| answer | class | why |
|---|---|---|
| written to a session that stands | pending | the answer is a report; without one it is unknown when the lease is over |
| ExecutionReport of the id, Rejected | rejected | OrdRejReason; as a duplicate only the id is refused, the order of that id stands |
| OrderCancelReject | rejected | of the request; the order stands as OrdStatus says |
| Reject, BusinessMessageReject that names our message | rejected | the standard: such a message was not acted upon |
| no session, not logged on, fenced, deadline passed before the write | not sent | no byte of the message left |
| broken while writing, silence | unknown | it may have arrived |
| OrderStatusRequest answered "unknown order" | absence, believed after two such answers | the broker's own word |
| an id that our own log never numbered | absence | nothing is written that is not kept before |
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import structlog

from brokers.adapters.fix import orders, reports
from brokers.adapters.fix.codec import Message as Received
from brokers.adapters.fix.codec import parse
from brokers.adapters.fix.link import TcpLink
from brokers.adapters.fix.session import LOGON_SECONDS, Came, Session, utc_now
from brokers.adapters.fix.settings import capabilities, read
from brokers.adapters.hosting import Sent, SessionStore
from brokers.adapters.port import (
    Answer,
    BrokerClosed,
    BrokerError,
    BrokerUnavailable,
    Frame,
    Lookup,
    Message,
    OrderState,
    Outcome,
    Report,
)
from oms.kernel.ids import broker_client_id, uuid7

QUERY_SECONDS = 5.0
AWAY_SECONDS = 2.0
"""A session that is not there is tried again after so long: a reconnect takes about that."""
TOLD_SECONDS = 2.0
ASK_MAX = 100
log = structlog.get_logger(__name__)


class FixBroker:
    """One FIX counterparty. Only the process that has a store attached speaks to it."""

    def __init__(self, settings: dict[str, Any], *, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = read(settings)
        self.capabilities = capabilities(self.settings)
        self.clock = clock
        self.store: SessionStore | None = None
        self.session: Session | None = None
        self.questions = Questions()

    def attach(self, store: SessionStore) -> None:
        """See `hosting.Hosted`."""
        self.store = store

    def stream(self, after: int | None) -> "FixStream":
        """See the port: connect and log on."""
        if self.store is None:
            raise BrokerUnavailable("the session belongs to the gateway", sent=False)
        at, schedule, anew = self.clock(), self.settings.schedule, False
        if schedule is not None:
            began_at = schedule.began_at(at)
            if began_at is None:
                raise BrokerClosed(schedule.opens_at(at))
            kept = self.store.load().began_at
            anew = kept is None or kept < began_at
        self.store.note("connecting", f"{self.settings.host}:{self.settings.port}")
        link = TcpLink(self.settings)
        self.session = session = Session(self.settings, self.store, link, self.clock)
        try:
            came = list(session.log_on(after, anew=anew, deadline=time.monotonic() + LOGON_SECONDS))
        except BaseException:
            link.close()
            raise
        self.store.note("logged on")
        return FixStream(self, session, came)

    def send(self, messages: Sequence[Message], *, deadline: float) -> list[Answer]:
        """See the port."""
        session, at = self.session, self.clock()
        if session is None or not session.may_send:
            return _all(messages, Outcome.NOT_SENT, "no session: not logged on", AWAY_SECONDS)
        if time.monotonic() >= deadline:
            return _all(messages, Outcome.NOT_SENT, "the deadline passed before the write")
        composed = [(m.client_order_id, *orders.compose(m, self.settings, at)) for m in messages]
        try:
            why = session.send([(kind, i, body) for i, kind, body in composed], deadline=deadline)
        except BrokerError as error:
            outcome = Outcome.UNKNOWN if error.sent else Outcome.NOT_SENT
            return _all(messages, outcome, str(error), None if error.sent else AWAY_SECONDS)
        if why:
            return _all(messages, Outcome.NOT_SENT, why, AWAY_SECONDS)
        return _all(messages, Outcome.PENDING, "written to the session")

    def look_up(self, client_order_ids: Sequence[str], *, since: datetime) -> list[Lookup]:
        """See the port. What our own log never numbered is absent without a question; silence is no answer."""
        if self.store is None:
            raise BrokerUnavailable("the session belongs to the gateway", sent=False)
        kept = self.store.find(client_order_ids)
        asked = [i for i in client_order_ids if i in kept][:ASK_MAX]
        answers = self._ask(asked, kept) if asked and self.settings.status_requests else {}
        return [_looked_up(i, i in kept, answers.get(i), self) for i in client_order_ids]

    def _ask(self, ids: Sequence[str], kept: dict[str, Sent]) -> dict[str, Received]:
        session = self._standing()
        names = {i: _question() for i in ids}
        with self.questions.open([*names.values(), *ids]) as question:
            bodies = [
                (i, *orders.status_request(parse(kept[i].raw), i, name, self.settings)) for i, name in names.items()
            ]
            session.send([(kind, i, body) for i, kind, body in bodies], deadline=time.monotonic() + QUERY_SECONDS)
            found = question.wait(QUERY_SECONDS, lambda got: all(n in got or i in got for i, n in names.items()))
        answered = {i: found.get(name) or found.get(i) for i, name in names.items()}
        return {i: answer[-1] for i, answer in answered.items() if answer}

    def open_orders_asked(self) -> bool:
        """See `hosting.Hosted`: FIX.4.2 has no such question."""
        return self.settings.is_44 and self.settings.mass_status

    def open_orders(self) -> list[OrderState]:
        """See the port; raises `BrokerUnavailable` unless the broker tells that the list is whole."""
        if not self.open_orders_asked():
            raise BrokerUnavailable("this broker can't be asked for all its orders", permanent=True, sent=False)
        session, name = self._standing(), _question()
        with self.questions.open([name]) as question:
            kind, body = orders.mass_status_request(name)
            session.send([(kind, "", body)], deadline=time.monotonic() + QUERY_SECONDS)
            found = question.wait(QUERY_SECONDS, lambda got: _is_whole(got.get(name, [])))
        listed = found.get(name, [])
        if not _is_whole(listed):
            raise BrokerUnavailable("the list of orders did not come, or not all of it")
        states = [reports.order_state(m, self.settings) for m in listed if not reports.is_unknown(m)]
        return [s for s in states if s is not None]

    def disown(self, report: Report, why: str) -> None:
        """See `hosting.Hosted`."""
        if self.settings.dont_know_trade and self.session is not None:
            kind, body = orders.dont_know_trade(report, why)
            self.session.send([(kind, "", body)], deadline=time.monotonic() + QUERY_SECONDS)

    def executions_since(self, since: datetime) -> list[Report]:
        """See the port: FIX tells executions once, in the session."""
        raise BrokerUnavailable("FIX has no question for executions", permanent=True, sent=False)

    def positions(self) -> list[tuple[str, str, Any]]:
        """See the port."""
        raise BrokerUnavailable("this session has no question for positions", permanent=True, sent=False)

    def cash(self) -> list[tuple[str, str, Any]]:
        """See the port."""
        raise BrokerUnavailable("this session has no question for cash", permanent=True, sent=False)

    def read(self, raw: bytes) -> tuple[Report, ...]:
        """See the port. Only what tells of orders by itself: a refusal needs the session that it came in."""
        message = parse(raw)
        if message.kind == "8":
            return (reports.execution_report(message, self.settings),)
        if message.kind == "9":
            return (reports.cancel_reject(message),)
        raise ValueError(f"MsgType {message.kind} tells nothing of an order by itself")

    def close(self) -> None:
        """See the port; the session belongs to its stream."""

    def _standing(self) -> Session:
        if self.session is None or not self.session.may_send:
            raise BrokerUnavailable("no session: not logged on", sent=False)
        return self.session


class FixStream:
    """The session as a stream of frames. Used by the gateway's thread."""

    def __init__(self, broker: FixBroker, session: Session, came: Sequence[Came]) -> None:
        self.broker, self.session = broker, session
        self._first = [self._frame(c) for c in came]
        self._told_at = 0.0

    def receive(self, timeout: float) -> list[Frame]:
        """See the port."""
        if self._first:
            first, self._first = self._first, []
            return first
        self._end_of_hours()
        frames = [self._frame(c) for c in self.session.receive(timeout)]
        if time.monotonic() - self._told_at > TOLD_SECONDS and self.broker.store is not None:
            seen, self._told_at = self.session.seen, time.monotonic()
            self.broker.store.saw(seen.heard_at, seen.wrote_at, seen.garbled, seen.gaps)
        return frames

    def close(self) -> None:
        """See the port: log out."""
        self.session.log_out()
        if self.broker.session is self.session:
            self.broker.session = None

    def _end_of_hours(self) -> None:
        schedule, at = self.broker.settings.schedule, self.broker.clock()
        if schedule is not None and schedule.began_at(at) is None:
            raise BrokerClosed(schedule.opens_at(at))

    def _frame(self, came: Came) -> Frame:
        m = came.message
        if m is None or came.error is not None:
            return Frame(raw=came.raw, sequence=came.number, error=came.error)
        if came.session or came.number is None:
            return Frame(raw=came.raw, sequence=came.number)
        try:
            return Frame(raw=came.raw, sequence=came.number, reports=tuple(self._told(m)))
        except reports.Unreadable as error:
            self.session.reject(m, error.reason, error.tag, str(error))
            return Frame(raw=came.raw, sequence=came.number, error=str(error))
        except Passed as error:
            return Frame(raw=came.raw, sequence=came.number, error=str(error))

    def _told(self, m: Received) -> Iterator[Report]:
        settings = self.broker.settings
        if m.kind == "8":
            self.broker.questions.answer(m)
            if not (m.get(584) and reports.is_unknown(m)):
                yield reports.execution_report(m, settings)
        elif m.kind == "9":
            yield reports.cancel_reject(m)
        elif m.kind in ("3", "j"):
            yield self._refused(m)
        else:
            self.session.refuse(m, f"{m.kind} is not taken here")
            raise Passed(f"MsgType {m.kind} is not taken here")

    def _refused(self, m: Received) -> Report:
        """Return what the refusal of a message of ours says; of what is no request it says only that we asked in vain."""
        epoch, number = self.session.numbers.epoch, m.number(45)
        store = self.broker.store
        sent = store.at(epoch, number) if store is not None and number else None
        if sent is None and m.get(379) and store is not None:
            sent = store.find([m.text(379)]).get(m.text(379))
        if sent is None or sent.kind not in reports.REFUSED:
            self.broker.questions.refuse(sent.client_order_id if sent else "")
            raise Passed(f"the broker refused our message {m.text(45)} ({m.text(372)}): {m.text(58)}")
        return reports.refusal(m, parse(sent.raw), sent.kind, sent.client_order_id)


class Passed(Exception):
    """A message that is kept, told of, and means nothing for any order."""


class Questions:
    """Who waits for which answer: answers come in the gateway's thread, questions are asked in others."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: dict[str, Question] = {}

    def open(self, names: Sequence[str]) -> "Question":
        """Return a question that collects what names one of `names`, while it is entered."""
        return Question(self, names)

    def answer(self, m: Received) -> None:
        """Hand a message to who waits for it."""
        names = [m.get(584), m.get(790), m.get(11), m.get(41)]
        with self.changed:
            for name in names:
                if name and (question := self.waiting.get(name)) and _answers(m, name):
                    question.got.setdefault(name, []).append(m)
                    self.changed.notify_all()
                    return

    def refuse(self, client_order_id: str) -> None:
        """Tell who asked about an id, or for all, that no answer will come."""
        with self.changed:
            question = self.waiting.get(client_order_id)
            for q in [question] if question else set(self.waiting.values()):
                q.refused = True
            self.changed.notify_all()


def _answers(m: Received, name: str) -> bool:
    """Tell whether a report is an answer: one that is named so, or tells a status."""
    return name in (m.get(584), m.get(790)) or m.text(150) == "I" or m.text(20) == "3"


class Question:
    """Something asked, and what was answered so far."""

    def __init__(self, questions: Questions, names: Sequence[str]) -> None:
        self.questions, self.names = questions, names
        self.got: dict[str, list[Received]] = {}
        self.refused = False

    def __enter__(self) -> "Question":
        with self.questions.changed:
            self.questions.waiting |= dict.fromkeys(self.names, self)
        return self

    def __exit__(self, *_: object) -> None:
        with self.questions.changed:
            for name in self.names:
                self.questions.waiting.pop(name, None)

    def wait(self, seconds: float, done: Callable[[dict[str, list[Received]]], bool]) -> dict[str, list[Received]]:
        """Return what came until it is done, refused, or too late."""
        with self.questions.changed:
            self.questions.changed.wait_for(lambda: self.refused or done(self.got), seconds)
            return self.got


def _is_whole(listed: Sequence[Received]) -> bool:
    if not listed:
        return False
    last = listed[-1]
    return last.flag(912) or last.number(911) == 0 or len(listed) >= (last.number(911) or len(listed) + 1)


def _looked_up(client_order_id: str, was_kept: bool, answer: Received | None, broker: FixBroker) -> Lookup:
    if not was_kept:
        return Lookup(client_order_id=client_order_id, found=None, authoritative=True)
    if answer is None:
        return Lookup(client_order_id=client_order_id, found=None, authoritative=False)
    if client_order_id not in (answer.get(11), answer.get(41)):
        # found by its OrderID: the broker knows the order, and not by the name that this request would have given it
        return Lookup(client_order_id=client_order_id, found=None, authoritative=True)
    try:
        found = reports.order_state(answer, broker.settings)
    except reports.Unreadable:
        return Lookup(client_order_id=client_order_id, found=None, authoritative=False)
    return Lookup(client_order_id=client_order_id, found=found, authoritative=found is None)


def _question() -> str:
    return broker_client_id(uuid7())


def _all(messages: Sequence[Message], outcome: Outcome, reason: str, retry_after: float | None = None) -> list[Answer]:
    return [
        Answer(client_order_id=m.client_order_id, outcome=outcome, reason=reason, retry_after_seconds=retry_after)
        for m in messages
    ]
