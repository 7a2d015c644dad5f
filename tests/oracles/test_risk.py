"""Published accept and deny cases, read from `$ORACLES_DIR`, each judged by the desk's own checks.

A kind, a field or an expectation that nobody reads here fails its case: nothing published is passed over in silence.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from brokers.domain.calendars import Calendar
from brokers.domain.reference import InstrumentRef
from oms.kernel.errors import InvalidFields, NotFound, Refused
from orders.domain.sizing import Facts as SizeFacts
from orders.domain.sizing import SizeBy, units
from orders.domain.tickets import parse_ticket
from orders.operations.placing import _grid_faults
from risk.domain import bands, daytrading, margins
from risk.domain.exposures import Holding
from risk.domain.gate import HaltRef, together
from risk.domain.limits import LimitRef
from risk.domain.rules import Rules
from risk.domain.scopes import Scope
from risk.domain.selftrade import Resting, mode_of, prevent
from risk.queries.rules import within_the_day
from tests.unit.test_risk_checks import AT, STOCK, D, gate, holding, intent, limit, quote

FILE = Path(os.environ.get("ORACLES_DIR", "../shared/oracles")) / "risk.json"
NEW_YORK = ZoneInfo("America/New_York")
AUD = InstrumentRef(9, "AUD/USD", "fx", "AUD", "USD", D("0.00001"), D(1), 2, True)
ETH = InstrumentRef(8, "ETH/USD", "crypto", "ETH", "USD", D("0.01"), D("0.0001"), 0, True)
WIDE = D("1E12")
MEANS = {
    "quantity_limit": r"(QTY|QUANTITY|SIZE).*(MAX|ABOVE|EXCEED)",
    "quantity_minimum": r"(QTY|QUANTITY|SIZE).*(MIN|BELOW)",
    "notional_limit": r"NOTIONAL.*(MAX|ABOVE|EXCEED)",
    "notional_minimum": r"NOTIONAL.*(MIN|BELOW)",
    "halted": r"TRADING_HALTED|REDUCING|REDUCE",
    "would_not_reduce": r"REDUC",
    "price_collar": r"PRICE_(MOVE|COLLAR|LIMIT|BAND)",
    "buying_power": r"BALANCE|BUYING_POWER|CASH|MARGIN|FUNDS",
    "short_not_allowed": r"SHORT|BALANCE",
    "self_trade": r"WASH|SELF",
    "day_trade_limit": r"PDT|DAY_TRAD",
    "rate_limit": r"RATE",
    "leverage_limit": r"LEVERAGE|EXPOSURE|CLOSING_ONLY",
    "no_quote": r"NO_(QUOTE|MARKET)",
    "stale_quote": r"STALE",
}
"""Our reasons, and how published labels spell them."""


class Asked(Mapping[str, Any]):
    """A published object that knows which of its fields were read."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = {k: Asked(v) if isinstance(v, dict) else v for k, v in raw.items()}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self._raw[key]
        self._read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def unread(self) -> list[str]:
        """Return the fields that nobody looked at, those of objects inside too."""
        found = [k for k in self._raw if k not in self._read]
        for key, value in self._raw.items():
            if isinstance(value, Asked) and key in self._read:
                found += [f"{key}.{name}" for name in value.unread()]
        return found


def cases() -> list[Any]:
    found = json.loads(FILE.read_text())["cases"] if FILE.exists() else []
    return [pytest.param(case, id=case["id"]) for case in found]


def money(text: str) -> tuple[Decimal, str]:
    """Return what an amount like `1000000 USD` is."""
    amount, _, currency = str(text).partition(" ")
    return D(amount), currency or "USD"


