"""Applying what brokers report: any order of arrival, any repetition, one end state."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import structlog
from django.db import InterfaceError, OperationalError

from brokers import queries as brokers
from brokers.adapters.port import FeeItem, Report, ReportKind
from brokers.domain.fees import NOTHING, TAKER, Done, FeeCharge, charge, needs_month
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.journal import operations as journal
from oms.journal.domain import Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO
from oms.kernel.ids import uuid7, uuid7_of
from oms.kernel.reasons import Reason
from oms.runtime import arrays, doorbell, rows, sql
from oms.runtime.transactions import after_commit, in_transaction, require_transaction
from orders.domain.standing import Standing
from orders.domain.status import ChildFacts, child_status, leaves, stronger_end
from orders.domain.triggers import WORKS_FOR
from orders.models import ChildOrder, Execution, Order, ParkedReport, Submission
from orders.operations.placing import PARTS, links_of, new_child
from orders.operations.recording import (
    Book,
    external_account,
    lock_book,
    move,
    refold,
    submit_cancel,
    withdraw,
    write,
)
from orders.operations.slicing import note_refused, note_taken, take_terms
from orders.queries import Names
from orders.states import CLOSED, LASTING, OrdStatus, SubmissionState
from portfolio import operations as portfolio
from portfolio import queries as positions
from portfolio.domain.fills import Fill
from risk import operations as risk
from risk.queries import halted_brokers
from routing import operations as routing
from routing.domain.candidates import RouteRequest

REPORTS_MAX = 500
ROUTES_MAX = 3
"""How many brokers one order may be tried at before their refusal is its end."""
ENDS = {
    ReportKind.CANCELED: OrdStatus.CANCELED,
    ReportKind.EXPIRED: OrdStatus.EXPIRED,
    ReportKind.REJECTED: OrdStatus.REJECTED,
    ReportKind.DONE_FOR_DAY: OrdStatus.DONE_FOR_DAY,
    ReportKind.CALCULATED: OrdStatus.CALCULATED,
}
WORDS = {ReportKind.SUSPENDED: OrdStatus.SUSPENDED, ReportKind.STOPPED: OrdStatus.STOPPED}
UNDECIDED = frozenset(
    {
        ReportKind.PENDING_NEW, ReportKind.PENDING_CANCEL, ReportKind.PENDING_REPLACE, ReportKind.CANCEL_REJECTED,
        ReportKind.REPLACE_REJECTED,
    }
)  # fmt: skip
"""What says nothing on whether the broker has taken the order."""
CORPORATE_ACTION, DUPLICATE = "corporate_action", "duplicate"
CANCEL_AGAIN = timedelta(seconds=1)
"""How long after a broker refused to cancel what it may not have seen yet it is asked again."""
MARKET_SECONDS = 2.0
"""A fill told later than this is not measured against the quotes of the moment that it is told in."""
MENDING = "mending:"
NO_WORD = Standing()
CLIENT_ID_MAX = 36
_DATABASE_TROUBLE = (OperationalError, InterfaceError)
_UNPROVEN = (SubmissionState.PREPARED, SubmissionState.SENT, SubmissionState.UNKNOWN)
log = structlog.get_logger(__name__)


def apply(broker_id: int, reports: Sequence[Report], *, actor: Actor, at: datetime, cursor: int | None = None) -> int:
    """Fold a batch of reports into orders, books and holds; return how many executions were new.

    `cursor` is the sequence of the last frame they came in; it moves in the same transaction, so a session that
    resumes behind it repeats nothing and misses nothing. Reports about what is not known yet are parked. One that
    can't be applied is set aside and alerted, and stops none of the others.
    """
    try:
        return _apply_all(broker_id, reports, actor=actor, at=at, cursor=cursor)
    except _DATABASE_TROUBLE:
        raise
    except Exception:
        log.exception("reports_not_applied_together", broker=broker_id, reports=len(reports))
    booked = sum(_apply_alone(broker_id, r, actor=actor, at=at) for r in reports)
    return booked + _apply_all(broker_id, [], actor=actor, at=at, cursor=cursor)


@in_transaction
def _apply_all(
    broker_id: int, reports: Sequence[Report], *, actor: Actor, at: datetime, cursor: int | None = None
) -> int:
    booked = _apply(broker_id, reports, actor=actor, at=at)
    if cursor is not None:
        sql.run(
            "UPDATE brokers_brokersession SET cursor = greatest(coalesce(cursor, 0), %s), seen_at = %s WHERE broker_id = %s",
            [cursor, at, broker_id],
        )
    return booked


def _apply_alone(broker_id: int, report: Report, *, actor: Actor, at: datetime) -> int:
    try:
        return _apply_all(broker_id, [report], actor=actor, at=at)
    except _DATABASE_TROUBLE:
        raise
    except Exception as error:
        log.exception(
            "report_set_aside", broker=broker_id, kind=str(report.kind), client_order_id=report.client_order_id
        )
        _set_aside(parked(broker_id, report, f"{MENDING}{type(error).__name__}", at))
        return 0


@in_transaction
def _set_aside(row: ParkedReport) -> None:
    sql.insert([row])


def parked(broker_id: int, report: Report, waits_for: str, at: datetime) -> ParkedReport:
    """Return the row that keeps a report until what it waits for has come; `MENDING` waits for a person."""
    body = json.loads(json.dump_bytes(asdict(report)).replace(b"\\u0000", b"\\ufffd"))  # no column holds a NUL
    return ParkedReport(id=uuid7(), broker_id=broker_id, waits_for=waits_for[:80], report=body, received_at=at)


def apply_parked(broker_id: int, *, actor: Actor, at: datetime, mended: bool = False) -> int:
    """Apply the parked reports of a broker whose time has come; return how many executions were new.

    With `mended` also those that could not be applied before, now that the desk may know better.
    """
    ids = [r[0] for r in sql.run(_READY, {"broker": broker_id, "mended": mended, "limit": REPORTS_MAX}).fetchall()]
    if not ids:
        return 0
    try:
        return _apply_rows(broker_id, ids, actor=actor, at=at)
    except _DATABASE_TROUBLE:
        raise
    except Exception:
        log.exception("parked_reports_not_applied_together", broker=broker_id, reports=len(ids))
    return sum(_apply_row(broker_id, i, actor=actor, at=at) for i in ids)


def fits_none(broker_id: int, at: datetime) -> dict[str, str]:
    """Return the DKReason of each execution id that was reported at a time and fits no order, or not its own."""
    found = sql.run(
        "SELECT p.report->>'execution_id', p.waits_for FROM orders_parkedreport p WHERE p.broker_id = %s AND p.received_at = %s "
        "AND p.applied_at IS NULL AND p.report->>'kind' = 'trade'",
        [broker_id, at],
    )
    return {execution: _dk_reason(why) for execution, why in found if execution}


def _dk_reason(waits_for: str) -> str:
    """Return FIX's word for why an execution is not ours: no such order, another side or symbol, anything else."""
    if waits_for.startswith("order:"):
        return "D"
    return "B" if "side" in waits_for else "A" if "symbol" in waits_for else "Z"


