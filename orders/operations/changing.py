"""Cancel and replace: requests to brokers, each with a submission of its own."""

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from brokers.adapters.port import Capabilities, ReplaceOrder
from oms.journal import operations as journal
from oms.journal.domain import Entry
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO
from oms.kernel.errors import Conflict, Invalid, Refused
from oms.kernel.ids import broker_client_id, uuid7
from oms.kernel.reasons import Reason
from oms.runtime import doorbell
from oms.runtime.transactions import after_commit, in_transaction
from orders.domain.groups import FOLLOWS, Role
from orders.domain.tickets import NEEDS_LIMIT, NEEDS_STOP, Terms
from orders.domain.triggers import STOPS, WORKS_FOR
from orders.models import Algo, ChildOrder, GroupLeg, Order, Submission, Trigger
from orders.operations.placing import part_of
from orders.operations.recording import (
    Book,
    close_here,
    external_account,
    lock_book,
    refold,
    stop,
    submit,
    submit_cancel,
    withdraw,
    write,
)
from orders.operations.reporting import cancel_child, settle_child
from orders.operations.slicing import take_terms
from orders.operations.watching import waits_until
from orders.queries import Names, resting
from orders.states import BLOCK, CLOSED, OPEN, OrdStatus, SubmissionState
from portfolio.models import Account
from risk import operations as risk
from risk.domain.intents import Intent, Verdict

CANCELS_MAX = 1_000


def cancel(order_id: UUID, *, actor: Actor, at: datetime, reason: str = "") -> Order:
    """Ask for the end of one order; return it as it stands. A second ask sends nothing.

    Raises `Conflict`: order_closed, or change_pending where a replace is undecided and its broker takes nothing else then.
    """
    order, changed = cancel_batch([order_id], actor=actor, at=at, reason=reason, waits=False)
    if not changed and order[0].status in CLOSED:
        raise Conflict("order_closed", "The order is closed; there is nothing to cancel.")
    return order[0]


@in_transaction
def cancel_batch(
    order_ids: Sequence[UUID], *, actor: Actor, at: datetime, reason: str, waits: bool = True
) -> tuple[list[Order], list[UUID]]:
    """Cancel a batch: what no broker has seen ends at once, elsewhere a cancel is sent; closed orders stay.

    Where a broker refuses a cancel because it is busy with a replace, it is asked again; without `waits` such an order
    raises `Conflict` instead.
    """
    return cancel_locked(order_ids, actor=actor, at=at, reason=reason, waits=waits)


def cancel_locked(
    order_ids: Sequence[UUID], *, actor: Actor, at: datetime, reason: str, waits: bool = True
) -> tuple[list[Order], list[UUID]]:
    """Cancel inside the caller's transaction; see `cancel_batch`."""
    book = lock_book(order_ids)
    changed: list[UUID] = []
    held: list[UUID] = []
    for order_id in sorted(book.orders):
        order = book.orders[order_id]
        if order.status in CLOSED or order.status == OrdStatus.PENDING_CANCEL:
            continue
        if not waits and any(_is_busy(book, c) for c in book.children_of(order_id)):
            raise Conflict("change_pending", "A replace is on its way; wait for its answer.")
        order.reason, order.reason_detail = Reason.CANCEL_REQUESTED, reason[:200]
        order.next_terms = None
        changed.append(order_id)
        if order.status == OrdStatus.HELD:
            held.append(order_id)
        stop(book, order_id, OrdStatus.CANCELED)
        if not book.children_of(order_id):
            close_here(book, order, OrdStatus.CANCELED, Reason.CANCEL_REQUESTED, reason, at)
            continue
        for child in book.children_of(order_id):
            if child.status not in CLOSED:
                cancel_child(book, child, at)
        refold(book, order_id, at=at)
    risk.withdraw(held)
    entries = write(book, kinds=dict.fromkeys(changed, "order.cancel_requested"))
    risk.resize({i: book.may_fill(i) for i in changed})
    journal.append(entries, actor=actor, at=at)
    _ring(book)
    return [book.orders[i] for i in order_ids if i in book.orders], changed


