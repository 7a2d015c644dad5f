"""What ops enter by hand, carried out when a second of them approves: busts, corrections, trades done elsewhere.

Risk keeps what waits (`risk.models.Approval`); what an approval then changes is changed here, in the decision's own
transaction. Facts are recorded whatever the limits say, as if a broker had reported them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters.port import FeeItem, Report, ReportKind
from brokers.domain.fees import NOTHING, Done, charge, needs_month
from brokers.domain.reference import InstrumentRef
from oms.journal import operations as journal
from oms.kernel import decimals
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, InvalidFields
from oms.kernel.ids import uuid7
from oms.kernel.json import rfc3339
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.models import ChildOrder, Execution, Order
from orders.operations.recording import Book, lock_accounts, lock_book, refold, write
from orders.operations.releasing import decide_release
from orders.operations.reporting import Fold, fees_in, position_entries, settle_child, total_fees
from orders.states import CLOSED, OrdStatus
from portfolio import operations as portfolio
from portfolio import queries as books
from portfolio.domain.fills import Fill
from portfolio.models import Account, BrokerLink
from risk import operations as risk
from risk.models import Approval
from risk.queries import find_approval

AHEAD_MAX = timedelta(seconds=5)
BUST, CORRECT, REVERSE, BOOK = "bust", "correct", "reverse", "book"


@dataclass(frozen=True, slots=True)
class ManualTrade:
    """A fill done outside of the desk, as ops enter it. Quantity unsigned; fees in the instrument's currency, None: by the
    broker's schedule."""

    broker: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fees: Decimal | None
    executed_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return what the approver says yes to."""
        return {
            "broker": self.broker,
            "symbol": self.symbol,
            "side": self.side,
            "quantity": decimals.text(self.quantity),
            "price": decimals.text(self.price),
            "fees": decimals.text_or_none(self.fees),
            "executed_at": rfc3339(self.executed_at),
        }


# ---------------------------------------------------------------- asking


@in_transaction
def ask_undo(
    execution_id: UUID,
    action: str,
    *,
    quantity: Decimal | None = None,
    price: Decimal | None = None,
    reason: str,
    actor: Actor,
    at: datetime,
) -> Approval:
    """Ask for the bust, correction or reversal of an execution; nothing changes until a second person approves.

    Raises `Conflict` (already_undone, approval_pending), `Invalid` for a correction that the execution can't have.
    """
    execution = Execution.objects.select_related("order__account").get(pk=execution_id)
    lock_accounts([execution.order.account_id])
    _require_live(execution)
    content = {
        "order": str(execution.order_id),
        "execution": str(execution.id),
        "side": execution.side,
        "quantity": decimals.text(execution.quantity),
        "price": decimals.text(execution.price),
        "reason": reason,
    }
    if action == CORRECT:
        _check_terms(execution, quantity, price)
        content["new_quantity"] = decimals.text(execution.quantity if quantity is None else quantity)
        content["new_price"] = decimals.text(execution.price if price is None else price)
    kind = Approval.Kind.TRADE if action == REVERSE else Approval.Kind.EXECUTION
    return risk.ask(kind, execution.id, action, content, actor=actor, at=at, account=execution.order.account)


@in_transaction
def ask_trade(account: str, trade: ManualTrade, *, key: str, actor: Actor, at: datetime) -> Approval:
    """Ask for a trade done elsewhere to be booked; the same key answers with the first approval.

    Raises `InvalidFields` for what no trade can be, `Refused` when the key asked for another one.
    """
    owner = Account.objects.select_for_update(no_key=True).get(code=account)
    content = trade.as_json()
    if known := risk.asked_before(owner, Approval.Kind.TRADE, key, content):
        return known
    _check_trade(owner, trade, at)
    return risk.ask(Approval.Kind.TRADE, uuid7(), BOOK, content, actor=actor, at=at, account=owner, key=key)


def _require_live(execution: Execution) -> None:
    if execution.kind == Execution.Kind.BUST or Execution.objects.filter(ref=execution).exists():
        raise Conflict("already_undone", "This execution was busted or corrected before; look at its successor.")


def _check_terms(execution: Execution, quantity: Decimal | None, price: Decimal | None) -> None:
    instrument = brokers.instruments()[execution.order.instrument_id]
    if quantity is not None and not decimals.is_multiple(quantity, instrument.lot_size):
        raise Invalid("off_lot", f"Use a multiple of {decimals.text(instrument.lot_size)}.", field="quantity")
    if quantity in (None, execution.quantity) and price in (None, execution.price):
        raise Invalid("nothing_to_change", "Name another quantity or another price.", field="quantity")


def _check_trade(account: Account, trade: ManualTrade, at: datetime) -> None:
    instrument = brokers.instruments_by_symbol().get(trade.symbol)
    broker = brokers.brokers_by_code().get(trade.broker)
    faults = []
    if account.status != Account.Status.OPEN:
        raise Conflict("account_closed", "The account is closed.")
    if instrument is None:
        faults.append(Invalid("unknown_symbol", "No such instrument.", field="symbol"))
    elif not decimals.is_multiple(trade.quantity, instrument.lot_size):
        lot = decimals.text(instrument.lot_size)
        faults.append(Invalid("off_lot", f"The quantity must be a multiple of {lot}.", field="quantity"))
    if broker is None:
        faults.append(Invalid("unknown_broker", "No such broker.", field="broker"))
    elif not BrokerLink.objects.filter(account=account, broker_id=broker.id).exists():
        faults.append(Invalid("no_account", "The account trades nothing at this broker.", field="broker"))
    if trade.executed_at > at + AHEAD_MAX:
        faults.append(Invalid("in_the_future", "The time lies ahead.", field="executed_at"))
    if faults:
        raise InvalidFields(faults)


# ---------------------------------------------------------------- deciding


def decide(identifier: UUID, decision: str, *, reason: str, seen: str = "", actor: Actor, at: datetime) -> Approval:
    """Take a second person's decision on what waits, and carry out what is approved, in one transaction.

    Raises `NotFound`, what `risk.operations.settle` raises, and `Conflict` (already_undone) when a broker was faster.
    """
    approval = find_approval(identifier)
    if approval.object_kind == Approval.Kind.LIMIT:
        risk.decide(approval.object_id, decision, reason=reason, content=seen, actor=actor, at=at)
    elif approval.object_kind == Approval.Kind.RULES:
        risk.decide_rules(approval.object_id, decision, reason=reason, content=seen, actor=actor, at=at)
    elif approval.object_kind == Approval.Kind.ORDER:
        decide_release(approval, decision, reason=reason, seen=seen, actor=actor, at=at)
    else:
        _decide(approval, decision, reason=reason, seen=seen, actor=actor, at=at)
    return find_approval(approval.id)


@in_transaction
def _decide(asked: Approval, decision: str, *, reason: str, seen: str, actor: Actor, at: datetime) -> None:
    if asked.account_id is not None:
        lock_accounts([asked.account_id])
    if asked.action == BOOK:
        book, carry_out = Book(), _book_trade
    else:
        order_id = Execution.objects.values_list("order_id", flat=True).get(pk=asked.object_id)
        book, carry_out = lock_book([order_id]), _undo
    approval = risk.settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=seen)
    if approval.status == Approval.Status.APPROVED:
        run: Callable[[Book, Approval, Actor, datetime], None] = carry_out
        run(book, approval, actor, at)


def _undo(book: Book, approval: Approval, actor: Actor, at: datetime) -> None:
    """Fold the bust or correction in as the broker's own report would be; its fees stay as they were told."""
    execution = Execution.objects.get(pk=approval.object_id)
    _require_live(execution)
    child, content = book.children[execution.child_id], approval.content
    if child.status in CLOSED and not child.ended_as:
        child.ended_as = OrdStatus.CANCELED  # what this leaves open of a finished order, nobody works on
    correcting = approval.action == CORRECT
    report = Report(
        kind=ReportKind.CORRECT if correcting else ReportKind.BUST,
        client_order_id=child.client_order_id,
        account="",
        symbol="",
        side=execution.side,
        order_status=str(child.status),
        order_quantity=child.quantity,
        cumulative_quantity=child.filled_quantity,
        leaves_quantity=child.leaves_quantity,
        execution_id=f"desk-{approval.id}",
        ref_execution_id=execution.broker_execution_id,
        last_quantity=Decimal(content["new_quantity"]) if correcting else execution.quantity,
        last_price=Decimal(content["new_price"]) if correcting else execution.price,
        fees=tuple(FeeItem(i["kind"], Decimal(i["amount"]), i["currency"]) for i in execution.fee_items),
        text=content["reason"],
    )
    known = {(execution.broker_account_id, execution.broker_execution_id): execution}
    fold = Fold(child.broker_id, book, known, at)
    fold.take(child, None, report)
    fold.finish(actor)


