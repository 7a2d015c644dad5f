"""Corporate actions as the desk carries them out: the books get them from `portfolio`, what is open is put into their terms.

A split puts quantities and prices into the new units, a distribution lowers limits of buys and stops of sales that last
longer than a day (unless they say `do_not_reduce`), and what trades no longer is canceled. Brokers that restate orders
by themselves (`restates_orders` in their settings) are told nothing; elsewhere what works is canceled and goes out anew.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef
from oms.journal import operations as journal
from oms.kernel import decimals
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO
from oms.kernel.reasons import Reason
from oms.runtime import doorbell, rows, sql
from oms.runtime.transactions import after_commit, in_transaction
from orders.domain import adjusting
from orders.domain.adjusting import Ratio
from orders.domain.standing import Standing
from orders.models import Algo, Block, ChildOrder, Execution, GroupLeg, Order, OrderGroup, Trigger
from orders.operations.changing import cancel_locked
from orders.operations.placing import new_child
from orders.operations.recording import (
    Book,
    close_here,
    external_account,
    lock_accounts,
    lock_book,
    refold,
    submit_cancel,
    withdraw,
    write,
)
from orders.operations.reporting import settle_child
from orders.states import CLOSED, OPEN, OrdStatus, SubmissionState
from portfolio import corporate
from portfolio.domain.families import (
    CASH_DIVIDEND,
    DELISTING,
    MERGER,
    RETURN_OF_CAPITAL,
    REVERSE_SPLIT,
    SPIN_OFF,
    SPLIT,
    STOCK_DIVIDEND,
)
from portfolio.models import CorporateAction
from portfolio.rematching import terms_of
from risk import operations as risk

LASTING = ("gtc", "gtd")
"""Times in force of orders that a distribution lowers: those of one day were priced with it in sight."""
RESTATED = "order.restated"
"""The kind of the event that tells it."""
_UNITS = (SPLIT, REVERSE_SPLIT, STOCK_DIVIDEND)
_LOWERS = (CASH_DIVIDEND, RETURN_OF_CAPITAL, SPIN_OFF)


@in_transaction
def apply(action_id: UUID, *, actor: Actor, at: datetime, cash_in_lieu: Decimal | None = None) -> list[corporate.Due]:
    """Apply a corporate action to the books, and to what is open of its instrument; return what was looked at.

    A repeat changes nothing twice. Raises what `corporate.apply` raises.
    """
    action = corporate.locked(action_id)
    corporate.require_applicable(action, at=at)
    _lock_all(action)
    due = corporate.apply(action_id, actor=actor, at=at, cash_in_lieu=cash_in_lieu)
    _restate(action_id, actor=actor, at=at)
    return due


@in_transaction
def restate(action_id: UUID, *, actor: Actor, at: datetime) -> int:
    """Put what is open into the terms after an action's ex date, once; return how many orders that were."""
    return _restate(action_id, actor=actor, at=at)


def _restate(action_id: UUID, *, actor: Actor, at: datetime) -> int:
    action = corporate.locked(action_id)
    if action.orders_restated_at is not None or at.date() < action.ex_date or action.state == action.State.REVERSED:
        return 0
    ids = _lock_all(action)
    action.orders_restated_at = at
    action.save(update_fields=["orders_restated_at"])
    if action.type in (DELISTING, MERGER):
        cancel_locked(ids, actor=actor, at=at, reason=f"{action.type} on {action.ex_date}")
        return len(ids)
    if action.type in _UNITS and action.target_id is None:
        return _in_new_units(action, ids, actor=actor, at=at)
    if action.type in _LOWERS:
        return _lowered(action, ids, actor=actor, at=at)
    return 0


def due_to_restate(until: Any) -> list[CorporateAction]:
    """Return the actions whose ex date has come and whose orders stand as they were, the earliest first."""
    rows_ = CorporateAction.objects.filter(orders_restated_at=None, ex_date__lte=until, type__in=_LOWERS)
    return list(rows_.exclude(state=CorporateAction.State.REVERSED).order_by("ex_date", "id"))


def _lock_all(action: CorporateAction) -> list[UUID]:
    """Lock the accounts that hold or trade the instruments; return the open orders of the one that it is about."""
    wanted = [i for i in (action.instrument_id, action.target_id) if i]
    holders = sql.run("SELECT account_id FROM portfolio_position WHERE instrument_id = ANY(%s)", [wanted]).fetchall()
    statuses = sorted(OPEN - {OrdStatus.PENDING_CANCEL})
    found = Order.objects.filter(instrument_id=action.instrument_id, status__in=statuses)
    traders = set(found.values_list("account_id", flat=True))
    lock_accounts({a for (a,) in holders} | traders)
    return list(found.order_by("id").values_list("id", flat=True))