def floor(*limits: LimitRef, price: str = "1", cash: dict[str, str] | None = None, **more: Any) -> Any:
    """A gate with nothing in the way but what is given; market orders are held at the touch."""
    wide = [LimitRef(k, WIDE, "", Scope("firm")) for k in ("order_quantity", "order_notional", "position")]
    if not any(x.kind == "price_collar" for x in limits):
        wide.append(limit("price_collar", "0"))
    quotes = [quote(i, price, price) for i in (AUD, STOCK, ETH)]
    made = gate(*limits, quotes=quotes, cash=cash or {"USD": "1E11"}, **more)
    made.facts.limits, made.facts.instruments = [*wide, *limits], {i.id: i for i in (AUD, STOCK, ETH)}
    return made


def spelled(order: Mapping[str, Any], instrument: InstrumentRef = AUD, **more: Any) -> Any:
    """Return a published order as risk is asked it."""
    kind = order.get("type", "market")
    price = order.get("price", order.get("limit"))
    assert kind in ("market", "limit"), kind
    words = f"{order['side']} {order.get('qty', '1')}" + (f" limit {price}" if price is not None else "")
    if "symbol" in order:
        assert order["symbol"] == instrument.symbol
    return intent(words, instrument, **more)


def decided(verdict: Any, expected: Asked) -> None:
    """Fail unless a verdict is the published one."""
    if "reaches_venue" in expected:
        assert expected["reaches_venue"] is verdict.approved
    for name in ("http", "api_code", "code_at_source"):
        if name in expected:
            expected[name]  # how that venue's own interface spells it
    assert expected["decision"] == ("accept" if verdict.approved else "deny"), verdict.reason
    if "code" in expected:
        assert re.search(MEANS[verdict.reason], expected["code"]), (verdict.reason, expected["code"])


def limits_of(inputs: Asked) -> list[LimitRef]:
    """Return the limits that a case names."""
    names = {
        "max_qty": "order_quantity",
        "max_qty_base": "order_quantity",
        "min_qty": "order_quantity_min",
        "min_qty_base": "order_quantity_min",
        "max_notional": "order_notional",
        "max_notional_per_order": "order_notional",
        "min_notional": "order_notional_min",
    }
    found = []
    for name, kind in names.items():
        if inputs.get(name) is not None:
            amount, currency = money(inputs[name])
            found.append(limit(kind, str(amount), currency=currency if "notional" in kind else ""))
    return found


def market_of(inputs: Asked) -> InstrumentRef:
    """Return the instrument that a case describes."""
    tick = D(1).scaleb(-int(inputs.get("price_precision", 5)))
    lot = D(1).scaleb(-int(inputs.get("size_precision", 0)))
    symbol = inputs.get("instrument", AUD.symbol)
    return InstrumentRef(AUD.id, symbol, "fx", symbol[:3], "USD", tick, lot, 2, True)


def sized(inputs: Asked, expected: Asked) -> None:
    """Quantity and notional of one order."""
    instrument = market_of(inputs)
    order = inputs["order"]
    if "contract" in inputs:  # of one dollar, whatever the coin costs
        assert money(inputs["contract"]) == (D(1), "USD")
        assert D(inputs["bid"]) <= D(inputs["ask"])
    held = holding(AUD, order["qty"]) if order["side"] == "sell" else {}
    made = floor(*limits_of(inputs), holdings=held)
    decided(made.judge(spelled(order, instrument))[0], expected)


def as_ticket(order: Asked) -> Any:
    raw = {"account": "MAIN", "symbol": "AUD/USD", "side": order["side"], "quantity": order["qty"]}
    raw |= {"order_type": order["type"]} | ({"limit_price": order["price"]} if "price" in order else {})
    return parse_ticket(raw | ({"stop_price": order["trigger"]} if "trigger" in order else {}), at=datetime.now(UTC))


def on_the_grid(inputs: Asked, expected: Asked) -> None:
    """What is refused before risk sees it: off the instrument's grid, or no price at all."""
    limits_of(inputs)
    instrument = market_of(inputs)
    try:
        fields = {f.field for f in _grid_faults(as_ticket(inputs["order"]), instrument)}
    except InvalidFields as error:
        fields = {f.field for f in error.errors}
    assert expected["decision"] == ("deny" if fields else "accept")
    if "code" in expected:
        field = {"TRIGGER": "stop_price", "QTY": "quantity", "PRICE": "limit_price"}[expected["code"].partition("_")[0]]
        assert fields == {field}
        assert expected["reaches_venue"] is False


