"""How well an order was executed, against the market at its arrival. Above zero is a cost, for both sides."""

from dataclasses import dataclass
from decimal import Decimal

from oms.kernel.decimals import ZERO

BPS = Decimal(10_000)
PLACES = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Implementation shortfall (Perold 1988) in the instrument's currency, against the arrival mid."""

    trading: Decimal
    fees: Decimal
    opportunity: Decimal | None  # None: something stayed undone and nobody knows what it would have cost

    @property
    def total(self) -> Decimal | None:
        """Return the exact sum of the parts, or None while one is unknown."""
        return None if self.opportunity is None else self.trading + self.fees + self.opportunity


def arrival_bps(side: str, average: Decimal, arrival: Decimal) -> Decimal:
    """Return what the average price cost against the arrival price, in basis points of it."""
    sign = 1 if side == "buy" else -1
    return (sign * (average - arrival) / arrival * BPS).quantize(PLACES)


def shortfall(
    side: str, quantity: Decimal, filled: Decimal, amount: Decimal, fees: Decimal, arrival: Decimal
) -> Shortfall:
    """Return the shortfall of an order that filled `filled` of `quantity` for `amount` (quantity times price)."""
    sign = 1 if side == "buy" else -1
    return Shortfall(sign * (amount - filled * arrival), fees, ZERO if filled >= quantity else None)
