"""Published cost and gains by lot method, played by `portfolio.domain.matching`."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from portfolio.domain.actions import Act, CapitalReturn, CostChange, Split
from portfolio.domain.contracts import inverse
from portfolio.domain.fills import received
from portfolio.domain.lots import LiveTrade, OpenLot, notional
from portfolio.domain.matching import Matching, price_of
from portfolio.domain.policies import EXPENSED, IN_COST, METHODS, Policies, Policy
from tests.oracles.reading import ABOUT, Fields, cases, check, same

OPEN = datetime(2015, 1, 5, 12, tzinfo=UTC)
ZERO = Decimal(0)
NAMES = {"uk_s104": "section_104", "inverse": "average", "strict": "specific", "average_cost": "average"}
DAY = timedelta(days=1)


def rules(method: str) -> Policies:
    """Read `FIFO`, `average`, `SPECIFIC+wash`: the desk's own method, fees in the cost of a section 104 holding."""
    name, _, more = method.lower().partition("+")
    name = NAMES.get(name, name)
    if name not in METHODS or more not in ("", "wash"):
        pytest.fail(f"nothing knows the method {method}")
    return Policies([Policy(date_min(), name, IN_COST if name == "section_104" else EXPENSED, bool(more))])


def date_min() -> Any:
    return Policy().since


def moment(text: str | None, number: int) -> datetime:
    """Read a day; of 2023 and January where it names no year or month, and one after the other without any."""
    if text is None:
        return OPEN + number * DAY
    parts = [int(p) for p in text[:10].split("-")]
    if parts[0] < 1000:
        parts = [2023, *(parts if len(parts) > 1 else [1, *parts])]
    year, month, day = [*parts, 1, 1][:3]
    return datetime(year, month, day, 12, tzinfo=UTC)


def trade(number: int, quantity: Decimal, price: str, at: datetime, fees: str = "0", chosen: Any = ()) -> LiveTrade:
    key = UUID(int=number + 1)
    return LiveTrade(key, key, at, quantity, Decimal(price), Decimal(fees), tuple(chosen))


def fills(case: dict[str, Any]) -> list[LiveTrade]:
    """Read fills in their order; what is told without a day comes a day after what stands before it."""
    found: list[LiveTrade] = []
    told = [Fields(f, f"fill {n}") for n, f in enumerate(case["fills"])]
    lots = {f.raw["lot"]: UUID(int=n + 1) for n, f in enumerate(told) if f.raw["side"] == "buy" and "lot" in f}
    for number, fill in enumerate(told):
        fill.take("note")
        at = moment(fill.take("date"), number)
        if found and at < found[-1].executed_at:
            at = found[-1].executed_at + DAY
        side, quantity, fees = fill.take("side"), fill.number("qty"), fill.number("commission", "0")
        quantity = {"buy": 1, "sell": -1}[side] * quantity
        if fill.take("commission_currency", case["currency"]) != case["currency"]:
            quantity, fees = received(quantity, fees), ZERO
        lot = fill.take("lot")
        chosen = [lots[lot]] if lot and side == "sell" else ()
        found.append(trade(number, quantity, fill.take("price"), at, str(fees), chosen))
        fill.end()
    return found


def events(case: dict[str, Any]) -> list[Act]:
    found: list[Act] = []
    for number, raw in enumerate(case.get("events", [])):
        event = Fields(raw, f"event {number}")
        at = moment(event.take("date"), number).replace(hour=0)
        kind, key = event.take("type"), UUID(int=1000 + number)
        if kind in ("split", "unsplit", "reverse_split", "consolidation"):
            new, old = (int(n) for n in str(event.take("ratio")).split(":"))
            found.append(Split(key, at, (new, old)))
        elif kind in ("capital_return", "return_of_capital"):
            found.append(CapitalReturn(key, at, event.number("per_share")) if "per_share" in event
                         else CostChange(key, at, -event.number("amount")))  # fmt: skip
        elif kind in ("dividend", "notional_dividend"):
            found.append(CostChange(key, at, event.number("amount")))
        else:
            pytest.fail(f"nothing knows an event of type {kind}")
        event.end()
    return found


def opening(case: dict[str, Any]) -> list[OpenLot]:
    told = Fields(case.get("opening", {}), "opening")
    quantity, average = told.number("qty", "0"), told.number("avg", "0")
    told.end()
    return [OpenLot(UUID(int=999), UUID(int=999), OPEN - 9 * DAY, average, quantity, quantity)] if quantity else []