_READY = """
SELECT p.id FROM orders_parkedreport p WHERE p.broker_id = %(broker)s AND p.applied_at IS NULL AND (
  starts_with(p.waits_for, 'order:') AND EXISTS (SELECT 1 FROM orders_submission s
    WHERE s.broker_id = p.broker_id AND s.client_order_id = substr(p.waits_for, 7))
  OR starts_with(p.waits_for, 'execution:') AND EXISTS (SELECT 1 FROM brokers_brokeraccount a
    JOIN orders_execution e ON e.broker_account_id = a.id AND e.broker_execution_id = substr(p.waits_for, 11)
    WHERE a.broker_id = p.broker_id)
  OR %(mended)s AND starts_with(p.waits_for, 'mending:'))
ORDER BY p.id LIMIT %(limit)s
"""


@in_transaction
def _apply_rows(broker_id: int, ids: Sequence[UUID], *, actor: Actor, at: datetime) -> int:
    rows = list(
        ParkedReport.objects.filter(id__in=ids, applied_at=None).order_by("id").select_for_update(skip_locked=True)
    )
    ParkedReport.objects.filter(id__in=[r.id for r in rows]).update(applied_at=at)
    return _apply(broker_id, [_restore(r.report) for r in rows], actor=actor, at=at)


def _apply_row(broker_id: int, row_id: UUID, *, actor: Actor, at: datetime) -> int:
    try:
        return _apply_rows(broker_id, [row_id], actor=actor, at=at)
    except _DATABASE_TROUBLE:
        raise
    except Exception as error:
        log.exception("report_set_aside", broker=broker_id, parked=str(row_id))
        ParkedReport.objects.filter(id=row_id).update(waits_for=f"{MENDING}{type(error).__name__}"[:80])
        return 0


def apply_again(broker_id: int, parked_id: UUID, *, actor: Actor, at: datetime) -> int:
    """Apply one parked report, whatever it waits for; return how many executions were new."""
    return _apply_row(broker_id, parked_id, actor=actor, at=at)


@in_transaction
def give_up(
    broker_id: int,
    submission_ids: Sequence[UUID],
    *,
    was: SubmissionState,
    becomes: SubmissionState,
    reason: Reason,
    actor: Actor,
    at: datetime,
) -> int:
    """End what provably never arrived, and give the next broker its turn; return how many ended.

    Only what still stands as it was when that was proven: a report that came meanwhile is the better proof.
    """
    rows = Submission.objects.filter(id__in=submission_ids).values_list("child__order_id", flat=True)
    book = lock_book(rows)
    fold = Fold(broker_id, book, {}, at)
    for child_id, submissions in book.submissions.items():
        for submission in submissions:
            if submission.id in submission_ids and submission.state == was:
                fold.give_up(book.children[child_id], submission, becomes, reason)
    ended = len(book.touched_submissions)
    fold.finish(actor)
    return ended


def apply_here(broker_id: int, reports: Sequence[Report], *, actor: Actor, at: datetime) -> int:
    """Apply reports as `apply` does, inside the caller's transaction; what can't be applied is raised."""
    require_transaction()
    return _apply(broker_id, reports, actor=actor, at=at)


def _apply(broker_id: int, reports: Sequence[Report], *, actor: Actor, at: datetime) -> int:
    with sql.pipeline():
        owners = _owners(broker_id, reports)
        book = lock_book({o.order for o in owners.values()})
        by_submission = {s.id: s for group in book.submissions.values() for s in group}
        fold = Fold(broker_id, book, _known_executions(broker_id, reports, book), at)
        for report in reports:
            owner = _owner(owners, report)
            if owner is None and report.kind is ReportKind.STATUS:
                log.info("status_of_no_order", broker=broker_id, client_order_id=report.client_order_id)
            elif owner is None:
                fold.park(report, f"order:{report.client_order_id}")
            elif wrong := _mismatch(owner, book, report):
                log.error("report_mismatch", broker=broker_id, child=str(owner.child), fields=wrong)
                fold.park(report, f"{MENDING}another {' and '.join(wrong)} than its order")
            else:
                fold.take(book.children[owner.child], by_submission.get(owner.submission), report)
        booked = fold.finish(actor)
    told = Counter(o.correlation_id for o in book.orders.values())
    after_commit(
        lambda: log.info("reports_applied", broker=broker_id, reports=len(reports), booked=booked, correlation_ids=told)
    )
    return booked


class _Owner(NamedTuple):
    """Whom a report is about: a broker order by one of its requests, and how the broker names its account."""

    child: UUID
    order: UUID
    submission: UUID
    account: str


_OWNERS = """
SELECT s.client_order_id, s.child_id, c.order_id, s.id, a.external_id FROM orders_submission s
JOIN orders_childorder c ON c.id = s.child_id JOIN brokers_brokeraccount a ON a.id = c.broker_account_id
WHERE s.broker_id = %s AND s.client_order_id = ANY(%s)
"""
_OWNERS_BY_BROKER_ID = """
SELECT c.broker_order_id, c.id, c.order_id, s.id, a.external_id FROM orders_childorder c
JOIN orders_submission s ON s.child_id = c.id AND s.kind = 'new'
JOIN brokers_brokeraccount a ON a.id = c.broker_account_id
WHERE c.broker_id = %s AND c.broker_order_id = ANY(%s)
"""