def halted(inputs: Asked, expected: Asked) -> None:
    modes = {"HALTED": ["halt"], "REDUCING": ["reduce_only"], "ACTIVE": []}[inputs["trading_state"]]
    made = floor(halts=[HaltRef(m, Scope("all")) for m in modes], holdings=holding(AUD, inputs.get("position", "0")))
    decided(made.judge(spelled(inputs["order"]))[0], expected)


def only_reducing(inputs: Asked, expected: Asked) -> None:
    order = inputs["order"]
    made = floor(holdings=holding(AUD, inputs.get("position", "0")))
    decided(made.judge(spelled(order, reduce_only=order.get("reduce_only", False)))[0], expected)


def without_a_market(inputs: Asked, expected: Asked) -> None:
    """Published as a choice, to let it through with a warning; ours is to fail closed, and to say why."""
    assert inputs["quote"] is None
    made = floor(*limits_of(inputs))
    made.facts.quotes = {}
    verdict, _ = made.judge(spelled(inputs["order"], market_of(inputs)))
    assert expected["decision"] in ("accept_with_warning", "deny")
    assert verdict.reason == "no_quote"


def in_cash(inputs: Asked, expected: Asked) -> None:
    """An account that pays with what it has."""
    assert str(inputs.get("account", "cash")).startswith("cash")
    rules = Rules(margin="cash", borrowing=inputs.get("borrowing", False))
    cash = dict(inputs["balances"]) if "balances" in inputs else dict([money(inputs["free"])[::-1]])
    held = holding(AUD, inputs["position"]) if "position" in inputs else {}
    made = floor(*limits_of(inputs), price=inputs.get("ask", "1"), rules={7: rules}, cash=cash, holdings=held)
    orders = inputs["list"] if "list" in inputs else [inputs["order"]]
    verdicts = [made.judge(spelled(Asked(o) if isinstance(o, dict) else o))[0] for o in orders]
    if expected.get("all_or_none"):
        verdicts = together(verdicts)
        assert len({v.approved for v in verdicts}) == 1
    refused = [v for v in verdicts if not v.approved and v.reason != "list_refused"]
    decided(refused[0] if refused else verdicts[0], expected)


def by_amount(inputs: Asked, expected: Asked) -> None:
    """An order for an amount of money is sized first, and judged by its units."""
    order = inputs["order"]
    price = D(inputs.get("ask", "1000"))
    pair = InstrumentRef(
        ETH.id, order["symbol"], "crypto", order["symbol"][:3], "USD", ETH.tick_size, D("1E-8"), 0, True
    )
    assert order["type"] == "market"
    count = units(
        SizeBy("notional", D(order["quote_qty"])), SizeFacts(price, D(1), None, pair.lot_size), side=order["side"]
    )
    cash = dict([money(inputs["free"])[::-1]]) if "free" in inputs else None
    held = holding(ETH, inputs.get("position", str(count))) if order["side"] == "sell" else {}
    made = floor(*limits_of(inputs), price=str(price), cash=cash, rules={7: Rules(margin="cash")}, holdings=held)
    decided(made.judge(intent(f"{order['side']} {count}", pair))[0], expected)


