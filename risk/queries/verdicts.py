"""Verdicts as they were stored, and what their numbers say today."""

from typing import Any

from oms.kernel import json
from risk.domain.replaying import Replayed, replay
from risk.models import RiskCheck

CHUNK = 2_000


def replay_verdicts() -> tuple[int, list[dict[str, str]]]:
    """Judge every stored verdict again; return how many, and those that come out otherwise. Reads row by row, not all at once."""
    differing = []
    judged = 0
    rows = RiskCheck.objects.order_by("id").values_list("id", "again_of", "approved", "reason", "held", "checks")
    for pk, again_of, approved, reason, held, checks in rows.iterator(chunk_size=CHUNK):
        judged += 1
        stored, found = Replayed(approved, reason, held), _replay(checks)
        if found != stored:
            differing.append({"order": str(again_of or pk), "stored": _words(stored), "replayed": _words(found)})
    return judged, differing


def _replay(checks: Any) -> Replayed:
    try:
        return replay(json.loads(checks) if isinstance(checks, str) else checks)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # numbers that make no check are a difference
        return Replayed(False, f"unreadable: {type(error).__name__}")


def _words(verdict: Replayed) -> str:
    return "approved" if verdict.approved else f"{'held' if verdict.held else 'denied'} {verdict.reason}"
