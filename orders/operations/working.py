"""Working large orders: slices are claimed when they are due, judged and routed like any order, and sent as its broker orders.

All of it stands in rows. Whoever dies after a claim leaves a lease that runs out; what was decided is decided in one
transaction with the broker order that it made, so that a slice is asked for once. What was missed meanwhile is made up for as
the order's `catch_up` says. Any number of processes may work at once: they skip what another has claimed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError

from brokers import queries as brokers
from brokers.domain.reference import QuoteRef
from oms.journal import operations as journal
from oms.journal.domain import Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.kernel.decimals import ZERO, text
from oms.kernel.errors import Conflict
from oms.kernel.json import rfc3339
from oms.kernel.reasons import Reason
from oms.runtime import crash, doorbell, sql
from oms.runtime.transactions import after_commit, in_transaction
from orders.domain.algos import AlgoTerms, read_algo
from orders.domain.schedules import Draws, due_now, on_the_good_side, shown, within_volume
from orders.models import Algo, AlgoSlice, Order
from orders.operations.judging import WAIT_FOR_QUOTE, Asked, intents
from orders.operations.placing import links_of, new_child
from orders.operations.preventing import keep_apart
from orders.operations.recording import Book, lock_book, refold, stop, tell_progress, write
from orders.operations.reporting import cancel_child
from orders.operations.slicing import new_slice, note_refused, planned_slices
from orders.queries import resting
from orders.states import CLOSED, OrdStatus
from portfolio.queries import Months
from risk import operations as risk
from risk.domain.intents import Verdict
from risk.domain.selftrade import Prevented
from risk.queries import halted_brokers
from routing import operations as routing
from routing.domain.candidates import RouteRequest

CLAIM_MAX = 200
ORDERS_MAX = 50
"""How many orders are worked in one transaction: their accounts are locked while it lasts."""
LEASE_SECONDS = 10.0
LOOK = timedelta(seconds=5)
"""How often an order that follows the volume looks at it."""
AGAIN = timedelta(seconds=1)
"""How long a slice waits behind a halt, or for a market that can't be seen."""
RETRY_SECONDS_MAX = 30
ACTOR = Actor.system("algo")
WAITS_ON = WAIT_FOR_QUOTE | {Reason.HALTED}
SLICE_FIELDS = ["due_at", "planned_quantity", "state", "quantity", "child", "lease_until", "decided_at", "detail"]
_CLAIM = """
WITH due AS MATERIALIZED (
  SELECT s.id FROM orders_algoslice s JOIN orders_algo a ON a.order_id = s.order_id
  WHERE s.state IN ('planned', 'claimed') AND s.due_at <= %(at)s AND (s.state = 'planned' OR s.lease_until <= %(at)s)
    AND a.state = 'working' AND (a.name <> 'iceberg' OR NOT EXISTS (
      SELECT 1 FROM orders_childorder c WHERE c.order_id = s.order_id AND c.leaves_quantity > 0))
  ORDER BY s.due_at LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)
UPDATE orders_algoslice s SET state = 'claimed', owner = %(owner)s, fence = s.fence + 1,
  lease_until = %(at)s::timestamptz + make_interval(secs => %(lease)s)
FROM due WHERE s.id = due.id RETURNING s.id, s.order_id, s.fence
"""
_STARVED = """
SELECT a.order_id FROM orders_algo a JOIN orders_order o ON o.id = a.order_id
WHERE a.state = 'working' AND o.next_terms IS NULL
  AND (a.completing OR (coalesce(a.end_at > %(at)s, true) AND coalesce(o.instructions->'algo'->>'catch_up', '') <> 'never'))
  AND NOT EXISTS (SELECT 1 FROM orders_algoslice s WHERE s.order_id = a.order_id AND s.state IN ('planned', 'claimed'))
  AND o.leaves_quantity > (SELECT coalesce(sum(c.leaves_quantity), 0) FROM orders_childorder c WHERE c.order_id = a.order_id)
ORDER BY a.order_id
"""
_ENDED = """
SELECT a.order_id FROM orders_algo a JOIN orders_order o ON o.id = a.order_id
WHERE a.state IN ('working', 'paused') AND (a.stop_at <= %(at)s OR (a.end_at <= %(at)s AND NOT a.completing
  AND (a.state = 'working' OR coalesce(o.instructions->'algo'->>'at_end', '') <> 'complete')))
ORDER BY a.order_id
"""
log = structlog.get_logger(__name__)


