"""Cancel and replace: requests to brokers, each with a submission of its own."""

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from brokers.adapters.port import ReplaceOrder
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
from orders.domain.tickets import NEEDS_LIMIT, NEEDS_STOP, Terms
from orders.models import ChildOrder, Order, Submission
from orders.operations.recording import (
    Book,
    external_account,
    lock_book,
    refold,
    submit,
    submit_cancel,
    write,
)
from orders.operations.reporting import settle_child
from orders.queries import Names
from orders.states import CLOSED, OPEN, OrdStatus, SubmissionState
from portfolio.models import Account
from risk import operations as risk
from risk.domain.intents import Intent, Verdict

CANCELS_MAX = 1_000


def cancel(order_id: UUID, *, actor: Actor, at: datetime, reason: str = "") -> Order:
    """Ask for the end of one order; return it as it stands. A closed one raises `Conflict`; a second ask sends nothing."""
    order, changed = cancel_batch([order_id], actor=actor, at=at, reason=reason)
    if not changed and order[0].status in CLOSED:
        raise Conflict("order_closed", "The order is closed; there is nothing to cancel.")
    return order[0]


@in_transaction
def cancel_batch(
    order_ids: Sequence[UUID], *, actor: Actor, at: datetime, reason: str
) -> tuple[list[Order], list[UUID]]:
    """Cancel a batch: what no broker has seen ends at once, elsewhere a cancel is sent; closed orders stay."""
    book = lock_book(order_ids)
    changed = []
    for order_id in sorted(book.orders):
        order = book.orders[order_id]
        if order.status in CLOSED or order.status == OrdStatus.PENDING_CANCEL:
            continue
        order.reason, order.reason_detail = Reason.CANCEL_REQUESTED, reason[:200]
        for child in book.children_of(order_id):
            if child.status not in CLOSED:
                _cancel_child(book, child, at)
        refold(book, order_id, at=at)
        changed.append(order_id)
    entries = write(book, kinds=dict.fromkeys(changed, "order.cancel_requested"))
    risk.resize({i: book.may_fill(i) for i in changed})
    journal.append(entries, actor=actor, at=at)
    _ring(book)
    return [book.orders[i] for i in order_ids if i in book.orders], changed


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


def _cancel_child(book: Book, child: ChildOrder, at: datetime) -> None:
    """End what provably is at no broker, ask the broker for the end of the rest; what waits to be sent stays here."""
    unsent = [s for s in book.submissions.get(child.id, []) if s.state == SubmissionState.PREPARED]
    for submission in unsent:
        if submission.kind != Submission.Kind.CANCEL:
            submission.state, submission.resolved_at = SubmissionState.NOT_SENT, at
            submission.detail = "withdrawn before it was sent"
            book.touched_submissions[submission.id] = submission
    if any(s.kind == Submission.Kind.NEW for s in unsent):
        child.ended_as = OrdStatus.CANCELED
    else:
        submit_cancel(book, child, at)
    settle_child(book, child, at=at)


@in_transaction
def replace(order_id: UUID, terms: Terms, *, actor: Actor, at: datetime) -> Order:
    """Ask the broker to change an order's terms; the order keeps its ids and changes when the broker says so.

    Until then the hold covers the worst of old and new. Raises `Conflict` (version_conflict, order_closed,
    change_pending, not_acknowledged), `Invalid` for terms the order can't have, `Refused` when risk says no.
    """
    book = lock_book([order_id])
    order = book.orders[order_id]
    child = _replaceable(book, order, terms)
    quantity = terms.quantity if terms.quantity is not None else order.quantity
    limit_price = terms.limit_price if terms.limit_price is not None else order.limit_price
    stop_price = terms.stop_price if terms.stop_price is not None else order.stop_price
    _check_terms(order, terms)
    verdict = risk.recheck(
        _intent(order, actor, quantity, limit_price, stop_price),
        open_quantity=max(quantity - order.filled_quantity, order.leaves_quantity, ZERO),
        at=at,
    )
    if not verdict.approved:
        raise Refused(str(verdict.reason), verdict.detail or "Risk refused the change; the order stands as it was.")
    identifier = uuid7()
    message = ReplaceOrder(
        client_order_id=broker_client_id(identifier),
        orig_client_order_id=child.client_order_id,
        broker_order_id=child.broker_order_id or None,
        account=external_account(order, child),
        symbol=brokers.listings()[(child.broker_id, order.instrument_id)].symbol,
        side=order.side,
        quantity=child.quantity + quantity - order.quantity,
        order_type=order.order_type,
        time_in_force=terms.time_in_force or order.time_in_force,
        limit_price=limit_price,
        stop_price=stop_price,
        expire_at=order.expire_at,
    )
    submit(book, child, Submission.Kind.REPLACE, identifier, asdict(message), at, reduces=False)
    settle_child(book, child, at=at)
    refold(book, order_id, at=at)
    entries = write(book, kinds={order_id: "order.replace_requested"})
    journal.append([_with_checks(e, verdict) for e in entries], actor=actor, at=at)
    _ring(book)
    return order


def _with_checks(entry: Entry, verdict: Verdict) -> Entry:
    """Return the event of the request with the numbers that risk let it pass by."""
    return dataclasses.replace(entry, body=f'{entry.body[:-1]},"checks":{json.dumps(verdict.checks)}}}')


def _replaceable(book: Book, order: Order, terms: Terms) -> ChildOrder:
    if terms.expected_version is not None and terms.expected_version != order.version:
        raise Conflict("version_conflict", f"The order has version {order.version} now; look at it and ask again.")
    if order.status in CLOSED:
        raise Conflict("order_closed", "The order is closed; place a new one.")
    working = [c for c in book.children_of(order.id) if c.status not in CLOSED]
    if len(working) != 1:
        raise Conflict(
            "not_replaceable",
            "The order works at several brokers, or at none; cancel it and place a new one.",
        )
    child = working[0]
    if book.pending(child, Submission.Kind.CANCEL) or book.pending(child, Submission.Kind.REPLACE):
        raise Conflict("change_pending", "A cancel or replace is on its way; wait for its answer.")
    if not child.broker_order_id:
        raise Conflict("not_acknowledged", "The broker has not taken the order yet; ask again in a moment.")
    broker = brokers.brokers()[child.broker_id]
    if not capabilities_of(broker.adapter, broker.settings).replace:
        raise Conflict("not_replaceable", f"{broker.code} takes no replaces; cancel the order and place a new one.")
    return child


def _check_terms(order: Order, terms: Terms) -> None:
    instrument = brokers.instruments()[order.instrument_id]
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


def _intent(order: Order, actor: Actor, quantity: object, limit_price: object, stop_price: object) -> Intent:
    account, names = Account.objects.get(pk=order.account_id), Names()
    return Intent(
        order_id=order.id,
        account_id=account.id,
        account_code=account.code,
        base_currency=account.base_currency,
        account_open=account.status == Account.Status.OPEN,
        instrument=brokers.instruments()[order.instrument_id],
        side=order.side,
        quantity=quantity,  # type: ignore[arg-type]
        order_type=order.order_type,
        limit_price=limit_price,  # type: ignore[arg-type]
        stop_price=stop_price,  # type: ignore[arg-type]
        user_id=actor.user_id,
        user_name=actor.name.partition(":")[2],
        strategy_id=order.strategy_id,
        strategy_code=names.strategies[order.strategy_id] if order.strategy_id else "",
        automated=actor.automated,
        directed_broker_code=names.brokers[order.directed_broker_id].code if order.directed_broker_id else None,
    )


def _ring(book: Book) -> None:
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes))