def at_a_pace(inputs: Asked, expected: Asked) -> None:
    """Orders and replaces have each a rate of their own; a replace refused leaves its order as it was."""
    count, _, per = inputs["limit"].partition(" per ")
    assert per in ("1s", "1 s", "second")
    made = floor(limit("order_rate", count), limit("replace_rate", count))
    orders, replaces = int(inputs.get("submit", 0)), int(inputs.get("modifies", 0))
    submitted = [made.judge(intent("buy 1", AUD))[0] for _ in range(orders)]
    changed = [made.judge(intent("buy 1", AUD), working=D(1))[0] for _ in range(replaces)]
    through = [v for v in submitted + changed if v.approved]
    assert {v.reason for v in submitted + changed} <= {"", "rate_limit"}
    published = {
        "forwarded_total": len(through),
        "forwarded": len(through),
        "denied": sum(not v.approved for v in submitted),
        "modify_rejected": sum(not v.approved for v in changed),
        "order_still_open": submitted[0].approved if submitted else None,
    }
    for name in expected:
        assert expected[name] == published[name], name


def in_time(inputs: Asked, expected: Asked) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    after = timedelta(microseconds=(int(inputs["expire_ns"]) - int(inputs["now_ns"])) / 1000)
    raw = {"account": "MAIN", "symbol": "AUD/USD", "side": "buy", "quantity": "1", "order_type": "market"}
    raw |= {"time_in_force": "gtd", "expire_at": (now + after).isoformat()}
    try:
        parse_ticket(raw, at=now)
        answer = "accept"
    except InvalidFields as error:
        assert [f.field for f in error.errors] == ["expire_at"]
        answer = "deny"
    assert expected["decision"] == answer
    if "code" in expected:
        assert "GTD" in expected["code"] or "EXPIRE" in expected["code"]
        assert expected["reaches_venue"] is (answer == "accept")


def meets_itself(inputs: Asked, expected: Asked) -> None:
    """The mode that refuses the newer of two orders that would trade with each other."""
    resting = [
        Resting(UUID(int=n + 2), 7, AUD.id, r["side"], D(r.get("qty", "1")), _price(r))
        for n, r in enumerate(inputs["resting"])
    ]
    order = inputs["order"]
    made = floor(rules={7: Rules(self_trade="cancel_newest")}, resting=resting, holdings=holding(AUD, "10"))
    decided(made.judge(spelled(order))[0], expected)


def _price(order: Mapping[str, Any]) -> Decimal | None:
    told = order.get("limit", order.get("price"))
    return None if told is None else D(told)


def ties(inputs: Asked, expected: Asked) -> None:
    """What an order counts for against the buying power of a Reg T broker."""
    order, ask = inputs["order"], inputs["ask"]
    made = floor(
        price=ask, rules={7: Rules(margin="reg_t")}, shortable={("", STOCK.id)},
        holdings=holding(STOCK, inputs["position"]) if "position" in inputs else {},
    )  # fmt: skip
    told = spelled(order, STOCK)
    value = margins.opening_value(margins.opening(made, told, told.quantity)) * told.quantity
    assert D(expected["required"]) == value
    assert made.judge(told)[1].unit_amount * told.quantity == value * margins.INITIAL


def exposed(inputs: Asked, expected: Asked) -> None:
    """Above six times the equity an account may only close."""
    count = inputs["position_value"]
    made = floor(limit("leverage", "6"), holdings=holding(STOCK, count))
    made.facts.cash = {7: {"USD": D(inputs["equity"]) - D(count)}}
    opens, closes = made.judge(intent("buy 1"))[0], made.judge(intent("sell 1"))[0]
    assert closes.approved
    assert expected["state"] == ("open" if opens.approved else "closing_only")
    assert opens.approved or opens.reason == "leverage_limit"


