"""Published corporate actions, played by what the desk does to lots, to entitlements and to open orders."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from orders.domain.adjusting import Terms, price_after, scaled, split
from portfolio.domain.actions import (
    Act,
    CapitalReturn,
    CostChange,
    Merger,
    Receipt,
    SpinOff,
    Split,
    Subscription,
    cost_share,
    entitled,
    whole,
)
from portfolio.domain.entitlement import DUE_BILL, claim, ex_date, is_entitled
from portfolio.domain.lots import LiveTrade
from portfolio.domain.matching import Matching, price_of
from portfolio.domain.policies import IN_COST, Policies, Policy
from tests.oracles.reading import ABOUT, Fields, cases, check

ZERO, ONE = Decimal(0), Decimal(1)
START = datetime(2015, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
POOL = Policies([Policy(method="section_104", commissions=IN_COST)])
Ratio = tuple[int, int]
Figures = dict[str, Callable[[], Any]]


def ratio_of(text: object) -> Ratio:
    """Read `0.3879` or `1/2` as two integers."""
    new, old = str(text), "1"
    if "/" in new or ":" in new:
        new, old = new.replace(":", "/").split("/")
    value = Decimal(new) / Decimal(old)
    places = max(0, -int(value.as_tuple().exponent))
    return int(value.scaleb(places)), 10**places


class Book:
    """One holding and what came out of it, by day."""

    def __init__(self, inputs: Fields, policies: Policies = POOL) -> None:
        self.policies, self.day, self.trades = policies, START, 0
        self.holdings: dict[str, Matching] = {"": Matching((), policies)}
        self.sold: list[Any] = []
        if "fills" in inputs:
            for raw in inputs.take("fills"):
                fill = Fields(raw, "fill")
                self.trade(fill.number("qty"), fill.number("price"), fill.number("commission", "0"))
                fill.end()
        else:
            quantity = inputs.number("parent_qty" if "parent_qty" in inputs else "qty")
            cost = next((inputs.number(n) for n in ("basis", "parent_basis") if n in inputs), None)
            price = inputs.number("unit_cost") if cost is None else cost / quantity
            self.trade(quantity, price)
            if cost is not None:
                self.holdings[""].lots[0].basis = cost

    def __getitem__(self, name: str) -> Matching:
        return self.holdings[name]

    def trade(self, quantity: Decimal, price: Decimal, fees: Decimal = ZERO, of: str = "") -> None:
        self.day, self.trades, key = self.day + 40 * DAY, self.trades + 1, UUID(int=self.trades + 1)
        self.holdings[of].run([LiveTrade(key, key, self.day, quantity, price, fees)])

    def act(self, make: Callable[..., Act], *args: Any, of: str = "") -> UUID:
        self.day += DAY
        self.holdings.setdefault(of, Matching((), self.policies))
        key = UUID(int=5000 + self.day.toordinal() * 10 + len(of))
        self.holdings[of].run([make(key, self.day, *args)])
        return key

    def give(self, key: UUID, to: str, fraction: Decimal = ZERO, in_lieu: Decimal = ZERO, of: str = "") -> None:
        self.act(Receipt, self.holdings[of].given[key], fraction, in_lieu, of=to)

    def then(self, inputs: Fields, of: str = "") -> None:
        for raw in inputs.take("then", []):
            step = Fields(raw, "then")
            before = len(self.holdings[of].closures)
            sign = {"buy": 1, "sell": -1}[step.take("side")]
            fees = step.number("costs", "0") + step.number("commission", "0")
            step.take("date")
            self.trade(sign * step.number("qty"), step.number("price"), fees, of)
            self.sold += self.holdings[of].closures[before:]
            step.end()

    def quantity(self, of: str = "") -> Decimal:
        return sum((lot.remaining for lot in self.holdings[of].lots), ZERO)

    def cost(self, of: str = "") -> Decimal:
        return self.holdings[of].cost if of in self.holdings else ZERO

    def price(self, of: str = "") -> Decimal:
        [lot] = self.holdings[of].lots
        return price_of(lot)

    def gain(self) -> Decimal:
        return sum((c.recognized for c in self.sold), ZERO)


def fraction_of(quantity: Decimal) -> Decimal:
    return quantity - whole(quantity, ONE)


def each(paid: Decimal | None, fraction: Decimal) -> Decimal:
    """Return what a unit was paid for; a fraction is paid for whether or not a case tells how much came of it."""
    return paid / fraction if paid is not None and fraction else ZERO


def in_lieu_figures(book: Book, of: str, came: Decimal, paid: Decimal | None, cost: Decimal) -> Figures:
    """Figures of a fraction that was paid for; `cost` is that of all that came, by which the fraction has its share."""
    closed = [c for c in book[of].closures if c.quantity == fraction_of(came)]
    return {
        "fraction": lambda: fraction_of(came),
        "fraction_basis": lambda: closed[0].cost if closed else cost * fraction_of(came) / came,
        "cil_gain": lambda: closed[0].recognized,
        "cil_gain_derived": lambda: closed[0].recognized,
        "cash_in_lieu": lambda: paid,
        "whole_shares": lambda: whole(came, ONE),
    }


def a_split(inputs: Fields, _: dict[str, Any]) -> Figures:
    if "bonus" in inputs:
        return a_bonus(inputs, _)
    book = Book(inputs)
    ratio = (
        (int(inputs.take("ratio_new")), int(inputs.take("ratio_old")))
        if "ratio_new" in inputs
        else ratio_of(inputs.take("ratio"))
    )
    held, cost = book.quantity(), book.cost()
    came = entitled(held, ratio)
    cents = inputs.number("cash_in_lieu") if "cash_in_lieu" in inputs else None
    fraction = fraction_of(came)
    book.act(Split, ratio, fraction, each(cents, fraction))
    after = book.price()
    book.then(inputs)
    return {
        "qty": book.quantity, "basis": book.cost, "unit_cost": lambda: after, "qty_entitled": lambda: came,
        "total_basis": lambda: cost, "qty_after": book.quantity, "basis_after": book.cost,
        "realized": book.gain, "realized_derived": book.gain,
        **in_lieu_figures(book, "", came, cents, cost),
    }  # fmt: skip


def a_spin_off(inputs: Fields, _: dict[str, Any]) -> Figures:
    book = Book(inputs)
    ratio = ratio_of(inputs.take("ratio") if "ratio" in inputs else inputs.take("child_ratio"))
    if "child_alloc" in inputs:
        share = inputs.number("child_alloc")
        assert inputs.number("parent_alloc", str(1 - share)) == 1 - share
    else:
        share = cost_share(inputs.number("parent_price"), inputs.number("child_price"), ratio)
    held = book.quantity()
    came = entitled(held, ratio)
    cents = inputs.number("cash_in_lieu") if "cash_in_lieu" in inputs else None
    fraction = fraction_of(came)
    given = book.act(SpinOff, ratio, share)
    moved = sum((lot.cost for lot in book[""].given[given]), ZERO)
    parent, unit = book.cost(), moved / came
    book.give(given, "child", fraction, each(cents, fraction))
    book.then(inputs)
    return {
        "child_qty_entitled": lambda: came, "child_qty": lambda: came, "child_whole": lambda: whole(came, ONE),
        "child_fraction": lambda: fraction_of(came), "parent_basis_after": lambda: parent,
        "parent_unit_basis": lambda: parent / held, "child_basis_total": lambda: moved,
        "child_unit_basis": lambda: unit, "child_alloc": lambda: share, "parent_alloc": lambda: 1 - share,
        "parent_qty": lambda: held, **in_lieu_figures(book, "child", came, cents, moved),
    }  # fmt: skip


def a_merger(inputs: Fields, _: dict[str, Any]) -> Figures:
    book = Book(inputs)
    for name in ("purchase", "effective"):
        inputs.take(name)
    held, cost = book.quantity(), book.cost()
    if "acquirer_qty" in inputs:
        ratio: Ratio | None = ratio_of(inputs.number("acquirer_qty") / held)
    else:
        ratio = ratio_of(inputs.take("ratio")) if "ratio" in inputs else None
    cash, price = inputs.number("cash_per_share", "0"), inputs.number("acquirer_price", "0")
    came = entitled(held, ratio) if ratio else ZERO
    given = book.act(Merger, ratio, cash, price)
    gain = sum((c.recognized for c in book[""].closures), ZERO)
    moved = sum((lot.cost for lot in book[""].given.get(given, ())), ZERO)
    stock, boot = came * price, held * cash
    cents = inputs.number("cash_in_lieu") if "cash_in_lieu" in inputs else None
    fraction = fraction_of(came)
    if cents is None and price:
        cents = fraction * price
    if ratio:
        book.give(given, "acquirer", fraction, each(cents, fraction))
    left = book.cost("acquirer")
    book.then(inputs, "acquirer")
    return {
        "acquirer_qty": lambda: came, "stock_value": lambda: stock, "boot": lambda: boot,
        "proceeds": lambda: boot, "total_consideration": lambda: stock + boot, "economic_gain": lambda: stock + boot - cost,
        "recognized_gain": lambda: gain, "deferred_gain": lambda: stock + boot - cost - gain,
        "new_basis_total": lambda: moved, "total_basis": lambda: moved, "total_basis_before_cil": lambda: moved,
        "unit_basis": lambda: moved / came, "remaining_basis_derived": lambda: left, "remaining_basis": lambda: left,
        **in_lieu_figures(book, "acquirer", came, cents, moved),
    }  # fmt: skip


def rights(inputs: Fields, _: dict[str, Any]) -> Figures:
    book = Book(inputs)
    ratio = int(inputs.take("rights_new")), int(inputs.take("rights_old"))
    came, price = entitled(book.quantity(), ratio), inputs.number("rights_price")
    book.act(Subscription, came, price)
    quantity, cost = book.quantity(), book.cost()
    book.then(inputs)

    def sold() -> Decimal:
        return sum((c.cost for c in book.sold), ZERO)

    return {
        "rights_qty": lambda: came, "rights_cost": lambda: came * price, "qty_after_rights": lambda: quantity,
        "basis_after_rights": lambda: cost, "unit_cost": lambda: cost / quantity,
        "sold_cost": sold, "sold_cost_exact": sold, "proceeds": lambda: -sum((c.value for c in book.sold), ZERO),
        "gain": book.gain, "gain_before_indexation": book.gain, "qty_after": book.quantity, "basis_after": book.cost,
    }  # fmt: skip


def a_bonus(inputs: Fields, expected: dict[str, Any]) -> Figures:
    """Units of other classes come; the cost goes by what each class is worth when the first of them is sold."""
    book = Book(inputs)
    values = {k.lower(): Decimal(v) for k, v in inputs.take("values_at_disposal").items()}
    held, figures = book.quantity(), Figures()
    worth = {"": held * values["ordinary"]}
    classes = [(b["cls"].lower(), ratio_of(b["per"])) for b in inputs.take("bonus")]
    worth |= {name: entitled(held, ratio) * values[name] for name, ratio in classes}
    left = total = sum(worth.values(), ZERO)
    for name, ratio in classes:
        given = book.act(SpinOff, ratio, worth[name] / left)
        left -= worth[name]
        book.give(given, name)
        told = next(k for k in (name, name.upper(), name.title()) if f"{k}_qty" in expected)
        quantity, cost = book.quantity(name), book.cost(name)
        figures |= {f"{told}_qty": lambda q=quantity: q, f"{told}_cost_derived": lambda c=cost: c}
    if "sold" in expected:
        sale, of = expected["sold"], expected["sold"]["cls"].lower()
        book.trade(-Decimal(sale["qty"]), Decimal(sale["price"]), of=of)
        brought = -book[of].closures[-1].value
        figures["sold"] = lambda: sale if brought == Decimal(sale["proceeds"]) else brought
    return figures | {"total_value": lambda: total, "ordinary_cost_derived": book.cost}


def a_dividend(inputs: Fields, expected: dict[str, Any]) -> Figures:
    def business(day: date) -> bool:
        return day.weekday() < 5

    if "dividend_pct" in inputs:
        pay, part = date(2026, 3, 6), inputs.number("dividend_pct")
        ex = ex_date(date(2026, 2, 20), pay, 1, part, business)
        between = claim(traded=date(2026, 3, 2), settles=date(2026, 3, 3), ex=ex, record=date(2026, 2, 20))
        large = ex == date(2026, 3, 9)
        return {
            "ex_date": lambda: expected["ex_date"] if large else ex.isoformat(),
            "trades_between_record_and_ex": lambda: (
                expected["trades_between_record_and_ex"] if between == DUE_BILL else between
            ),
        }
    if "record_date" in inputs:
        days = int(inputs.take("settlement").removeprefix("T+"))
        ex = ex_date(date.fromisoformat(inputs.take("record_date")), None, days, None, business)
        return {
            "ex_date": ex.isoformat,
            "buy_on_ex_date_entitled": lambda: is_entitled(bought=ex, sold=None, ex=ex),
            "buy_before_ex_date_entitled": lambda: is_entitled(bought=ex - DAY, sold=None, ex=ex),
            "sell_on_ex_date_entitled": lambda: is_entitled(bought=None, sold=ex, ex=ex),
        }
    if "per_share" in inputs:
        book = Book(inputs)
        return {
            "qty": book.quantity, "unit_cost": book.price,
            "dividend_income": lambda per=inputs.number("per_share"): book.quantity() * per,
        }  # fmt: skip
    days = {n: date.fromisoformat(d if len(d) > 5 else f"2026-{d}") if (d := inputs.take(n)) else None
            for n in ("buy_date", "sell_date", "ex_date")}  # fmt: skip
    inputs.take("qty")
    ex = days["ex_date"]
    assert ex is not None
    return {"entitled": lambda: is_entitled(bought=days["buy_date"], sold=days["sell_date"], ex=ex)}


def a_capital_return(inputs: Fields, _: dict[str, Any]) -> Figures:
    book = Book(inputs)
    if "notional_dividend" in inputs:
        book.act(CostChange, inputs.number("notional_dividend"))
    if "capital_return" in inputs:
        book.act(CostChange, -inputs.number("capital_return"))
    if "per_share" in inputs:
        book.act(CapitalReturn, inputs.number("per_share"))
    over = sum((c.recognized for c in book[""].closures), ZERO)
    cost, unit = book.cost(), book.price()
    book.then(inputs)
    return {
        "pool_cost": lambda: cost, "basis": lambda: cost, "unit_cost": lambda: unit, "recognized_gain": lambda: over,
        "gain": book.gain, "realized": book.gain, "gain_whole_pounds": lambda: book.gain().to_integral_value("ROUND_FLOOR"),
    }  # fmt: skip


def an_open_order(inputs: Fields, _: dict[str, Any]) -> Figures:
    ratio = int(inputs.take("ratio_new")), int(inputs.take("ratio_old"))
    before = Terms(
        inputs.number("order_qty"), inputs.number("cum_qty", "0"), None, None,
        inputs.number("avg_px") if "avg_px" in inputs else None,
    )  # fmt: skip
    assert before.leaves == inputs.number("leaves", str(before.leaves))
    after = split(before, ratio, side="buy", tick=Decimal("0.01"), lot=ONE)
    figures: Figures = {
        "order_qty": lambda: after.quantity, "cum_qty": lambda: after.filled, "leaves": lambda: after.leaves,
        "avg_px": lambda: after.average_price, "limit_price_factor": lambda: scaled(ONE, (ratio[1], ratio[0])),
    }  # fmt: skip
    for name in ("limit_price", "stop_price"):
        if name in inputs:
            price = inputs.number(name)
            figures[name] = lambda p=price: price_after(p, ratio, side="buy", tick=Decimal("0.01"))
    return figures


def a_new_symbol(inputs: Fields, _: dict[str, Any]) -> Figures:
    inputs.take("note")
    held = inputs.number("qty")
    book = Book(Fields({"qty": str(held), "unit_cost": "1"}, "inputs"))
    before = book.cost()
    book.act(Split, (1, 1))  # a new name is no new unit
    return {"qty": book.quantity, "basis": lambda: "unchanged" if book.cost() == before else "changed"}


PLAYED: dict[str, Callable[[Fields, dict[str, Any]], Figures]] = {
    **dict.fromkeys(("split", "reverse_split", "stock_dividend"), a_split),
    **dict.fromkeys(("spinoff", "spin_off"), a_spin_off),
    **dict.fromkeys(("merger_cash", "merger_stock", "merger_cash_and_stock", "merger"), a_merger),
    "rights": rights,
    "cash_dividend": a_dividend,
    **dict.fromkeys(("capital_return", "return_of_capital"), a_capital_return),
    "gt_order_split": an_open_order,
    **dict.fromkeys(("symbol_change", "name_change"), a_new_symbol),
}


@pytest.mark.parametrize("case", cases("corporate_actions.json"))
def test_a_published_action(case: dict[str, Any]) -> None:
    assert case.keys() <= ABOUT | {"type", "inputs", "expected"}
    if case.get("do_not_assert"):
        pytest.skip("published as not to be asserted")
    assert case["type"] in PLAYED, f"nothing knows the type {case['type']}"
    inputs, expected = Fields(case["inputs"], "inputs"), dict(case["expected"])
    figures = PLAYED[case["type"]](inputs, expected)
    for name in [n for n in expected if n.endswith("_hmrc")]:
        expected.pop(name)  # told beside the exact figure: the authority rounds a fraction on its way
    check(expected, figures, case["type"])
    inputs.end()
