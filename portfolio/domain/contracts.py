"""What a quantity is worth at a price: spot and linear contracts by `lots.notional`, inverse ones here."""

from decimal import Decimal

from oms.kernel.decimals import EXACT, money


def inverse(quantity: Decimal, price: Decimal) -> Decimal:
    """Return what contracts of one unit of the quote currency each are worth in the base currency.

    Buying them sells the base: the worth of longs is below zero and rises to zero as the price does, so that gains
    come out as for any other holding.
    """
    return -money(EXACT.divide(quantity, price))
