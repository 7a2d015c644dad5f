"""Published accept and deny cases, read from `$ORACLES_DIR`; the suite's own tables stand in tests/unit/test_risk_checks.py."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.domain.reference import InstrumentRef
from oms.kernel.errors import InvalidFields
from orders.domain.tickets import parse_ticket
from orders.operations.placing import _grid_faults
from risk.domain.gate import HaltRef
from risk.domain.limits import LimitRef
from risk.domain.scopes import Scope
from tests.unit.test_risk_checks import STOCK, D, gate, holding, intent, limit, quote

FILE = Path(os.environ.get("ORACLES_DIR", "../shared/oracles")) / "risk.json"
AUD = InstrumentRef(9, "AUD/USD", "fx", "AUD", "USD", D("0.00001"), D(1), 2, True)
WIDE = D("1E12")
CODES = {
    "QTY_ABOVE_MAX": "quantity_limit",
    "QTY_BELOW_MIN": "quantity_minimum",
    "NOTIONAL_ABOVE_MAX": "notional_limit",
    "NOTIONAL_BELOW_MIN": "notional_minimum",
    "TRADING_HALTED": "halted",
    "REDUCING_ONLY": "halted",
    "PRICE_MOVE_LIMIT": "price_collar",
}
"""The published label, and ours."""
OPEN = {
    "cash": "the desk lends for shorts and takes fx pairs short",
    "cash_cumulative": "orders of a batch are judged each alone",
    "instrument": "tests/integration/test_api.py asks with an unknown symbol",
    "modify": "tests/integration/test_api.py asks for an order that is not there",
    "quote_qty": "a size by an amount becomes units before it is judged",
    "reduce_only": "no order says so by itself; a reduce-only halt does",
    "rate": "orders and replaces share a limit of messages",
    **dict.fromkeys(
        ("wash_trade", "self_match", "buying_power", "pdt", "pdt_repeal", "reg_t", "leverage"), "not carried out yet"
    ),
}
"""Kinds that are not played, and why."""
LULD = "bands by tier are the exchange's own; the desk has one collar by scope"


def cases() -> list[Any]:
    found = json.loads(FILE.read_text())["cases"] if FILE.exists() else []
    return [pytest.param(case, id=case["id"]) for case in found]


def desk(*limits: LimitRef, price: str = "1", **more: Any) -> Any:
    """A gate with nothing in the way but the limits given."""
    wide = [LimitRef(k, WIDE, "", Scope("firm")) for k in ("order_quantity", "order_notional", "position")]
    made = gate(*limits, quotes=[quote(AUD, price, price), quote(STOCK, price, price)], cash={"USD": "1E11"}, **more)
    made.facts.limits, made.facts.instruments = [*wide, *limits], {AUD.id: AUD, STOCK.id: STOCK}
    return made


def ticket(order: dict[str, Any]) -> Any:
    raw = {"account": "MAIN", "symbol": "AUD/USD", "side": order["side"], "quantity": order["qty"]}
    raw |= {"order_type": order["type"]} | ({"limit_price": order["price"]} if "price" in order else {})
    return parse_ticket(raw | ({"stop_price": order["trigger"]} if "trigger" in order else {}), at=datetime.now(UTC))


def size(inputs: dict[str, Any]) -> str:
    bounds = limit("order_quantity", inputs["max_qty"]), limit("order_quantity_min", inputs["min_qty"])
    order = inputs["order"]
    return str(desk(*bounds).judge(intent(f"{order['side']} {order['qty']} limit {order['price']}", AUD))[0].reason)


def notional(inputs: dict[str, Any]) -> str:
    kind, value = next(
        ("order_notional" + ("_min" if "min" in k else ""), v) for k, v in inputs.items() if "_notional" in k
    )
    order = inputs["order"]  # a contract is worth one USD
    held = holding(AUD, order["qty"]) if order["side"] == "sell" else {}
    made = desk(limit(kind, value.split()[0], currency="USD"), holdings=held)
    return str(made.judge(intent(f"{order['side']} {order['qty']}", AUD))[0].reason)


def trading_state(inputs: dict[str, Any]) -> str:
    mode = "halt" if inputs["trading_state"] == "HALTED" else "reduce_only"
    made = desk(halts=[HaltRef(mode, Scope("all"))], holdings=holding(AUD, inputs.get("position", "0")))
    return str(made.judge(intent(f"{inputs['order']['side']} {inputs['order']['qty']}", AUD))[0].reason)


def collar(inputs: dict[str, Any]) -> str:
    made = desk(limit("price_collar", "0.2"), price=inputs["best_ask"])
    return str(made.judge(intent(f"buy 1 limit {inputs['worst_fill']}"))[0].reason)


PLAYED: dict[str, Callable[[dict[str, Any]], str]] = {
    "fat_finger": size,
    "size": size,
    "notional": notional,
    "trading_state": trading_state,
    "price_collar": collar,
}


@pytest.mark.parametrize("case", cases())
def test_a_published_case_ends_as_published(case: dict[str, Any]) -> None:
    kind, inputs, expected = case["kind"], case["inputs"], case["expected"]
    if kind in OPEN or case["id"].startswith("RISK-LULD"):
        pytest.skip(OPEN.get(kind, LULD))
    if kind == "price":
        with pytest.raises(InvalidFields):
            ticket(inputs["order"])
    elif kind == "precision":
        field = "stop_price" if expected["code"] == "TRIGGER_PRECISION" else "quantity"
        assert [f.field for f in _grid_faults(ticket(inputs["order"]), AUD)] == [field]
    elif kind == "tif":
        at = datetime.now(UTC)
        late = {"time_in_force": "gtd", "expire_at": (at - timedelta(seconds=1)).isoformat()}
        with pytest.raises(InvalidFields):
            parse_ticket({"account": "MAIN", "symbol": "AUD/USD", "side": "buy", "quantity": "1", **late}, at=at)
    elif kind == "no_market_data":  # published as a choice; ours is to fail closed
        made = desk()
        made.facts.quotes = {}
        assert made.judge(intent(f"buy {inputs['order']['qty']}", AUD))[0].reason == "no_quote"
    elif kind == "exposure":
        units = str(Decimal(inputs["position_value"]))
        made = desk(limit("leverage", "6"), holdings=holding(AUD, units))
        made.facts.cash = {7: {"USD": Decimal(inputs["equity"]) - Decimal(units)}}
        assert made.judge(intent("buy 1", AUD))[0].reason == "leverage_limit"
        assert made.judge(intent("sell 1", AUD))[0].approved
    else:
        assert PLAYED[kind](inputs) == CODES[expected["code"]]