def _owners(broker_id: int, reports: Sequence[Report]) -> dict[tuple[str, str], _Owner]:
    """Return the owners by ("client", id) of all ids named; by ("broker", id) where a report has no client id we know."""
    ids = {r.client_order_id for r in reports} | {r.orig_client_order_id for r in reports if r.orig_client_order_id}
    found = sql.run(_OWNERS, [broker_id, arrays.pack("text", sorted(ids))], binary=True)
    owners = {("client", client): _Owner(*owner) for client, *owner in found}
    named = {r.broker_order_id for r in reports if r.broker_order_id and _owner(owners, r) is None}
    if named:
        found = sql.run(_OWNERS_BY_BROKER_ID, [broker_id, arrays.pack("text", sorted(named))], binary=True)
        owners.update({("broker", name): _Owner(*owner) for name, *owner in found})
    return owners


def _owner(owners: Mapping[tuple[str, str], _Owner], report: Report) -> _Owner | None:
    return (
        owners.get(("client", report.client_order_id))
        or owners.get(("client", report.orig_client_order_id or ""))
        or owners.get(("broker", report.broker_order_id or ""))
    )


def _mismatch(owner: _Owner, book: Book, report: Report) -> list[str]:
    """Return what a report tells otherwise than its order has it; what it leaves empty contradicts nothing."""
    order, child = book.orders[owner.order], book.children[owner.child]
    listing = brokers.listings().get((child.broker_id, order.instrument_id))
    if listing and (report.symbol, report.side, report.account) == (listing.symbol, order.side, owner.account):
        return []
    pairs = {
        "symbol": (report.symbol, listing.symbol if listing else report.symbol),
        "side": (report.side, order.side),
        "account": (report.account, owner.account),
    }
    return [name for name, (told, known) in pairs.items() if told and told != known]


def _known_executions(broker_id: int, reports: Sequence[Report], book: Book) -> dict[tuple[int, str], Execution]:
    ids = {r.execution_id for r in reports if r.execution_id} | {
        r.ref_execution_id for r in reports if r.ref_execution_id
    }
    if not ids:
        return {}
    accounts = {c.broker_account_id for c in book.children.values()}
    found = list(
        rows.load(
            Execution,
            "WHERE t.broker_account_id = ANY(%s) AND t.broker_execution_id = ANY(%s)",
            [sorted(accounts), sorted(ids)],
        )
    )
    if any(r.ref_execution_id for r in reports):  # what undid them meanwhile may bear any name
        children = sql.uuids(book.children)
        found += rows.load(Execution, "WHERE t.child_id = ANY(%s) AND t.ref_id IS NOT NULL", [children])
    return {(e.broker_account_id, e.broker_execution_id): e for e in found}


def _tells_nothing(child: ChildOrder, submission: Submission | None, report: Report) -> bool:
    """Tell whether a report is only the answer to a question, and proves no arrival that we had not seen."""
    if report.kind is not ReportKind.STATUS:
        return False
    seen = submission is None or (submission.state not in _UNPROVEN and child.status != OrdStatus.PENDING_NEW)
    return seen or report.order_status == OrdStatus.REJECTED


def fees_in(items: Iterable[Mapping[str, str]], currency: str) -> Decimal:
    """Return the sum of the fee items in a currency."""
    return decimals.total(Decimal(i["amount"]) for i in items if i["currency"] == currency)


def total_fees(items: Sequence[Mapping[str, str]], currency: str) -> Decimal | None:
    """Return the sum of fee items in one currency, others converted at the present mid; None where a rate is missing."""
    if not _has_foreign(items, currency):
        return fees_in(items, currency)
    others = {i["currency"] for i in items} - {currency}
    rates = Rates(brokers.quotes(), brokers.instruments())
    parts = [rates.convert(fees_in(items, c), c, currency) for c in {currency, *others}]
    return None if any(p is None for p in parts) else decimals.money(decimals.total(p for p in parts if p is not None))


def _others(
    items: Sequence[Mapping[str, str]], original: Execution | None, currency: str
) -> tuple[tuple[str, Decimal], ...]:
    """Return what fee items add in currencies other than the instrument's, over those of the version undone."""
    undone: Sequence[Mapping[str, str]] = original.fee_items if original else []
    if not _has_foreign(items, currency) and not _has_foreign(undone, currency):
        return ()
    foreign = sorted({i["currency"] for i in (*items, *undone)} - {currency})
    added = [(c, fees_in(items, c) - fees_in(undone, c)) for c in foreign]
    return tuple((c, amount) for c, amount in added if amount)


def _has_foreign(items: Sequence[Mapping[str, str]], currency: str) -> bool:
    return any(i["currency"] != currency for i in items)


def _value(execution: Execution | None) -> Decimal:
    return execution.quantity * execution.price if execution else ZERO


