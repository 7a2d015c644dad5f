"""What a venue says when asked: to its clients, and to the administrator, who gets the truth."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any, TypeVar

import msgspec

from brokers.simulation import wire
from brokers.simulation.book import Execution, Order
from brokers.simulation.knobs import Lies
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Answer, Report, Request

T = TypeVar("T")


def reply(venue: Venue, request: Request, at: datetime, *, expired: bool = False) -> dict[str, Any]:
    """Return the answer to one request of a client."""
    told: dict[str, Any] = {"id": request.id}
    match request.op:
        case "submit" if expired:
            told["answers"] = [
                Answer(m.client_order_id, wire.TOO_OLD, reason="expired", accepted=False) for m in request.messages
            ]
        case "submit":
            told["answers"] = venue.submit(request.messages, at)
        case "look_up":
            told["orders"] = _look_up(venue, request.ids, at)
        case "open_orders":
            shown = [o for o in venue.book.open.values() if venue.visible(o, at) and o.created_at <= _as_of(venue, at)]
            told["orders"] = [state_of(o) for o in _shortened(venue, shown)]
        case "executions":
            since = request.since or datetime.min.replace(tzinfo=at.tzinfo)
            reports = [r for r in venue.executions_since(since, at) if r.executed_at <= _as_of(venue, at)]
            told["reports"] = _shortened(venue, reports)
        case "positions":
            told["rows"] = _shortened(venue, _rows(_positions(venue, at).items()))
        case "cash":
            told["rows"] = _shortened(venue, _rows(_cash(venue, at).items()))
        case _:
            told["error"] = f"unknown request {request.op}"
    return told


def _as_of(venue: Venue, at: datetime) -> datetime:
    """Return the time that lists are told for: now, unless the venue lies."""
    return at - timedelta(seconds=venue.lies.stale_seconds)


def _shortened(venue: Venue, rows: list[T]) -> list[T]:
    """Return a list, or what a lie leaves of it."""
    if venue.lies.empty_lists:
        return []
    return rows[: ceil(len(rows) * (1 - venue.lies.shrink))]


def _since(venue: Venue, at: datetime) -> list[Execution]:
    """Return what a stale answer doesn't know yet."""
    then = _as_of(venue, at)
    return [e for e in venue.living() if e.executed_at > then] if then < at else []


def _positions(venue: Venue, at: datetime) -> dict[tuple[str, str], Decimal]:
    told = dict(venue.book.positions)
    for e in _since(venue, at):
        told[e.order.account, e.order.symbol] -= e.quantity if e.order.buys else -e.quantity
    for account, symbol in list(told):
        told[account, symbol] += venue.lies.wrong_positions.get(symbol, Decimal(0))
    return told


def _cash(venue: Venue, at: datetime) -> dict[tuple[str, str], Decimal]:
    told = dict(venue.book.cash)
    for e in _since(venue, at):
        signed = e.quantity if e.order.buys else -e.quantity
        told[e.order.account, venue.instruments[e.order.symbol].currency] += signed * e.price + e.fees
    return told


def _rows(items: Iterable[tuple[tuple[str, str], Decimal]]) -> list[tuple[str, str, Decimal]]:
    return [(account, name, amount) for (account, name), amount in items if amount]


def _look_up(venue: Venue, ids: list[str], at: datetime) -> list[dict[str, Any]]:
    known = {i: venue.book.by_client_id.get(i) for i in ids}
    shown = {i: o for i, o in known.items() if o is not None and venue.visible(o, at)}
    history = venue.history(list({o.broker_order_id: o for o in shown.values()}.values()))
    answers: list[dict[str, Any]] = []
    for client_order_id in ids:
        order = shown.get(client_order_id)
        reports: list[Report] = [] if order is None else history[order.broker_order_id]
        found = None if order is None else state_of(order)
        answers.append({"client_order_id": client_order_id, "found": found, "authoritative": True, "reports": reports})
    return answers


def state_of(order: Order) -> dict[str, Any]:
    """Return an order as the port's `OrderState` has it."""
    return {
        "client_order_id": order.client_order_id,
        "broker_order_id": order.broker_order_id,
        "account": order.account,
        "symbol": order.symbol,
        "side": order.side,
        "status": order.status,
        "order_type": order.order_type,
        "time_in_force": order.time_in_force,
        "quantity": order.quantity,
        "cumulative_quantity": order.cumulative,
        "leaves_quantity": order.leaves,
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
        "average_price": order.amount / order.cumulative if order.cumulative else None,
        "reason": order.reason,
    }


def admin_reply(venue: Venue, request: Request, at: datetime) -> dict[str, Any]:
    """Act for the administrator: set lies, tell the truth, undo trades, enter and cancel by hand."""
    told: dict[str, Any] = {"id": request.id, "done": True}
    arguments = request.arguments
    match request.op:
        case "lies":
            merged = msgspec.to_builtins(venue.lies) | (request.lies or {})
            venue.lies = msgspec.convert(merged, Lies)
        case "book":
            told |= truth(venue)
        case "quotes":
            venue.quote(request.quotes, at)
        case "bust":
            told["done"] = venue.bust(str(arguments["execution_id"]), at)
        case "correct":
            told["done"] = venue.correct(
                str(arguments["execution_id"]),
                _decimal(arguments.get("quantity")),
                _decimal(arguments.get("price")),
                at,
            )
        case "manual_order":
            told["answers"] = [venue.enter_by_hand(m, at) for m in request.messages]
        case "cancel_order" | "fill":
            told["done"] = _by_hand(venue, request.op, arguments, at)
        case _:
            told = {"id": request.id, "done": False, "error": f"unknown request {request.op}"}
    return told


def _by_hand(venue: Venue, op: str, arguments: dict[str, Any], at: datetime) -> bool:
    order = venue.book.by_client_id.get(str(arguments["client_order_id"]))
    if order is None:
        return False
    if op == "fill":
        venue.fill(order, Decimal(str(arguments["quantity"])), Decimal(str(arguments["price"])), at)
    else:
        venue.cancel_by_hand(order, at)
    return True


def _decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def truth(venue: Venue) -> dict[str, Any]:
    """Return the whole book as it is: what a test compares the desk with."""
    venue.seal()
    names: dict[str, list[str]] = {}
    for client_order_id, order in venue.book.by_client_id.items():
        names.setdefault(order.broker_order_id, []).append(client_order_id)
    return {
        "orders": [
            state_of(o) | {"client_order_ids": names.get(o.broker_order_id, [])} for o in venue.book.orders.values()
        ],
        "executions": [
            {
                "execution_id": e.execution_id,
                "client_order_id": e.order.client_order_id,
                "broker_order_id": e.order.broker_order_id,
                "account": e.order.account,
                "symbol": e.order.symbol,
                "side": e.order.side,
                "quantity": e.quantity,
                "price": e.price,
                "fees": e.fees,
            }
            for e in venue.living()
        ],
        "positions": _rows(venue.book.positions.items()),
        "cash": _rows(venue.book.cash.items()),
        "seq": venue.sequence,
    }
