"""What a split or a distribution makes of an order that is open over it."""

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal

from oms.kernel.decimals import EXACT, ZERO

Ratio = tuple[int, int]
STEP = Decimal("1E-10")


@dataclass(frozen=True, slots=True)
class Terms:
    """Quantities and prices of an order; the average price is None where nothing filled."""

    quantity: Decimal
    filled: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    average_price: Decimal | None = None

    @property
    def leaves(self) -> Decimal:
        """Return what may still be filled."""
        return self.quantity - self.filled


def split(terms: Terms, ratio: Ratio, *, side: str, tick: Decimal, lot: Decimal) -> Terms:
    """Return an order in the units after a split: new units for old ones as `ratio` says.

    What is left stands on the grid of lots, rounded down; prices on that of ticks, so that the order gives away nothing: a buy
    rounds down, a sale up.
    """
    filled = scaled(terms.filled, ratio)
    leaves = scaled(terms.quantity, ratio) - filled
    return Terms(
        filled + (leaves if lot == ZERO else EXACT.divide_int(leaves, lot) * lot),
        filled,
        price_after(terms.limit_price, ratio, side=side, tick=tick),
        price_after(terms.stop_price, ratio, side=side, tick=tick),
        None if terms.average_price is None else scaled(terms.average_price, (ratio[1], ratio[0])),
    )


def price_after(price: Decimal | None, ratio: Ratio, *, side: str, tick: Decimal) -> Decimal | None:
    """Return a price in the units after a split, on the grid of ticks."""
    return None if price is None else _on_grid(scaled(price, (ratio[1], ratio[0])), side, tick)


def lowered(price: Decimal, cash: Decimal, *, side: str, stop: bool, tick: Decimal) -> Decimal:
    """Return the price of an order over a cash distribution: limits of buys and stops of sales go down by it, others stay."""
    return _on_grid(price - cash, "buy", tick) if (side == "buy") != stop else price


def scaled(value: Decimal, ratio: Ratio) -> Decimal:
    """Return a value times a ratio, to the last digit kept."""
    return EXACT.divide(EXACT.multiply(value, Decimal(ratio[0])), Decimal(ratio[1])).quantize(STEP, context=EXACT)


def _on_grid(price: Decimal, side: str, tick: Decimal) -> Decimal:
    if tick == ZERO:
        return price
    rounding = ROUND_DOWN if side == "buy" else ROUND_UP
    return EXACT.divide(price, tick).quantize(Decimal(1), rounding=rounding, context=EXACT) * tick
