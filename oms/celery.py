"""The Celery application: doorbells and ticks. A task carries a code, never state."""

import os

from celery import Celery, signals
from celery.worker import state
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "oms.settings")

app = Celery("oms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["oms.journal", "analytics", "orders", "portfolio"])


@signals.task_prerun.connect(weak=False)
def drop_broken_connections(**_: object) -> None:
    """Keep a task from the connection that broke under an earlier one; a sound one is kept."""
    close_old_connections()


@signals.worker_ready.connect(weak=False)
def watch(**_: object) -> None:
    """Have every worker watch over its own ears."""
    from oms.runtime.watchdog import Watchdog  # noqa: PLC0415 - needs settings, which are not read before this

    dog = Watchdog(app.conf.task_default_queue, lambda: len(state.reserved_requests))
    signals.task_received.connect(dog.heard, weak=False)
    dog.start()
