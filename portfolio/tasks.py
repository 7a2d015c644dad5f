"""Ticks of the books."""

from datetime import UTC, datetime, time

from celery import shared_task

from oms.kernel.actor import Actor
from portfolio.domain.settling import settled_until
from portfolio.settlement import settle as settle_due
from portfolio.valuing import snapshot as keep_values

DELIVERED_AT = time(0)
"""When a day's deliveries count as made (UTC): with the day, as nobody tells the desk better."""


@shared_task(name="portfolio.settle")
def settle() -> None:
    """Settle what is due today or earlier. Safe to run twice."""
    at = datetime.now(UTC)
    settle_due(settled_until(at, DELIVERED_AT, UTC), actor=Actor.system("settlement"), at=at)


@shared_task(name="portfolio.snapshot")
def snapshot() -> None:
    """Keep what accounts are worth as the value of the day; the last one of a day stands. Safe to run twice."""
    keep_values(at=datetime.now(UTC))