class Fold:
    """One batch of reports on its way into the books."""

    def __init__(self, broker_id: int, book: Book, known: dict[tuple[int, str], Execution], at: datetime) -> None:
        self.broker_id = broker_id
        self.book = book
        self.known = known
        self.at = at
        self.executions: list[Execution] = []
        self.fills: list[Fill] = []
        self.parked: list[ParkedReport] = []
        self.children: dict[UUID, ChildOrder] = {}
        self.quotes: dict[int, QuoteRef] | None = None
        self.months: dict[tuple[int, int, str, str], tuple[Decimal, Decimal]] = {}  # as booked before this batch
        self.undone_by = {e.ref_id: e for e in known.values() if e.ref_id}
        self.kinds: dict[UUID, str] = {}  # of events that tell more than the status an order came to
        self.accepted: dict[UUID, Decimal | None] = {}  # orders whose terms were decided → the unit amount of new ones

    def park(self, report: Report, waits_for: str) -> None:
        log.warning("report_parked", broker=self.broker_id, kind=str(report.kind), waits_for=waits_for)
        self.parked.append(parked(self.broker_id, report, waits_for, self.at))

    def take(self, child: ChildOrder, submission: Submission | None, report: Report) -> None:
        """Fold one report into its broker order."""
        if _tells_nothing(child, submission, report):
            return
        self._note_receipt(child, report)
        if report.broker_order_id and not child.broker_order_id:
            child.broker_order_id = report.broker_order_id
        self._resurrect(child, submission, report)
        if report.kind in (ReportKind.TRADE, ReportKind.BUST, ReportKind.CORRECT):
            if not self._execution(child, report):
                return
        elif report.kind in WORDS or (report.kind is ReportKind.DONE_FOR_DAY and child.time_in_force in LASTING):
            self._say(child, WORDS.get(report.kind, OrdStatus.DONE_FOR_DAY), report)
        elif report.kind in ENDS and report.reason != DUPLICATE:
            self._end(child, report)
        elif report.kind is ReportKind.REPLACED and submission and submission.kind == Submission.Kind.REPLACE:
            self._replaced(child, submission, report)
        elif report.kind in (ReportKind.REPLACED, ReportKind.RESTATED):
            self._restate(child, report)
        elif report.kind in (ReportKind.CANCEL_REJECTED, ReportKind.REPLACE_REJECTED):
            self._refused(child, submission, report)
        elif report.kind is ReportKind.TRIGGERED:
            self.book.orders[child.order_id].triggered_at = report.executed_at or self.at
        if report.kind is not ReportKind.CANCEL_REJECTED:
            self._proves_arrival(submission, report)
        self.children[child.id] = child

    def _note_receipt(self, child: ChildOrder, report: Report) -> None:
        """Know of an order that it only arrived, until the broker says anything more of it; whichever comes first."""
        if report.kind is ReportKind.PENDING_NEW:
            first = next(s for s in self.book.submissions[child.id] if s.kind == Submission.Kind.NEW)
            if child.broker_order_id or first.state not in _UNPROVEN:
                return
            standing = Standing.read(child.standing)
            standing.received = True
            child.standing = standing.as_json()
        elif child.standing and "received" in child.standing and report.kind not in UNDECIDED:
            standing = Standing.read(child.standing)
            standing.received = False
            child.standing = standing.as_json()

    def _resurrect(self, child: ChildOrder, submission: Submission | None, report: Report) -> None:
        """Take back a verdict of ours: what was held for absent or unsent lives, so it is shown, and canceled."""
        if (
            submission is None
            or submission.kind != Submission.Kind.NEW
            or report.kind not in (ReportKind.NEW, ReportKind.TRADE)
        ):
            return
        if submission.state not in (SubmissionState.ABSENT, SubmissionState.NOT_SENT):
            return
        log.error(
            "order_resurrected",
            broker=self.broker_id,
            child=str(child.id),
            client_order_id=report.client_order_id,
        )
        submission.state, submission.resolved_at = SubmissionState.ACCEPTED, self.at
        submission.detail = "resurrected: the broker had it after all"
        self.book.touched_submissions[submission.id] = submission
        child.ended_as = ""
        self.kinds[child.order_id] = "order.resurrected"
        submit_cancel(self.book, child, self.at)

    def _proves_arrival(self, submission: Submission | None, report: Report) -> None:
        rejected = report.kind in (ReportKind.REJECTED, ReportKind.REPLACE_REJECTED) and report.reason != DUPLICATE
        if submission is None or submission.state not in _UNPROVEN:
            return
        if submission.sent_at is None:  # nobody here sent it: the report is no proof of anything
            return
        submission.state = SubmissionState.REJECTED if rejected else SubmissionState.ACCEPTED
        if submission.kind == Submission.Kind.NEW or rejected:
            submission.resolved_at = self.at
        submission.detail = report.text[:200]
        self.book.touched_submissions[submission.id] = submission

    def _execution(self, child: ChildOrder, report: Report) -> bool:
        """Record an execution once; tell whether anything was new."""
        key = (child.broker_account_id, report.execution_id or "")
        if key in self.known:
            return False
        original = None
        if report.kind is not ReportKind.TRADE:
            original = self._live(child, report.ref_execution_id or "")
            if original is None:
                self.park(report, f"execution:{report.ref_execution_id}")
                return False
            if self._is_undone(original):
                log.warning("execution_already_undone", execution=str(original.id), by=report.execution_id)
                if report.kind is ReportKind.BUST:
                    return False
                # It was told late, of a version that is busted by now: a fact all the same, whose totals are nothing.
                report = replace(report, last_quantity=ZERO, fees=())
        execution = self._record(child, report, original)
        self.known[key] = execution
        if original is not None:
            self.undone_by[original.id] = execution
        self.executions.append(execution)
        before = None if original is None or original.kind == Execution.Kind.BUST else original
        self._count(child, execution, before)
        note_taken(self.book, child.order_id)
        now = None if report.kind is ReportKind.BUST else execution
        child.filled_amount += _value(now) - _value(before)
        self.book.orders[child.order_id].fees += self._fees_known(now) - self._fees_known(before)
        return True

    def _fees_known(self, execution: Execution | None) -> Decimal:
        """Return an execution's fees in the instrument's currency; without a rate for the others only those in it."""
        if execution is None:
            return ZERO
        known: Decimal | None = execution.fees
        if known is not None:
            return known
        instrument = brokers.instruments()[self.book.orders[execution.order_id].instrument_id]
        return fees_in(execution.fee_items, instrument.currency)

    def _count(self, child: ChildOrder, execution: Execution, original: Execution | None) -> None:
        """Count an execution, or the difference that undoing one makes, for what is filled."""
        now = ZERO if execution.kind == Execution.Kind.BUST else execution.quantity
        undone = original.quantity if original else ZERO
        if child.standing or child.time_in_force in LASTING:
            standing = Standing.read(child.standing)
            now, undone = (standing.counted(q, execution.executed_at) for q in (now, undone))
            if execution.kind == Execution.Kind.TRADE:
                standing.trade(execution.executed_at)
            child.standing = standing.as_json()
        child.filled_quantity += now - undone

    def _live(self, child: ChildOrder, broker_execution_id: str) -> Execution | None:
        """Return the last version of the execution that a broker names, its bust if it was undone, None if unknown."""
        found = self.known.get((child.broker_account_id, broker_execution_id))
        while found is not None and found.id in self.undone_by:
            found = self.undone_by[found.id]
        return found

    def _is_undone(self, version: Execution) -> bool:
        """Tell whether a version, or one before it, was busted: nothing brings the trade back then."""
        by_id = {e.id: e for e in [*self.known.values(), *self.executions]}
        found: Execution | None = version
        while found is not None and found.kind != Execution.Kind.BUST:
            found = by_id.get(found.ref_id) if found.ref_id else None
        return found is not None

    def _record(self, child: ChildOrder, report: Report, original: Execution | None) -> Execution:
        order = self.book.orders[child.order_id]
        instrument = brokers.instruments()[order.instrument_id]
        if report.kind is ReportKind.BUST and original is not None:
            quantity, price = original.quantity, original.price
        else:
            restated = original.quantity if original else ZERO
            quantity = report.last_quantity if report.last_quantity is not None else restated
            price = report.last_price if report.last_price is not None else (original.price if original else ZERO)
        executed_at = original.executed_at if original else (report.executed_at or self.at)
        if report.kind is ReportKind.BUST and original is not None:
            items, fees = original.fee_items, original.fees
            other_fees = _others([], original, instrument.currency)
        else:
            items = self._fees(child, quantity, price, executed_at, report, original)
            fees = total_fees(items, instrument.currency)
            in_force = original if original and original.kind != Execution.Kind.BUST else None
            other_fees = _others(items, in_force, instrument.currency)
        bid, ask = (original.market_bid, original.market_ask) if original else self._market(order, executed_at)
        execution = rows.make(
            Execution,
            # Lots are matched by time and then by this: two fills of one moment must not depend on who came first.
            id=uuid7_of(executed_at, f"{child.broker_account_id}:{report.execution_id}")
            if original is None
            else uuid7(),
            child_id=child.id,
            order_id=order.id,
            broker_id=child.broker_id,
            broker_account_id=child.broker_account_id,
            broker_execution_id=report.execution_id or "",
            kind=report.kind.value,
            ref_id=original.id if original else None,
            side=order.side,
            quantity=quantity,
            price=price,
            fees=fees,
            fee_items=items,
            settle_date=brokers.settle_date(instrument, executed_at),
            executed_at=executed_at,
            received_at=self.at,
            market_bid=bid,
            market_ask=ask,
        )
        self.fills.append(
            Fill(
                source_id=execution.id,
                kind=execution.kind,
                ref_source_id=execution.ref_id,
                account_id=order.account_id,
                broker_id=child.broker_id,
                instrument_id=order.instrument_id,
                quantity=execution.signed_quantity(),
                price=price,
                fees=fees_in(items, instrument.currency),
                currency=instrument.currency,
                executed_at=executed_at,
                settle_date=execution.settle_date,
                strategy_id=order.strategy_id,
                other_fees=other_fees,
                chosen=tuple(UUID(i) for i in order.lots) if order.lots else (),
            )
        )
        return execution

    def _market(self, order: Order, executed_at: datetime) -> tuple[Decimal | None, Decimal | None]:
        """Return bid and ask at an execution that has just happened."""
        if self.quotes is None:
            self.quotes = brokers.quotes({o.instrument_id for o in self.book.orders.values()})
        quote = self.quotes.get(order.instrument_id)
        if quote is None or abs((self.at - executed_at).total_seconds()) > MARKET_SECONDS:
            return None, None
        return quote.bid, quote.ask

    def _fees(
        self,
        child: ChildOrder,
        quantity: Decimal,
        price: Decimal,
        executed_at: datetime,
        report: Report,
        original: Execution | None,
    ) -> list[dict[str, str]]:
        """Return the fees the broker told, or else what its schedule adds for this fill of its order."""
        if report.fees is not None:
            told: Sequence[FeeItem | FeeCharge] = report.fees
        else:
            order = self.book.orders[child.order_id]
            instrument = brokers.instruments()[order.instrument_id]
            items = brokers.fee_items(child.broker_id, instrument.asset_class, executed_at.date())
            undone = (original.quantity, original.quantity * original.price) if original else (ZERO, ZERO)
            done = Done(child.filled_quantity - undone[0], child.filled_amount - undone[1])
            told = charge(
                items, side=order.side, quantity=quantity, price=price, currency=instrument.currency, done=done,
                month=self._month(child, instrument, executed_at) if needs_month(items) else NOTHING,
                liquidity=report.liquidity or TAKER, base_currency=instrument.base_currency,
                hours=brokers.session_of(instrument.id, executed_at),
            )  # fmt: skip
        return [
            {"kind": f.kind, "amount": decimals.text(decimals.money(f.amount)), "currency": f.currency} for f in told
        ]

    def _month(self, child: ChildOrder, instrument: InstrumentRef, at: datetime) -> Done:
        """Return what the account did at a broker in a month before an order: all that is booked, and all of this batch, but
        for the order's own.
        """
        account_id = self.book.orders[child.order_id].account_id
        key = (account_id, child.broker_id, instrument.asset_class, f"{at.astimezone(UTC):%Y-%m}")
        if key not in self.months:
            self.months[key] = positions.month_so_far(account_id, child.broker_id, instrument.asset_class, at)
        quantity, value = self.months[key]
        for fill in self.fills:
            peer = (fill.account_id, fill.broker_id, brokers.instruments()[fill.instrument_id].asset_class)
            same = peer == (account_id, child.broker_id, instrument.asset_class)
            if same and fill.kind == "trade" and (fill.executed_at.year, fill.executed_at.month) == (at.year, at.month):
                quantity, value = quantity + abs(fill.quantity), value + abs(fill.quantity * fill.price)
        return Done(max(ZERO, quantity - child.filled_quantity), max(ZERO, value - child.filled_amount))

    def _end(self, child: ChildOrder, report: Report) -> None:
        asked = self.book.asked_to_stop(child) or bool(self.book.orders[child.order_id].reason)
        self._close(child, ENDS[report.kind], report.text)
        order = self.book.orders[child.order_id]
        if report.kind is ReportKind.REJECTED:
            order.reason, order.reason_detail = Reason.BROKER_REJECTED, report.text[:200]
        elif report.kind is ReportKind.CANCELED and report.reason == Reason.SIBLING_FILLED and not order.reason:
            order.reason = Reason.SIBLING_FILLED
        elif report.kind is ReportKind.CANCELED and not asked and order.time_in_force not in ("ioc", "fok"):
            order.reason, order.reason_detail = Reason.UNSOLICITED, report.text[:200]

    def _close(self, child: ChildOrder, end: OrdStatus, detail: str = "") -> None:
        if end == OrdStatus.REJECTED and not child.ended_as and child.filled_quantity == 0:
            note_refused(self.book, child.order_id, detail)
        child.ended_as = stronger_end(child.ended_as, end)
        for kind in (Submission.Kind.CANCEL, Submission.Kind.REPLACE):
            for request in self.book.pending(child, kind):
                answered = SubmissionState.ACCEPTED if kind == Submission.Kind.CANCEL else SubmissionState.REJECTED
                self._resolve(request, SubmissionState.NOT_SENT if request.sent_at is None else answered)

    def give_up(
        self, child: ChildOrder, submission: Submission, state: SubmissionState, reason: Reason, detail: str = ""
    ) -> None:
        """End a request that provably never arrived: an order as if refused, or as its cancel, its time or risk wanted."""
        self._resolve(submission, state, detail or reason.sentence)
        self.children[child.id] = child
        if submission.kind != Submission.Kind.NEW:
            return
        if reason is Reason.TOO_LATE:
            end = OrdStatus.EXPIRED
        elif reason is not Reason.BROKER_UNREACHABLE or self.book.asked_to_stop(child):
            end = OrdStatus.CANCELED
        else:
            end = OrdStatus.REJECTED
        self._close(child, end, detail or reason.sentence)
        if end != OrdStatus.CANCELED or reason is not Reason.BROKER_UNREACHABLE:
            order = self.book.orders[child.order_id]
            order.reason, order.reason_detail = reason, (detail or reason.sentence)[:200]

    def _say(self, child: ChildOrder, word: str, report: Report) -> None:
        standing = Standing.read(child.standing)
        standing.say(word, report.executed_at or self.at)
        child.standing = standing.as_json()

    def _restate(self, child: ChildOrder, report: Report) -> None:
        """Take terms that the broker changed by itself: its word stands, whoever agreed to it; so does that it works again."""
        at, standing = report.executed_at or self.at, Standing.read(child.standing)
        if report.order_status not in (*WORDS.values(), OrdStatus.DONE_FOR_DAY):
            standing.say("", at)
        quantity = report.order_quantity or child.quantity
        if standing.new_terms(at):
            if report.reason != Reason.SIBLING_FILLED:
                log.warning("order_restated", broker=self.broker_id, child=str(child.id), why=report.reason)
            if report.reason == CORPORATE_ACTION and quantity != child.quantity:
                self._split(child, standing, quantity, at)
            if child.order_id in self.book.algos and report.reason != CORPORATE_ACTION:
                child.quantity = quantity  # of one slice: what the broker took away is the order's again
            else:
                self._change(child, quantity, report.limit_price, report.stop_price)
            if report.kind is ReportKind.REPLACED and 0 < len(report.client_order_id) <= CLIENT_ID_MAX:
                child.client_order_id = report.client_order_id
        child.standing = standing.as_json()

    def _split(self, child: ChildOrder, standing: Standing, quantity: Decimal, at: datetime) -> None:
        """Put what was filled before a split into the units after it; its value stays."""
        if standing.split is not None:
            raise ValueError("an order is split once; a second time takes a person")
        standing.split, standing.split_at = (quantity, child.quantity), at
        self.accepted[child.order_id] = _held_at(child.order_id) * child.quantity / quantity
        trades = rows.load(Execution, "WHERE t.child_id = %s", [child.id])
        known = {e.id: e for e in [*trades, *self.executions] if e.child_id == child.id}
        undone = {e.ref_id for e in known.values()}
        live = [e for e in known.values() if e.kind != Execution.Kind.BUST and e.id not in undone]
        child.filled_quantity = decimals.total(standing.counted(e.quantity, e.executed_at) for e in live)

    def _change(self, child: ChildOrder, quantity: Decimal, limit: Decimal | None, stop: Decimal | None) -> None:
        """Put new terms on a broker order and its order; a price not told stays."""
        order = self.book.orders[child.order_id]
        order.quantity += quantity - child.quantity
        child.quantity = quantity
        for name, value in (("limit_price", limit), ("stop_price", stop)):
            if value is not None and getattr(child, name) is not None:
                setattr(child, name, value)
                setattr(order, name, value)

    def _replaced(self, child: ChildOrder, submission: Submission, report: Report) -> None:
        if submission.state == SubmissionState.ACCEPTED and submission.resolved_at is not None:
            return
        later = [
            s for s in self.book.submissions[child.id] if s.kind == Submission.Kind.REPLACE and s.id > submission.id
        ]
        if any(s.state == SubmissionState.ACCEPTED and s.resolved_at is not None for s in later):
            self._resolve(submission, SubmissionState.ACCEPTED)  # overtaken: the later terms stand
            return
        message = submission.message
        standing = Standing.read(child.standing)
        if standing.new_terms(report.executed_at or self.at):
            # The broker's word: a replace below what is filled ends at what is filled (FIX C.3.c).
            quantity = report.order_quantity or Decimal(message["quantity"])
            prices = [Decimal(message[n]) if message[n] is not None else None for n in ("limit_price", "stop_price")]
            self._change(child, quantity, *prices)
            if submission.unit_amount is not None:
                self.accepted[child.order_id] = submission.unit_amount
            child.time_in_force = self.book.orders[child.order_id].time_in_force = message["time_in_force"]
        child.standing = standing.as_json()
        child.client_order_id = submission.client_order_id
        self._resolve(submission, SubmissionState.ACCEPTED)

    def _refused(self, child: ChildOrder, submission: Submission | None, report: Report) -> None:
        if submission is None or submission.kind == Submission.Kind.NEW or submission.resolved_at is not None:
            return
        self._resolve(submission, SubmissionState.REJECTED, report.text)
        if submission.kind != Submission.Kind.CANCEL or child.ended_as or child.filled_quantity >= child.quantity:
            return
        if self._overtook(child, submission) or self._met_a_replace(child, submission):
            submit_cancel(self.book, child, self.at, due_at=self.at + CANCEL_AGAIN)

    def _overtook(self, child: ChildOrder, cancel: Submission) -> bool:
        """Tell whether a cancel went out before it was known that the order had arrived: its refusal says nothing then."""
        first = next(s for s in self.book.submissions[child.id] if s.kind == Submission.Kind.NEW)
        if first.state in _UNPROVEN:
            return True
        known, sent = first.resolved_at, cancel.sent_at
        return known is not None and sent is not None and sent < known

    def _met_a_replace(self, child: ChildOrder, cancel: Submission) -> bool:
        """Tell whether a refused cancel says nothing because of a replace: undecided, or refused so that its name is none."""
        kind = Submission.Kind.REPLACE
        if not any(s.kind == kind and s.id < cancel.id for s in self.book.submissions[child.id]):
            return False
        undecided = any(s.id < cancel.id for s in self.book.pending(child, kind))
        return undecided or cancel.message["orig_client_order_id"] != child.client_order_id

    def _resolve(self, submission: Submission, state: SubmissionState, detail: str = "") -> None:
        if submission.kind == Submission.Kind.REPLACE:
            self.accepted.setdefault(self.book.children[submission.child_id].order_id, None)
        submission.state, submission.resolved_at, submission.detail = state, self.at, detail[:200]
        self.book.touched_submissions[submission.id] = submission

    def finish(self, actor: Actor) -> int:
        """Derive statuses, route again what was refused, write everything, book, release, tell."""
        for child in self.children.values():
            settle_child(self.book, child, at=self.at)
        changed = {c.order_id for c in self.children.values()}
        within = {i for i in changed if not self.book.orders[i].overfilled}
        _stop_excess(self.book, changed, self.at)
        self._renew()
        _route_again(
            self.book,
            {c.order_id for c in self.children.values() if c.ended_as == OrdStatus.REJECTED},
            self.at,
        )
        for order_id in sorted(changed):
            refold(self.book, order_id, at=self.at)
        sql.insert(self.parked)
        if not changed:
            return 0
        entries = write(self.book, executions=self.executions, kinds=self.kinds)
        touched = portfolio.book(self.fills, at=self.at) if self.fills else []
        decided = {i: risk.Decided(unit, self._pending_units(i)) for i, unit in self.accepted.items() if i in changed}
        risk.resize({i: self.book.may_fill(i) for i in changed}, decided=decided)
        entries += self._freeze(within, actor)
        journal.append(entries + position_entries(touched), actor=actor, at=self.at)
        codes = {brokers.brokers()[s.broker_id].code for s in self.book.new_submissions}
        if codes:
            after_commit(lambda: doorbell.ring(codes))
        return len(self.executions)

    def _freeze(self, within: set[UUID], actor: Actor) -> list[Entry]:
        """Stop accounts from opening more where an order has just been filled past its quantity: a person looks first."""
        over = [order for i in sorted(within) if (order := self.book.orders[i]).overfilled]
        if not over:
            return []
        names = Names()
        log.error("order_overfilled", orders=[str(o.id) for o in over])
        reason = f"overfilled: {', '.join(o.client_order_id for o in over)}"
        return risk.freeze([names.accounts[o.account_id] for o in over], reason=reason, actor=actor, at=self.at)

    def _pending_units(self, order_id: UUID) -> list[Decimal]:
        """Return what a unit is held at under each set of terms that is still asked for."""
        replaces = [s for c in self.book.children_of(order_id) for s in self.book.pending(c, Submission.Kind.REPLACE)]
        return [s.unit_amount for s in replaces if s.unit_amount is not None]

    def _renew(self) -> None:
        """Go on under the terms asked for where the cancel that makes room for them is confirmed; give them up elsewhere."""
        for order_id in sorted({c.order_id for c in self.children.values() if self.book.orders[c.order_id].next_terms}):
            order, children = self.book.orders[order_id], self.book.children_of(order_id)
            if order_id in self.book.algos:
                self._renew_worked(order)
                continue
            last = children[-1]
            if last.ended_as == OrdStatus.CANCELED and last.status == OrdStatus.CANCELED:
                if not any(c.leaves_quantity for c in children):
                    self._place_anew(order, last)
            elif last.ended_as or not self.book.pending(last, Submission.Kind.CANCEL):
                order.next_terms = None
                self.accepted.setdefault(order_id, None)

    def _renew_worked(self, order: Order) -> None:
        """Take the terms asked for once no slice works under the old ones; give them up where one goes on in spite of its cancel."""
        if self.book.working(order.id) == 0:
            terms: dict[str, Any] = order.next_terms or {}
            self.accepted[order.id] = None if terms["unit_amount"] is None else Decimal(terms["unit_amount"])
            take_terms(self.book, order, at=self.at)
        elif not any(self.book.pending(c, Submission.Kind.CANCEL) for c in self.book.children_of(order.id)):
            order.next_terms = None
            self.accepted.setdefault(order.id, None)

    def _place_anew(self, order: Order, canceled: ChildOrder) -> None:
        terms: dict[str, Any] = order.next_terms or {}
        order.next_terms = None
        filled = decimals.total(c.filled_quantity for c in self.book.children_of(order.id))
        rest = Decimal(terms["quantity"]) - filled
        order.quantity = max(Decimal(terms["quantity"]), filled)
        for name in ("limit_price", "stop_price"):
            setattr(order, name, None if terms[name] is None else Decimal(terms[name]))
        order.time_in_force = terms["time_in_force"]
        self.accepted[order.id] = None if terms["unit_amount"] is None else Decimal(terms["unit_amount"])
        if rest > 0:
            account = (canceled.broker_account_id, external_account(self.book, canceled))
            child, submission = new_child(order, canceled.broker_id, account, rest, self.at)
            self.book.add_child(child, submission)


