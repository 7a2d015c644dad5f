"""Reads of statements, reconciliations and breaks, in the shape that REST and reports show."""

from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from brokers import queries as market
from oms.kernel.decimals import text_or_none
from oms.kernel.json import rfc3339, rfc3339_or_none
from portfolio.models import Break, Reconciliation, Statement
from portfolio.queries import visible_accounts


def breaks(user: Any, *, at: datetime) -> QuerySet[Break]:
    """Return the breaks a user may see, newest first: those of no account only with a role that reads all."""
    mine = Q(account__in=visible_accounts(user, at=at))
    if user.is_superuser or user.groups.filter(name__in=("risk", "ops", "auditor", "admin")).exists():
        mine |= Q(account=None)
    return Break.objects.filter(mine).select_related("account", "owner").order_by("-id")


def breaks_of(run: Reconciliation) -> QuerySet[Break]:
    """Return the breaks that a run saw last or closed, those of one kind together."""
    found = Break.objects.filter(Q(seen_by=run) | Q(closed_by=run)).select_related("account", "owner")
    return found.order_by("state", "kind", "subject", "id")


def break_out(row: Break, *, at: datetime) -> dict[str, Any]:
    """Return a break in its REST shape; it ages until it is closed."""
    end = row.closed_at or at
    return {
        "id": str(row.pk),
        "kind": row.kind,
        "broker": market.brokers()[row.broker_id].code,
        "account": row.account.code if row.account else None,
        "symbol": market.instruments()[row.instrument_id].symbol if row.instrument_id else None,
        "currency": row.currency or None,
        "subject": row.subject,
        "ours": text_or_none(row.ours),
        "theirs": text_or_none(row.theirs),
        "detail": row.detail,
        "cause": row.cause,
        "status": row.state,
        "owner": row.owner.get_username() if row.owner else None,
        "proposal": row.proposal,
        "resolution": row.resolution,
        "runs": row.runs,
        "age_seconds": max(0, int((end - row.opened_at).total_seconds())),
        "opened_at": rfc3339(row.opened_at),
        "seen_at": rfc3339(row.seen_at),
        "closed_at": rfc3339_or_none(row.closed_at),
        "closed_as": row.closed_as or None,
        "reason": row.reason or None,
    }


def statement_out(row: Statement) -> dict[str, Any]:
    """Return a statement in its REST shape."""
    return {
        "id": str(row.pk),
        "broker": market.brokers()[row.broker_id].code,
        "source": row.source,
        "name": row.name,
        "profile": row.profile or None,
        "since": rfc3339(row.since),
        "as_of": rfc3339(row.as_of),
        "lines": row.lines,
        "rejected": row.rejected,
        "faults": row.faults,
        "status": row.state,
        "reason": row.reason or None,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
    }


def reconciliation_out(row: Reconciliation) -> dict[str, Any]:
    """Return a run in its REST shape."""
    return {
        "id": str(row.pk),
        "broker": market.brokers()[row.broker_id].code,
        "source": row.source,
        "as_of": rfc3339(row.as_of),
        "status": row.state,
        "failure": {"code": row.failure, "detail": row.detail} if row.failure else None,
        "sections": row.sections,
        "opened": row.opened,
        "standing": row.standing,
        "closed": row.closed,
        "adopted": row.adopted,
        "in_flight": row.in_flight,
        "overridden_by": row.overridden_by or None,
        "override_reason": row.override_reason or None,
        "created_by": row.created_by,
        "began_at": rfc3339(row.began_at),
        "ended_at": rfc3339(row.ended_at),
        "seconds": round((row.ended_at - row.began_at).total_seconds(), 3),
    }
