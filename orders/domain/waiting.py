"""How long an order may wait to be sent: what was decided on yesterday's market must not reach a broker today."""

from datetime import datetime, timedelta

IMMEDIATE = timedelta(minutes=5)
"""An order that wants to trade at once, at whatever price, or not at all."""
DAY = timedelta(hours=24)
"""A day's order where no exchange closes."""


def valid_until(
    order_type: str, time_in_force: str, expire_at: datetime | None, *, decided_at: datetime, closes_at: datetime | None
) -> datetime | None:
    """Return when a request for a new order is too late to be sent; None where it never is.

    `closes_at` is when the present session of its exchange ends, None without one.
    """
    if expire_at is not None:
        return expire_at
    if time_in_force in ("ioc", "fok") or order_type == "market":
        return decided_at + IMMEDIATE
    if time_in_force == "day":
        return closes_at or decided_at + DAY
    return None