def settle_child(book: Book, child: ChildOrder, *, at: datetime) -> None:
    """Derive a broker order's status and leaves from the facts known of it."""
    submissions = book.submissions.get(child.id, [])
    first = next((s for s in submissions if s.kind == Submission.Kind.NEW), None)
    standing = Standing.read(child.standing) if child.standing else NO_WORD
    arrived = bool(child.broker_order_id) or (first is not None and first.state == SubmissionState.ACCEPTED)
    facts = ChildFacts(
        quantity=child.quantity,
        filled=child.filled_quantity,
        acknowledged=arrived and not standing.received,
        ended_as=child.ended_as,
        cancel_pending=bool(book.pending(child, Submission.Kind.CANCEL)),
        replace_pending=bool(book.pending(child, Submission.Kind.REPLACE)),
        standing=standing.in_force(),
    )
    child.overfilled = child.filled_quantity > child.quantity
    target = child_status(facts)
    move(child, target)
    child.leaves_quantity = leaves(target, child.quantity, child.filled_quantity, child.time_in_force)
    child.updated_at = at
    book.touched_children.add(child.id)


def cancel_child(book: Book, child: ChildOrder, at: datetime) -> None:
    """End what provably is at no broker, ask the broker for the end of the rest; what waits to be sent stays here."""
    unsent = [s for s in book.submissions.get(child.id, []) if s.state == SubmissionState.PREPARED]
    for submission in unsent:
        if submission.kind != Submission.Kind.CANCEL:
            withdraw(book, submission, at, "withdrawn before it was sent")
    if any(s.kind == Submission.Kind.NEW for s in unsent):
        child.ended_as = OrdStatus.CANCELED
    elif not book.pending(child, Submission.Kind.CANCEL):
        submit_cancel(book, child, at)
    settle_child(book, child, at=at)