def day_trades(inputs: Asked, expected: Asked) -> None:
    """Counting day trades, who is a pattern day trader, and what he may not do."""
    if "fills" in inputs:
        signed = [D(quantity) * (1 if side == "buy" else -1) for _, side, quantity in inputs["fills"]]
        carried = D(inputs.get("position", inputs.get("overnight", 0)))
        assert expected["day_trades"] == daytrading.tally(carried, signed).day_trades
        return
    count = int(inputs["day_trades_last_5"])
    if "pattern_day_trader" in expected:
        trades = int(inputs["trades_last_5_margin"])
        assert expected["pattern_day_trader"] is daytrading.is_pattern(count, trades)
        if "pct" in expected:
            assert round(daytrading.share_of(count, trades), 4) == D(expected["pct"])
        return
    made = day_trader(D(inputs["equity"]), count, Rules(margin="reg_t", day_trading=True), date(2025, 6, 2))
    order = inputs.get("order", {"side": "sell"})
    pair = (7, STOCK.id)
    if "pending" in inputs:
        sides = [p["side"] for p in inputs["pending"]]
        buying, selling = (D(sum(s == "buy" for s in sides)), D(sum(s != "buy" for s in sides)))
        made.facts.holdings[pair] = Holding(D(10), buying, selling)
    else:  # the order closes what was opened today
        opened = D(10) if order["side"] != "buy" else D(-10)
        made.facts.holdings[pair] = Holding(opened)
        made.facts.tallies[pair] = daytrading.Tally(0, opened)
    decided(made.judge(spelled(order, STOCK))[0], expected)


def day_trader(equity: Decimal, count: int, rules: Rules, on: date) -> Any:
    """A gate over an account of an equity, all of it in cash, that made so many day trades."""
    made = floor(rules={7: rules}, cash={"USD": str(equity - 10)}, price="1", day_trades={7: count})
    made.facts.at = datetime(on.year, on.month, on.day, 15, tzinfo=UTC)
    made.facts.quotes = {pk: _at(q, made.facts.at) for pk, q in made.facts.quotes.items()}
    made.facts.holdings[7, STOCK.id] = Holding(D(10))
    made.facts.tallies[7, STOCK.id] = daytrading.Tally(0, D(10))
    return made


def _at(told: Any, at: datetime) -> Any:
    from dataclasses import replace

    return replace(told, at=at)


def repealed(inputs: Asked, expected: Asked) -> None:
    """From its day on, and for each broker when it moved over, the pattern rule makes way for intraday margin."""
    as_of = date.fromisoformat(inputs["as_of"])
    migrated = as_of if inputs.get("broker_migrated") else None
    rules = Rules(margin="reg_t", day_trading=True, migrated_on=migrated)
    made = day_trader(D(inputs["equity"]), int(inputs["day_trades_last_5"]), rules, as_of)
    verdict, _ = made.judge(intent("sell 10"))
    asked = any(c["check"] == "day_trades" for c in verdict.checks)
    gone = str(expected["pdt_check"]).startswith("not applicable")
    assert gone is not asked
    if gone:
        assert verdict.approved
        assert margins.model_of(rules).rate(made, 7, "USD", STOCK) == D("0.25")


def reg_t(inputs: Asked, expected: Asked) -> None:
    equity, value = D(inputs["equity"]), D(inputs["market_value"])
    maintenance = D(inputs.get("maintenance_pct", margins.MAINTENANCE))
    initial = D(inputs.get("initial_pct", margins.INITIAL))
    beyond = margins.excess(equity, value, maintenance)
    times = D(inputs.get("day_trading_multiple", 4))
    published = {
        "maintenance_excess": beyond,
        "maintenance_requirement": maintenance * value,
        "initial_requirement": initial * value,
        "reg_t_excess": margins.excess(equity, value, initial),
        "reg_t_buying_power": margins.buying_power(equity, value, initial),
        "day_trading_buying_power": max(D(0), beyond * times),
        "margin_call": max(D(0), -beyond),
    }
    for name in expected:
        assert D(expected[name]) == published[name], name


