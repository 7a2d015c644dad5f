"""Reads of routing decisions, of what was learned of brokers, and of the weights in force."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from oms.kernel import json
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from routing.domain.choosing import draw
from routing.domain.learning import Belief, Sums, believe
from routing.domain.replaying import Estimate, Logged, doubly_robust, regret
from routing.domain.weights import DEFAULT, Weights, restored
from routing.models import RoutingDecision, RoutingWeights

Level = tuple[int, int | None, str, int | None]
Scores = dict[Level, Sums]
Policy = Callable[[Sequence[Mapping[str, Any]]], list[float]]
COMPARED_MAX = 5_000
CACHE_SECONDS = 5.0
"""Scores move with what was measured, twice a minute; weights by a person's hand."""
_SCORES = """SELECT broker_id, instrument_id, size, part, at, orders, shares, rejects, acks, ack_ms, weight, cost, squares,
  recent_weight, recent_cost, recent_squares FROM routing_brokerscore"""
_cache: dict[str, tuple[float, Any]] = {}


def forget() -> None:
    """Drop what this process remembers of scores and weights."""
    _cache.clear()


def levels(broker_id: int, instrument_id: int, size: str, part: int) -> tuple[Level, ...]:
    """Return the levels that an order is learned at and believed by, the broadest first."""
    return (
        (broker_id, None, "", None),
        (broker_id, instrument_id, "", None),
        (broker_id, instrument_id, size, None),
        (broker_id, instrument_id, size, part),
    )


def scores(*, fresh: bool = False) -> Scores:
    """Return the sums of every level."""
    hit = _cache.get("scores")
    if hit is None or fresh or hit[0] < time.monotonic():
        found = {(b, i, size, part): Sums(*rest) for b, i, size, part, *rest in sql.run(_SCORES)}
        hit = _cache["scores"] = (time.monotonic() + CACHE_SECONDS, found)
    return hit[1] if not fresh else {k: replace(v) for k, v in hit[1].items()}


def weights(*, fresh: bool = False) -> tuple[int, Weights]:
    """Return the version in force and its numbers; 0 and those of the code where nobody promoted any."""
    hit = _cache.get("weights")
    if hit is None or fresh or hit[0] < time.monotonic():
        row = sql.run("SELECT version, values::text FROM routing_routingweights WHERE status = 'active'").fetchone()
        found = (row[0], restored(json.loads(row[1]))) if row else (0, DEFAULT)
        hit = _cache["weights"] = (time.monotonic() + CACHE_SECONDS, found)
    return hit[1]