def _in_new_units(action: CorporateAction, ids: Sequence[UUID], *, actor: Actor, at: datetime) -> int:
    ratio, instrument = terms_of(action, "").units_ratio, brokers.instruments()[action.instrument_id]
    planned = sorted({*_planned(ids), *_too_small(ids, ratio, instrument)})
    cancel_locked(planned, actor=actor, at=at, reason=f"{action.type} on {action.ex_date}")
    ids = sorted({*ids, *_siblings(ids)} - set(planned))
    book, triggers = lock_book(ids), _triggers(ids)
    legs = {leg.order_id: leg for leg in GroupLeg.objects.select_for_update().filter(order_id__in=ids).order_by("pk")}
    held = [o.id for o in book.orders.values() if o.status == OrdStatus.HELD and o.id not in legs]
    begun = datetime.combine(action.ex_date, datetime.min.time(), UTC)
    for order_id in sorted(book.orders):
        order = book.orders[order_id]
        if _restated_by_broker(book, order):
            continue
        if order_id in held:  # what somebody is asked to approve must stay as it was shown
            close_here(book, order, OrdStatus.CANCELED, Reason.CORPORATE_ACTION, "Its terms are no longer true.", at)
            continue
        _split_order(book, order, ratio, instrument, begun, at)
        if trigger := triggers.get(order_id):
            _split_trigger(trigger, ratio, order.side, instrument)
        if leg := legs.get(order_id):
            leg.quantity = max(adjusting.scaled(leg.quantity, ratio), order.filled_quantity)
    sql.update(list(triggers.values()), ("price", "trail_amount", "watermark", "limit_offset"))
    sql.update(list(legs.values()), ("quantity",))
    OrderGroup.objects.filter(legs__in=legs.values()).update(due_at=at)
    risk.withdraw(held)
    decided = risk.rescaled(list(book.touched), ratio)
    return _write(book, action, decided, actor=actor, at=at)


def _planned(ids: Sequence[UUID]) -> list[UUID]:
    """Return the orders that are worked or allocated by a plan in the old units: they end, and are asked for anew."""
    worked = Algo.objects.filter(order_id__in=ids).values_list("order_id", flat=True)
    shared = Block.objects.filter(order_id__in=ids).values_list("order_id", flat=True)
    return sorted({*worked, *shared})


def _too_small(ids: Sequence[UUID], ratio: Ratio, instrument: InstrumentRef) -> list[UUID]:
    """Return the orders at brokers of which less than a lot would be left."""
    found = Order.objects.filter(id__in=ids, children__leaves_quantity__gt=0).distinct()
    left = {o.id: adjusting.scaled(o.quantity - o.filled_quantity, ratio) for o in found}
    return [pk for pk, quantity in left.items() if decimals.floor_to(quantity, instrument.lot_size) <= ZERO]


def _siblings(ids: Sequence[UUID]) -> list[UUID]:
    """Return the orders that share a group with these, done ones too: what an exit follows counts in the same units."""
    groups = GroupLeg.objects.filter(order_id__in=ids).values("group_id")
    return list(GroupLeg.objects.filter(group_id__in=groups).values_list("order_id", flat=True))


def _restated_by_broker(book: Book, order: Order) -> bool:
    """Tell whether a broker has put the order into new units already: its word came first."""
    return any(Standing.read(c.standing).split for c in book.children_of(order.id))


def _split_order(
    book: Book, order: Order, ratio: Ratio, instrument: InstrumentRef, begun: datetime, at: datetime
) -> None:
    before = adjusting.Terms(order.quantity, order.filled_quantity, order.limit_price, order.stop_price)
    after = adjusting.split(before, ratio, side=order.side, tick=instrument.tick_size, lot=instrument.lot_size)
    children, closed = book.children_of(order.id), order.status in CLOSED
    if after.leaves <= 0 and not children and not closed:
        close_here(book, order, OrdStatus.CANCELED, Reason.CORPORATE_ACTION, "Less than a lot is left of it.", at)
        return
    order.limit_price, order.stop_price = after.limit_price, after.stop_price
    if shown := order.instruction("display_quantity"):
        scaled = adjusting.scaled(Decimal(shown), ratio)
        order.instructions = {**(order.instructions or {}), "display_quantity": decimals.text(scaled)}
    for child in children:
        _split_child(book, child, ratio, instrument, begun, at)
    filled = decimals.total(c.filled_quantity for c in children)
    total = adjusting.scaled(order.quantity, ratio) if closed else filled + max(after.leaves, ZERO)
    order.quantity = max(total, filled)
    if children and not closed:
        _send_anew(book, order, after.leaves, at)
    refold(book, order.id, at=at)


def _split_child(
    book: Book, child: ChildOrder, ratio: Ratio, instrument: InstrumentRef, begun: datetime, at: datetime
) -> None:
    """Put a broker order into new units: what filled before counts in them, its value stays."""
    order, standing = book.orders[child.order_id], Standing.read(child.standing)
    standing.split, standing.split_at = (Decimal(ratio[0]), Decimal(ratio[1])), begun
    trades = list(rows.load(Execution, "WHERE t.child_id = %s", [child.id]))
    undone = {e.ref_id for e in trades}
    live = [e for e in trades if e.kind != Execution.Kind.BUST and e.id not in undone]
    child.filled_quantity = decimals.total(standing.counted(e.quantity, e.executed_at) for e in live)
    total = adjusting.scaled(child.quantity, ratio)
    left = max(total - child.filled_quantity, ZERO)
    whole = child.filled_quantity + decimals.floor_to(left, instrument.lot_size)
    child.quantity = max(total, child.filled_quantity) if child.status in CLOSED else whole
    for name in ("limit_price", "stop_price"):
        price = adjusting.price_after(getattr(child, name), ratio, side=order.side, tick=instrument.tick_size)
        setattr(child, name, price)
    child.standing = standing.as_json()
    settle_child(book, child, at=at)


