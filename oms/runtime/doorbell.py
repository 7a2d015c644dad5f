"""Waking a worker. The rows are the queue; a lost ring costs the sweeper's interval, nothing else."""

import time
from collections.abc import Iterable

import redis
import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from oms.runtime.redis import client

SEND_TASK = "orders.send"
SWEPT = "oms:swept"
"""Key of when the last sweep ran, in seconds of the epoch: it proves the worker, its clock and Redis in one."""
RUNG_MILLISECONDS = 1_000
"""How long a ring that nobody answers keeps others from ringing: as long as the sweeper waits anyway."""
log = structlog.get_logger(__name__)


def ring(brokers: Iterable[str]) -> None:
    """Ask for one sending run per broker code, unless one is asked for that has not begun: it will find these rows too."""
    for code in sorted(set(brokers)):
        try:
            if client().set(_rung(code), 1, nx=True, px=RUNG_MILLISECONDS):
                current_app.send_task(SEND_TASK, args=[code], ignore_result=True, retry=False)
        except (OperationalError, OSError, redis.RedisError) as error:
            log.warning("doorbell_failed", broker=code, error=str(error))


def answer(code: str) -> None:
    """Let the bell ring again; called before the first look at the queue, so that what comes after it rings anew."""
    try:
        client().delete(_rung(code))
    except redis.RedisError:
        return


def _rung(code: str) -> str:
    return f"oms:rung:{code}"


def note_sweep() -> None:
    """Record that a sweep ran; without Redis the sweep itself still counts."""
    try:
        client().set(SWEPT, f"{time.time():.3f}")
    except redis.RedisError:
        return