def _book_trade(book: Book, approval: Approval, actor: Actor, at: datetime) -> None:
    """Make an order of origin external, filled by one execution, and book it; the execution bears the object's id."""
    asked = approval.content
    instrument = brokers.instruments_by_symbol()[asked["symbol"]]
    order = _external_order(approval, instrument, at)
    child = _external_child(order, brokers.brokers_by_code()[asked["broker"]].id, at)
    execution = _external_execution(approval, order, child, instrument, at)
    sql.insert([order])
    sql.insert([child])
    book.orders[order.id] = order
    book.take_in(child)
    child.filled_quantity, child.filled_amount = execution.quantity, execution.quantity * execution.price
    child.ended_as = OrdStatus.CANCELED  # shown only if it is busted: nobody works on
    order.fees = fees_in(execution.fee_items, instrument.currency) if execution.fees is None else execution.fees
    settle_child(book, child, at=at)
    refold(book, order.id, at=at)
    entries = write(book, executions=[execution], kinds={order.id: "order.booked_by_hand"})
    touched = portfolio.book([_fill(execution, order, instrument)], at=at)
    journal.append(entries + position_entries(touched), actor=actor, at=at)


def _external_order(approval: Approval, instrument: InstrumentRef, at: datetime) -> Order:
    quantity = Decimal(approval.content["quantity"])
    assert approval.account_id is not None  # noqa: S101 - a trade is asked for in an account
    return Order(
        id=uuid7(),
        account_id=approval.account_id,
        client_order_id=f"trade-{approval.object_id}",
        body_hash=bytes.fromhex(approval.content_hash),
        instrument_id=instrument.id,
        side=approval.content["side"],
        quantity=quantity,
        leaves_quantity=quantity,
        order_type="market",
        time_in_force="day",
        note=f"trade {approval.key}"[:200],
        origin="external",
        created_by_id=approval.maker_id,
        created_at=at,
        updated_at=at,
        decided_at=at,
    )


