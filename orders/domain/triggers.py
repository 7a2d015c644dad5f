"""When an order that the desk watches itself is let go: by a price the market must reach, or by a time.

A sale watches the bid, a buy the ask: the price it would trade at. A trailing price follows the best price seen at a
distance, and never back; an amount is in the instrument's currency, a percent of the best price.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from oms.kernel.decimals import EXACT

TRAILING = frozenset({"trailing_stop", "trailing_stop_limit"})
TOUCHED = frozenset({"market_if_touched", "limit_if_touched"})
STOPS = frozenset({"stop", "stop_limit"})
AUCTIONS = frozenset({"opg", "cls"})
WORKS_AS = {
    "stop": "market",
    "stop_limit": "limit",
    "trailing_stop": "market",
    "trailing_stop_limit": "limit",
    "market_if_touched": "market",
    "limit_if_touched": "limit",
}
"""What a broker sees of an order once its price was reached."""
WORKS_FOR = {"opg": "ioc", "cls": "day"}
"""How long a broker keeps an order that the desk sent at the open, or in time for the close."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What to wait for. `kind` is stop, touch, trail or time; `starts_at` is when the watching begins."""

    kind: str
    price: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_percent: Decimal | None = None
    watermark: Decimal | None = None
    limit_offset: Decimal | None = None
    starts_at: datetime | None = None


def kind_of(order_type: str) -> str:
    """Return what an order of a type waits for."""
    if order_type in TRAILING:
        return "trail"
    if order_type in TOUCHED:
        return "touch"
    return "stop" if order_type in STOPS else "time"


def trailing_price(side: str, best: Decimal, amount: Decimal | None, percent: Decimal | None, tick: Decimal) -> Decimal:
    """Return the price that trails a best price: below it for a sale, above it for a buy, on the grid away from it.

    >>> trailing_price("sell", Decimal("100"), Decimal("1.5"), None, Decimal("0.01"))
    Decimal('98.50')
    >>> trailing_price("buy", Decimal("33.33"), None, Decimal(1), Decimal("0.01"))
    Decimal('33.67')
    """
    away = amount if amount is not None else EXACT.divide(EXACT.multiply(best, percent or Decimal(0)), Decimal(100))
    price = best + away if side == "buy" else best - away
    if not tick:
        return price
    rounding = ROUND_CEILING if side == "buy" else ROUND_FLOOR
    return EXACT.divide(price, tick).to_integral_value(rounding) * tick