def _held_at(order_id: UUID) -> Decimal:
    """Return what risk holds a unit of an order at, under the terms in force."""
    row = sql.run("SELECT coalesce(own_amount, unit_amount) FROM risk_hold WHERE id = %s", [order_id]).fetchone()
    return Decimal(row[0]) if row else ZERO


def _stop_excess(book: Book, order_ids: Iterable[UUID], at: datetime) -> None:
    """Ask for the end of what still works of an order and would fill more than it lacks.

    Where something is lacking all the same (a broker that had refused the order filled a part of it, after another had
    been given the whole), the rest is asked for anew once the one that is too much is confirmed to be canceled.
    """
    for order_id in sorted(order_ids):
        order, children = book.orders[order_id], book.children_of(order_id)
        working = [c for c in children if c.leaves_quantity > 0 and not book.pending(c, Submission.Kind.CANCEL)]
        lacking = order.quantity - sum((c.filled_quantity for c in children), ZERO)
        if not working or sum((c.leaves_quantity for c in working), ZERO) <= max(lacking, ZERO):
            continue
        if lacking > 0 and len(children) > 1 and not order.next_terms:
            order.next_terms = _terms_in_force(order)
        for child in working:
            log.error("excess_canceled", order=str(order_id), child=str(child.id))
            cancel_child(book, child, at)


