"""The build fence: only workers of the released build send. Migrating the database releases the build that did it."""

from datetime import UTC, datetime
from typing import Any

import structlog
from django.db import connection

from oms.runtime.build import build_id
from orders.models import Build

log = structlog.get_logger(__name__)
QUIET_SECONDS = 60.0
"""Who is fenced out says so once in this time."""


class OtherBuild(RuntimeError):
    """Another build than this process's is the released one: it may not send."""


def release_build(**_: Any) -> None:
    """Release this build once the schema fits it; from its commit on workers of any other claim nothing."""
    if Build._meta.db_table not in connection.introspection.table_names():
        return  # migrated back to before there was a fence
    newest = Build.objects.order_by("-id").first()
    if newest is None or newest.build != build_id():
        Build.objects.create(build=build_id(), released_at=datetime.now(UTC))
