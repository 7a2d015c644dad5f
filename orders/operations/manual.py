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
from oms.journal import operations as journal
from oms.kernel import decimals
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, InvalidFields
from oms.kernel.ids import uuid7
from oms.kernel.json import rfc3339
from oms.runtime.transactions import in_transaction
from orders.models import Execution
from orders.operations.external import External, book_external, require_live, undo
from orders.operations.recording import Book, lock_accounts, lock_book
from orders.operations.releasing import decide_release
from orders.operations.resolving import decide_break
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
    require_live(execution)
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
    elif approval.object_kind == Approval.Kind.COMPLIANCE:
        risk.decide_compliance_rule(approval.object_id, decision, reason=reason, content=seen, actor=actor, at=at)
    elif approval.object_kind == Approval.Kind.RULES:
        risk.decide_rules(approval.object_id, decision, reason=reason, content=seen, actor=actor, at=at)
    elif approval.object_kind == Approval.Kind.ORDER:
        decide_release(approval, decision, reason=reason, seen=seen, actor=actor, at=at)
    elif approval.object_kind == Approval.Kind.BREAK:
        decide_break(approval, decision, reason=reason, seen=seen, actor=actor, at=at)
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
    content, correcting = approval.content, approval.action == CORRECT
    undo(
        book,
        Execution.objects.get(pk=approval.object_id),
        name=f"desk-{approval.id}",
        why=content["reason"],
        quantity=Decimal(content["new_quantity"]) if correcting else None,
        price=Decimal(content["new_price"]) if correcting else None,
        actor=actor,
        at=at,
    )


def _book_trade(book: Book, approval: Approval, actor: Actor, at: datetime) -> None:
    """Book what was asked for; the execution bears the object's id."""
    asked = approval.content
    assert approval.account_id is not None  # noqa: S101 - a trade is asked for in an account
    trade = External(
        id=approval.object_id,
        account_id=approval.account_id,
        broker=asked["broker"],
        symbol=asked["symbol"],
        side=asked["side"],
        quantity=Decimal(asked["quantity"]),
        price=Decimal(asked["price"]),
        fees=None if asked["fees"] is None else Decimal(asked["fees"]),
        executed_at=datetime.fromisoformat(asked["executed_at"]),
        name=f"desk-{approval.id}",
        label=f"trade-{approval.object_id}",
        note=f"trade {approval.key}",
        digest=bytes.fromhex(approval.content_hash),
        maker_id=approval.maker_id,
    )
    journal.append(book_external(book, trade, at=at), actor=actor, at=at)


__all__ = ["BUST", "CORRECT", "REVERSE", "ManualTrade", "ask_trade", "ask_undo", "decide"]