def _terms_in_force(order: Order) -> dict[str, str | None]:
    return {
        "quantity": decimals.text(order.quantity),
        "limit_price": decimals.text_or_none(order.limit_price),
        "stop_price": decimals.text_or_none(order.stop_price),
        "time_in_force": order.time_in_force,
        "unit_amount": None,
    }


def _route_again(book: Book, order_ids: set[UUID], at: datetime) -> None:
    """Give what a broker has provably refused to the next one; never what may still be somewhere."""
    refused = [book.orders[i] for i in sorted(order_ids)]
    going = [(order, lacking) for order in refused if (lacking := _lacking(book, order)) > 0]
    if not going:
        return
    links, halted, months = links_of({o.account_id for o, _ in going}), halted_brokers(), positions.Months(at)
    requests = [
        RouteRequest(
            order_id=order.id,
            instrument=brokers.instruments()[order.instrument_id],
            side=order.side,
            quantity=lacking,
            order_type=order.working_type,
            time_in_force=WORKS_FOR.get(order.time_in_force, order.time_in_force),
            limit_price=order.limit_price,
            instructions=frozenset(n for n in PARTS if order.instruction(n) is not None),
            brokers=tuple(links[order.account_id]),
            excluded=frozenset(c.broker_id for c in book.children_of(order.id)),
            halted=halted.for_order(reduces=_reduces(book, book.children_of(order.id))),
            month=months.of(order.account_id, brokers.instruments()[order.instrument_id].asset_class),
        )
        for order, lacking in going
    ]
    for plan in routing.plan(requests, at=at):
        order = book.orders[plan.order_id]
        for broker_id, quantity in plan.legs:
            child, submission = new_child(order, broker_id, links[order.account_id][broker_id], quantity, at)
            submission.reduces = _reduces(book, book.children_of(order.id))
            book.add_child(child, submission)


