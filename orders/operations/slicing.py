"""Orders worked in slices: how the work begins, what a slice that nobody took means, and how new terms are taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog

from brokers import queries as brokers
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.ids import uuid7
from oms.kernel.json import rfc3339
from oms.runtime import rows, sql
from orders.domain.algos import AlgoTerms, read_algo
from orders.domain.schedules import (
    Share,
    between,
    by_volumes,
    display_of,
    evenly,
    front_loaded,
    kappa_of,
    plan,
    rescaled,
    u_shaped,
)
from orders.domain.tickets import Ticket
from orders.domain.waiting import valid_until
from orders.models import Algo, AlgoSlice, Order
from orders.operations.recording import Book, tell_progress
from orders.states import OrdStatus

REFUSALS_MAX = 5
"""So many slices in a row that nobody took pause the work: a person looks first."""
WAITS = (AlgoSlice.State.PLANNED, AlgoSlice.State.CLAIMED)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """The work on one order, with the slices planned for it."""

    algo: Algo
    slices: list[AlgoSlice]


def working_instructions(ticket: Ticket, terms: AlgoTerms) -> dict[str, Any]:
    """Return a ticket's instructions with the terms that it is worked by, and what an iceberg shows."""
    told = (ticket.instructions() or {}) | {"algo": terms.as_json()}
    if terms.name == "iceberg" and terms.slices:
        lot = brokers.instruments_by_symbol()[ticket.symbol].lot_size
        told["display_quantity"] = decimals.text(display_of(ticket.quantity, terms.slices, lot))
    return told


def begin(order: Order, terms: AlgoTerms, *, stop_at: datetime | None, at: datetime) -> Work:
    """Return the work on an order that is being placed, and tell it in the order; of one that is held nothing is planned."""
    held = order.status == OrdStatus.HELD
    algo = rows.make(
        Algo,
        order_id=order.id,
        name=terms.name,
        state=Algo.State.WAITING if held else Algo.State.WORKING,
        end_at=terms.end_at,
        stop_at=stop_at,
    )
    slices = [] if held else _planned(order, terms, at)
    first = rfc3339(slices[0].due_at) if slices else None
    order.instructions = (order.instructions or {}) | {
        "progress": {
            "state": str(algo.state), "slices_sent": 0, "slices_left": len(slices), "next_slice_at": first, "working_quantity": "0",
        }
    }  # fmt: skip
    return Work(algo, slices)


def begin_released(book: Book, order: Order, at: datetime) -> None:
    """Begin the work on an order that was held and may go now; what its start should have been is now."""
    algo, terms = book.algos[order.id], read_algo(order.algo or {})
    algo.state = Algo.State.WORKING
    terms = replace(terms, start_at=max(terms.start_at or at, at))
    slices = _planned(order, terms, at)
    sql.insert(slices)
    book.touched_algos.add(order.id)
    first = rfc3339(slices[0].due_at) if slices else None
    tell_progress(book, order.id, slices_left=len(slices), next_slice_at=first)


def _planned(order: Order, terms: AlgoTerms, at: datetime) -> list[AlgoSlice]:
    """Return the slices known from the start; none where the time is over already: the end is due then."""
    if terms.end_at is not None and terms.end_at <= at:
        return []
    lot = brokers.instruments()[order.instrument_id].lot_size
    found = plan(terms, order.quantity, lot, _shape(order, terms))
    return [new_slice(order.id, s.number, s.due_at, s.quantity) for s in found]


def new_slice(order_id: UUID, number: int, due_at: datetime, quantity: Decimal) -> AlgoSlice:
    """Return a slice that is planned."""
    return rows.make(
        AlgoSlice, id=uuid7(), order_id=order_id, number=number, due_at=due_at, planned_quantity=quantity,
    )  # fmt: skip