def work(*, owner: str, at: datetime) -> int:
    """End what is over, send the slices that are due, plan more where quantity came back; return how many were sent."""
    _each((pk for (pk,) in sql.run(_ENDED, {"at": at}).fetchall()), lambda ids: end(ids, at=at))
    claimed = claim(owner=owner, at=at)
    fences = {slice_id: fence for slice_id, _, fence in claimed}
    if claimed:
        crash.point("after_slice_claim")
    sent = _each({order_id for _, order_id, _ in claimed}, lambda ids: release(ids, fences, at=at))
    if claimed:
        crash.point("after_slice_release")
    _each((pk for (pk,) in sql.run(_STARVED, {"at": at}).fetchall()), lambda ids: plan_more(ids, at=at))
    return sent


def is_due(*, at: datetime) -> bool:
    """Tell whether any slice waits for a worker."""
    found = sql.run(
        "SELECT EXISTS (SELECT 1 FROM orders_algoslice WHERE state IN ('planned', 'claimed') AND due_at <= %s)", [at]
    )
    return bool(found.fetchall()[0][0])


def _each(order_ids: Any, act: Callable[[Sequence[UUID]], int]) -> int:
    """Act on orders in batches; where that fails, on each alone, so that one stops none of the others."""
    done = 0
    for batch in chunks(sorted(order_ids), ORDERS_MAX):
        try:
            done += act(batch)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            log.exception("not_worked_together", orders=len(batch))
            done += sum(_alone(pk, act) for pk in batch)
    return done


def _alone(order_id: UUID, act: Callable[[Sequence[UUID]], int]) -> int:
    try:
        return act([order_id])
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("order_not_worked", order=str(order_id))
        return 0


@in_transaction
def claim(*, owner: str, at: datetime) -> list[tuple[UUID, UUID, int]]:
    """Take due slices that nobody else has, for the time of a lease; return (slice, order, fence)."""
    wanted = {"at": at, "owner": owner[:80], "lease": LEASE_SECONDS, "limit": CLAIM_MAX}
    return [(pk, order_id, fence) for pk, order_id, fence in sql.run(_CLAIM, wanted)]


# ---------------------------------------------------------------- one batch of due slices


@dataclass(slots=True)
class _Part:
    """What is due of one order, and what was decided about it."""

    order: Order
    algo: Algo
    terms: AlgoTerms
    slices: list[AlgoSlice]  # all that wait, by number
    row: AlgoSlice  # the newest that is due; it stands for those before it
    remaining: Decimal
    quantity: Decimal = ZERO
    detail: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    prevented: Prevented | None = None  # orders of the account that the slice would have traded with

    @property
    def later(self) -> list[AlgoSlice]:
        """Return the slices that are not due yet."""
        return [s for s in self.slices if s.number > self.row.number]

    @property
    def lot(self) -> Decimal:
        """Return the lot of what is traded."""
        return brokers.instruments()[self.order.instrument_id].lot_size

    def decide(self, state: str, detail: str, at: datetime) -> None:
        """Say what became of the slice; those before it are over with it."""
        for missed in self.slices:
            if missed.number < self.row.number:
                missed.state, missed.decided_at = AlgoSlice.State.SKIPPED, at
                missed.detail = f"overdue; what it was for went on to slice {self.row.number}"
        self.row.state, self.row.detail, self.row.decided_at = state, detail[:200], at
        self.row.lease_until = None

    def put_off(self, until: datetime) -> None:
        """Let the slice wait."""
        self.row.state, self.row.due_at, self.row.lease_until = AlgoSlice.State.PLANNED, until, None

    def told(self) -> dict[str, Any]:
        """Return the slice as the event of its order tells it."""
        return {
            "number": self.row.number, "state": self.row.state, "due_at": rfc3339(self.row.due_at),
            "planned_quantity": text(self.row.planned_quantity), "quantity": text(self.quantity), "detail": self.row.detail,
            "checks": self.checks,
        }  # fmt: skip


