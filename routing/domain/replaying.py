"""What another policy would have cost, from decisions that were made with known chances: off-policy evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision as it was made: what each broker was expected to cost, how likely each was, which it became, what that cost.

    Costs in basis points; brokers by their place in `expected`. `chosen_by_other` is how likely the other policy takes each.
    """

    expected: Sequence[float]
    propensities: Sequence[float]
    taken: int
    cost: float
    chosen_by_other: Sequence[float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean cost of a policy, with the bounds of its interval, and the orders that the estimate rests on."""

    mean: float
    low: float
    high: float
    orders: int
    effective: float  # as many orders drawn from the other policy itself would tell as much


def doubly_robust(logged: Sequence[Logged], *, confidence: float = 0.95) -> Estimate | None:
    """Return what the other policy would have cost on average; None where nothing can be told.

    Dudik, Langford and Li (2011): the expected costs of what it would take, corrected by what was seen where both took the same, weighed by how
    unlikely that was. Right if either the expectations or the propensities are. Decisions without a chance for what the other would
    take can't be corrected, and widen nothing: see `effective`.
    """
    if len(logged) < 2:
        return None
    values, weights = [], []
    for one in logged:
        model = sum(p * e for p, e in zip(one.chosen_by_other, one.expected, strict=True))
        weight = one.chosen_by_other[one.taken] / max(one.propensities[one.taken], 1e-6)
        values.append(model + weight * (one.cost - one.expected[one.taken]))
        weights.append(weight)
    n = len(values)
    mean = sum(values) / n
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    squares = sum(w * w for w in weights)
    return Estimate(mean, mean - half, mean + half, n, sum(weights) ** 2 / squares if squares else 0.0)


def regret(expected: Sequence[float], taken: int, cost: float) -> float:
    """Return what an order cost beyond what the cheapest of the others was expected to; below zero it was the better choice."""
    others = [e for i, e in enumerate(expected) if i != taken]
    return cost - min(others) if others else 0.0