def cancel_group(order_id: UUID, *, actor: Actor, at: datetime, reason: str = "") -> int:
    """Ask for the end of every open order of the group that an order belongs to; return how many were asked to end.

    Raises `Conflict` (no_group, order_closed).
    """
    place = GroupLeg.objects.filter(pk=order_id).first()
    if place is None:
        raise Conflict("no_group", "The order belongs to no group; cancel it by itself.")
    members = GroupLeg.objects.filter(group_id=place.group_id).exclude(role=Role.FLATTEN)
    _, changed = cancel_batch(list(members.values_list("pk", flat=True)), actor=actor, at=at, reason=reason)
    if not changed:
        raise Conflict("order_closed", "Nothing of the group is open; there is nothing to cancel.")
    return len(changed)


def cancel_matching(
    account_ids: Sequence[int],
    *,
    actor: Actor,
    at: datetime,
    symbol: str = "",
    strategy: str = "",
    side: str = "",
    reason: str = "",
) -> int:
    """Cancel every open order of the accounts that fits; return how many were asked to end."""
    rows = Order.objects.filter(account_id__in=account_ids, status__in=sorted(OPEN - {OrdStatus.PENDING_CANCEL}))
    if symbol:
        rows = rows.filter(instrument__symbol=symbol)
    if strategy:
        rows = rows.filter(strategy__code=strategy)
    if side:
        rows = rows.filter(side=side)
    ids = list(rows.order_by("id").values_list("id", flat=True))
    for start in range(0, len(ids), CANCELS_MAX):
        cancel_batch(ids[start : start + CANCELS_MAX], actor=actor, at=at, reason=reason)
    return len(ids)


def _is_busy(book: Book, child: ChildOrder) -> bool:
    """Tell whether a broker order has a replace under way that its broker must answer before anything else."""
    sent = [s for s in book.pending(child, Submission.Kind.REPLACE) if s.state != SubmissionState.PREPARED]
    return bool(sent) and not abilities_of(child).overlapping_requests


def abilities_of(child: ChildOrder) -> Capabilities:
    broker = brokers.brokers()[child.broker_id]
    return capabilities_of(broker.adapter, broker.settings)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The terms that an order shall have, whole."""

    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str

    def as_json(self) -> dict[str, str | None]:
        return {
            "quantity": decimals.text(self.quantity),
            "limit_price": decimals.text_or_none(self.limit_price),
            "stop_price": decimals.text_or_none(self.stop_price),
            "time_in_force": self.time_in_force,
        }


@in_transaction
def replace(order_id: UUID, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Ask the broker to change an order's terms; the order keeps its ids and changes when the broker says so.

    Until then the hold covers the worst of old and new. A broker that takes no replaces is asked to cancel instead, where
    its settings allow that (`cancel_and_new`): the rest is asked for anew once the cancel is confirmed. Raises `Conflict`
    (version_conflict, order_closed, change_pending, not_acknowledged, not_replaceable), `Invalid` for terms the order
    can't have, `Refused` when risk says no.
    """
    return replace_locked(order_id, terms, actor=actor, at=at)


