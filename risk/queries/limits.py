"""Limits, as rows and in their REST shape."""

from typing import Any

from django.db.models import QuerySet

from oms.kernel import decimals
from oms.kernel.json import rfc3339
from risk.domain.scopes import Scope
from risk.models import Limit


def limits(*, status: str = "") -> QuerySet[Limit]:
    """Return limits, newest first, with the people who made and approved them."""
    found = Limit.objects.select_related("maker", "approver").order_by("-id")
    return found.filter(status=status) if status else found


def limit_out(limit: Limit) -> dict[str, Any]:
    """Return a limit in its REST shape."""
    return {
        "id": str(limit.id),
        "scope": Scope(limit.scope_kind, limit.scope_key).as_json(),
        "kind": limit.kind,
        "value": decimals.text(limit.value),
        "currency": limit.currency or None,
        "soft": limit.soft,
        "aggregate": limit.aggregate,
        "status": limit.status,
        "effective_from": rfc3339(limit.effective_from),
        "reason": limit.reason,
        "maker": limit.maker.get_username() if limit.maker else None,
        "approver": limit.approver.get_username() if limit.approver else None,
        "created_at": rfc3339(limit.created_at),
    }
