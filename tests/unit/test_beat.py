"""What beat rings for, somebody must hear."""

from django.conf import settings

from oms.celery import app


def test_every_task_on_the_schedule_is_known_to_workers() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)
