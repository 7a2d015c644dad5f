"""Limits: a tighter one holds at once, a new or looser one when another person approves."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import BOUND
from oms.kernel.errors import Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from risk.domain.limits import AGGREGATE, AGGREGATE_SCOPES, FLOORS, IN_CURRENCY, SOFT
from risk.domain.scopes import LIMIT_SCOPES, Scope
from risk.models import Approval, Limit
from risk.operations.approving import ask, content_hash, settle
from risk.operations.naming import require_known
from risk.queries.limits import limit_out

LIMITS_LOCK = 7302
"""Advisory lock: changes of limits go one after another, so that `tighter` is judged against what stands."""


@in_transaction
def propose_limit(
    scope: Scope,
    kind: str,
    value: Decimal,
    *,
    currency: str = "",
    soft: bool = False,
    aggregate: bool = False,
    effective_from: datetime | None = None,
    reason: str,
    actor: Actor,
    at: datetime,
) -> Limit:
    """Store a limit: `active` if it is tighter than the one in force for the scope, else `proposed`.

    One that is `aggregate` binds the sum over accounts, and stands beside one that binds each by itself. One that begins later is always proposed; a time that has passed means now. Raises `Invalid` for an unknown scope, kind
    or value, and for a kind that can't be soft.
    """
    _require_sound(scope, kind, value, currency=currency, soft=soft)
    if aggregate:
        _require_summable(scope, kind, currency)
    begins = max(at, effective_from or at)
    if not reason.strip():
        raise Invalid("required", "Say why.", field="reason")
    require_known(scope)
    sql.run("SELECT pg_advisory_xact_lock(%s)", [LIMITS_LOCK])
    limit = Limit(
        id=uuid7(),
        scope_kind=scope.kind,
        scope_key=scope.key,
        kind=kind,
        value=value,
        currency=currency,
        soft=soft,
        aggregate=aggregate,
        status=Limit.Status.PROPOSED,
        effective_from=begins,
        reason=reason.strip()[:200],
        maker_id=actor.user_id,
        created_at=at,
    )
    present = _in_force(limit, at)
    if present is not None and begins == at and _is_tighter(limit, present):
        _activate(limit, present, at)
    else:
        limit.save(force_insert=True)
        ask(Approval.Kind.LIMIT, limit.id, "activate", _content(limit), actor=actor, at=at)
    _tell(
        limit,
        present,
        "limit.activated" if limit.status == Limit.Status.ACTIVE else "limit.proposed",
        actor=actor,
        at=at,
    )
    return limit


@in_transaction
def decide(object_id: UUID, decision: str, *, reason: str, actor: Actor, at: datetime, content: str = "") -> Limit:
    """Approve or refuse a proposed limit, as another person than its maker; `content` is the hash that was seen.

    Raises `NotFound`, and what `settle` raises.
    """
    sql.run("SELECT pg_advisory_xact_lock(%s)", [LIMITS_LOCK])
    limit = Limit.objects.filter(pk=object_id).first()
    asked = Approval.objects.filter(object_id=object_id).order_by("-id").first()
    if limit is None or asked is None:
        raise NotFound("not_found", "Nothing with this id waits for an approval.")
    shown = content_hash(_content(limit)) if limit.status == Limit.Status.PROPOSED else ""
    settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=content, shown=shown)
    present = _in_force(limit, at)
    limit.approver_id = actor.user_id
    if decision == "approve":
        _activate(limit, present, at)
    else:
        limit.status = Limit.Status.REFUSED
        limit.save()
    _tell(
        limit,
        present,
        f"limit.{'activated' if limit.status == Limit.Status.ACTIVE else limit.status}",
        actor=actor,
        at=at,
        reason=reason,
    )
    return limit


def _content(limit: Limit) -> dict[str, Any]:
    """Return what the approver says yes to: all that was proposed, none of what became of it."""
    return {k: v for k, v in limit_out(limit).items() if k not in ("status", "approver")}


def _require_sound(scope: Scope, kind: str, value: Decimal, *, currency: str, soft: bool) -> None:
    if scope.kind not in LIMIT_SCOPES:
        raise Invalid("not_a_scope", f"Name one of: {', '.join(LIMIT_SCOPES)}.", field="scope")
    if kind not in Limit.Kind.values:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(Limit.Kind.values)}.", field="kind")
    if not (value.is_finite() and 0 <= value < BOUND):
        raise Invalid("out_of_range", "The value must be zero or more.", field="value")
    if currency and kind not in IN_CURRENCY:
        raise Invalid("not_allowed", "Only amounts of money have a currency.", field="currency")
    if soft and kind not in SOFT:
        raise Invalid("not_allowed", f"A soft limit is one on: {', '.join(sorted(SOFT))}.", field="soft")


def _require_summable(scope: Scope, kind: str, currency: str) -> None:
    if kind not in AGGREGATE:
        raise Invalid("not_allowed", f"A sum is limited by: {', '.join(sorted(AGGREGATE))}.", field="aggregate")
    if scope.kind not in AGGREGATE_SCOPES:
        raise Invalid("not_allowed", f"A sum is that of: {', '.join(AGGREGATE_SCOPES)}.", field="aggregate")
    if kind in IN_CURRENCY and not currency:
        raise Invalid("required", "A sum over accounts needs a currency of its own.", field="currency")


def _in_force(limit: Limit, at: datetime) -> Limit | None:
    """Return the limit that binds the same scope now, once those whose time has come have taken over."""
    same = Limit.objects.filter(
        scope_kind=limit.scope_kind,
        scope_key=limit.scope_key,
        kind=limit.kind,
        soft=limit.soft,
        aggregate=limit.aggregate,
    ).exclude(pk=limit.pk)
    begun = same.filter(status__in=[Limit.Status.ACTIVE, Limit.Status.APPROVED], effective_from__lte=at)
    newest_first = list(begun.order_by("-effective_from", "-id"))
    for before in newest_first[1:]:
        _become(before, Limit.Status.RETIRED)
    newest = newest_first[0] if newest_first else None
    _become(newest, Limit.Status.ACTIVE)
    return newest


def _become(limit: Limit | None, status: Limit.Status) -> None:
    if limit is not None and limit.status != status:
        limit.status = status
        limit.save(update_fields=["status"])


def _is_tighter(new: Limit, present: Limit) -> bool:
    """Tell whether nothing passes the new limit that the present one stops; another currency is never known to be tighter."""
    tighter = new.value >= present.value if new.kind in FLOORS else new.value <= present.value
    return bool(new.currency == present.currency and tighter)


def _activate(limit: Limit, present: Limit | None, at: datetime) -> None:
    """Let a limit hold: at once, and then the one before no more, or from its time on."""
    if limit.effective_from > at:
        limit.status = Limit.Status.APPROVED
        limit.save()
        return
    limit.effective_from = at  # what was approved late holds from the approval on, and before nothing else
    _become(present, Limit.Status.RETIRED)
    limit.status = Limit.Status.ACTIVE
    limit.save()


def _tell(limit: Limit, before: Limit | None, kind: str, *, actor: Actor, at: datetime, reason: str = "") -> None:
    data = {**limit_out(limit), "before": limit_out(before) if before else None, "decision_reason": reason or None}
    body = json.dumps({"data": data})
    entries = [Entry(SYSTEM_STREAM, kind, str(limit.id), body)]
    if limit.scope_kind == "account":
        entries.append(Entry(account_stream(limit.scope_key), kind, str(limit.id), body, frame="risk"))
    journal.append(entries, actor=actor, at=at)
