"""What waits for a second person."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from oms.kernel.errors import NotFound
from oms.kernel.json import rfc3339, rfc3339_or_none
from risk.models import Approval

DECIDED_BY = {
    Approval.Kind.LIMIT: "risk",
    Approval.Kind.ORDER: "risk",
    Approval.Kind.EXECUTION: "ops",
    Approval.Kind.TRADE: "ops",
    Approval.Kind.BREAK: "ops",
    Approval.Kind.RULES: "risk",
    Approval.Kind.REBALANCE: "trader",
    Approval.Kind.COMPLIANCE: "risk",
}
"""The role that decides, by what waits: the maker's own, and risk on orders over a soft limit."""


def approvals() -> QuerySet[Approval]:
    """Return what went or goes by a second person, newest first."""
    return Approval.objects.select_related("maker", "approver", "account").order_by("-id")


def approvals_of_status(found: QuerySet[Approval], status: str, *, at: datetime) -> QuerySet[Approval]:
    """Return those that show this status now."""
    lapsed = Q(status=Approval.Status.PENDING, expires_at__lte=at)
    if status == Approval.Status.PENDING:
        return found.filter(status=status).exclude(lapsed)
    return found.filter(Q(status=status) | lapsed if status == Approval.Status.EXPIRED else Q(status=status))


def find_approval(identifier: UUID) -> Approval:
    """Return the newest approval of an object, given by the object's id or its own, or raise `NotFound`."""
    found = approvals().filter(Q(object_id=identifier) | Q(id=identifier)).first()
    if found is None:
        raise NotFound("not_found", "Nothing with this id waits for an approval.")
    return found


def approval_out(approval: Approval, *, at: datetime) -> dict[str, Any]:
    """Return an approval in its REST shape; one that nobody decided in time shows as expired."""
    lapsed = approval.status == Approval.Status.PENDING and at >= approval.expires_at
    return {
        "id": str(approval.id),
        "object": str(approval.object_id),
        "object_kind": approval.object_kind,
        "action": approval.action,
        "account": approval.account.code if approval.account else None,
        "content": approval.content,
        "content_hash": approval.content_hash,
        "maker": approval.maker.get_username() if approval.maker else None,
        "approver": approval.approver.get_username() if approval.approver else None,
        "status": "expired" if lapsed else approval.status,
        "reason": approval.decision_reason or None,
        "created_at": rfc3339(approval.created_at),
        "expires_at": rfc3339(approval.expires_at),
        "decided_at": rfc3339_or_none(approval.decided_at),
    }
