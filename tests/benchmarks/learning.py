"""What routing loses against hidden venues of changing quality, beside simpler policies. No desk: the rules alone.

Each of five venues has a fee that everybody knows and a quality (basis points beyond the spread, with noise) that nobody sees. A third of the
way through the best venue turns bad; two thirds through another becomes good. A policy pays fee, quality and noise of what it takes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import mean
from typing import Any

from analytics.domain.statistics import interval
from routing.domain.choosing import choose
from routing.domain.learning import Outcome, Sums, believe
from routing.domain.weights import DEFAULT

ORDERS, SEEDS = 1_500, 20
VENUES = 5
NOISE_BPS = 4.0
VALUE = 10_000.0
START = datetime(2026, 1, 5, 8, tzinfo=UTC)
SPACING = timedelta(seconds=20)
RECOVERED_BPS = 1.0
"""After the best venue turned bad a policy has adapted once its last fifty orders cost no more than this above the best."""


@dataclass(frozen=True)
class World:
    """Fees, and the qualities of each third."""

    fees: tuple[float, ...]
    qualities: tuple[tuple[float, ...], ...]
    noise: tuple[tuple[float, ...], ...]  # by order and venue: every policy meets the same luck

    def expected(self, number: int) -> list[float]:
        """Return what each venue costs on average at an order."""
        third = min(number * 3 // len(self.noise), 2)
        return [f + q for f, q in zip(self.fees, self.qualities[third], strict=True)]


def world(seed: int, orders: int) -> World:
    """Return a world of its own."""
    rng = random.Random(seed)
    fees = tuple(rng.uniform(0.5, 2.5) for _ in range(VENUES))
    first = [rng.uniform(0.0, 6.0) for _ in range(VENUES)]
    order = sorted(range(VENUES), key=lambda i: fees[i] + first[i])
    second = list(first)
    second[order[0]] += 8.0
    third = list(second)
    third[order[-1]] = -fees[order[-1]] - 0.5
    noise = tuple(tuple(rng.gauss(0, NOISE_BPS) for _ in range(VENUES)) for _ in range(orders))
    return World(fees, (tuple(first), tuple(second), tuple(third)), noise)


Policy = Callable[[int], int]
Learn = Callable[[int, int, float], None]


def learned(found: World, seed: int) -> tuple[Policy, Learn]:
    """Return routing as the desk does it."""
    weights = replace(DEFAULT, explore_share=Decimal("0.1"), explore_bps=Decimal(12))
    sums = [Sums(START) for _ in range(VENUES)]

    def pick(number: int) -> int:
        at = START + SPACING * number
        beliefs = [believe([s], weights, at) for s in sums]
        means = [f + b.cost_bps for f, b in zip(found.fees, beliefs, strict=True)]
        errors = [b.error_bps for b in beliefs]
        return choose(means, errors, value=VALUE, weights=weights, seed=seed * 1_000_003 + number).index

    def learn(number: int, venue: int, cost: float) -> None:
        at = START + SPACING * number
        sums[venue] = sums[venue].aged(at, float(weights.half_life_hours))
        sums[venue].add(Outcome(cost - found.fees[venue], 1.0, False, None), weights)

    return pick, learn


def _nothing(number: int, venue: int, cost: float) -> None:
    pass


def at_random(found: World, seed: int) -> tuple[Policy, Learn]:
    """Return a policy that takes any."""
    rng = random.Random(seed + 77)
    return lambda _: rng.randrange(VENUES), _nothing


def in_turn(found: World, seed: int) -> tuple[Policy, Learn]:
    """Return a policy that takes one after the other."""
    return lambda number: number % VENUES, _nothing


def cheapest_fee(found: World, seed: int) -> tuple[Policy, Learn]:
    """Return a policy that believes the price list."""
    best = min(range(VENUES), key=found.fees.__getitem__)
    return lambda _: best, _nothing


def last_best(found: World, seed: int) -> tuple[Policy, Learn]:
    """Return a policy that goes where the last order was cheapest; each venue is tried once."""
    last: dict[int, float] = {}

    def pick(number: int) -> int:
        return number if number < VENUES else min(last, key=last.__getitem__)

    def learn(number: int, venue: int, cost: float) -> None:
        last[venue] = cost

    return pick, learn


POLICIES = {
    "learned": learned, "random": at_random, "round robin": in_turn, "cheapest fee": cheapest_fee, "last best": last_best,
}  # fmt: skip


def run(policy: str, seed: int, orders: int) -> dict[str, Any]:
    """Return the mean regret of an order against the oracle and the best fixed venue, and the orders it took to adapt."""
    found = world(seed, orders)
    pick, learn = POLICIES[policy](found, seed)
    regrets: list[float] = []
    for number in range(orders):
        venue = pick(number)
        expected = found.expected(number)
        learn(number, venue, expected[venue] + found.noise[number][venue])
        regrets.append(expected[venue] - min(expected))
    fixed = min(mean(found.expected(n)[v] for n in range(orders)) for v in range(VENUES))
    oracle = mean(min(found.expected(n)) for n in range(orders))
    return {"oracle": mean(regrets), "fixed": mean(regrets) + oracle - fixed, "adapted": _adapted(regrets, orders)}


def _adapted(regrets: Sequence[float], orders: int) -> int | None:
    """Return after how many orders since the best venue turned bad the loss is small again, fifty orders at a time."""
    turned = orders // 3
    for after in range(50, turned):
        if mean(regrets[turned + after - 50 : turned + after]) <= RECOVERED_BPS:
            return after
    return None


def measure(*, seeds: int = SEEDS, orders: int = ORDERS) -> dict[str, Any]:
    """Return regrets with 95 % intervals over seeds, the worst gain over any other policy, and how soon the learned one adapts."""
    runs = {name: [run(name, seed, orders) for seed in range(seeds)] for name in POLICIES}
    told: dict[str, Any] = {"seeds": seeds, "orders_each": orders}
    for name, found in runs.items():
        told[f"{name}, bps above the oracle"] = _spelled([r["oracle"] for r in found])
        told[f"{name}, bps above the best fixed venue"] = _spelled([r["fixed"] for r in found])
    gains = {
        name: [other["oracle"] - own["oracle"] for own, other in zip(runs["learned"], runs[name], strict=True)]
        for name in POLICIES
        if name != "learned"
    }
    lows = {name: _interval(values)[1] for name, values in gains.items()}
    told["least_gain_bps"] = min(lows.values())
    adapted = [r["adapted"] for r in runs["learned"]]
    told["adapted_in_orders_median"] = sorted(a if a is not None else orders for a in adapted)[len(adapted) // 2]
    told["adapted_in_seeds"] = sum(a is not None for a in adapted)
    return told


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    found = interval(len(values), sum(values), sum(v * v for v in values))
    assert found is not None
    return found


def _spelled(values: Sequence[float]) -> str:
    centre, low, high = _interval(values)
    return f"{centre:.2f} ({low:.2f} to {high:.2f})"
