"""Limit up, limit down: the bands that US exchanges let a stock trade in, by the plan's tiers.

A band is a percentage of the reference price that depends on the price at the last close. Prices outside of it may rest
nowhere, so the desk doesn't send them.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from oms.kernel.decimals import ZERO

UPPER_PRICE, LOWER_PRICE = Decimal("3.00"), Decimal("0.75")
TIERS = (1, 2)
_ABOVE = {1: Decimal("0.05"), 2: Decimal("0.10")}
_BETWEEN = Decimal("0.20")
_LOW_AMOUNT, _LOW_FRACTION = Decimal("0.15"), Decimal("0.75")
DOUBLED_BEFORE_CLOSE = timedelta(minutes=25)
CLOSED = timedelta(0)


@dataclass(frozen=True, slots=True)
class Band:
    """The lowest and the highest price."""

    lower: Decimal
    upper: Decimal

    def holds(self, price: Decimal) -> bool:
        """Tell whether a price lies in it."""
        return self.lower <= price <= self.upper


def band(tier: int, previous_close: Decimal, reference: Decimal, *, doubled: bool = False) -> Band:
    """Return the band around a reference price."""
    times = 2 if doubled else 1
    if previous_close < LOWER_PRICE:
        width = min(_LOW_AMOUNT * times, _LOW_FRACTION * times * reference)
    else:
        width = times * reference * (_ABOVE[tier] if previous_close > UPPER_PRICE else _BETWEEN)
    return Band(max(ZERO, reference - width), reference + width)


def is_doubled(tier: int, previous_close: Decimal, to_close: timedelta) -> bool:
    """Tell whether the band is twice as wide: in the last 25 minutes, for tier 2 only at or below 3.00."""
    return CLOSED <= to_close <= DOUBLED_BEFORE_CLOSE and (tier == 1 or previous_close <= UPPER_PRICE)
