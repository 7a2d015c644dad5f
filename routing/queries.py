"""Reads of routing decisions."""

from typing import Any
from uuid import UUID

from oms.kernel.json import rfc3339
from routing.models import RoutingDecision


def decisions_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return every decision made for an order, oldest first, as it was stored."""
    rows = RoutingDecision.objects.filter(source_id=order_id).order_by("id")
    return [
        {"id": str(d.id), "at": rfc3339(d.at), "model_version": d.model_version, "candidates": d.candidates}
        for d in rows
    ]
