"""Ticks of the books."""

from datetime import UTC, datetime, time

from celery import shared_task

from oms.kernel.actor import Actor
from portfolio.domain.settling import settled_until
from portfolio.settlement import settle as settle_due

DELIVERED_AT = time(0)
"""When a day's deliveries count as made (UTC): with the day, as nobody tells the desk better."""


@shared_task(name="portfolio.settle")
def settle() -> None:
    """Settle what is due today or earlier. Safe to run twice."""
    at = datetime.now(UTC)
    settle_due(settled_until(at, DELIVERED_AT, UTC), actor=Actor.system("settlement"), at=at)
