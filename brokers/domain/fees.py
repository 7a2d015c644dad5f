"""What a broker charges: one function for the estimate, the booking and the comparison with the bill.

A schedule is a list of items. Each has a `kind`, which names the charge, a `basis` and how much:

- `per_share` (or `per_contract`): the rate per unit traded; `percent`: in percent of the value; `per_order`: as it is;
  `percent_of`: in percent of what the schedule charges for the kind named by `of`.
- `rate`, or `tiers` ([bound, rate], the last bound null: each unit at the rate of its place in the month's volume, by
  value for `percent`), or `bands` ({below or upto, rate}, the last with neither: all at the rate of the order's price, or
  of what `by` names: value or quantity; `month_upto`: only while the month's volume before the order is no more).

It may also have `side`; `liquidity` (maker or taker); `hours` (regular or extended: outside of the exchange's session);
`above` (nothing up to this value); `min` and `max` (amounts), `max_percent` (in percent of the value; it binds the
minimum too); `round` (to: a step, mode: up, down, half_up or half_even); `currency`, of a third country or `base`, which
takes a `percent` of the units instead of the cash.

All of it counts once for a broker's order, however many fills it takes: each fill is charged what it adds to the order's
total, as rounded. A negative rate is a rebate. What a maker pays and a taker doesn't must be in proportion: no minimum.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal
from itertools import product
from typing import Any

from oms.kernel.decimals import EXACT, ZERO, money

MAKER, TAKER = "maker", "taker"
REGULAR, EXTENDED = "regular", "extended"
BASE = "base"
_BASES = frozenset({"per_share", "per_contract", "percent", "per_order", "percent_of"})
_MODES = {"up": ROUND_UP, "down": ROUND_DOWN, "half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN}
_KEYS = frozenset(
    {
        "kind", "basis", "rate", "tiers", "bands", "by", "of", "side", "liquidity", "hours", "above", "min", "max", "max_percent", "round",
        "currency",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeeCharge:
    """One charge; below zero it is a rebate."""

    kind: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Done:
    """What was filled before: units, unsigned, and their value."""

    quantity: Decimal = ZERO
    value: Decimal = ZERO


NOTHING = Done()


def charge(
    items: Iterable[Mapping[str, Any]],
    *,
    side: str,
    quantity: Decimal,
    price: Decimal,
    currency: str,
    done: Done = NOTHING,
    month: Done = NOTHING,
    liquidity: str = TAKER,
    hours: str = REGULAR,
    base_currency: str = "",
) -> list[FeeCharge]:
    """Return the charges of a fill, in the order of the schedule's items; items of another side are left out.

    They are what the order's charges grow by with it, so that all fills together are charged as one would be: `done` is
    what the order filled before, `month` what the account did there this month before the order. Quantity is unsigned.
    What can't be read raises `ValueError`: a fee that can't be read must not be taken as none.
    """
    wanted = [
        i
        for i in items
        if i.get("side", side) == side and i.get("liquidity", liquidity) == liquidity and i.get("hours", hours) == hours
    ]
    after = _totals(wanted, Done(done.quantity + quantity, done.value + quantity * price), month)
    before = _totals(wanted, done, month) if done.quantity else [ZERO] * len(wanted)
    charges = []
    for item, now, then in zip(wanted, after, before, strict=True):
        if amount := money(now) - money(then):
            charges.append(FeeCharge(str(item["kind"]), amount, _currency(item, currency, base_currency)))
    return charges


def judge(items: object) -> None:
    """Raise `ValueError` unless these are items that `charge` can read, with nothing in them that it would pass over."""
    if not isinstance(items, list):
        raise ValueError("a schedule is a list of items")
    kinds: set[str] = set()
    for item in items:
        if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
            raise ValueError("every item of a schedule has a kind")
        if unknown := item.keys() - _KEYS:
            raise ValueError(f"an item of a schedule has no {', '.join(sorted(map(str, unknown)))}")
        if sum(n in item for n in ("rate", "tiers", "bands")) != 1:
            raise ValueError(f"{item['kind']}: name one of rate, tiers and bands")
        if item["basis"] == "percent_of" and item.get("of") not in kinds:
            raise ValueError(f"{item['kind']}: `of` names a kind that stands before it")
        if item.get("currency") == BASE and item["basis"] != "percent":
            raise ValueError(f"{item['kind']}: only a percentage can be taken in units")
        if item.get("liquidity", TAKER) not in (MAKER, TAKER):
            raise ValueError(f"{item['kind']}: liquidity is maker or taker")
        if item.get("hours", REGULAR) not in (REGULAR, EXTENDED):
            raise ValueError(f"{item['kind']}: hours are regular or extended")
        if item.get("by", "price") not in ("price", "value", "quantity"):
            raise ValueError(f"{item['kind']}: bands go by price, by value or by quantity")
        if "tiers" in item and item["tiers"][-1][0] is not None:
            raise ValueError(f"{item['kind']}: the last tier has no bound")
        kinds.add(item["kind"])
    one = Decimal(1)
    for side in ("buy", "sell"):
        for liquidity, hours in product((MAKER, TAKER), (REGULAR, EXTENDED)):
            charge(
                items, side=side, quantity=one, price=one, currency="USD", liquidity=liquidity, hours=hours,
                base_currency="BTC",
            )  # fmt: skip


def needs_month(items: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether what the account did this month counts for a schedule."""
    return any("tiers" in i or any("month_upto" in band for band in i.get("bands", ())) for i in items)


