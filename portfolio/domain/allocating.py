"""Dividing what can't be divided freely: whole units of a budget by weights, and one quantity among several, to the last unit."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import TypeVar

from oms.kernel.decimals import EXACT, ZERO

K = TypeVar("K", bound=Hashable)
SKIPS_MAX = 10
"""How many names in a row may be too dear for what is left, before a greedy allocation is taken as done."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Whole units by name, shorts below zero, and the money that bought nothing."""

    units: dict[str, int]
    leftover: Decimal


def allocate(
    value: Decimal,
    weights: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    *,
    short_ratio: Decimal | None = None,
    reinvest: bool = False,
) -> Allocation:
    """Turn weights into whole units of a budget: what each weight buys, then one unit at a time of whatever is furthest below.

    Weights below zero are sold short with a budget of their own, `short_ratio` of the value (None: as much as they ask
    for); their proceeds may be `reinvest`ed in the longs. Raises `ValueError` for a value, ratio, weight or price that
    can't be.
    """
    _judge(value, weights, prices, short_ratio)
    shorts = {n: -w for n, w in weights.items() if w < 0}
    if not shorts:
        return _without_zeros(*_greedy(value, dict(weights), prices))
    ratio = sum(shorts.values(), ZERO) if short_ratio is None else short_ratio
    short_value = value * ratio
    long_value = value + short_value if reinvest else value
    longs = _normalised({n: w for n, w in weights.items() if w >= 0})
    bought, over = _greedy(long_value, longs, prices) if longs else ({}, long_value)
    sold, short_over = _greedy(short_value, _normalised(shorts), prices) if short_value else ({}, ZERO)
    return _without_zeros(bought | {n: -u for n, u in sold.items()}, over + short_over)


def without_zeros(units: Mapping[str, int]) -> dict[str, int]:
    """Return the names that something is held of."""
    return {n: u for n, u in units.items() if u}


def weight_error(units: Mapping[str, int], weights: Mapping[str, Decimal], prices: Mapping[str, Decimal]) -> Decimal:
    """Return the root mean square distance between the weights asked for and those that whole units came to."""
    worth = sum((u * prices[n] for n, u in units.items()), ZERO)
    errors = [w - (units.get(n, 0) * prices[n] / worth if worth else ZERO) for n, w in weights.items()]
    return (sum((e * e for e in errors), ZERO) / len(errors)).sqrt() if errors else ZERO


def _judge(
    value: Decimal, weights: Mapping[str, Decimal], prices: Mapping[str, Decimal], short_ratio: Decimal | None
) -> None:
    if not value.is_finite() or value <= 0:
        raise ValueError("the value to allocate is above zero")
    if short_ratio is not None and (not short_ratio.is_finite() or short_ratio < 0):
        raise ValueError("the short ratio is not below zero")
    if not weights or not all(w.is_finite() for w in weights.values()):
        raise ValueError("every weight is a number, and there is at least one")
    priced = [prices.get(n) for n in weights]
    if any(p is None or not p.is_finite() or p <= 0 for p in priced) or any(not p.is_finite() for p in prices.values()):
        raise ValueError("every name has a price above zero")


def _normalised(weights: Mapping[str, Decimal]) -> dict[str, Decimal]:
    total = sum(weights.values(), ZERO)
    return {n: w / total for n, w in weights.items()} if total else {}


def _without_zeros(units: Mapping[str, int], leftover: Decimal) -> Allocation:
    return Allocation(without_zeros(units), leftover)


def _greedy(
    value: Decimal, weights: dict[str, Decimal], prices: Mapping[str, Decimal]
) -> tuple[dict[str, int], Decimal]:
    names = sorted(weights, key=lambda n: -weights[n])  # stable: equal weights keep the order they came in
    units = {n: int((weights[n] * value / prices[n]).to_integral_value(ROUND_DOWN)) for n in names}
    left = value - sum((units[n] * prices[n] for n in names), ZERO)
    while left > 0 and (name := _furthest_below(names, units, weights, prices, left)):
        units[name] += 1
        left -= prices[name]
    return units, left


def _furthest_below(
    names: Sequence[str], units: Mapping[str, int], weights: Mapping[str, Decimal], prices: Mapping[str, Decimal],
    left: Decimal,
) -> str | None:  # fmt: skip
    """Return the affordable name with the largest deficit of weight, None when there is none, or too many are too dear."""
    worth = sum((units[n] * prices[n] for n in names), ZERO)
    deficits = {n: weights[n] - (units[n] * prices[n] / worth if worth else ZERO) for n in names}
    for skipped in range(SKIPS_MAX + 1):
        name = max(names, key=deficits.__getitem__)
        if deficits[name] <= 0 or skipped == SKIPS_MAX:
            return None
        if prices[name] <= left:
            return name
        deficits[name] = ZERO
    return None


def divide(total: Decimal, parts: Mapping[K, Decimal], unit: Decimal) -> dict[K, Decimal]:
    """Divide a total, a multiple of the unit, in proportion to parts: what is returned adds up to it to the last unit.

    Each gets its share rounded down to the unit; the units left go to the largest remainders, among equals to the larger
    part, then to who stands first. The sign of the total is that of every share; parts are not below zero.
    """
    whole = sum(parts.values(), ZERO)
    if whole <= 0 or any(p < 0 for p in parts.values()):
        raise ValueError("parts are not below zero, and some of them are above it")
    count = EXACT.divide(abs(total), unit)
    if count != count.to_integral_value():
        raise ValueError("a total that is no multiple of the unit can't be divided into units")
    exact = {k: EXACT.divide(EXACT.multiply(count, p), whole) for k, p in parts.items()}
    units = {k: e.to_integral_value(ROUND_FLOOR) for k, e in exact.items()}
    left = int(count - sum(units.values(), ZERO))
    order = {k: i for i, k in enumerate(parts)}
    for key in sorted(parts, key=lambda k: (units[k] - exact[k], -parts[k], order[k]))[:left]:
        units[key] += 1
    signed = unit if total >= 0 else -unit
    return {k: u * signed for k, u in units.items()}
