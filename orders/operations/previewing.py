"""What an order would do: it is placed for real, looked at, and taken back."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction

from brokers import queries as brokers
from oms.kernel import decimals, json
from oms.kernel.decimals import ZERO
from oms.runtime import sql
from orders.models import Order
from orders.operations.placing import Request, place_locked
from orders.queries import algo_out, reason_out, slices_of
from orders.states import OrdStatus
from portfolio import ladder
from portfolio import queries as portfolio
from routing.operations import estimated_fee


def preview(request: Request, *, at: datetime) -> dict[str, Any]:
    """Return what placing the ticket would do: checks, candidates, fees, cash, holds, lots closed. Nothing is stored.

    Raises what placing raises. Cash, fees and lots are as expected from the price now: the limit or stop price, else the
    market's side.
    """
    unheard = replace(request, ticket=replace(request.ticket, client_order_id=""), key="")
    with transaction.atomic(durable=True):
        placed = place_locked([unheard], at=at)[0]
        if placed.problem or placed.order_id is None:
            raise placed.problem or AssertionError("neither an order nor a problem")
        told = _look(placed.order_id, at)
        transaction.set_rollback(True)
    return told


def _look(order_id: UUID, at: datetime) -> dict[str, Any]:
    order = Order.objects.get(pk=order_id)
    approved = order.status not in (OrdStatus.DENIED, OrdStatus.HELD)
    [checks] = sql.run("SELECT checks FROM risk_riskcheck WHERE id = %s", [order_id]).fetchone() or ("[]",)
    decision = sql.run("SELECT candidates FROM routing_routingdecision WHERE source_id = %s", [order_id]).fetchone()
    hold = sql.run("SELECT unit_amount * open_quantity, currency FROM risk_hold WHERE id = %s", [order_id]).fetchone()
    candidates = json.loads(decision[0]) if decision else []
    chosen = next((c for c in candidates if c["weight"] == "1"), None)
    return {
        "approved": approved,
        "held": order.status == OrdStatus.HELD,
        "reason": reason_out(order),
        "quantity": decimals.text(order.quantity),
        "checks": json.loads(checks),
        "routing": {"candidates": candidates},
        "cost": {"bps": chosen["cost_bps"], "parts": chosen["parts"]} if chosen else None,
        "holds_after": {"amount": decimals.text(hold[0]), "currency": hold[1]} if hold and approved else None,
        **(_money(order, chosen["broker"], at) if chosen else {"fees": None, "cash_after": None}),
        "lots": _closed(order, at) if approved else [],
        "wash_sale": _washed(order, at) if approved else None,
        "unpaid_sale": _unpaid(order, at) if approved and order.side == "sell" else None,
        "algo": algo_out(order),
        "slices": slices_of(order.id) if order.algo else [],
    }


def _closed(order: Order, at: datetime) -> list[dict[str, Any]]:
    chosen = tuple(UUID(i) for i in order.lots or ())
    return portfolio.lots_closed_by(
        order.account_id, order.instrument_id, order.side, order.quantity, at=at, chosen=chosen
    )


def _washed(order: Order, at: datetime) -> dict[str, str] | None:
    """Return the loss that would not count if the order filled now, None where nothing is in its way or no price known."""
    price = _expected_price(order)
    if price is None:
        return None
    chosen = tuple(UUID(i) for i in order.lots or ())
    loss = portfolio.loss_washed_by(
        order.account_id, order.instrument_id, order.side, order.quantity, price, at=at, chosen=chosen
    )
    currency = brokers.instruments()[order.instrument_id].currency
    return {"loss": decimals.text(loss), "currency": currency} if loss else None


def _unpaid(order: Order, at: datetime) -> dict[str, Any] | None:
    """Return what a cash account would violate by selling what unsettled or no money paid for, None for nothing."""
    return ladder.too_early(order.account_id, order.instrument_id, order.quantity, today=at.date())


def _expected_price(order: Order) -> Decimal | None:
    quote = brokers.quotes([order.instrument_id]).get(order.instrument_id)
    return order.limit_price or order.stop_price or (quote.side_price(order.side) if quote else None)


def _money(order: Order, broker: str, at: datetime) -> dict[str, Any]:
    """Return the fees expected at the chosen broker and the cash that would be left, in the instrument's currency."""
    instrument = brokers.instruments()[order.instrument_id]
    quote = brokers.quotes([instrument.id]).get(instrument.id)
    price = _expected_price(order)
    fees = estimated_fee(
        brokers.brokers_by_code()[broker].id, instrument, order.side, order.quantity, quote, price, at,
        month=portfolio.Months(at).of(order.account_id, instrument.asset_class),
    )  # fmt: skip
    if price is None or fees is None:
        return {"fees": None, "cash_after": None}
    value = decimals.money(order.quantity * price)
    cash = _cash(order.account_id, instrument.currency) + (-value if order.side == "buy" else value) - fees
    return {
        "fees": decimals.text(fees),
        "cash_after": {"amount": decimals.text(cash), "currency": instrument.currency},
    }


def _cash(account_id: int, currency: str) -> Decimal:
    row = sql.run(
        "SELECT balance FROM portfolio_cashbalance WHERE account_id = %s AND currency = %s", [account_id, currency]
    ).fetchone()
    return row[0] if row else ZERO