class Played:
    """Fills matched one after the other; all figures are what the matching holds."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.worth = inverse if case["method"].lower().startswith("inverse") else notional
        self.policies = rules(case["method"])
        self.matching = Matching(opening(case), self.policies, self.worth)
        self.trades: list[LiveTrade] = []
        self.fees = self.cycle_fees = ZERO
        self.cycle = 0

    def run(self, one: LiveTrade) -> None:
        if not self.matching.lots:
            self.cycle, self.cycle_fees = len(self.matching.closures), ZERO
        self.matching.run([one])
        self.trades.append(one)
        if self.policies.at(one.executed_at).commissions == EXPENSED:
            self.fees += one.fees
            self.cycle_fees += one.fees

    @property
    def quantity(self) -> Decimal:
        return sum((lot.remaining for lot in self.matching.lots), ZERO)

    @property
    def gains(self) -> Decimal:
        return sum((c.recognized for c in self.matching.closures), ZERO)

    def average_open(self) -> Decimal:
        if self.quantity:
            return abs(self.matching.cost / self.quantity)
        closed = self.matching.closures[self.cycle :]
        return abs(sum((c.cost for c in closed), ZERO) / sum((c.quantity for c in closed), ZERO))

    def average_close(self) -> Decimal:
        closed = self.matching.closures[self.cycle :]
        return abs(sum((c.value for c in closed), ZERO) / sum((c.quantity for c in closed), ZERO))

    def in_cycle(self) -> Decimal:
        return sum((c.recognized for c in self.matching.closures[self.cycle :]), ZERO) - self.cycle_fees

    def unrealized(self, mark: str) -> Decimal:
        return self.worth(self.quantity, Decimal(mark)) - self.matching.cost

    def cost_closed(self) -> Decimal:
        return sum((abs(c.cost) for c in self.matching.closures), ZERO)

    def figures(self, expected: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
        mark = expected.get("unrealized", {}).get("mark", "1")
        buys = [t for t in self.trades if t.quantity > 0]
        closed = self.matching.closures
        washed = [lot for lot in self.matching.lots if lot.basis is not None]
        figures: dict[str, Any] = {
            "qty": lambda: self.quantity,
            "avg_open": self.average_open, "avg_cost": self.average_open, "avg_close": self.average_close,
            "realized": lambda: self.gains - self.fees, "realized_net": lambda: self.gains - self.fees,
            "net_pnl": lambda: self.gains - self.fees,
            "realized_gross": lambda: self.gains, "gross_pnl": lambda: self.gains, "realized_derived": lambda: self.gains,
            "realized_this_cycle": self.in_cycle,
            "realized_return": lambda: self.gains_in_cycle() / self.average_open(),
            "return_": lambda: self.gains / self.cost_closed(),
            "commissions": lambda: self.fees, "fees": lambda: self.fees,
            "total": lambda: self.gains - self.fees + self.unrealized(mark),
            "unrealized": lambda: {"mark": mark, "pnl": self.unrealized(mark)},
            "notional_at_mark": lambda: abs(self.worth(self.quantity, Decimal(mark))),
            "qty_after_buy": lambda: buys[0].quantity,
            "gain_per_share": lambda: self.gains / sum((abs(c.quantity) for c in closed), ZERO),
            "recognized_loss": lambda: max(ZERO, -self.gains), "recognized_gain": lambda: self.gains,
            "disallowed_loss": lambda: sum((c.disallowed for c in closed), ZERO),
            "new_lot_basis": lambda: sum((lot.cost for lot in washed), ZERO),
            "holding_period": self.holding_period,
        }  # fmt: skip
        for number, fill in enumerate(case["fills"]):
            if "lot" in fill and fill["side"] == "buy":
                figures[f"lot_{fill['lot']}_basis"] = lambda n=number: self.lot_cost(n)
                figures[f"if_lot_{fill['lot']}_sold_instead"] = lambda name=fill["lot"]: other_lot(case, name)
        return figures

    def gains_in_cycle(self) -> Decimal:
        closed = self.matching.closures[self.cycle :]
        return sum((c.recognized for c in closed), ZERO) / sum((abs(c.quantity) for c in closed), ZERO)

    def lot_cost(self, number: int) -> Decimal:
        return sum((lot.cost for lot in self.matching.lots if lot.version == UUID(int=number + 1)), ZERO)

    def holding_period(self) -> str:
        sold, [bought] = self.matching.closures[0], self.matching.lots
        assert bought.held_since is not None
        longer = bought.opened_at - bought.held_since
        return "tacked" if longer == sold.closed_at - sold.held_since else "new"


def other_lot(case: dict[str, Any], lot: str) -> dict[str, Any]:
    """Play a case with another lot sold; the figures asked of it."""
    wanted = case["expected"][f"if_lot_{lot}_sold_instead"]
    changed = [f | ({"lot": lot} if f["side"] == "sell" else {}) for f in case["fills"]]
    played = Played(case)
    for one in fills(case | {"fills": changed}):
        played.run(one)
    figures = played.figures({}, case)
    return {k: v if same(figures[k](), v) else figures[k]() for k, v in wanted.items()}


def play_fills(case: dict[str, Any]) -> None:
    played, expected = Played(case), dict(case["expected"])
    trades, steps, sizes = fills(case), expected.pop("after_each", None), expected.pop("qty_after_each", None)
    for number, one in enumerate(trades):
        played.run(one)
        if steps is not None:
            check(steps[number], played.figures(steps[number], case), f"after fill {number}")
        if sizes is not None:
            assert played.quantity == Decimal(sizes[number])
    if "unrealized" in expected:
        wanted = expected.pop("unrealized")
        assert wanted.keys() == {"mark", "pnl"}
        assert same(played.unrealized(wanted["mark"]), wanted["pnl"])
    check(expected, played.figures(case["expected"], case), "at the end")


def play_pool(case: dict[str, Any]) -> None:
    """Play a section 104 holding: fills and what happened to the shares, in the order of their days."""
    matching = Matching((), rules(case["method"]))
    trades, acts = fills(case), events(case)
    items: Iterable[LiveTrade | Act] = sorted([*acts, *trades], key=lambda i: (i.executed_at, isinstance(i, LiveTrade)))
    matching.run(items)
    expected = Fields(case["expected"], "expected")
    for raw in expected.take("disposals"):
        told = Fields(raw, "disposal")
        day = moment(told.take("date"), 0).date()
        parts = [c for c in matching.closures if c.closed_at.date() == day]
        gain = sum((c.recognized for c in parts), ZERO)
        assert gain.to_integral_value("ROUND_FLOOR") == told.number("gain_whole_pounds")
        if "exact" in told:
            assert gain == told.number("exact")
        if "match" in told:
            assert {c.match.replace("_", " ") for c in parts} == set(told.take("match").split(" + "))
        told.end()
    after = expected.take("holding_after")
    held = [(lot.remaining, price_of(lot)) for lot in matching.lots]
    if after is None:
        assert held == []
    else:
        [(quantity, price)], told = held, Fields(after, "holding")
        assert (quantity, same(price, told.take("unit_cost"))) == (told.number("qty"), True)
        told.end()
    expected.end()


def meant(lots: list[dict[str, Any]], spec: dict[str, Any] | None) -> list[UUID]:
    """Return the lots that a reduction points at: those that are as it says."""
    return [UUID(int=n + 1) for n, lot in enumerate(lots) if spec and all(lot.get(k) == v for k, v in spec.items())]


def play_reductions(case: dict[str, Any]) -> None:
    told = case["opening_lots"]
    reductions = case["reduce"] if isinstance(case["reduce"], list) else [case["reduce"]]
    spec = next((r.get("lot_spec") for r in reductions if r.get("lot_spec")), None) or {}
    currency = spec.get("currency", case["currency"])
    holding = [(n, x) for n, x in enumerate(told) if x.get("currency", case["currency"]) == currency]
    aside = [x for x in told if x.get("currency", case["currency"]) != currency]  # a holding of its own
    lots = []
    for number, raw in holding:
        lot = Fields(raw, f"lot {number}")
        lot.take("label"), lot.take("currency")
        quantity, key = lot.number("qty"), UUID(int=number + 1)
        at = moment(lot.take("date"), number)
        lots.append(OpenLot(key, key, at, lot.number("cost"), quantity, quantity))
        lot.end()
    matching = Matching(lots, rules(case["method"]))
    later = max(lot.opened_at for lot in lots) + DAY
    booked: list[list[tuple[Decimal, Decimal]]] = []
    for number, raw in enumerate(reductions):
        reduction = Fields(raw, f"reduction {number}")
        quantity, before = -reduction.number("qty"), len(matching.closures)
        chosen, price = meant(told, reduction.take("lot_spec")), reduction.take("price", "1")
        reduction.take("date")
        if quantity:
            matching.run([trade(900 + number, quantity, price, later, chosen=chosen)])
        booked.append([(c.quantity, c.cost / c.quantity) for c in matching.closures[before:]])
        reduction.end()
    expected = Fields(case["expected"], "expected")
    wanted = expected.take("booked")
    groups = wanted if wanted and isinstance(wanted[0], list) else [wanted]
    if not isinstance(wanted[0] if wanted else [], list):
        booked = [[b for group in booked for b in group]]
    if any(lot.quantity < 0 for lot in lots):  # told as what a crossing closes and what it opens
        opened = [(lot.remaining, price_of(lot)) for lot in matching.lots if lot.id.int > 900]
        booked = [[(-q, c) for q, c in group] + opened for group in booked]
    assert booked == [[(Decimal(w["qty"]), Decimal(w["cost"])) for w in group] for group in groups]
    left = [(lot.remaining, price_of(lot)) for lot in matching.lots]
    left += [(Decimal(x["qty"]), Decimal(x["cost"])) for x in aside]
    assert sorted(left) == sorted((Decimal(r["qty"]), Decimal(r["cost"])) for r in expected.take("remaining"))
    expected.end()


@pytest.mark.parametrize("case", cases("pnl_lots.json"))
def test_a_published_case(case: dict[str, Any]) -> None:
    known = ABOUT | {"method", "currency", "fills", "events", "expected", "opening", "opening_lots", "reduce"}
    assert case.keys() <= known, f"nothing knows {sorted(case.keys() - known)}"
    if case.get("do_not_assert"):
        pytest.skip("published as not to be asserted")
    if "opening_lots" in case:
        play_reductions(case)
    elif case["method"].upper().startswith("UK"):
        play_pool(case)
    else:
        play_fills(case)
