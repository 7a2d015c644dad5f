"""What orders taught about brokers: sums that forget, and beliefs shrunk towards what is known more broadly.

An outcome is kept at four levels: the broker, the broker in an instrument, there for a size, there for a time of the day. The belief
of a level is that of the one above, moved by its own orders: a normal mean with known spread, the level above worth `prior_orders`
of them. Estimation runs in floating point, as nothing is booked by it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from routing.domain.weights import Weights

PARTS_OF_DAY = 6
SPREAD_BPS = 5.0
"""How much single orders scatter around their mean before that was seen."""
RECENT_HALF_LIVES = 0.02
"""Recent outcomes are told apart by a second sum that forgets so much faster."""
DRIFT_ORDERS = 8.0
"""Of how many recent orders a drift is told at the earliest."""


def part_of_day(at: datetime) -> int:
    """Return the sixth of the UTC day."""
    return at.hour * PARTS_OF_DAY // 24


def size_of(quantity: float, usual: float | None) -> str:
    """Return the size of an order by its share of a usual day's volume, as execution quality names it."""
    if not usual:
        return "unknown"
    share = quantity / usual
    for most, name in ((0.001, "<0.1%"), (0.01, "<1%"), (0.05, "<5%")):
        if share < most:
            return name
    return ">=5%"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one broker order: `cost_bps` beyond half the spread it was sent at, None where it can't be told."""

    cost_bps: float | None
    filled_share: float
    rejected: bool
    ack_ms: float | None


@dataclass(slots=True)
class Sums:
    """Decayed sums of outcomes at one level, as of `at`; `recent_*` forget faster."""

    at: datetime
    orders: float = 0.0
    shares: float = 0.0
    rejects: float = 0.0
    acks: float = 0.0
    ack_ms: float = 0.0
    weight: float = 0.0
    cost: float = 0.0
    squares: float = 0.0
    recent_weight: float = 0.0
    recent_cost: float = 0.0
    recent_squares: float = 0.0

    def aged(self, at: datetime, half_life_hours: float) -> "Sums":
        """Return the sums as of a later time."""
        hours = max((at - self.at).total_seconds() / 3600, 0.0)
        old = 0.5 ** (hours / half_life_hours)
        young = 0.5 ** (hours / (half_life_hours * RECENT_HALF_LIVES))
        return Sums(
            max(at, self.at), self.orders * old, self.shares * old, self.rejects * old, self.acks * old, self.ack_ms * old,
            self.weight * old, self.cost * old, self.squares * old,
            self.recent_weight * young, self.recent_cost * young, self.recent_squares * young,
        )  # fmt: skip

    def add(self, outcome: Outcome, weights: Weights) -> None:
        """Take in an outcome of `at`; where costs have drifted away, what is older is forgotten."""
        self.orders += 1
        self.shares += outcome.filled_share
        self.rejects += outcome.rejected
        if outcome.ack_ms is not None:
            self.acks += 1
            self.ack_ms += outcome.ack_ms
        if outcome.cost_bps is None:
            return
        cost = outcome.cost_bps
        self.weight += 1
        self.cost += cost
        self.squares += cost * cost
        # besides by time the young sums forget by count: the last dozen orders
        keep = 1 - 1 / (1.5 * DRIFT_ORDERS)
        self.recent_weight = self.recent_weight * keep + 1
        self.recent_cost = self.recent_cost * keep + cost
        self.recent_squares = self.recent_squares * keep + cost * cost
        if self.drifted(float(weights.drift_errors)):
            self.weight, self.cost, self.squares = self.recent_weight, self.recent_cost, self.recent_squares

    def drifted(self, errors: float) -> bool:
        """Tell whether the last orders cost something else than those before them."""
        older = self.weight - self.recent_weight
        if self.recent_weight < DRIFT_ORDERS * 0.75 or older < DRIFT_ORDERS:
            return False
        before = (self.cost - self.recent_cost) / older
        now = self.recent_cost / self.recent_weight
        spread = max((self.squares - self.recent_squares) / older - before * before, 0.25)
        return abs(now - before) > errors * math.sqrt(spread / self.recent_weight + spread / older)


@dataclass(frozen=True, slots=True)
class Belief:
    """What is expected of a broker: cost in basis points with its standard error, share filled, rejects, milliseconds."""

    cost_bps: float = 0.0
    error_bps: float = 0.0
    orders: float = 0.0
    share: float | None = None
    reject_rate: float | None = None
    ack_ms: float | None = None


def believe(levels: Iterable[Sums | None], weights: Weights, at: datetime) -> Belief:
    """Return the belief of levels, the broadest first, as of a time; a level of which nothing is known changes nothing."""
    prior, half_life = float(weights.prior_orders), float(weights.half_life_hours)
    belief = Belief(error_bps=float(weights.prior_bps))
    spread = SPREAD_BPS**2
    for found in levels:
        if found is None:
            continue
        sums = found.aged(at, half_life)
        if sums.weight > 0:
            mean = sums.cost / sums.weight
            seen = max(sums.squares / sums.weight - mean * mean, 0.0)
            spread = (prior * spread + sums.weight * seen) / (prior + sums.weight)
            counts = prior + sums.weight
            shrunk = prior / counts
            cost = shrunk * belief.cost_bps + (1 - shrunk) * mean
            error = math.sqrt(spread / counts * (1 - shrunk) + (shrunk * belief.error_bps) ** 2)
            # rounded as it is stored with a decision, so that the decision comes again from its own numbers
            belief = replace(belief, cost_bps=cost, error_bps=round(error, 4), orders=sums.weight)
        if sums.orders > 0:
            belief = replace(
                belief,
                share=_shrunk(belief.share, sums.shares, sums.orders, prior, 1.0),
                reject_rate=_shrunk(belief.reject_rate, sums.rejects, sums.orders, prior, 0.0),
            )
        if sums.acks > 0:
            usual = sums.ack_ms / sums.acks
            belief = replace(belief, ack_ms=_shrunk(belief.ack_ms, sums.ack_ms, sums.acks, prior, usual))
    return belief


def _shrunk(above: float | None, total: float, count: float, prior: float, first: float) -> float:
    return (prior * (first if above is None else above) + total) / (prior + count)


@dataclass(slots=True)
class Drawn:
    """A choice among brokers: which, by what draw, and how likely each was."""

    index: int
    explored: bool
    draws: list[float] = field(default_factory=list)
    propensities: list[float] = field(default_factory=list)


def likelihoods(means: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Return how likely each of several normal draws is the least, by quadrature; ties and certainties too."""
    if len(means) == 1:
        return [1.0]
    spreads = [max(e, 1e-6) for e in errors]
    low = min(m - 5 * s for m, s in zip(means, spreads, strict=True))
    high = min(m + 5 * s for m, s in zip(means, spreads, strict=True))
    found = [0.0] * len(means)
    steps = 64
    width = (high - low) / steps
    root = math.sqrt(2.0)
    for k in range(steps):
        left, right = low + k * width, low + (k + 1) * width
        above = [0.5 * math.erfc(((left + right) / 2 - m) / (s * root)) for m, s in zip(means, spreads, strict=True)]
        whole = math.prod(above)
        for i, (m, s) in enumerate(zip(means, spreads, strict=True)):
            mass = 0.5 * (math.erfc((left - m) / (s * root)) - math.erfc((right - m) / (s * root)))
            others = whole / above[i] if above[i] > 1e-12 else 0.0
            found[i] += mass * others
    total = sum(found)
    return [f / total for f in found] if total > 0 else [1.0 if m == min(means) else 0.0 for m in means]
