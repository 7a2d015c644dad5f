"""Telling brokers: claim, send once, record; and finding out about what stayed unanswered."""

import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from brokers import operations as health
from brokers import queries as brokers
from brokers.adapters import adapter_for, capabilities_of
from brokers.adapters.hosting import may_speak
from brokers.adapters.port import (
    Answer,
    BrokerError,
    CancelOrder,
    Dedupe,
    Lookup,
    Message,
    NewOrder,
    OrderState,
    Outcome,
    ReplaceOrder,
    Report,
    ReportKind,
)
from brokers.domain.reference import BrokerRef
from oms.journal import operations as journal
from oms.journal.domain import Entry, broker_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO, text
from oms.kernel.json import rfc3339
from oms.kernel.reasons import Reason
from oms.runtime import arrays, crash, sql
from oms.runtime.build import build_id
from oms.runtime.transactions import in_transaction
from orders.models import Submission
from orders.operations import reporting
from orders.operations.building import QUIET_SECONDS, OtherBuild
from orders.operations.judging import JOINED, JUDGED_SECONDS, judge_again
from orders.operations.recording import lock_book, refold, write
from orders.operations.reporting import apply
from orders.states import OrdStatus, SubmissionState
from risk.queries import HALT_LOCK, HALT_PREDICATE