def cancellation(*, canceled: int, executed: int, fee: Decimal, credit: Decimal) -> Decimal:
    """Return what a broker charges for cancels of a day where executions earn a credit against it; never below zero."""
    return max(ZERO, canceled * fee - executed * credit)


def _totals(items: Sequence[Mapping[str, Any]], order: Done, month: Done) -> list[Decimal]:
    """Return what an order is charged by each item; nothing for an order of nothing."""
    if not order.quantity:
        return [ZERO] * len(items)
    found, by_kind = [], dict[str, Decimal]()
    for item in items:
        amount = _bounded(item, _amount(item, order, month, by_kind), order.value)
        found.append(amount)
        by_kind[item["kind"]] = by_kind.get(item["kind"], ZERO) + amount
    return found


def _amount(item: Mapping[str, Any], order: Done, month: Done, by_kind: Mapping[str, Decimal]) -> Decimal:
    basis = item["basis"]
    if basis not in _BASES:
        raise ValueError(f"unknown fee basis {basis!r}")
    if "above" in item and order.value <= _decimal(item["above"]):
        return ZERO
    if basis in ("per_share", "per_contract"):
        return _tiered(item, order.quantity, month.quantity, order, month)
    if basis == "percent":
        base = order.quantity if item.get("currency") == BASE else order.value
        before = month.quantity if item.get("currency") == BASE else month.value
        return _tiered(item, base, before, order, month) / 100
    if basis == "per_order":
        return _rate(item, order, month)
    return by_kind.get(item["of"], ZERO) * _rate(item, order, month) / 100


def _tiered(item: Mapping[str, Any], size: Decimal, before: Decimal, order: Done, month: Done) -> Decimal:
    """Return size times the rate; with tiers every part at the rate of its place after `before`."""
    if "tiers" not in item:
        return size * _rate(item, order, month)
    total, start, end = ZERO, before, before + size
    for bound, rate in item["tiers"]:
        upto = end if bound is None else min(end, _decimal(bound))
        if upto > start:
            total += (upto - start) * _decimal(rate)
            start = upto
    return total


def _rate(item: Mapping[str, Any], order: Done, month: Done) -> Decimal:
    if "bands" not in item:
        return _decimal(item["rate"])
    match item.get("by", "price"):
        case "value":
            by = order.value
        case "quantity":
            by = order.quantity
        case _:
            by = EXACT.divide(order.value, order.quantity)
    for band in item["bands"]:
        below, upto, so_far = band.get("below"), band.get("upto"), band.get("month_upto")
        if so_far is not None and month.quantity > _decimal(so_far):
            continue
        if (below is None or by < _decimal(below)) and (upto is None or by <= _decimal(upto)):
            return _decimal(band["rate"])
    raise ValueError("the last band of a fee has no bound")


def _bounded(item: Mapping[str, Any], amount: Decimal, value: Decimal) -> Decimal:
    if "above" in item and value <= _decimal(item["above"]):
        return ZERO
    if item.get("min") is not None:
        amount = max(amount, _decimal(item["min"]))
    if item.get("max") is not None:
        amount = min(amount, _decimal(item["max"]))
    if item.get("max_percent") is not None:
        amount = min(amount, value * _decimal(item["max_percent"]) / 100)
    if step := item.get("round"):
        to = _decimal(step["to"])
        amount = EXACT.divide(amount, to).quantize(Decimal(1), rounding=_MODES[step["mode"]], context=EXACT) * to
    return amount


def _currency(item: Mapping[str, Any], currency: str, base_currency: str) -> str:
    named = item.get("currency", currency)
    if named != BASE:
        return str(named)
    if not base_currency:
        raise ValueError("only a pair has a base currency to take a fee in")
    return base_currency


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))
