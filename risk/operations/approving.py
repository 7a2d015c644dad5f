"""A second person: asking for one, and taking the answer. What was asked for is carried out by whoever asked."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Forbidden, Invalid, Refused
from oms.kernel.ids import uuid7
from oms.runtime.constraints import refine
from oms.runtime.transactions import require_transaction
from portfolio.models import Account
from risk.models import Approval
from risk.queries.approvals import approval_out

APPROVAL_HOURS = 24
"""What nobody decided by then must be asked for again: what it was made for has changed."""
DECISIONS = ("approve", "refuse")


def content_hash(content: Mapping[str, Any]) -> str:
    """Return a hash of what the approver says yes to."""
    return sha256(json.dump_bytes(content)).hexdigest()


def ask(
    kind: str,
    object_id: UUID,
    action: str,
    content: Mapping[str, Any],
    *,
    actor: Actor,
    at: datetime,
    account: Account | None = None,
    key: str = "",
    expires_at: datetime | None = None,
) -> Approval:
    """Store that something waits for a second person, inside the caller's transaction.

    It lapses at `expires_at`, after `APPROVAL_HOURS` at the latest. Raises `Conflict` (approval_pending) while the object waits already; one that lapsed makes way.
    """
    require_transaction()
    last = at + timedelta(hours=APPROVAL_HOURS)
    waiting = Approval.objects.filter(object_id=object_id, status=Approval.Status.PENDING)
    waiting.filter(expires_at__lte=at).update(status=Approval.Status.EXPIRED)
    approval = Approval(
        id=uuid7(),
        object_kind=kind,
        object_id=object_id,
        action=action,
        account=account,
        key=key,
        content=dict(content),
        content_hash=content_hash(content),
        maker_id=actor.user_id,
        created_at=at,
        expires_at=min(last, expires_at or last),
    )
    with refine(approval_pending_unique=Conflict("approval_pending", "This waits for an approval already.")):
        approval.save(force_insert=True)
    _tell(approval, "approval.asked", actor=actor, at=at)
    return approval


def asked_before(account: Account, kind: str, key: str, content: Mapping[str, Any]) -> Approval | None:
    """Return the approval that this key asked for, None for a new key, or raise `Refused` when it asked for another thing."""
    known = Approval.objects.filter(account=account, object_kind=kind, key=key).first()
    if known is not None and known.content_hash != content_hash(content):
        raise Refused("idempotency_conflict", "This key was used for something else; use a new one.", field="key")
    return known


def withdraw(object_ids: Sequence[UUID]) -> None:
    """Let what waits about these objects lapse, inside the caller's transaction: nothing is left to decide."""
    if object_ids:
        require_transaction()
        waiting = Approval.objects.filter(object_id__in=object_ids, status=Approval.Status.PENDING)
        waiting.update(status=Approval.Status.EXPIRED)


def settle(
    approval_id: UUID, decision: str, *, reason: str, actor: Actor, at: datetime, seen: str = "", shown: str = ""
) -> Approval:
    """Write a second person's decision, inside the caller's transaction, and return the approval.

    `seen` is the content's hash that the person looked at, `shown` what it would hash to now; empty for not told. Raises
    `Invalid` (decision), `Forbidden` (not_a_person, approver_is_maker), `Conflict` (already_decided, approval_expired,
    content_changed).
    """
    require_transaction()
    if decision not in DECISIONS:
        raise Invalid("not_a_choice", "Use one of: approve, refuse.", field="decision")
    approval = Approval.objects.select_for_update(no_key=True, of=("self",)).get(pk=approval_id)
    if actor.user_id is None:
        raise Forbidden("not_a_person", "An approval is given by a named user of the desk.")
    if actor.user_id == approval.maker_id:
        raise Forbidden("approver_is_maker", "Another person than the maker must decide.")
    if approval.status != Approval.Status.PENDING:
        raise Conflict("already_decided", f"This was {approval.status} before.")
    if at >= approval.expires_at:
        raise Conflict("approval_expired", "Nobody decided in time; ask for it again.")
    if any(told and told != approval.content_hash for told in (seen, shown)):
        raise Conflict("content_changed", "This is not what was asked for; look at it again.")
    approval.status = Approval.Status.APPROVED if decision == "approve" else Approval.Status.REFUSED
    approval.approver_id, approval.decided_at, approval.decision_reason = actor.user_id, at, reason.strip()[:200]
    approval.save(update_fields=["status", "approver", "decided_at", "decision_reason"])
    _tell(approval, f"approval.{approval.status}", actor=actor, at=at)
    return approval


def _tell(approval: Approval, kind: str, *, actor: Actor, at: datetime) -> None:
    stream = account_stream(approval.account.code) if approval.account else SYSTEM_STREAM
    about = str(approval.content.get("order") or approval.object_id)
    body = json.dumps({"data": approval_out(approval, at=at)})
    # on an account's stream every event is a frame: what screens count must have no gap
    journal.append([Entry(stream, kind, about, body, "risk" if approval.account else "")], actor=actor, at=at)