def _external_child(order: Order, broker_id: int, at: datetime) -> ChildOrder:
    broker_account = BrokerLink.objects.values_list("broker_account_id", flat=True).get(
        account_id=order.account_id, broker_id=broker_id
    )
    return ChildOrder(
        id=uuid7(),
        order_id=order.id,
        broker_id=broker_id,
        broker_account_id=broker_account,
        client_order_id="",
        quantity=order.quantity,
        leaves_quantity=order.quantity,
        time_in_force=order.time_in_force,
        created_at=at,
        updated_at=at,
    )


def _external_execution(
    approval: Approval, order: Order, child: ChildOrder, instrument: InstrumentRef, at: datetime
) -> Execution:
    price, executed_at = Decimal(approval.content["price"]), datetime.fromisoformat(approval.content["executed_at"])
    items = _fee_items(approval.content["fees"], order, child.broker_id, price, executed_at, instrument)
    return Execution(
        id=approval.object_id,
        child_id=child.id,
        order_id=order.id,
        broker_id=child.broker_id,
        broker_account_id=child.broker_account_id,
        broker_execution_id=f"desk-{approval.id}",
        kind=Execution.Kind.TRADE,
        side=order.side,
        quantity=order.quantity,
        price=price,
        fees=total_fees(items, instrument.currency),
        fee_items=items,
        settle_date=brokers.settle_date(instrument, executed_at),
        executed_at=executed_at,
        received_at=at,
    )


def _fee_items(
    told: str | None, order: Order, broker_id: int, price: Decimal, executed_at: datetime, instrument: InstrumentRef
) -> list[dict[str, str]]:
    if told is not None:
        return [{"kind": "manual", "amount": told, "currency": instrument.currency}] if Decimal(told) else []
    schedule = brokers.fee_items(broker_id, instrument.asset_class, executed_at.date())
    month = NOTHING
    if needs_month(schedule):
        month = Done(*books.month_so_far(order.account_id, broker_id, instrument.asset_class, executed_at))
    charges = charge(
        schedule, side=order.side, quantity=order.quantity, price=price, currency=instrument.currency,
        base_currency=instrument.base_currency, month=month,
    )  # fmt: skip
    return [{"kind": c.kind, "amount": decimals.text(c.amount), "currency": c.currency} for c in charges]


def _fill(execution: Execution, order: Order, instrument: InstrumentRef) -> Fill:
    foreign = [i for i in execution.fee_items if i["currency"] != instrument.currency]
    return Fill(
        source_id=execution.id,
        kind=execution.kind,
        ref_source_id=None,
        account_id=order.account_id,
        broker_id=execution.broker_id,
        instrument_id=order.instrument_id,
        quantity=execution.signed_quantity(),
        price=execution.price,
        fees=fees_in(execution.fee_items, instrument.currency),
        currency=instrument.currency,
        executed_at=execution.executed_at,
        settle_date=execution.settle_date,
        strategy_id=order.strategy_id,
        other_fees=tuple((i["currency"], Decimal(i["amount"])) for i in foreign),
    )


__all__ = ["BUST", "CORRECT", "REVERSE", "ManualTrade", "ask_trade", "ask_undo", "decide"]