CLAIM_MAX = 200
LEASE_SECONDS = 10.0
CALL_SECONDS_MAX = 6.0
"""A call must end this soon: well before the lease, so that no one else takes the row while bytes may still leave."""
ATTEMPTS_MAX = 5
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 30.0
NEGATIVES_NEEDED = 2
CANCELS_SHARE = 0.2
"""Of a broker's documented rate, what only cancels may use."""
LOOK_BACK = timedelta(seconds=60)
_TYPES: dict[str, type[Any]] = {"new": NewOrder, "cancel": CancelOrder, "replace": ReplaceOrder}
_DECODE = {kind: msgspec.json.Decoder(shape, strict=False).decode for kind, shape in _TYPES.items()}
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A submission that this process, and no other, may send once."""

    id: UUID
    child_id: UUID
    kind: str
    client_order_id: str
    fence: int
    attempts: int
    due_at: datetime
    sent_at: datetime
    correlation_id: str
    message: Message
    quoted: tuple[str, str] | None = None  # bid and ask when it was claimed


def _claim_statement(*, halts: bool) -> str:
    """Return the statement that claims what is due: cancels first, then the oldest, each off an index of its own.

    However long the queue, it reads no more than it takes. Without any halt engaged there is nothing to join for. What
    was judged too long ago is left to `judge_again`.
    """
    due = """s.broker_id = %(broker)s AND s.state = 'prepared' AND s.due_at <= desk_clock()
      AND (s.valid_until IS NULL OR s.valid_until > %(at)s)"""
    return f"""
    WITH cancels AS MATERIALIZED (
      SELECT s.id FROM orders_submission s WHERE {due} AND s.kind = 'cancel'
      ORDER BY s.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), others AS MATERIALIZED (
      SELECT s.id FROM orders_submission s {JOINED if halts else ""} WHERE {due} AND s.kind <> 'cancel'
      AND NOT %(cancels_only)s AND s.judged_at > %(at)s - make_interval(secs => %(judged)s)
      {f"AND {HALT_PREDICATE}" if halts else ""}
      ORDER BY s.due_at LIMIT greatest(%(others)s - (SELECT count(*) FROM cancels), 0) FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE orders_submission s SET state = 'sent', owner = %(owner)s, fence = s.fence + 1, attempts = s.attempts + 1,
      sent_at = desk_clock(), lease_until = desk_clock() + make_interval(secs => %(lease)s)
    FROM (SELECT id FROM cancels UNION ALL SELECT id FROM others) claimed WHERE s.id = claimed.id
    RETURNING s.id, s.child_id, s.kind, s.client_order_id, s.fence, s.attempts, s.due_at, s.sent_at, s.correlation_id, s.message::text
    """


_FENCES = (
    "SELECT EXISTS (SELECT 1 FROM risk_halt WHERE released_at IS NULL), "
    "(SELECT build FROM orders_build ORDER BY id DESC LIMIT 1)"
)
_CLAIM = {halts: _claim_statement(halts=halts) for halts in (False, True)}


def send(broker: BrokerRef, *, owner: str, clock: Any) -> int:
    """Send what is due at one broker until nothing is; return how many messages went out."""
    sent = 0
    while went := send_once(broker, owner=owner, clock=clock):
        sent += went
    return sent


def send_once(broker: BrokerRef, *, owner: str, clock: Any) -> int:
    """Send what is due at one broker, as much as fits into one call; return how many messages went out."""
    steps = sending(broker, owner=owner, clock=clock)
    while True:
        try:
            crash.point(next(steps))
        except StopIteration as end:
            return int(end.value)


def sending(
    broker: BrokerRef, *, owner: str, clock: Any, monotonic: Callable[[], float] = time.monotonic
) -> Generator[str, None, int]:
    """Send what fits into one call, stopping where the process may be frozen or end: before and after the call.

    Claim and record are short transactions; the call stands between them, outside of any. A broker that was switched off
    gets cancels only; one whose session belongs to a gateway gets nothing from anybody else. Yields the points passed, returns
    how many messages went out.
    """
    adapter = adapter_for(broker.id, broker.adapter, broker.settings)
    if not may_speak(broker.id, adapter):
        return 0
    size = min(CLAIM_MAX, adapter.capabilities.batch_max)
    # The deadline counts from before the lease begins: who was frozen after the claim wakes up too late to send.
    deadline = monotonic() + CALL_SECONDS_MAX
    try:
        claimed = claim(broker, owner=owner, limit=size, at=clock())
    except OtherBuild as fenced:
        _tell_of_fence(str(fenced))
        return 0
    if not claimed and judge_again(broker, at=clock()):
        claimed = claim(broker, owner=owner, limit=size, at=clock())
    if not claimed:
        return 0
    yield "after_claim"
    started = monotonic()
    answers = adapter.send([c.message for c in claimed], deadline=deadline)
    yield "after_send"
    record(broker, claimed, answers, took_ms=(monotonic() - started) * 1000, at=clock())
    yield "after_record"
    return len(claimed)


def _tell_of_fence(detail: str) -> None:
    """Say that this process sends nothing, and not with every doorbell."""
    now = time.monotonic()
    if now - _said.get("fence", -QUIET_SECONDS) >= QUIET_SECONDS:
        _said["fence"] = now
        log.error("fenced_out", detail=detail)


_said: dict[str, float] = {}


@in_transaction
def claim(broker: BrokerRef, *, owner: str, limit: int, at: datetime) -> list[Claimed]:
    """Take due submissions of a broker, cancels first, and mark them `sent`: from here on they may have arrived.

    Under the shared halt lock, so that no claim straddles the engaging of a halt. Raises `OtherBuild` where the code that runs
    here is not the released one.
    """
    cancels_only = not brokers.brokers().get(broker.id, broker).enabled
    with sql.pipeline():
        sql.run("SELECT pg_advisory_xact_lock_shared(%s)", [HALT_LOCK])
        # A statement of its own: its snapshot is younger than the lock, so it sees every halt that could come before us.
        halts, released = sql.run(_FENCES).fetchall()[0]
        if released != build_id():
            raise OtherBuild(f"{released} is released, this is {build_id()}")
        rate = capabilities_of(broker.adapter, broker.settings).orders_per_second
        limit, others = _within_budget(broker, rate, limit, at) if rate else (limit, limit)
        wanted = {
            "broker": broker.id, "limit": limit, "others": others, "owner": owner, "lease": LEASE_SECONDS, "cancels_only": cancels_only,
            "judged": JUDGED_SECONDS, "at": at,
        }  # fmt: skip
        found = sql.run(_CLAIM[halts], wanted, binary=True)
        claimed = [
            Claimed(pk, child, kind, client, fence, attempts, due, sent, correlation, _DECODE[kind](message))
            for pk, child, kind, client, fence, attempts, due, sent, correlation, message in found
        ]
        claimed.sort(key=lambda c: (c.kind != "cancel", c.due_at, c.id))
        if rate and claimed:
            sql.run("UPDATE orders_sendbudget SET tokens = tokens - %s WHERE broker_id = %s", [len(claimed), broker.id])
        if claimed:
            body = json.dumps({"data": {"owner": owner, "submissions": [[str(c.id), c.fence] for c in claimed]}})
            entry = Entry(broker_stream(broker.code), "submissions.sent", broker.code, body)
            journal.append([entry], actor=Actor.system("worker"), at=at)
    quoted = _quoted(broker, claimed)
    return [replace(c, quoted=quoted.get(c.message.symbol)) for c in claimed] if quoted else claimed


def _quoted(broker: BrokerRef, claimed: Sequence[Claimed]) -> dict[str, tuple[str, str]]:
    """Return bid and ask now of what new orders are about, by the broker's symbol: what their execution is measured against."""
    symbols = {c.message.symbol for c in claimed if c.kind == "new"}
    ids = {i: symbol for symbol, i in brokers.listed_as(broker.id).items() if symbol in symbols}
    if not ids:
        return {}
    return {ids[i]: (text(q.bid), text(q.ask)) for i, q in brokers.quotes(ids).items()}


def _within_budget(broker: BrokerRef, rate: float, limit: int, at: datetime) -> tuple[int, int]:
    """Return how many cancels, and how many messages in all, a broker's rate allows now; its budget is ours until the commit.

    A part of the rate is kept for cancels: nothing else uses it up.
    """
    [tokens] = sql.run(
        """
        INSERT INTO orders_sendbudget AS b (broker_id, tokens, at) VALUES (%(broker)s, %(rate)s, %(at)s)
        ON CONFLICT (broker_id) DO UPDATE SET at = greatest(b.at, EXCLUDED.at),
          tokens = least(%(rate)s, b.tokens + greatest(extract(epoch FROM EXCLUDED.at - b.at)::float8, 0) * %(rate)s)
        RETURNING tokens
        """,
        {"broker": broker.id, "rate": rate, "at": at},
    ).fetchall()[0]
    kept = max(1.0, rate * CANCELS_SHARE)
    return min(limit, max(int(tokens), 0)), min(limit, max(int(tokens - kept), 0))


def record(
    broker: BrokerRef, claimed: Sequence[Claimed], answers: Sequence[Answer], *, took_ms: float, at: datetime
) -> None:
    """Write what the broker said of each message; a row that another has taken since keeps its own state.

    The call took `took_ms`, which counts for the broker's health. Proven refusals go through `apply` as reports, so that there is one way an order changes.
    """
    by_id = {a.client_order_id: a for a in answers}
    lost = Answer(client_order_id="", outcome=Outcome.UNKNOWN, reason="no answer")
    pairs = [(c, by_id.get(c.client_order_id, lost)) for c in claimed]
    lost_before = _write_outcomes(broker, pairs, took_ms, at=at)
    log.info(
        "submissions_answered",
        broker=broker.code,
        outcomes=Counter(a.outcome.value for _, a in pairs),
        correlation_ids=Counter(c.correlation_id for c, _ in pairs),
    )
    told = [_told(c, a, ReportKind.NEW, "new") for c, a in pairs if c.id in lost_before]
    told += [_told(c, a, _REFUSALS[c.kind], "rejected") for c, a in pairs if a.outcome is Outcome.REJECTED]
    if told:
        apply(broker.id, told, actor=Actor.system("worker"), at=at)
    spent = [
        c.id for c, a in pairs if a.outcome is Outcome.NOT_SENT and c.kind != "cancel" and c.attempts >= ATTEMPTS_MAX
    ]
    if spent:
        _give_up(broker, spent, SubmissionState.PREPARED, SubmissionState.NOT_SENT, at=at)
    unknown = [c.id for c, a in pairs if a.outcome is Outcome.UNKNOWN]
    if unknown:
        mark_unknown(unknown, at=at)


@in_transaction
def _write_outcomes(
    broker: BrokerRef, pairs: Sequence[tuple[Claimed, Answer]], took_ms: float, *, at: datetime
) -> set[UUID]:
    """Write the outcomes; return what was given up for lost meanwhile, and now turns out to be taken."""
    states, dues, logs = [], [], []
    quoted = _quoted(broker, [c for c, _ in pairs])
    for claimed, answer in pairs:
        state, due = _next_state(claimed, answer, at)
        states.append(state)
        dues.append(due)
        logs.append(json.dumps([_attempt(claimed, answer, due, quoted.get(claimed.message.symbol))]))
    with sql.pipeline():
        _lock([c.child_id for c, _ in pairs], [c.id for c, _ in pairs])
        written = sql.run(
            """
            UPDATE orders_submission s SET state = CASE WHEN s.state = 'sent' THEN u.state ELSE s.state END,
              due_at = u.due, log = s.log || u.log, lease_until = CASE WHEN u.state = 'sent' THEN s.lease_until END,
              resolved_at = CASE WHEN u.state = 'accepted' AND s.kind = 'new' THEN %s ELSE s.resolved_at END
            FROM unnest(%s::uuid[], %s::bigint[], %s::varchar[], %s::timestamptz[], %s::jsonb[]) u(id, fence, state, due, log)
            WHERE s.id = u.id AND s.fence = u.fence
            RETURNING CASE WHEN u.state = 'accepted' AND s.kind = 'new' AND s.state IN ('absent', 'not_sent') THEN s.id END
            """,
            [
                at,
                sql.uuids([c.id for c, _ in pairs]),
                [c.fence for c, _ in pairs],
                states,
                arrays.pack("timestamptz", dues),
                arrays.pack("jsonb", logs),
            ],
        )
        told = [(c.child_id, a.broker_order_id) for c, a in pairs if a.broker_order_id and c.kind == "new"]
        if told:
            sql.run(
                "UPDATE orders_childorder c SET broker_order_id = u.told FROM unnest(%s::uuid[], %s::text[]) u(id, told) "
                "WHERE c.id = u.id AND c.broker_order_id = ''",
                [sql.uuids([i for i, _ in told]), [b for _, b in told]],
            )
        answered = any(a.outcome in (Outcome.ACCEPTED, Outcome.REJECTED) for _, a in pairs)
        reached = answered or any(a.outcome is Outcome.PENDING for _, a in pairs)
        health.note_sending(broker.id, reached=reached, ack_ms=took_ms if answered else None, at=at)
        outcomes = [[str(c.id), c.fence, str(a.outcome)] for c, a in pairs]
        entry = Entry(
            broker_stream(broker.code),
            "submissions.recorded",
            broker.code,
            json.dumps({"data": {"outcomes": outcomes}}),
        )
        journal.append([entry], actor=Actor.system("worker"), at=at)
        return {pk for (pk,) in written if pk is not None}


def _lock(child_ids: Sequence[UUID], submission_ids: Sequence[UUID]) -> None:
    """Lock broker orders, then submissions, each by id: the order that everything else takes them in."""
    sql.run("SELECT FROM orders_childorder WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [sql.uuids(child_ids)])
    sql.run(
        "SELECT FROM orders_submission WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [sql.uuids(submission_ids)]
    )


def _next_state(claimed: Claimed, answer: Answer, at: datetime) -> tuple[str, datetime]:
    if answer.outcome is Outcome.ACCEPTED:
        return SubmissionState.ACCEPTED, at
    if answer.outcome is Outcome.PENDING:
        return SubmissionState.SENT, at
    if answer.outcome is Outcome.UNKNOWN or answer.outcome is Outcome.REJECTED:
        # A refusal is settled by `apply` in the next transaction; should we die before it, asking the broker will.
        return SubmissionState.UNKNOWN, at + timedelta(seconds=backoff_seconds(1))
    wait = answer.retry_after_seconds or backoff_seconds(claimed.attempts)
    return SubmissionState.PREPARED, at + timedelta(seconds=wait)


def backoff_seconds(attempts: int) -> float:
    """Return a wait with full jitter: up to 0.2 s doubled with each attempt, never above 30 s."""
    ceiling = min(BACKOFF_FIRST_SECONDS * 2 ** max(attempts - 1, 0), BACKOFF_MAX_SECONDS)
    return random.uniform(ceiling / 10, ceiling)  # noqa: S311 - jitter, not a secret


def _attempt(claimed: Claimed, answer: Answer, due: datetime, quoted: tuple[str, str] | None) -> dict[str, Any]:
    """Return the entry of the timeline; `market` is [bid, ask] when it was sent, and when it was answered."""
    waited = (claimed.sent_at - claimed.due_at).total_seconds()
    return {
        "at": rfc3339(claimed.sent_at),
        "attempt": claimed.attempts,
        "delay_seconds": round(max(waited, 0.0), 3),
        "outcome": str(answer.outcome),
        "detail": answer.reason[:200],
        "rtt_ms": answer.rtt_ms,
        "next_at": rfc3339(due) if answer.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN) else None,
        **(
            {"market": {"sent": claimed.quoted, "answered": quoted}} if claimed.quoted and claimed.kind == "new" else {}
        ),
    }


_REFUSALS = {
    "new": ReportKind.REJECTED,
    "cancel": ReportKind.CANCEL_REJECTED,
    "replace": ReportKind.REPLACE_REJECTED,
}


def _told(claimed: Claimed, answer: Answer, kind: ReportKind, status: str) -> Report:
    """Return a broker's answer as the report that it stands for."""
    message = claimed.message
    return Report(
        kind=kind,
        client_order_id=claimed.client_order_id,
        broker_order_id=answer.broker_order_id,
        account=message.account,
        symbol=message.symbol,
        side=message.side,
        order_status=status,
        order_quantity=getattr(message, "quantity", ZERO),
        cumulative_quantity=ZERO,
        leaves_quantity=ZERO,
        text=answer.reason,
    )


@in_transaction
def mark_unknown(submission_ids: Sequence[UUID], *, at: datetime) -> None:
    """Show on the orders that something may or may not have arrived."""
    order_ids = Submission.objects.filter(id__in=submission_ids).values_list("child__order_id", flat=True)
    book = lock_book(order_ids)
    for order_id, order in book.orders.items():
        before = order.unknown
        refold(book, order_id, at=at)
        if order.unknown == before:
            del book.touched[order_id]
    journal.append(write(book, kinds=dict.fromkeys(book.touched, "order.unknown")), actor=Actor.system("worker"), at=at)


def _give_up(
    broker: BrokerRef,
    submission_ids: Sequence[UUID],
    was: SubmissionState,
    becomes: SubmissionState,
    *,
    at: datetime,
    reason: Reason = Reason.BROKER_UNREACHABLE,
) -> int:
    return reporting.give_up(
        broker.id, submission_ids, was=was, becomes=becomes, reason=reason, actor=Actor.system("worker"), at=at
    )


@in_transaction
def _expire_leases(broker: BrokerRef) -> list[UUID]:
    """Turn claims whose owner was not heard of again into unknowns."""
    rows = sql.run(
        "UPDATE orders_submission SET state = 'unknown', due_at = desk_clock(), "
        "log = log || jsonb_build_array(jsonb_build_object('at', to_char(desk_clock() AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), 'attempt', attempts, 'outcome', 'unknown', 'detail', 'the sender was lost')) "
        "WHERE broker_id = %s AND state = 'sent' AND lease_until < desk_clock() RETURNING id",
        [broker.id],
    )
    return [r[0] for r in rows.fetchall()]


def _too_late(broker: BrokerRef, at: datetime) -> list[UUID]:
    rows = sql.run(
        # cancels have no time to be late for; said so, the index of what is due finds the others
        "SELECT id FROM orders_submission WHERE broker_id = %s AND state = 'prepared' AND kind <> 'cancel' "
        "AND valid_until <= %s LIMIT %s",
        [broker.id, at, CLAIM_MAX],
    )
    return [r[0] for r in rows.fetchall()]


def resolve(broker: BrokerRef, *, clock: Any) -> int:
    """Ask the broker about everything unanswered; return how many questions were settled.

    Silence settles nothing. Absence counts only after the lease and a full call time have passed and the broker
    has said twice, further apart than its own delay in showing orders, that it knows nothing of the id.
    """
    at = clock()
    if lost := _expire_leases(broker):
        mark_unknown(lost, at=at)
    if late := _too_late(broker, at):
        _give_up(broker, late, SubmissionState.PREPARED, SubmissionState.NOT_SENT, at=at, reason=Reason.TOO_LATE)
    rows = list(
        Submission.objects.filter(broker_id=broker.id, state=SubmissionState.UNKNOWN, due_at__lte=at).order_by(
            "due_at"
        )[:CLAIM_MAX]
    )
    if not rows:
        return 0
    adapter = adapter_for(broker.id, broker.adapter, broker.settings)
    if not may_speak(broker.id, adapter):
        return 0
    since = min(r.sent_at or r.created_at for r in rows) - LOOK_BACK
    try:
        lookups = {x.client_order_id: x for x in adapter.look_up([r.client_order_id for r in rows], since=since)}
    except BrokerError as error:
        log.warning("look_up_failed", broker=broker.code, error=str(error), unknown=len(rows))
        _postpone([r.id for r in rows], clock())
        return 0
    crash.point("after_look_up")
    return _settle(broker, rows, lookups, adapter.capabilities, clock())


@in_transaction
def _postpone(ids: Sequence[UUID], at: datetime) -> None:
    Submission.objects.filter(id__in=ids, state=SubmissionState.UNKNOWN).update(
        due_at=at + timedelta(seconds=backoff_seconds(4))
    )


def _settle(
    broker: BrokerRef, rows: Sequence[Submission], lookups: dict[str, Lookup], abilities: Any, at: datetime
) -> int:
    found: list[Report] = []
    settled, absent, wait = 0, [], []
    for row in rows:
        lookup = lookups.get(row.client_order_id)
        if lookup is not None and (lookup.found is not None or lookup.reports):
            found += lookup.reports or (_shown(row, lookup.found),)
            _accept(row, at)
            settled += 1
        elif lookup is not None and lookup.authoritative and _is_proof(row, abilities, at):
            absent.append(row)
        else:
            wait.append((row, lookup is not None and lookup.authoritative))
    if found:
        apply(broker.id, found, actor=Actor.system("resolver"), at=at)
    for row, negative in wait:
        _note_negative(row, negative, abilities, at)
    if absent:
        _declare_absent(broker, absent, abilities, at)
    if settled:
        mark_unknown([r.id for r in rows], at=at)
    return settled + len(absent)


_ENDED = {str(s): kind for kind, s in reporting.ENDS.items() if s is not OrdStatus.DONE_FOR_DAY} | {
    str(OrdStatus.PENDING_NEW): ReportKind.PENDING_NEW
}


def _shown(row: Submission, found: OrderState | None) -> Report:
    """Return what a broker shows of an order, without its history, as a report: its end, or only that it is there.

    Fills come by the stream; they count whenever they come.
    """
    assert found is not None  # noqa: S101 - a look-up without reports was taken for an answer because of it
    ended = found.status if row.kind == Submission.Kind.NEW else ""
    return _as_report(found, row.client_order_id, _ENDED.get(ended, ReportKind.STATUS))


def _as_report(found: OrderState, client_order_id: str, kind: ReportKind) -> Report:
    return Report(
        kind=kind,
        client_order_id=client_order_id,
        broker_order_id=found.broker_order_id,
        account=found.account,
        symbol=found.symbol,
        side=found.side,
        order_status=found.status,
        order_quantity=found.quantity,
        cumulative_quantity=found.cumulative_quantity,
        leaves_quantity=found.leaves_quantity,
        text=found.reason,
    )


def end_shown(found: OrderState) -> Report | None:
    """Return the end that a broker shows of an order, None of one that it shows working or filled."""
    kind = _ENDED.get(found.status)
    if kind is None or kind is ReportKind.PENDING_NEW:
        return None
    return _as_report(found, found.client_order_id, kind)


@in_transaction
def _accept(row: Submission, at: datetime) -> None:
    Submission.objects.filter(id=row.id, state=SubmissionState.UNKNOWN).update(
        state=SubmissionState.ACCEPTED, resolved_at=at if row.kind == Submission.Kind.NEW else None
    )


def _is_proof(row: Submission, abilities: Any, at: datetime) -> bool:
    earliest = (row.sent_at or row.created_at) + timedelta(seconds=LEASE_SECONDS + CALL_SECONDS_MAX)
    if at < earliest:
        return False
    times = [datetime.fromisoformat(t) for t in row.denials]
    apart = timedelta(seconds=max(float(abilities.visibility_delay_seconds), 0.5))
    return len(times) + 1 >= NEGATIVES_NEEDED and bool(times) and at - times[0] >= apart


@in_transaction
def _note_negative(row: Submission, negative: bool, abilities: Any, at: datetime) -> None:
    if negative:
        row.denials = [*row.denials, rfc3339(at)][-20:]
    wait = max(float(abilities.visibility_delay_seconds) / 2, 0.5)
    Submission.objects.filter(id=row.id, state=SubmissionState.UNKNOWN).update(
        denials=row.denials,
        due_at=at + timedelta(seconds=random.uniform(wait / 2, wait)),  # noqa: S311 - jitter
    )


def _declare_absent(broker: BrokerRef, rows: Sequence[Submission], abilities: Any, at: datetime) -> None:
    """Act on proof of absence: cancels, and ids that the broker can never take twice, are sent again; others end."""
    again = [r for r in rows if r.kind == Submission.Kind.CANCEL or abilities.dedupe is Dedupe.FOREVER]
    ended = [r for r in rows if r not in again]
    if again:
        _send_again([r.id for r in again], at)
        mark_unknown([r.id for r in again], at=at)
    if ended:
        _give_up(broker, [r.id for r in ended], SubmissionState.UNKNOWN, SubmissionState.ABSENT, at=at)


@in_transaction
def _send_again(ids: Sequence[UUID], at: datetime) -> None:
    Submission.objects.filter(id__in=ids, state=SubmissionState.UNKNOWN).update(
        state=SubmissionState.PREPARED, due_at=at, denials=[]
    )
