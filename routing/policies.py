"""Other ways to route, to be held against what was done."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from routing import queries

Candidates = Sequence[Mapping[str, Any]]


def _least(costs: Sequence[Decimal]) -> list[float]:
    best = min(range(len(costs)), key=costs.__getitem__)
    return [float(i == best) for i in range(len(costs))]


def _part(candidate: Mapping[str, Any], *names: str) -> Decimal:
    return sum((Decimal(candidate["parts"].get(n, "0")) for n in names), Decimal(0))


def expected(candidates: Candidates) -> list[float]:
    """Always the broker expected to be cheapest."""
    return _least([Decimal(c["cost_bps"]) for c in candidates])


def cheapest_fee(candidates: Candidates) -> list[float]:
    """Always the lowest fees."""
    return _least([_part(c, "fees") for c in candidates])


def fastest(candidates: Candidates) -> list[float]:
    """Always the quickest answer."""
    return _least([_part(c, "latency") for c in candidates])


def at_random(candidates: Candidates) -> list[float]:
    """Any broker that could take it."""
    return [1 / len(candidates)] * len(candidates)


POLICIES: dict[str, queries.Policy] = {
    "expected": expected, "cheapest_fee": cheapest_fee, "fastest": fastest, "random": at_random,
}  # fmt: skip


def compared(since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Return what was done and what each policy would have cost on the decisions of a period."""
    found = queries.compare(since, until, POLICIES)
    return [{"policy": name, "estimate": asdict(e) if e else None} for name, e in found.items()]
