"""Ticks of the books."""

from datetime import UTC, datetime

from celery import shared_task

from oms.kernel.actor import Actor
from portfolio.settlement import settle as settle_due


@shared_task(name="portfolio.settle")
def settle() -> None:
    """Settle what is due today or earlier. Safe to run twice."""
    at = datetime.now(UTC)
    settle_due(at.date(), actor=Actor.system("settlement"), at=at)
