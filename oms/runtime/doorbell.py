"""Waking a worker. The rows are the queue; a lost ring costs the sweeper's interval, nothing else."""

from collections.abc import Iterable

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

SEND_TASK = "orders.send"
log = structlog.get_logger(__name__)


def ring(brokers: Iterable[str]) -> None:
    """Ask for one sending run per broker code."""
    for code in sorted(set(brokers)):
        try:
            current_app.send_task(SEND_TASK, args=[code], ignore_result=True, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("doorbell_failed", broker=code, error=str(error))