@in_transaction
def release(order_ids: Sequence[UUID], fences: Mapping[UUID, int], *, at: datetime) -> int:
    """Decide on the due slices of orders that this process has claimed; return how many were sent to a broker."""
    book = lock_book(order_ids)
    waiting = planned_slices(order_ids)
    before = {row.id: (row.state, row.due_at) for group in waiting.values() for row in group}
    parts, idle = [], []
    for order_id, slices in waiting.items():
        mine = [s for s in slices if s.state == AlgoSlice.State.CLAIMED and fences.get(s.id) == s.fence]
        if not mine:
            continue  # another took it over, or decided on it
        part = _due(book, order_id, slices, at)
        if part is None:
            idle += mine
        else:
            parts.append(part)
    for row in idle:
        row.state, row.lease_until, row.due_at = AlgoSlice.State.PLANNED, None, max(row.due_at, at + AGAIN)
    _size(book, parts, at)
    fresh = _ask(book, parts, at)
    for part in parts:
        _tell(book, part, fresh.get(part.order.id), at)
    rows = [s for group in waiting.values() for s in group]
    _write(book, parts, at)
    sql.update([r for r in rows if (r.state, r.due_at) != before[r.id]], SLICE_FIELDS)
    sql.insert(list(fresh.values()))
    if met := [(p.order, p.prevented) for p in parts if p.prevented is not None]:
        keep_apart(met, at=at)
    return sum(p.row.state == AlgoSlice.State.SENT for p in parts)


def _due(book: Book, order_id: UUID, slices: list[AlgoSlice], at: datetime) -> _Part | None:
    """Return what is due of an order, None where it is not to be worked now."""
    order, algo = book.orders[order_id], book.algos[order_id]
    due = [s for s in slices if s.due_at <= at]
    if order.status in CLOSED or order.next_terms or algo.state != Algo.State.WORKING or not due:
        return None
    remaining = order.quantity - order.filled_quantity - book.working(order_id)
    return _Part(order, algo, read_algo(order.algo or {}), slices, due[-1], max(remaining, ZERO))


def _size(book: Book, parts: Sequence[_Part], at: datetime) -> None:
    """Work out how much each slice asks for, and why one asks for nothing."""
    quotes = brokers.quotes({p.order.instrument_id for p in parts}) if parts else {}
    observed = _observed(book, [p for p in parts if p.terms.participation is not None], at)
    for part in parts:
        part.quantity = Decimal(text(_wanted(part)))
        share = part.terms.participation
        if share is not None and part.quantity > 0:
            done = part.order.filled_quantity + book.working(part.order.id)
            seen = observed[part.order.id]
            part.quantity = within_volume(part.quantity, participation=share, observed=seen, done=done, lot=part.lot)
            part.detail = f"more must be traded first: {text(share)} of it may be ours"
        elif part.quantity <= 0:
            part.detail = "nothing is left that does not work already"
        if part.quantity > 0 and not _inside(part, quotes.get(part.order.instrument_id)):
            part.quantity, part.detail = ZERO, "the market is beyond the limit price"


def _wanted(part: _Part) -> Decimal:
    order, terms = part.order, part.terms
    if part.algo.completing or terms.name == "pov":
        return part.remaining
    if terms.name == "iceberg":
        display = Decimal(order.instruction("display_quantity") or text(order.quantity))
        draw = Draws((terms.seed or 0) + part.row.number).next()
        return shown(part.remaining, display, vary=terms.vary_size or ZERO, draw=draw, lot=part.lot)
    later = [s.planned_quantity for s in part.later]
    return due_now(part.remaining, part.row.planned_quantity, later, catch_up=terms.catch_up, lot=part.lot)


def _inside(part: _Part, quote: QuoteRef | None) -> bool:
    """Tell whether the market would trade within the limit. An iceberg stands in the market and waits for it."""
    if quote is None or part.algo.name == "iceberg" or part.algo.completing:
        return True  # without a quote risk has its say
    return on_the_good_side(part.order.side, part.order.limit_price, bid=quote.bid, ask=quote.ask)


def _observed(book: Book, parts: Sequence[_Part], at: datetime) -> dict[UUID, Decimal]:
    """Return what the market traded since each order's start; who looks first starts to count."""
    for part in parts:
        if part.algo.volume_from is None:
            part.algo.volume_from, part.algo.volume_before = brokers.volume_now(part.order.instrument_id, at)
            book.touched_algos.add(part.order.id)
    volumes = brokers.volumes_since([(p.order.instrument_id, p.algo.volume_from or at) for p in parts])
    return {p.order.id: max(v - p.algo.volume_before, ZERO) for p, v in zip(parts, volumes, strict=True)}