def _lacking(book: Book, order: Order) -> Decimal:
    """Return what no broker has of an order that may be given to another one, else nothing."""
    children = book.children_of(order.id)
    if (
        order.id in book.algos  # a slice's quantity goes back to its order instead
        or order.status in CLOSED
        or order.directed_broker_id
        or order.next_terms
        or len(children) >= ROUTES_MAX
        or any(book.asked_to_stop(c) for c in children)
        or order.time_in_force in ("ioc", "fok", "opg")
    ):
        return ZERO
    placed = decimals.total(c.filled_quantity + c.leaves_quantity for c in children)
    return Decimal(order.quantity) - placed


def _reduces(book: Book, children: Sequence[ChildOrder]) -> bool:
    """Tell whether an order was let through as one that reduces, by what was sent of it before."""
    return any(s.reduces for c in children for s in book.submissions.get(c.id, []) if s.kind == Submission.Kind.NEW)


def position_entries(touched: Sequence[tuple[int, int]]) -> list[Entry]:
    """Return the journal entries that tell positions as they stand now."""
    if not touched:
        return []
    names = Names()
    rows = positions.positions_out(touched)
    return [
        Entry(
            account_stream(names.accounts[account_id]),
            "position.changed",
            row["symbol"],
            json.dumps({"data": row}),
            "position",
        )
        for (account_id, _), row in zip(touched, rows, strict=True)
    ]


def _restore(stored: object) -> Report:
    return msgspec.convert(stored, Report, strict=False)
