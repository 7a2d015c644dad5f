"""A worker that went deaf: connected, alive, and fetching nothing. It ends itself, and whoever runs it starts it again."""

import os
import signal
import threading
import time
from typing import Any

import redis
import structlog

from oms.runtime.redis import client

DEAF_SECONDS = 15.0
LOOK_SECONDS = 1.0
log = structlog.get_logger(__name__)


class Watchdog:
    """Watches from a thread of the worker's main process; `heard` is told of every message that arrives."""

    def __init__(self, queue: str, busy: Any) -> None:
        """`queue` is the list in Redis; `busy` tells how many messages the worker is at."""
        self.queue, self.busy = queue, busy
        self.heard_at = time.monotonic()

    def heard(self, *_: object, **__: object) -> None:
        """Note a message."""
        self.heard_at = time.monotonic()

    def start(self, *_: object, **__: object) -> None:
        """Begin to watch."""
        self.heard()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if self.busy() or not self._something_waits():
                self.heard()
            elif time.monotonic() - self.heard_at > DEAF_SECONDS:
                log.error("worker_deaf", queue=self.queue, seconds=round(time.monotonic() - self.heard_at))
                os.kill(os.getpid(), signal.SIGKILL)  # it listens to nobody; the pool's processes follow it

    def _something_waits(self) -> bool:
        """Tell whether there is a message to fetch; without Redis there is nothing to be deaf to."""
        try:
            return bool(client().llen(self.queue))
        except redis.RedisError:
            return False