def _ask(book: Book, parts: Sequence[_Part], at: datetime) -> dict[UUID, AlgoSlice]:
    """Ask risk and routing about the slices that want something; return the slices planned after them, by order."""
    asking = [p for p in parts if p.quantity > 0]
    asked = [Asked(p.order, p.quantity, p.order.working_type, p.order.limit_price, None) for p in asking]
    verdicts = {v.order_id: v for v in risk.judge_again(intents(book, asked), at=at, resting=resting)}
    going = []
    for part in asking:
        verdict = verdicts[part.order.id]
        part.checks, part.prevented = verdict.checks, verdict.prevented
        if verdict.approved:
            going.append(part)
        elif verdict.held or verdict.reason in WAITS_ON:
            part.detail = verdict.detail
            part.put_off(at + AGAIN)
        else:
            _deny(book, part, verdict.detail or verdict.reason, at)
    _route(book, going, verdicts, at)
    for part in parts:
        if part.quantity == 0 and part.algo.name == "pov":
            part.put_off(at + _look(part))
        elif part.quantity == 0:
            part.decide(AlgoSlice.State.SKIPPED, part.detail, at)
    return {p.order.id: row for p in parts if (row := _next(p, at)) is not None}


def _deny(book: Book, part: _Part, detail: str, at: datetime) -> None:
    part.decide(AlgoSlice.State.DENIED, detail, at)
    note_refused(book, part.order.id, detail)


def _route(book: Book, parts: Sequence[_Part], verdicts: Mapping[UUID, Verdict], at: datetime) -> None:
    """Give slices to brokers; a broker that has just refused this order comes last."""
    if not parts:
        return
    links, halted = links_of({p.order.account_id for p in parts}), halted_brokers()
    months = Months(at)
    requests = [
        RouteRequest(
            order_id=p.order.id,
            instrument=brokers.instruments()[p.order.instrument_id],
            side=p.order.side,
            quantity=p.quantity,
            order_type=p.order.working_type,
            time_in_force=p.order.time_in_force,
            limit_price=p.order.limit_price,
            brokers=tuple(links[p.order.account_id]),
            directed=p.order.directed_broker_id,
            excluded=_refusing(book, p.order),
            halted=halted.for_order(reduces=verdicts[p.order.id].reduces),
            month=months.of(p.order.account_id, brokers.instruments()[p.order.instrument_id].asset_class),
        )
        for p in parts
    ]
    plans = {p.order_id: p for p in routing.plan(requests, at=at)}
    again = [replace(r, excluded=frozenset()) for r in requests if r.excluded and not plans[r.order_id].legs]
    plans |= {p.order_id: p for p in routing.plan(again, at=at)}
    for part in parts:
        plan = plans[part.order.id]
        if not plan.legs:
            _deny(book, part, f"{Reason.NO_ROUTE.sentence} {plan.detail}", at)
            continue
        [(broker_id, quantity)] = plan.legs
        child, submission = new_child(part.order, broker_id, links[part.order.account_id][broker_id], quantity, at)
        submission.reduces = verdicts[part.order.id].reduces
        book.add_child(child, submission)
        part.decide(AlgoSlice.State.SENT, "", at)
        part.row.quantity, part.row.child_id = quantity, child.id


def _refusing(book: Book, order: Order) -> frozenset[int]:
    """Return the brokers that refused the last slices, one after the other."""
    found = set()
    for child in reversed(book.children_of(order.id)):
        if child.ended_as != OrdStatus.REJECTED or child.filled_quantity > 0:
            break
        found.add(child.broker_id)
    return frozenset() if order.directed_broker_id else frozenset(found)


def _look(part: _Part) -> timedelta:
    """Return when an order that follows the volume looks again: a little sooner or later by chance."""
    draw = Draws((part.terms.seed or 0) + part.row.number).next()
    return LOOK * float(1 + (part.terms.vary_time or ZERO) * (2 * draw - 1))


def _next(part: _Part, at: datetime) -> AlgoSlice | None:
    """Return the slice that follows one just decided, for orders that find theirs as they go."""
    if part.row.state == AlgoSlice.State.PLANNED or part.algo.name not in ("pov", "iceberg") or part.algo.completing:
        return None
    left = part.remaining - (part.quantity if part.row.state == AlgoSlice.State.SENT else ZERO)
    if left <= 0:
        return None
    soon = at if part.algo.name == "iceberg" and part.row.state == AlgoSlice.State.SENT else at + _look(part)
    return new_slice(part.order.id, part.row.number + 1, soon, left)