def _send_anew(book: Book, order: Order, leaves: Decimal, at: datetime) -> None:
    """Let what works at brokers that don't restate orders by themselves end there, and go out under the new terms."""
    working = [c for c in book.children_of(order.id) if c.status not in CLOSED and not _restates(c)]
    if not working:
        return
    for child in working:
        for submission in book.submissions.get(child.id, []):
            if submission.state == SubmissionState.PREPARED:
                withdraw(book, submission, at, "overtaken by a corporate action")
                if submission.kind == submission.Kind.NEW:
                    child.ended_as = OrdStatus.CANCELED
        if not child.ended_as and not book.pending(child, "cancel"):
            submit_cancel(book, child, at)
        settle_child(book, child, at=at)
    if all(c.ended_as for c in working) and order.id in book.algos:
        return  # what they were for is the order's again, and the next slices ask for it
    if all(c.ended_as for c in working):
        last = working[-1]
        if leaves > 0:
            account = (last.broker_account_id, external_account(book, last))
            book.add_child(*new_child(order, last.broker_id, account, leaves, at))
        return
    order.next_terms = {
        "quantity": decimals.text(order.quantity), "limit_price": decimals.text_or_none(order.limit_price),
        "stop_price": decimals.text_or_none(order.stop_price), "time_in_force": order.time_in_force, "unit_amount": None,
    }  # fmt: skip


def _restates(child: ChildOrder) -> bool:
    return bool(brokers.brokers()[child.broker_id].settings.get("restates_orders"))


def _triggers(ids: Sequence[UUID]) -> dict[UUID, Trigger]:
    found = rows.load(
        Trigger, "WHERE t.order_id = ANY(%s) AND t.fired_at IS NULL ORDER BY t.order_id FOR NO KEY UPDATE",
        [sql.uuids(sorted(ids))],
    )  # fmt: skip
    return {t.order_id: t for t in found}


def _split_trigger(trigger: Trigger, ratio: Ratio, side: str, instrument: InstrumentRef) -> None:
    trigger.price = adjusting.price_after(trigger.price, ratio, side=side, tick=instrument.tick_size)
    for name in ("trail_amount", "watermark", "limit_offset"):
        value = getattr(trigger, name)
        setattr(trigger, name, None if value is None else adjusting.scaled(value, (ratio[1], ratio[0])))


def _lowered(action: CorporateAction, ids: Sequence[UUID], *, actor: Actor, at: datetime) -> int:
    """Lower what a distribution lowers: by the cash of a unit, or by the worth of what is spun off of one."""
    instrument, cash = brokers.instruments()[action.instrument_id], action.cash
    if action.type == SPIN_OFF and action.price and action.ratio_new and action.ratio_old:
        cash = adjusting.scaled(action.price, (action.ratio_new, action.ratio_old))
    if not cash or action.currency != instrument.currency:
        return 0
    book, triggers = lock_book(ids), _triggers(ids)
    for order_id in sorted(book.orders):
        order = book.orders[order_id]
        if order.status in CLOSED or order.time_in_force not in LASTING or order.instruction("do_not_reduce"):
            continue
        terms = {
            name: adjusting.lowered(price, cash, side=order.side, stop=name == "stop_price", tick=instrument.tick_size)
            for name in ("limit_price", "stop_price")
            if (price := getattr(order, name)) is not None
        }
        if all(getattr(order, name) == price for name, price in terms.items()):
            continue
        if any(price <= ZERO for price in terms.values()):
            continue  # a price that would be none stays: nobody buys at less than nothing
        for row in (order, *(c for c in book.children_of(order_id) if c.status not in CLOSED)):
            for name, price in terms.items():
                if getattr(row, name) is not None:
                    setattr(row, name, price)
            if isinstance(row, ChildOrder):
                settle_child(book, row, at=at)
        if (trigger := triggers.get(order_id)) and trigger.price is not None and "stop_price" in terms:
            trigger.price = terms["stop_price"]
        _send_anew(book, order, order.quantity - order.filled_quantity, at)
        refold(book, order_id, at=at)
    sql.update(list(triggers.values()), ("price",))
    return _write(book, action, None, actor=actor, at=at)


def _write(
    book: Book, action: CorporateAction, decided: dict[UUID, risk.Decided] | None, *, actor: Actor, at: datetime
) -> int:
    restated = [i for i in book.touched if book.orders[i].status not in CLOSED]
    entries = write(book, kinds=dict.fromkeys(restated, RESTATED))
    risk.resize({i: book.may_fill(i) for i in book.touched}, decided=decided)
    journal.append(entries, actor=actor, at=at)
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes, urgent=True))
    return len(restated)


__all__ = ["RESTATED", "apply", "due_to_restate", "restate"]
