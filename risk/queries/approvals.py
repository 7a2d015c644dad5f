"""What waits for a second person: limits that are new or looser."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.db.models import QuerySet

from oms.kernel import json
from oms.kernel.json import rfc3339
from risk.models import Limit
from risk.queries.limits import limit_out

APPROVAL_HOURS = 24
"""A proposal older than this must be made again: what it was made for has changed."""

_STATUS = {Limit.Status.ACTIVE: "approved", Limit.Status.RETIRED: "approved", Limit.Status.REFUSED: "refused"}


def expires_at(limit: Limit) -> datetime:
    """Return when a proposal lapses."""
    return limit.created_at + timedelta(hours=APPROVAL_HOURS)


def content_hash(limit: Limit) -> str:
    """Return a hash of what the approver says yes to: all that was proposed, none of what became of it."""
    shown = {k: v for k, v in limit_out(limit).items() if k not in ("status", "approver")}
    return sha256(json.dump_bytes(shown)).hexdigest()


def approvals() -> QuerySet[Limit]:
    """Return the limits that went or go by a second person, newest first."""
    waited = Limit.objects.filter(status=Limit.Status.PROPOSED) | Limit.objects.filter(approver__isnull=False)
    return waited.select_related("maker", "approver").order_by("-id")


def approval_out(limit: Limit, *, at: datetime) -> dict[str, Any]:
    """Return an approval in its REST shape."""
    waiting = "pending" if at < expires_at(limit) else "expired"
    return {
        "id": str(limit.id),
        "object": str(limit.id),
        "object_kind": "limit",
        "maker": limit.maker.get_username() if limit.maker else None,
        "approver": limit.approver.get_username() if limit.approver else None,
        "content_hash": content_hash(limit),
        "status": _STATUS.get(Limit.Status(limit.status), waiting),
        "expires_at": rfc3339(expires_at(limit)),
    }