def replace_locked(order_id: UUID, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Replace inside the caller's transaction; see `replace`."""
    book = lock_book([order_id])
    order = book.orders[order_id]
    role = order.group_told.get("role")
    if role not in (None, Role.PARENT) and terms.quantity not in (None, order.quantity):
        raise Invalid("follows_group", "Its quantity follows the other orders of its group.", field="quantity")
    if order.status == OrdStatus.HELD:
        if role not in FOLLOWS:
            raise Conflict("not_replaceable", "The order is held as it is; cancel it and place a new one.")
        return _replace_held(book, order, terms, actor=actor, at=at)
    if order.status not in CLOSED and order_id in book.algos:
        return _replace_worked(book, order, terms, actor=actor, at=at)
    if order.status not in CLOSED and not book.children_of(order_id):
        return _replace_waiting(book, order, terms, actor=actor, at=at)
    if order.algo:
        raise Conflict("order_closed", "The order is closed; place a new one.")
    child = _replaceable(book, order, terms)
    _check_terms(order, terms)
    wanted = _wanted(book, order, child, terms, at)
    verdict = _judged(order, wanted, actor, at)
    if abilities_of(child).replace:
        submit_replace(book, order, child, wanted, verdict.unit_amount, at)
    else:
        order.next_terms = wanted.as_json() | {"unit_amount": decimals.text_or_none(verdict.unit_amount)}
        submit_cancel(book, child, at)
    settle_child(book, child, at=at)
    refold(book, order_id, at=at)
    entries = write(book, kinds={order_id: "order.replace_requested"})
    risk.resize({order_id: book.may_fill(order_id)})
    journal.append([_with_checks(e, verdict) for e in entries], actor=actor, at=at)
    _ring(book)
    return order


def _judged(order: Order, wanted: Wanted, actor: Actor, at: datetime) -> Verdict:
    verdict = risk.recheck(
        _intent(order, actor, wanted.quantity, wanted.limit_price, wanted.stop_price),
        open_quantity=max(wanted.quantity - order.filled_quantity, order.leaves_quantity, ZERO),
        at=at,
        resting=resting,
    )
    if not verdict.approved:
        raise Refused(str(verdict.reason), verdict.detail or "Risk refused the change; the order stands as it was.")
    return verdict


def _replace_waiting(book: Book, order: Order, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Change an order that waits at the desk: at once, as nobody else has to agree."""
    _check_version(order, terms)
    _check_terms(order, terms)
    wanted = Wanted(
        terms.quantity or order.quantity, terms.limit_price or order.limit_price, terms.stop_price or order.stop_price,
        terms.time_in_force or order.time_in_force,
    )  # fmt: skip
    verdict = _judged(order, wanted, actor, at)
    for name in _TERMS:
        setattr(order, name, getattr(wanted, name))
    trigger = Trigger.objects.select_for_update().get(pk=order.id)
    if trigger.limit_offset is not None and terms.limit_price is not None and trigger.price is not None:
        trigger.limit_offset = terms.limit_price - trigger.price
    if terms.stop_price is not None:
        trigger.price = terms.stop_price
    if terms.time_in_force:
        trigger.valid_until = waits_until(order, trigger.starts_at, at)
    trigger.save(update_fields=["limit_offset", "price", "valid_until"])
    refold(book, order.id, at=at)
    entries = write(book, kinds={order.id: "order.replaced"})
    risk.resize({order.id: order.leaves_quantity}, decided={order.id: risk.Decided(verdict.unit_amount, [])})
    journal.append([_with_checks(e, verdict) for e in entries], actor=actor, at=at)
    return order


def _replace_worked(book: Book, order: Order, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Change an order that is worked in slices: at once where no slice works against the new terms, else once those are canceled."""
    _check_version(order, terms)
    if order.next_terms or book.algos[order.id].state == Algo.State.OVER:
        raise Conflict("change_pending", "A cancel or replace is on its way; wait for its answer.")
    _check_terms(order, terms)
    wanted = Wanted(
        terms.quantity or order.quantity, terms.limit_price or order.limit_price, None,
        terms.time_in_force or order.time_in_force,
    )  # fmt: skip
    verdict = _judged(order, wanted, actor, at)
    working = book.working(order.id)
    fits = wanted.quantity >= order.filled_quantity + working and wanted.limit_price == order.limit_price
    order.next_terms = wanted.as_json() | {"unit_amount": decimals.text_or_none(verdict.unit_amount)}
    decided = {order.id: risk.Decided(verdict.unit_amount, [])} if fits or not working else {}
    if decided:
        take_terms(book, order, at=at)
    else:
        for child in book.children_of(order.id):
            if child.leaves_quantity > 0:
                cancel_child(book, child, at)
    refold(book, order.id, at=at)
    entries = write(book, kinds={order.id: "order.replaced" if decided else "order.replace_requested"})
    risk.resize({order.id: book.may_fill(order.id)}, decided=decided)
    journal.append([_with_checks(e, verdict) for e in entries], actor=actor, at=at)
    _ring(book)
    return order


def _replace_held(book: Book, order: Order, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Change an order that waits for fills of another: risk judges it as it then stands, when it begins."""
    _check_version(order, terms)
    _check_terms(order, terms)
    for name in ("limit_price", "stop_price", "time_in_force"):
        setattr(order, name, getattr(terms, name) or getattr(order, name))
    order.updated_at = at
    book.touched[order.id] = []
    journal.append(write(book, kinds={order.id: "order.replaced"}), actor=actor, at=at)
    return order


def _with_checks(entry: Entry, verdict: Verdict) -> Entry:
    """Return the event of the request with the numbers that risk let it pass by."""
    return dataclasses.replace(entry, body=f'{entry.body[:-1]},"checks":{json.dumps(verdict.checks)}}}')


def _wanted(book: Book, order: Order, child: ChildOrder, terms: Terms, at: datetime) -> Wanted:
    """Return the new terms over those asked for last, or in force; a replace that was not sent yet gives way to them."""
    base: dict[str, Any] = {n: getattr(order, n) for n in _TERMS}
    pending = book.pending(child, Submission.Kind.REPLACE)
    if pending:
        message = pending[-1].message
        base = {n: message[n] for n in _TERMS}
        base["quantity"] = order.quantity + Decimal(message["quantity"]) - child.quantity
        for name in ("limit_price", "stop_price"):
            base[name] = None if base[name] is None else Decimal(base[name])
    if pending and pending[-1].state == SubmissionState.PREPARED:
        withdraw(book, pending[-1], at, "overtaken before it was sent")
    return Wanted(
        quantity=terms.quantity if terms.quantity is not None else base["quantity"],
        limit_price=terms.limit_price if terms.limit_price is not None else base["limit_price"],
        stop_price=terms.stop_price if terms.stop_price is not None else base["stop_price"],
        time_in_force=terms.time_in_force or base["time_in_force"],
    )


_TERMS = ("quantity", "limit_price", "stop_price", "time_in_force")


def submit_replace(
    book: Book, order: Order, child: ChildOrder, wanted: Wanted, unit_amount: Decimal | None, at: datetime
) -> None:
    identifier = uuid7()
    message = ReplaceOrder(
        client_order_id=broker_client_id(identifier),
        orig_client_order_id=book.newest_name(child),
        broker_order_id=child.broker_order_id or None,
        account=external_account(book, child),
        symbol=brokers.listings()[(child.broker_id, order.instrument_id)].symbol,
        side=order.side,
        quantity=child.quantity + wanted.quantity - order.quantity,
        order_type=order.working_type,
        time_in_force=WORKS_FOR.get(wanted.time_in_force, wanted.time_in_force),
        limit_price=wanted.limit_price,
        stop_price=wanted.stop_price if order.working_type in STOPS else None,
        expire_at=order.expire_at,
        display_quantity=part_of(order, "display_quantity", wanted.quantity),
        min_quantity=part_of(order, "min_quantity", wanted.quantity),
    )
    submit(
        book, child, Submission.Kind.REPLACE, identifier, asdict(message), at, reduces=False, unit_amount=unit_amount
    )


def _replaceable(book: Book, order: Order, terms: Terms) -> ChildOrder:
    """Return the one broker order that a replace would change."""
    _check_version(order, terms)
    child = _to_reopen(book, order, terms) if order.status in CLOSED else _working(book, order)
    broker, abilities = brokers.brokers()[child.broker_id], abilities_of(child)
    changing = book.pending(child, Submission.Kind.CANCEL) or order.next_terms
    sent = [s for s in book.pending(child, Submission.Kind.REPLACE) if s.state != SubmissionState.PREPARED]
    if order.next_terms or ((changing or sent) and not abilities.overlapping_requests):
        raise Conflict("change_pending", "A cancel or replace is on its way; wait for its answer.")
    if not child.broker_order_id:
        raise Conflict("not_acknowledged", "The broker has not taken the order yet; ask again in a moment.")
    if not abilities.replace and (not broker.settings.get("cancel_and_new") or order.status in CLOSED):
        raise Conflict("not_replaceable", f"{broker.code} takes no replaces; cancel the order and place a new one.")
    return child


def _check_version(order: Order, terms: Terms) -> None:
    if terms.expected_version is not None and terms.expected_version != order.version:
        raise Conflict("version_conflict", f"The order has version {order.version} now; look at it and ask again.")


def _working(book: Book, order: Order) -> ChildOrder:
    working = [c for c in book.children_of(order.id) if c.status not in CLOSED]
    if len(working) != 1:
        raise Conflict(
            "not_replaceable",
            "The order works at several brokers, or at none; cancel it and place a new one.",
        )
    return working[0]


def _to_reopen(book: Book, order: Order, terms: Terms) -> ChildOrder:
    """Return the broker order of a filled order that a replace to more may reopen (FIX C.1.c)."""
    filled = [c for c in book.children_of(order.id) if c.status == OrdStatus.FILLED and not c.ended_as]
    grows = terms.quantity is not None and terms.quantity > order.quantity
    if order.status != OrdStatus.FILLED or len(filled) != 1 or not grows or not abilities_of(filled[0]).replace_filled:
        raise Conflict("order_closed", "The order is closed; place a new one.")
    return filled[0]


def _check_terms(order: Order, terms: Terms) -> None:
    instrument = brokers.instruments()[order.instrument_id]
    if terms.quantity is not None and order.origin == BLOCK:
        raise Invalid(
            "not_allowed",
            "The quantity of a block is that of its shares; cancel it and place another.",
            field="quantity",
        )
    if terms.quantity is not None:
        if not decimals.is_multiple(terms.quantity, instrument.lot_size):
            raise Invalid("off_lot", f"Use a multiple of {decimals.text(instrument.lot_size)}.", field="quantity")
        if terms.quantity < order.filled_quantity:
            raise Invalid(
                "below_filled",
                "The quantity is below what is filled; cancel the rest instead.",
                field="quantity",
            )
    for name, price, types in (
        ("limit_price", terms.limit_price, NEEDS_LIMIT),
        ("stop_price", terms.stop_price, NEEDS_STOP),
    ):
        if price is None:
            continue
        if order.order_type not in types:
            raise Invalid("not_allowed", f"A {order.order_type} order has none.", field=name)
        if not decimals.is_multiple(price, instrument.tick_size):
            raise Invalid("off_tick", f"Use a multiple of {decimals.text(instrument.tick_size)}.", field=name)


def _intent(
    order: Order, actor: Actor, quantity: Decimal, limit_price: Decimal | None, stop_price: Decimal | None
) -> Intent:
    account, names = Account.objects.get(pk=order.account_id), Names()
    return Intent(
        order_id=order.id,
        account_id=account.id,
        account_code=account.code,
        base_currency=account.base_currency,
        account_open=account.status == Account.Status.OPEN,
        instrument=brokers.instruments()[order.instrument_id],
        side=order.side,
        quantity=quantity,
        order_type=order.order_type,
        limit_price=limit_price,
        stop_price=stop_price,
        user_id=actor.user_id,
        user_name=actor.name.partition(":")[2],
        strategy_id=order.strategy_id,
        strategy_code=names.strategies[order.strategy_id] if order.strategy_id else "",
        automated=actor.automated,
        directed_broker_code=names.brokers[order.directed_broker_id].code if order.directed_broker_id else None,
        waits=order.status == OrdStatus.NEW and Trigger.objects.filter(pk=order.id, fired_at=None).exists(),
        reduce_only=order.instruction("reduce_only") is not None,
        self_trade=order.instruction("self_trade_prevention") or "",
        covered=order.origin == BLOCK,
    )


def _ring(book: Book) -> None:
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    urgent = any(s.kind == Submission.Kind.CANCEL for s in book.new_submissions)
    after_commit(lambda: doorbell.ring(codes, urgent=urgent))