def leverage(inputs: Asked, expected: Asked) -> None:
    """Four times within the day, twice from ten minutes before the close on."""
    moment, _, state = inputs["at"].partition(" ")
    local = datetime.fromisoformat(moment).replace(tzinfo=NEW_YORK)
    opens, closes = local.replace(hour=9, minute=30), local.replace(hour=16, minute=0)
    hours = Calendar([local.date()], [opens.astimezone(UTC)], [closes.astimezone(UTC)])
    inside = within_the_day(hours, local.astimezone(UTC))
    assert state in ("", "open" if hours.is_open(local.astimezone(UTC)) else "closed")
    made = floor(price=inputs["price"], rules={7: Rules(margin="reg_t", day_trading=True)})
    made.facts.at = local.astimezone(UTC)
    made.facts.quotes = {pk: _at(q, made.facts.at) for pk, q in made.facts.quotes.items()}
    made.facts.overnight = set() if inside else {STOCK.id}
    verdict, held = made.judge(intent(f"buy {inputs['qty']} limit {inputs['price']}"))
    assert verdict.approved
    assert D(expected["initial_margin"]) == held.unit_amount * D(inputs["qty"])
    assert D(1) / margins.MODELS["reg_t"].rate(made, 7, "USD", STOCK) == D(expected["leverage"])


def self_match(inputs: Asked, expected: Asked) -> None:
    """What becomes of two orders of one account that would meet."""
    if "resting_instruction" in inputs or "incoming_instruction" in inputs:
        inputs.get("resting_instruction")  # has no say
        spelled_modes = {None: "", "cancel aggressing": "cancel_newest", "cancel resting": "cancel_oldest"}
        mode = mode_of(spelled_modes[inputs["incoming_instruction"]], "cancel_oldest")
        found = prevent(mode, D(1), [_resting("1")])
        assert expected["canceled"] == ("resting" if found.cancels else "incoming" if found.quantity == 0 else "none")
        assert "AGGRESSING" in expected["rule"]
        return
    modes = {"decrement_and_cancel": "decrement"}
    resting = _resting(inputs["resting"])
    found = prevent(modes.get(inputs["mode"], inputs["mode"]), D(inputs["incoming"]), [resting])
    left = dict([found.reduced] if found.reduced else []) | dict.fromkeys(found.cancels, D(0))
    resting_left = left.get(resting.order_id, resting.quantity)
    published = {
        "resting_left": resting_left,
        "incoming_left": found.quantity,
        "resting_status": "canceled" if resting_left == 0 else "open",
        "incoming_status": "canceled" if found.quantity == 0 else "open",
        "trades": 0,
    }
    for name in expected:
        told = expected[name]
        assert (D(told) if isinstance(published[name], Decimal) else told) == published[name], name


def _resting(quantity: str) -> Resting:
    return Resting(UUID(int=2), 7, AUD.id, "sell", D(quantity), None)


def collared(inputs: Asked, expected: Asked) -> None:
    """How far a price may go: from the market, or by the bands of US exchanges."""
    if "worst_fill" in inputs:
        side = "best_ask" if "best_ask" in inputs else "best_bid"
        made = floor(limit("price_collar", "0.2"), price=inputs[side], holdings=holding(STOCK, "1"))
        words = f"{'buy' if side == 'best_ask' else 'sell'} 1 limit {inputs['worst_fill']}"
        decided(made.judge(intent(words))[0], expected)
    elif "tier" in inputs:
        found = bands.band(
            inputs["tier"], D(inputs["previous_close"]), D(inputs["reference"]), doubled=inputs["doubled"]
        )
        assert (D(expected["lower"]), D(expected["upper"])) == (found.lower, found.upper)
        assert expected["price_outside"].startswith("deny")
        assert not found.holds(found.upper + D("0.01"))
    else:
        rule, soon = expected["rule"], timedelta(minutes=25)
        minutes = int(re.search(r"last (\d+) minutes", rule)[1])
        assert timedelta(minutes=minutes) == bands.DOUBLED_BEFORE_CLOSE == soon
        assert [bands.is_doubled(1, D(p), soon) for p in ("3.01", "3")] == [True, True]
        assert [bands.is_doubled(2, D(p), soon) for p in ("3.01", "3")] == [False, True]
        assert "Tier 2 only at or below 3.00" in rule
        assert not bands.is_doubled(1, D(1), soon + timedelta(seconds=1))


