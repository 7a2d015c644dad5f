"""Facts that no report of ours brought: trades done elsewhere, and the undoing of an execution by hand.

Whoever asks has a second person's yes. Facts are recorded whatever the limits say, as if a broker had reported them.
"""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters.port import FeeItem, Report, ReportKind
from brokers.domain.fees import NOTHING, Done, charge, needs_month
from brokers.domain.reference import InstrumentRef
from oms.journal.domain import Entry
from oms.kernel import decimals
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict
from oms.kernel.ids import uuid7
from oms.runtime import sql
from orders.models import ChildOrder, Execution, Order
from orders.operations.recording import Book, refold, write
from orders.operations.reporting import Fold, fees_in, position_entries, settle_child, total_fees
from orders.states import CLOSED, OrdStatus
from portfolio import operations as portfolio
from portfolio import queries as books
from portfolio.domain.fills import Fill
from portfolio.models import BrokerLink


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """A trade that stands as a filled order of origin external. Quantity unsigned; fees in the instrument's currency, None: by
    the broker's schedule; `name` is what the desk calls the execution, `label` what the order is known by."""

    id: UUID
    account_id: int
    broker: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fees: Decimal | None
    executed_at: datetime
    name: str
    label: str
    note: str
    digest: bytes
    maker_id: int | None
    settle_date: date | None = None


def require_live(execution: Execution) -> None:
    """Raise `Conflict` for an execution that was undone, and for what undoes one."""
    if execution.kind == Execution.Kind.BUST or Execution.objects.filter(ref=execution).exists():
        raise Conflict("already_undone", "This execution was busted or corrected before; look at its successor.")


def undo(
    book: Book,
    execution: Execution,
    *,
    name: str,
    why: str,
    actor: Actor,
    at: datetime,
    quantity: Decimal | None = None,
    price: Decimal | None = None,
) -> None:
    """Fold a bust in as the broker's own report would be, or a correction to another quantity or price; `book` holds the
    execution's order. Its fees stay as they were told."""
    require_live(execution)
    child = book.children[execution.child_id]
    if child.status in CLOSED and not child.ended_as:
        child.ended_as = OrdStatus.CANCELED  # what this leaves open of a finished order, nobody works on
    correcting = quantity is not None or price is not None
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
        execution_id=name,
        ref_execution_id=execution.broker_execution_id,
        last_quantity=execution.quantity if quantity is None else quantity,
        last_price=execution.price if price is None else price,
        fees=tuple(FeeItem(i["kind"], Decimal(i["amount"]), i["currency"]) for i in execution.fee_items),
        text=why,
    )
    known = {(execution.broker_account_id, execution.broker_execution_id): execution}
    fold = Fold(child.broker_id, book, known, at)
    fold.take(child, None, report)
    fold.finish(actor)


def book_external(book: Book, trade: External, *, at: datetime) -> list[Entry]:
    """Make an order of origin external, filled by one execution of the trade's id, and book it; return the entries that
    tell it, for the caller to append."""
    instrument = brokers.instruments_by_symbol()[trade.symbol]
    order = _order(trade, instrument, at)
    child = _child(order, brokers.brokers_by_code()[trade.broker].id, at)
    execution = _execution(trade, order, child, instrument, at)
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
    return entries + position_entries(touched)


def _order(trade: External, instrument: InstrumentRef, at: datetime) -> Order:
    return Order(
        id=uuid7(),
        account_id=trade.account_id,
        client_order_id=trade.label,
        body_hash=trade.digest,
        instrument_id=instrument.id,
        side=trade.side,
        quantity=trade.quantity,
        leaves_quantity=trade.quantity,
        order_type="market",
        time_in_force="day",
        note=trade.note[:200],
        origin="external",
        created_by_id=trade.maker_id,
        created_at=at,
        updated_at=at,
        decided_at=at,
    )


def _child(order: Order, broker_id: int, at: datetime) -> ChildOrder:
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


def _execution(trade: External, order: Order, child: ChildOrder, instrument: InstrumentRef, at: datetime) -> Execution:
    items = _fee_items(trade, order, child.broker_id, instrument)
    return Execution(
        id=trade.id,
        child_id=child.id,
        order_id=order.id,
        broker_id=child.broker_id,
        broker_account_id=child.broker_account_id,
        broker_execution_id=trade.name,
        kind=Execution.Kind.TRADE,
        side=order.side,
        quantity=order.quantity,
        price=trade.price,
        fees=total_fees(items, instrument.currency),
        fee_items=items,
        settle_date=trade.settle_date or brokers.settle_date(instrument, trade.executed_at),
        executed_at=trade.executed_at,
        received_at=at,
    )


def _fee_items(trade: External, order: Order, broker_id: int, instrument: InstrumentRef) -> list[dict[str, str]]:
    if trade.fees is not None:
        told = decimals.text(trade.fees)
        return [{"kind": "manual", "amount": told, "currency": instrument.currency}] if trade.fees else []
    executed_at = trade.executed_at
    schedule = brokers.fee_items(broker_id, instrument.asset_class, executed_at.date())
    month = NOTHING
    if needs_month(schedule):
        month = Done(*books.month_so_far(order.account_id, broker_id, instrument.asset_class, executed_at))
    charges = charge(
        schedule, side=order.side, quantity=order.quantity, price=trade.price, currency=instrument.currency,
        base_currency=instrument.base_currency, month=month, hours=brokers.session_of(instrument.id, executed_at),
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
