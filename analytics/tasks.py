"""Ticks of measuring."""

from datetime import UTC, datetime, timedelta

import structlog
from celery import shared_task

from analytics import operations, queries
from brokers.operations import prune_ticks
from portfolio.models import Account

log = structlog.get_logger(__name__)


@shared_task(name="analytics.measure")
def measure() -> None:
    """Measure what was told since the last look, and take the mark-outs that are due. Safe to run twice."""
    at = datetime.now(UTC)
    operations.measure(at=at)
    operations.mark(at=at)


@shared_task(name="analytics.watch")
def watch() -> None:
    """Warn of brokers that cost more today than they used to, and drop ticks nobody measures by any more."""
    at = datetime.now(UTC)
    prune_ticks(at=at)
    accounts = list(Account.objects.values_list("id", flat=True))
    for card in queries.scorecards(accounts, since=at.date() - timedelta(days=1), until=at.date()):
        if card["drift"] and card["drift"]["alert"]:
            log.warning("broker_costs_drift", broker=card["broker"], **card["drift"])