PLAYED: dict[str, Callable[[Asked, Asked], None]] = {
    "fat_finger": sized,
    "size": sized,
    "notional": sized,
    "precision": on_the_grid,
    "price": on_the_grid,
    "trading_state": halted,
    "reduce_only": only_reducing,
    "no_market_data": without_a_market,
    "cash": in_cash,
    "cash_cumulative": in_cash,
    "quote_qty": by_amount,
    "rate": at_a_pace,
    "tif": in_time,
    "wash_trade": meets_itself,
    "buying_power": ties,
    "exposure": exposed,
    "pdt": day_trades,
    "pdt_repeal": repealed,
    "reg_t": reg_t,
    "leverage": leverage,
    "self_match": self_match,
    "price_collar": collared,
}


def unknown_instrument(inputs: Asked, expected: Asked, desk: Any) -> None:
    """An order for what the desk does not know is turned away, and nothing of it stored."""
    from brokers import queries as brokers
    from brokers.models import Instrument
    from orders.models import Order

    for symbol in inputs["known_instruments"]:
        Instrument.objects.get_or_create(
            symbol=symbol, asset_class="fx", currency="USD", tick_size="0.00001", lot_size="1"
        )
    brokers.forget_cache()
    order = inputs["order"]
    [answer] = desk.place(f"{order['side']} {order['qty']} {order['symbol']}")
    assert order["type"] == "market"
    known = order["symbol"] in inputs["known_instruments"]
    assert expected["decision"] == ("accept" if known else "deny")
    if not known:
        assert [f.code for f in answer.problem.errors] == ["unknown_symbol"]
        assert expected["code"] == "INSTRUMENT_NOT_FOUND"
        assert expected["reaches_venue"] is False
        assert not Order.objects.exists()


def unknown_order(inputs: Asked, expected: Asked, desk: Any) -> None:
    """A change of an order that is not there, or of one that is."""
    from orders import operations
    from orders.domain.tickets import parse_terms

    [placed] = desk.place("buy 10 AAPL limit 90")
    desk.send()
    [sent] = desk.near.sent
    desk.report(desk.near.report("new", sent))
    known = inputs["order_known"]
    try:
        order_id = placed.order_id if known else UUID(int=1)
        operations.replace(order_id, parse_terms({"quantity": "9"}), actor=desk.actor(desk.alice), at=desk.at)
        answer = "accept"
    except (NotFound, KeyError, Refused):
        answer = "deny"
    assert expected["decision"] == answer
    desk.send()
    assert expected["forwarded"] == len(desk.near.sent) - 1


ON_A_DESK = {"instrument": unknown_instrument, "modify": unknown_order}
"""Kinds that take more than risk's own rules to answer."""


@pytest.mark.parametrize("case", [c for c in cases() if c.values[0]["kind"] not in ON_A_DESK])
def test_a_published_case_ends_as_published(case: dict[str, Any]) -> None:
    inputs, expected = Asked(case["inputs"]), Asked(case["expected"])
    PLAYED[case["kind"]](inputs, expected)
    assert (inputs.unread(), expected.unread()) == ([], []), "published, and nobody read it"


@pytest.mark.parametrize("case", [c for c in cases() if c.values[0]["kind"] in ON_A_DESK])
def test_a_published_case_ends_as_published_on_a_desk(case: dict[str, Any], desk: Any) -> None:
    inputs, expected = Asked(case["inputs"]), Asked(case["expected"])
    ON_A_DESK[case["kind"]](inputs, expected, desk)
    assert (inputs.unread(), expected.unread()) == ([], []), "published, and nobody read it"


def test_what_nobody_reads_is_noticed() -> None:
    told = Asked({"a": 1, "b": {"c": 2, "d": 3}})
    assert told["b"]["c"] == 2
    assert told.unread() == ["a", "b.d"]


def test_the_clock_of_the_tables_is_no_weekend() -> None:
    assert AT.weekday() < 5
