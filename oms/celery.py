"""The Celery application: doorbells and ticks. A task carries a code, never state."""

import os

from celery import Celery, signals
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "oms.settings")

app = Celery("oms")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["orders"])


@signals.task_prerun.connect(weak=False)
def drop_broken_connections(**_: object) -> None:
    """Keep a task from the connection that broke under an earlier one; a sound one is kept."""
    close_old_connections()