def _tell(book: Book, part: _Part, following: AlgoSlice | None, at: datetime) -> None:
    """Bring the order up to what was decided; a slice that merely waits says so once."""
    order_id, told = part.order.id, (part.order.instructions or {}).get("progress", {})
    why = None if part.row.state == AlgoSlice.State.SENT else part.detail or part.row.detail
    if part.row.state == AlgoSlice.State.PLANNED and told.get("why") == why and not _new_of(book, order_id):
        return
    left = [*part.later, *([following] if following else [])]
    left += [part.row] if part.row.state == AlgoSlice.State.PLANNED else []
    if part.algo.state == Algo.State.PAUSED:
        why = told.get("why")  # it was refused too often, and says so
    tell_progress(
        book, order_id, slices_left=len(left), next_slice_at=rfc3339(min(s.due_at for s in left)) if left else None,
        slices_sent=told.get("slices_sent", 0) + (part.row.state == AlgoSlice.State.SENT),
        why=why,
    )  # fmt: skip
    refold(book, order_id, at=at)


def _new_of(book: Book, order_id: UUID) -> bool:
    return any(c.order_id == order_id for c in book.new_children)


_EVENTS = {
    AlgoSlice.State.SENT: "order.slice_sent",
    AlgoSlice.State.DENIED: "order.slice_denied",
    AlgoSlice.State.SKIPPED: "order.slice_skipped",
    AlgoSlice.State.PLANNED: "order.slice_waits",
}


def _write(book: Book, parts: Sequence[_Part], at: datetime) -> None:
    kinds = {p.order.id: _EVENTS[AlgoSlice.State(p.row.state)] for p in parts}
    told = {str(p.order.id): p.told() for p in parts}
    entries = [_with_slice(e, told) for e in write(book, kinds=kinds)]
    risk.resize({i: book.may_fill(i) for i in book.touched})
    if entries:
        journal.append(entries, actor=ACTOR, at=at)
    _ring(book)


def _with_slice(entry: Entry, told: Mapping[str, dict[str, Any]]) -> Entry:
    """Return an order's event with the slice that it is about."""
    found = told.get(entry.object_id)
    return replace(entry, body=f'{entry.body[:-1]},"slice":{json.dumps(found)}}}') if found else entry


def _ring(book: Book) -> None:
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    if codes:
        after_commit(lambda: doorbell.ring(codes))


# ---------------------------------------------------------------- more slices, and the end


@in_transaction
def plan_more(order_ids: Sequence[UUID], *, at: datetime) -> int:
    """Plan one slice more for orders whose quantity came back after the last; return for how many.

    The more slices were refused in a row the longer it waits, but within the order's time.
    """
    book, rows = lock_book(order_ids), []
    waiting = planned_slices(order_ids)
    for order_id, order in book.orders.items():
        algo = book.algos[order_id]
        left = order.quantity - order.filled_quantity - book.working(order_id)
        if (
            order.status in CLOSED
            or order.next_terms
            or algo.state != Algo.State.WORKING
            or waiting.get(order_id)
            or left <= 0
        ):
            continue
        wait = timedelta(seconds=min(2**algo.refusals, RETRY_SECONDS_MAX))
        if algo.end_at is not None and not algo.completing:
            wait = min(wait, max((algo.end_at - at) / 2, timedelta(0)))
        rows.append(_one_more(book, order_id, left, at + wait, at))
    _finish(book, rows, "order.slice_planned", at)
    return len(rows)


def _one_more(book: Book, order_id: UUID, quantity: Decimal, due_at: datetime, at: datetime) -> AlgoSlice:
    [(last,)] = sql.run("SELECT coalesce(max(number), 0) FROM orders_algoslice WHERE order_id = %s", [order_id])
    row = new_slice(order_id, last + 1, due_at, quantity)
    tell_progress(book, order_id, slices_left=1, next_slice_at=rfc3339(due_at))
    refold(book, order_id, at=at)
    return row