def decisions_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return every decision made for an order, oldest first, as it was stored, and what it cost beyond the next best."""
    rows = list(RoutingDecision.objects.filter(source_id=order_id).order_by("id"))
    costs = _costs_of([order_id]) if rows else {}
    explored = shares() if rows else {}
    return [
        {
            "id": str(d.id), "at": rfc3339(d.at), "model_version": d.model_version, "weights_version": d.weights_version,
            "seed": str(d.seed) if d.seed is not None else None, "explored": d.explored, "candidates": d.candidates, "replayed": replayed(d, explored.get(d.weights_version, 0.0)),
            "outcome": _outcome(d, costs),
        }
        for d in rows
    ]  # fmt: skip


def replayed(decision: RoutingDecision, share: float) -> str | None:
    """Return the broker that a decision for one comes to again, from its numbers, its seed and the share that explored then."""
    eligible = sorted(
        (c for c in decision.candidates if c["eligible"]), key=lambda c: (Decimal(c["cost_bps"]), c["broker"])
    )
    if len([c for c in eligible if c["quantity"] != "0"]) != 1:
        return None
    means, errors = [float(c["cost_bps"]) for c in eligible], [c["error_bps"] for c in eligible]
    within = [n for n, c in enumerate(eligible) if c["propensity"]]
    drawn = (
        draw(means, errors, within, share=share, seed=decision.seed)
        if decision.seed is not None and len(within) > 1
        else None
    )
    best = 0 if drawn is None else min(within, key=drawn.__getitem__)
    return str(eligible[best]["broker"])


def shares() -> dict[int, float]:
    """Return the share of orders that explores by the version of the weights."""
    stored = {version: restored(values) for version, values in RoutingWeights.objects.values_list("version", "values")}
    return {version: float(w.explore_share) for version, w in ({0: DEFAULT} | stored).items()}


def _costs_of(order_ids: Sequence[UUID]) -> dict[tuple[UUID, int], tuple[float | None, float | None]]:
    found = sql.run(
        "SELECT source_id, broker_id, avg(cost_bps), avg(fees_bps) FROM routing_routeoutcome WHERE source_id = ANY(%s) GROUP BY 1, 2",
        [sql.uuids(order_ids)],
    )
    return {(source, broker): (cost, fees) for source, broker, cost, fees in found}


def _outcome(
    decision: RoutingDecision, costs: dict[tuple[UUID, int], tuple[float | None, float | None]]
) -> dict[str, Any] | None:
    """Return what a decision for one broker cost, as far as it is measured, and the regret: beyond what the next best was expected to."""
    logged = _logged(decision, costs)
    if logged is None:
        return None
    return {
        "cost_bps": round(logged.cost, 4),
        "regret_bps": round(regret(logged.expected, logged.taken, logged.cost), 4),
    }


def _logged(
    decision: RoutingDecision, costs: dict[tuple[UUID, int], tuple[float | None, float | None]]
) -> Logged | None:
    eligible = [c for c in decision.candidates if c["eligible"]]
    taken = [n for n, c in enumerate(eligible) if c["quantity"] != "0"]
    if len(taken) != 1:
        return None
    codes = brokers.brokers_by_code()
    chosen = eligible[taken[0]]
    broker = codes.get(chosen["broker"])
    measured = costs.get((decision.source_id, broker.id)) if broker else None
    if measured is None or measured[0] is None:
        return None
    parts = chosen["parts"]
    fees = measured[1] if measured[1] is not None else float(parts.get("fees", 0))
    known = float(parts.get("half_spread", 0)) + float(parts.get("latency", 0)) + float(parts.get("missing", 0))
    return Logged(
        expected=[float(c["cost_bps"]) for c in eligible],
        propensities=[
            c["propensity"] if c.get("propensity") is not None else float(n == taken[0]) for n, c in enumerate(eligible)
        ],
        taken=taken[0],
        cost=known + measured[0] + fees,
        chosen_by_other=[float(n == taken[0]) for n in range(len(eligible))],
    )


def compare(since: datetime, until: datetime, others: Mapping[str, Policy]) -> dict[str, Estimate | None]:
    """Return what routing cost in a period and what other policies would have, each with its interval; the first is what was done.

    From the newest decisions for one broker each whose outcome is measured, 5,000 at most. A policy returns how likely it takes each
    of the eligible candidates given.
    """
    outcomes = sql.run(
        "SELECT source_id FROM routing_routeoutcome WHERE at >= %s AND at < %s AND cost_bps IS NOT NULL ORDER BY at DESC LIMIT %s",
        [since, until, COMPARED_MAX],
    )
    ids = [pk for (pk,) in outcomes]
    costs = _costs_of(ids)
    found = [
        (logged, [c for c in d.candidates if c["eligible"]])
        for d in RoutingDecision.objects.filter(source_id__in=ids)
        if (logged := _logged(d, costs)) is not None
    ]
    own = doubly_robust([replace(x, chosen_by_other=x.propensities) for x, _ in found])
    told = {
        name: doubly_robust([replace(x, chosen_by_other=other(eligible)) for x, eligible in found])
        for name, other in others.items()
    }
    return {"as it was": own} | told


def scores_out(*, at: datetime) -> list[dict[str, Any]]:
    """Return what is believed of each broker, and of it in each instrument, with standard errors and how many orders count."""
    _, numbers = weights()
    known = scores()
    codes = {b.id: b.code for b in brokers.brokers().values()}
    symbols = {i.id: i.symbol for i in brokers.instruments().values()}
    rows = []
    for level in sorted(
        known, key=lambda k: (codes.get(k[0], ""), symbols.get(k[1] or 0, ""), k[2], k[3] is not None, k[3] or 0)
    ):
        broker_id, instrument_id, size, part = level
        chain = levels(broker_id, instrument_id or 0, size, part or 0)
        depth = 1 + (instrument_id is not None) + bool(size) + (part is not None)
        belief = believe([known.get(one) for one in chain[:depth]], numbers, at)
        rows.append(
            {
                "broker": codes.get(broker_id), "symbol": symbols.get(instrument_id) if instrument_id else None, "size": size or None,
                "hours": None if part is None else f"{part * 4:02}-{part * 4 + 4:02}", **_belief_out(belief),
                "drifted": known[level].drifted(float(numbers.drift_errors)), "at": rfc3339(known[level].at),
            }
        )  # fmt: skip
    return rows


def _belief_out(belief: Belief) -> dict[str, Any]:
    return {
        "orders": round(belief.orders, 1),
        "cost_bps": round(belief.cost_bps, 4),
        "error_bps": round(belief.error_bps, 4),
        "low_bps": round(belief.cost_bps - 1.96 * belief.error_bps, 4),
        "high_bps": round(belief.cost_bps + 1.96 * belief.error_bps, 4),
        "fill_share": None if belief.share is None else round(belief.share, 4),
        "reject_rate": None if belief.reject_rate is None else round(belief.reject_rate, 4),
        "ack_ms": None if belief.ack_ms is None else round(belief.ack_ms, 1),
    }


def weights_out() -> list[dict[str, Any]]:
    """Return every version of the weights, the newest first, at the end those of the code: version 0."""
    told = [weights_out_of(w) for w in RoutingWeights.objects.order_by("-version")]
    code = {
        "version": 0, "status": "retired" if any(w["status"] == "active" for w in told) else "active", "values": DEFAULT.as_json(),
        "reason": "those of the code", "proposed_by": None, "proposed_at": None, "promoted_by": None, "promoted_at": None,
    }  # fmt: skip
    return [*told, code]


def weights_out_of(row: RoutingWeights) -> dict[str, Any]:
    """Return a version of the weights in its REST shape."""
    return {
        "version": row.version, "status": row.status, "values": row.values, "reason": row.reason, "proposed_by": row.proposed_by,
        "proposed_at": rfc3339(row.proposed_at), "promoted_by": row.promoted_by or None, "promoted_at": rfc3339_or_none(row.promoted_at),
    }  # fmt: skip
