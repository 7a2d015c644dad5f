"""The restricted list."""

from datetime import datetime
from typing import Any

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime.transactions import require_transaction
from risk.models import RestrictedInstrument


def restrict(entry: RestrictedInstrument, *, actor: Actor, at: datetime) -> None:
    """Save an entry of the restricted list, new or changed, and journal it with what stood before.

    Runs in the caller's transaction. Orders already open are left alone: halt the symbol to end them.
    """
    require_transaction()
    before = RestrictedInstrument.objects.filter(pk=entry.pk).first() if entry.pk else None
    entry.save()
    data = {**_shown(entry), "before": _shown(before) if before else None}
    body = json.dumps({"data": data})
    journal.append([Entry(SYSTEM_STREAM, "instrument.restricted", str(entry.pk), body)], actor=actor, at=at)


def _shown(entry: RestrictedInstrument) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "since": rfc3339(entry.since),
        "until": rfc3339_or_none(entry.until),
        "watched": entry.watched,
        "reason": entry.reason,
    }
