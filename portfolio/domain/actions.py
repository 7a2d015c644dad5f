"""What corporate actions do to lots: pure rules, the same for longs and shorts.

Cost is spread over all units first, those of a fraction too; the fraction is then paid for and its cost goes with it.
Ratios are two integers, new units for old ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from uuid import UUID, uuid5

from oms.kernel.decimals import EXACT, FRACTION_DIGITS_MAX, ZERO, floor_to, money
from portfolio.domain.lots import OpenLot

Ratio = tuple[int, int]
ONE_TO_ONE: Ratio = (1, 1)
SMALLEST = Decimal(1).scaleb(-FRACTION_DIGITS_MAX)
"""The smallest part of a unit that is kept."""
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happens to a holding when a day begins, before the trades of that day."""

    id: UUID  # of the corporate action
    executed_at: datetime


@dataclass(frozen=True, slots=True)
class Split(Act):
    """Every unit becomes `ratio` units; `fraction` of them (signed) is paid for at `in_lieu` a unit."""

    ratio: Ratio
    fraction: Decimal = ZERO
    in_lieu: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class SpinOff(Act):
    """Units of another instrument come by `ratio`, and a share of the cost goes there.

    `held`, where it is told, is what was held then: a pool may still hold what was sold, until a later purchase closes it.
    """

    ratio: Ratio
    share: Decimal
    held: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Merger(Act):
    """All units go: for `cash` a unit, for units of another instrument by `ratio`, or for both.

    For units alone the cost goes along. With both, cash counts first as gain, as far as there is one at the other's
    `price`, then as return of cost; a loss doesn't count.
    """

    ratio: Ratio | None = None
    cash: Decimal = ZERO
    price: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class CapitalReturn(Act):
    """`cash` a unit comes back of what it cost; what is more than that is gain. Below zero it adds to the cost."""

    cash: Decimal


@dataclass(frozen=True, slots=True)
class CostChange(Act):
    """An amount is added to what all of it cost: a fund's income that is kept, less what it equalises."""

    amount: Decimal


@dataclass(frozen=True, slots=True)
class Subscription(Act):
    """Rights are used: so many units (signed) are bought at a price."""

    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class Receipt(Act):
    """Lots come from another holding, whose last trade is `version`; `fraction` of them is paid for at `in_lieu` a unit."""

    lots: tuple[OpenLot, ...]
    fraction: Decimal = ZERO
    in_lieu: Decimal = ZERO
    version: UUID = NOBODY


def units(value: Decimal) -> Decimal:
    """Round a quantity to the smallest part of a unit that is kept, half to even."""
    return value.quantize(SMALLEST, rounding=ROUND_HALF_EVEN, context=EXACT)


def entitled(quantity: Decimal, ratio: Ratio) -> Decimal:
    """Return the units that come for a quantity, signed like it, with their fraction."""
    return units(EXACT.divide(EXACT.multiply(quantity, Decimal(ratio[0])), Decimal(ratio[1])))


def whole(quantity: Decimal, step: Decimal) -> Decimal:
    """Return the part of a quantity that stands on the grid of a lot size, towards zero."""
    part = floor_to(abs(quantity), step)
    return part if quantity > 0 else -part


def cost_share(price: Decimal, other_price: Decimal, ratio: Ratio) -> Decimal:
    """Return the share of the cost that goes with what is spun off: by the worth of both after it."""
    other = EXACT.divide(EXACT.multiply(other_price, Decimal(ratio[0])), Decimal(ratio[1]))
    return EXACT.divide(other, price + other)


def rescale(lots: Sequence[OpenLot], ratio: Ratio) -> None:
    """Turn lots into `ratio` units each; what they cost stays, and their sum is exact."""
    before, after = ZERO, ZERO
    for lot in lots:
        cost, plain = lot.cost, lot.basis is None
        before += lot.remaining
        upto = entitled(before, ratio)
        lot.quantity, lot.remaining, after = entitled(lot.quantity, ratio), upto - after, upto
        lot.price = units(EXACT.divide(EXACT.multiply(lot.price, Decimal(ratio[1])), Decimal(ratio[0])))
        lot.basis = None
        if not plain or lot.cost != cost:
            lot.basis = cost


def hand_over(
    lots: Sequence[OpenLot], ratio: Ratio, costs: Sequence[Decimal], act: UUID, part: Decimal = Decimal(1)
) -> tuple[OpenLot, ...]:
    """Return the lots that come in another instrument for a part of these, at the costs given; they were held as long."""
    before, after, found = ZERO, ZERO, []
    for lot, cost in zip(lots, costs, strict=True):
        before += lot.remaining
        upto = entitled(EXACT.multiply(before, part), ratio)
        quantity, after = upto - after, upto
        if quantity:
            price = abs(money(EXACT.divide(cost, quantity)))
            found.append(
                replace(
                    lot, id=uuid5(lot.id, str(act)), price=price, quantity=quantity, remaining=quantity, basis=cost,
                    closed_at=None,
                )
            )  # fmt: skip
    return tuple(found)


def boot(cost: Decimal, cash: Decimal, stock: Decimal) -> tuple[Decimal, Decimal]:
    """Return the gain that counts where cash comes with units in a merger, and the cost of those units.

    All signed like a long holding. The gain is at most the cash, and a loss is none.
    """
    gain = max(ZERO, min(cash + stock - cost, cash))
    return gain, cost - cash + gain


def give_back(cost: Decimal, cash: Decimal) -> Decimal:
    """Return how much of a long holding's cost a return of capital takes: all of it at most."""
    return min(cost, cash)


def total(values: Iterable[Decimal]) -> Decimal:
    """Return the sum, exact."""
    return sum(values, ZERO)
