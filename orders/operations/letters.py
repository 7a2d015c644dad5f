"""Dead letters: what a broker sent and nobody could use. A person has them read again, or says that they mean nothing."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from brokers.adapters import build
from brokers.models import Broker, RawMessage
from oms.journal import operations as journal
from oms.journal.domain import Entry, broker_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.models import LetterDecision, ParkedReport
from orders.operations.reporting import apply, apply_again

READ, DISMISSED = "read", "dismissed"
log = structlog.get_logger(__name__)


def read_again(raw_id: UUID, *, actor: Actor, at: datetime) -> int:
    """Read a message anew with the adapter as it is now and apply what it tells; return how many reports that were.

    Executions that are known meanwhile count once, as always. Raises `Conflict` while it still can't be read, or when
    somebody has decided it.
    """
    raw = _undecided(raw_id)
    broker = Broker.objects.get(pk=raw.broker_id)
    adapter = build(broker.adapter, broker.settings)
    try:
        reports = adapter.read(bytes(raw.raw))
    except ValueError as error:
        raise Conflict("still_unreadable", f"It still can't be read: {error}"[:300]) from error
    finally:
        adapter.close()
    apply(broker.id, reports, actor=actor, at=at)
    _decide(raw, READ, f"{len(reports)} reports", actor=actor, at=at)
    return len(reports)


def dismiss(raw_id: UUID, *, reason: str, actor: Actor, at: datetime) -> None:
    """Say that a message means nothing for the desk; its bytes stay. Raises `Invalid` without a reason, `Conflict` if decided."""
    if not reason.strip():
        raise Invalid("required", "Say why it means nothing.", field="reason")
    _decide(_undecided(raw_id), DISMISSED, reason, actor=actor, at=at)


def _undecided(raw_id: UUID) -> RawMessage:
    raw = RawMessage.objects.exclude(error="").filter(pk=raw_id).first()
    if raw is None or LetterDecision.objects.filter(message_id=raw_id).exists():
        raise Conflict("already_decided", "This message was readable, or somebody has decided it.")
    return raw


@in_transaction
def _decide(raw: RawMessage, decision: str, reason: str, *, actor: Actor, at: datetime) -> None:
    row = LetterDecision(
        id=uuid7(), message_id=raw.pk, decision=decision, reason=reason[:200], actor=actor.name, decided_at=at
    )
    sql.insert([row], on_conflict="ON CONFLICT (message_id) DO NOTHING")
    _tell(raw.broker_id, "letter.decided", str(raw.pk), decision, reason, actor, at)


def retry_parked(ids: Sequence[UUID], *, actor: Actor, at: datetime) -> int:
    """Apply parked reports again, whatever they wait for; return how many are applied. What still can't be is parked anew."""
    applied = 0
    for row in ParkedReport.objects.filter(pk__in=ids, applied_at=None).order_by("id"):
        apply_again(row.broker_id, row.pk, actor=actor, at=at)
        anew = ParkedReport.objects.filter(broker_id=row.broker_id, applied_at=None, waits_for=row.waits_for)
        applied += not anew.filter(pk__gte=row.pk).exists()
    return applied


@in_transaction
def dismiss_parked(ids: Sequence[UUID], *, reason: str, actor: Actor, at: datetime) -> int:
    """Say that parked reports belong to nothing of ours; they stay as they were told. Return how many."""
    if not reason.strip():
        raise Invalid("required", "Say why they mean nothing.", field="reason")
    rows = list(ParkedReport.objects.filter(pk__in=ids, applied_at=None).order_by("id").select_for_update())
    ParkedReport.objects.filter(pk__in=[r.pk for r in rows]).update(applied_at=at)
    for row in rows:
        _tell(row.broker_id, "report.dismissed", str(row.pk), DISMISSED, reason, actor, at)
    return len(rows)


def _tell(broker_id: int, kind: str, key: str, decision: str, reason: str, actor: Actor, at: datetime) -> None:
    code = Broker.objects.values_list("code", flat=True).get(pk=broker_id)
    data = {"decision": decision, "reason": reason, "broker": code}
    journal.append([Entry(broker_stream(code), kind, key, json.dumps({"data": data}))], actor=actor, at=at)
