"""Waking a worker. The rows are the queue; a lost ring costs the sweeper's interval, nothing else."""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

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
AT_WORK_MILLISECONDS = 300
"""How long a sender that says nothing is believed to be at work: one in a long call may not keep others from their turn."""
log = structlog.get_logger(__name__)


def ring(brokers: Iterable[str], *, urgent: bool = False) -> None:
    """Ask for one sending run per broker code, unless one that waits, or one under way, will find these rows too.

    What is urgent gets a run of its own.
    """
    for code in sorted(set(brokers)):
        try:
            pipe = client().pipeline(transaction=False)
            pipe.set(_rung(code), 1, nx=True, px=RUNG_MILLISECONDS)
            pipe.exists(_at_work(code))
            pipe.publish(_bell(code), 1)
            first, at_work, listening = pipe.execute()
            if listening:
                continue  # whoever sends there has heard it
            if urgent or (first and not at_work):
                current_app.send_task(SEND_TASK, args=[code], ignore_result=True, retry=False)
        except (OperationalError, OSError, redis.RedisError) as error:
            log.warning("doorbell_failed", broker=code, error=str(error))


def begin(code: str) -> None:
    """Tell that somebody sends, and let the bell ring again; called before a look at the queue."""
    with suppress(redis.RedisError):
        pipe = client().pipeline(transaction=False)
        pipe.set(_at_work(code), 1, px=AT_WORK_MILLISECONDS)
        pipe.delete(_rung(code))
        pipe.execute()


def finish(code: str) -> bool:
    """Tell that nobody sends any more; True when the bell rang meanwhile: then one must look again.

    The two steps stand in this order, and those of `ring` in theirs: whichever comes first, one of both sees the other.
    """
    try:
        pipe = client().pipeline(transaction=False)
        pipe.delete(_at_work(code))
        pipe.exists(_rung(code))
        return bool(pipe.execute()[1])
    except redis.RedisError:
        return False


class Ear:
    """Hears the bell of one broker, for the one process that sends there. Without Redis it hears nothing, and time passes."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.channel: Any = None

    def wait(self, seconds: float) -> bool:
        """Return True as soon as the bell rings, False after some seconds."""
        end = time.monotonic() + seconds
        try:
            if self.channel is None:
                self.channel = client().pubsub(ignore_subscribe_messages=True)
                self.channel.subscribe(_bell(self.code))
            while (left := end - time.monotonic()) > 0:
                if self.channel.get_message(timeout=left) is not None:
                    while self.channel.get_message(timeout=0) is not None:
                        pass  # rings that came together are one
                    return True
        except redis.RedisError:
            self.close()
            time.sleep(max(end - time.monotonic(), 0))
        return False

    def close(self) -> None:
        """Hear no more."""
        if self.channel is not None:
            with suppress(redis.RedisError):
                self.channel.close()
            self.channel = None


def _bell(code: str) -> str:
    return f"oms:bell:{code}"


def _rung(code: str) -> str:
    return f"oms:rung:{code}"


def _at_work(code: str) -> str:
    return f"oms:sending:{code}"


def note_sweep() -> None:
    """Record that a sweep ran; without Redis the sweep itself still counts."""
    try:
        client().set(SWEPT, f"{time.time():.3f}")
    except redis.RedisError:
        return