@in_transaction
def end(order_ids: Sequence[UUID], *, at: datetime) -> int:
    """End the work on orders whose time ran out, as each was told: what is left is canceled, or asked for at once."""
    book, rows, kinds = lock_book(order_ids), [], {}
    for order_id, order in book.orders.items():
        algo = book.algos[order_id]
        if order.status in CLOSED or algo.state not in (Algo.State.WORKING, Algo.State.PAUSED):
            continue
        over = algo.stop_at is not None and algo.stop_at <= at
        if over or read_algo(order.algo or {}).at_end != "complete":
            kinds[order_id] = "order.algo_ended"
            _give_up_rest(book, order, at)
        else:
            kinds[order_id] = "order.algo_completing"
            rows += _complete(book, order, algo, at)
    _finish(book, rows, kinds, at)
    return len(kinds)


def _give_up_rest(book: Book, order: Order, at: datetime) -> None:
    order.reason, order.reason_detail, order.next_terms = Reason.ALGO_ENDED, "", None
    stop(book, order.id, OrdStatus.EXPIRED)
    _cancel_working(book, order.id, at)
    refold(book, order.id, at=at)


def _complete(book: Book, order: Order, algo: Algo, at: datetime) -> list[AlgoSlice]:
    algo.completing = True
    book.touched_algos.add(order.id)
    rows = planned_slices([order.id]).get(order.id, [])
    for row in rows:
        row.state, row.decided_at, row.detail = AlgoSlice.State.SKIPPED, at, "the time was over"
    sql.update(rows, SLICE_FIELDS)
    left = order.quantity - order.filled_quantity - book.working(order.id)
    tell_progress(book, order.id, slices_left=0, next_slice_at=None)
    if left > 0:
        return [_one_more(book, order.id, left, at, at)]
    refold(book, order.id, at=at)
    return []


def _cancel_working(book: Book, order_id: UUID, at: datetime) -> None:
    for child in book.children_of(order_id):
        if child.leaves_quantity > 0:
            cancel_child(book, child, at)


def _finish(book: Book, rows: Sequence[AlgoSlice], kinds: str | dict[UUID, str], at: datetime) -> None:
    if not book.touched:
        return
    told = dict.fromkeys(book.touched, kinds) if isinstance(kinds, str) else kinds
    entries = write(book, kinds=told)
    sql.insert(rows)
    risk.resize({i: book.may_fill(i) for i in book.touched})
    journal.append(entries, actor=ACTOR, at=at)
    _ring(book)


# ---------------------------------------------------------------- by a person


def pause(order_id: UUID, *, actor: Actor, at: datetime, cancel_working: bool = True) -> Order:
    """Send no more slices of an order until it is resumed, and ask for the end of those that work, unless told not to.

    The time goes on: what is missed is made up for, or not, as the order says. Raises `Conflict`: not_worked, order_closed, or
    change_pending while a cancel or replace is undecided.
    """
    return _turn(order_id, Algo.State.PAUSED, actor=actor, at=at, cancel_working=cancel_working)


def resume(order_id: UUID, *, actor: Actor, at: datetime) -> Order:
    """Go on with an order that was paused, by a person or by too many refusals. Raises what `pause` raises."""
    return _turn(order_id, Algo.State.WORKING, actor=actor, at=at, cancel_working=False)


@in_transaction
def _turn(order_id: UUID, state: Algo.State, *, actor: Actor, at: datetime, cancel_working: bool) -> Order:
    book = lock_book([order_id])
    order, algo = book.orders[order_id], book.algos.get(order_id)
    if algo is None or algo.state == Algo.State.WAITING:
        raise Conflict("not_worked", "The order is not worked in slices, or not yet.")
    if order.status in CLOSED:
        raise Conflict("order_closed", "The order is closed.")
    if algo.state == Algo.State.OVER or order.next_terms:
        raise Conflict("change_pending", "A cancel or replace is on its way; wait for its answer.")
    if algo.state == state:
        return order
    algo.state, algo.refusals = state, 0
    book.touched_algos.add(order_id)
    tell_progress(book, order_id, why=None)
    if cancel_working:
        _cancel_working(book, order_id, at)
    refold(book, order_id, at=at)
    entries = write(book, kinds={order_id: "order.paused" if state == Algo.State.PAUSED else "order.resumed"})
    risk.resize({order_id: book.may_fill(order_id)})
    journal.append(entries, actor=actor, at=at)
    urgent = bool(book.new_submissions)
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes, urgent=urgent))
    return order
