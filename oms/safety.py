"""What a production desk will not start with, looked up in the database when a process starts."""

from typing import Any

from celery.signals import beat_init, worker_init
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection

from oms.runtime.people import refuse_demo_people


def refuse_unsafe_start() -> None:
    """Raise `ImproperlyConfigured` in production while the database holds what only a demo may."""
    if not settings.PRODUCTION:
        return
    try:
        refuse_demo_people()
    except DatabaseError:
        return  # no tables yet, or no database: then nobody can log in either
    finally:
        connection.close()


@register(Tags.security)
def demo_people(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Refuse every command of a production desk, the gateways and the pricer among them, for the same reason."""
    try:
        refuse_unsafe_start()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="oms.E001")]
    return []


def _end(**_: Any) -> None:
    try:
        refuse_unsafe_start()
    except ImproperlyConfigured as error:
        raise SystemExit(str(error)) from None


worker_init.connect(_end, dispatch_uid="safety", weak=False)
beat_init.connect(_end, dispatch_uid="safety", weak=False)
