"""The journal's tick."""

from datetime import UTC, datetime
from pathlib import Path

import structlog
from celery import shared_task
from django.conf import settings

from oms.journal import checkpoints
from oms.kernel.actor import Actor

log = structlog.get_logger(__name__)


@shared_task(name="journal.checkpoint")
def checkpoint() -> None:
    """Chain all heads and export the checkpoint. A file that can't be written is an error for people, not for the desk."""
    event = checkpoints.take(actor=Actor.system("checkpoint"), at=datetime.now(UTC))
    if event is None:
        return
    try:
        checkpoints.export(event, Path(settings.CHECKPOINTS))
    except OSError as error:
        log.error("checkpoint_not_exported", sequence=event.sequence, error=str(error))
