"""What a venue refuses at the door, and when what it took runs out."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from brokers.simulation.book import Order
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.wire import Message
from oms.kernel.decimals import BOUND, EXACT

PRICED = {"market": (), "limit": ("limit_price",), "stop": ("stop_price",), "stop_limit": ("limit_price", "stop_price")}
"""Which prices an order type needs; it may bring no other."""


def fault_of_new(message: Message, instrument: Instrument | None, knobs: Knobs, at: datetime) -> str:
    """Return why an order can't be taken, empty if it can."""
    if instrument is None:
        return "unknown_symbol"
    if instrument.asset_class not in knobs.asset_classes:
        return "unsupported_asset_class"
    if message.side not in ("buy", "sell", "sell_short"):
        return "unknown_side"
    if message.link is not None and not knobs.oco:
        return "unsupported_link"
    if message.side == "sell_short" and not knobs.short:
        return "short_not_allowed"
    return fault_of_terms(message, instrument, knobs, at)


def fault_of_terms(message: Message, instrument: Instrument, knobs: Knobs, at: datetime) -> str:
    """Return what is wrong with quantity, prices or time in force, empty if nothing is."""
    if message.order_type not in knobs.order_types or message.order_type not in PRICED:
        return "unsupported_order_type"
    if message.time_in_force not in knobs.times_in_force:
        return "unsupported_time_in_force"
    if not _on_grid(message.quantity, instrument.lot_size):
        return "off_lot"
    for name in ("limit_price", "stop_price"):
        price = getattr(message, name)
        if (price is not None) != (name in PRICED[message.order_type]):
            return f"{name}_missing" if price is None else f"{name}_not_allowed"
        if price is not None and not _on_grid(price, instrument.tick_size):
            return "off_tick"
    if (message.time_in_force == "gtd") != (message.expire_at is not None):
        return "expire_at_missing" if message.expire_at is None else "expire_at_not_allowed"
    if message.expire_at is not None and message.expire_at <= at:
        return "expired"
    return ""


def _on_grid(value: Decimal, step: Decimal) -> bool:
    return value.is_finite() and 0 < value < BOUND and EXACT.remainder(value, step) == 0


def expiry_of(order: Order, day_ends_at: str) -> datetime | None:
    """Return when an order runs out: a day order at the end of the day it came in, a gtd order when it says."""
    if order.time_in_force == "gtd":
        return order.expire_at
    if order.time_in_force != "day":
        return None
    hours, minutes = (int(part) for part in day_ends_at.split(":"))
    midnight = order.created_at.replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight + timedelta(hours=hours, minutes=minutes)
    return end if end > order.created_at else end + timedelta(days=1)


class Bucket:
    """So many messages a second, with one second's worth saved up at the most."""

    def __init__(self, per_second: float | None) -> None:
        self.per_second = per_second
        self.tokens = per_second or 0.0
        self.last: datetime | None = None

    def wait(self, at: datetime) -> float:
        """Take one message; return 0, or the seconds until there is room for it."""
        if self.per_second is None:
            return 0.0
        passed = (at - self.last).total_seconds() if self.last else 0.0
        self.last = at
        self.tokens = min(self.per_second, self.tokens + passed * self.per_second)
        if self.tokens < 1:
            return (1 - self.tokens) / self.per_second
        self.tokens -= 1
        return 0.0