def _shape(order: Order, terms: AlgoTerms) -> Share:
    """Return how the work is spread over the time."""
    if terms.name == "is":
        return front_loaded(kappa_of(terms.urgency or ZERO))
    if terms.name != "vwap" or terms.start_at is None or terms.end_at is None:
        return evenly
    volumes = brokers.usual_volumes(order.instrument_id, terms.start_at, terms.end_at)
    if volumes:
        return by_volumes(volumes)
    hours = brokers.hours(order.instrument_id)
    closes = hours.end_of_session(terms.start_at) if hours else None
    if hours is None or closes is None:
        return u_shaped  # no session to be a part of: the order's own time is one
    opens = hours.start_of_session(terms.start_at) or terms.start_at
    first, last = (_fraction(t - opens, closes - opens) for t in (terms.start_at, terms.end_at))
    return between(u_shaped, first, last)


def _fraction(part: timedelta, whole: timedelta) -> Decimal:
    return min(max(Decimal(repr(part / whole)), ZERO), Decimal(1))


# ---------------------------------------------------------------- as brokers answer


def note_refused(book: Book, order_id: UUID, detail: str) -> None:
    """Count a slice that nobody took: its quantity is the order's again; too many in a row pause the work."""
    algo = book.algos.get(order_id)
    if algo is None or algo.state != Algo.State.WORKING:
        return
    algo.refusals += 1
    book.touched_algos.add(order_id)
    if algo.refusals >= REFUSALS_MAX:
        log.error("algo_paused", order=str(order_id), refusals=algo.refusals, detail=detail)
        algo.state = Algo.State.PAUSED
        tell_progress(book, order_id, why=f"{algo.refusals} slices in a row were not taken: {detail}"[:200])


def note_taken(book: Book, order_id: UUID) -> None:
    """Take note that a slice was filled, if only in part: those refused before it don't count any more."""
    algo = book.algos.get(order_id)
    if algo is not None and algo.refusals:
        algo.refusals = 0
        book.touched_algos.add(order_id)


def planned_slices(order_ids: Sequence[UUID]) -> dict[UUID, list[AlgoSlice]]:
    """Lock and return the slices of orders that are not decided yet, by order and number."""
    found: dict[UUID, list[AlgoSlice]] = {}
    for row in rows.load(
        AlgoSlice,
        "WHERE t.order_id = ANY(%s) AND t.state IN ('planned', 'claimed') ORDER BY t.order_id, t.number FOR NO KEY UPDATE",
        [sql.uuids(order_ids)],
    ):
        found.setdefault(row.order_id, []).append(row)
    return found


def take_terms(book: Book, order: Order, *, at: datetime) -> None:
    """Put the terms that were asked for in force; what is filled already is the least that an order can be for."""
    wanted: dict[str, Any] = order.next_terms or {}
    order.next_terms = None
    filled = decimals.total(c.filled_quantity for c in book.children_of(order.id))
    order.quantity = max(Decimal(wanted["quantity"]), filled)
    order.limit_price = None if wanted["limit_price"] is None else Decimal(wanted["limit_price"])
    if order.time_in_force != wanted["time_in_force"]:
        order.time_in_force = wanted["time_in_force"]
        closes_at = brokers.session_end(order.instrument_id, at)
        algo = book.algos[order.id]
        algo.stop_at = valid_until("limit", order.time_in_force, order.expire_at, decided_at=at, closes_at=closes_at)
        book.touched_algos.add(order.id)
    plan_anew(book, order.id)


def plan_anew(book: Book, order_id: UUID) -> None:
    """Spread what is neither filled nor working over the slices that are left, in proportion, under terms that just changed."""
    order = book.orders[order_id]
    slices = planned_slices([order_id]).get(order_id, [])
    lot = brokers.instruments()[order.instrument_id].lot_size
    filled = decimals.total(c.filled_quantity for c in book.children_of(order_id))
    remaining = max(order.quantity - filled - book.working(order_id), ZERO)
    for row, quantity in zip(slices, rescaled([s.planned_quantity for s in slices], remaining, lot), strict=True):
        row.planned_quantity = quantity
    sql.update(slices, ["planned_quantity"])
