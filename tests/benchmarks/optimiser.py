"""Rebalances of large books: the optimiser in factor form, beside going to the targets; then the whole plan in lots."""

import random
import time
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np

from brokers.domain.reference import InstrumentRef, QuoteRef
from portfolio.domain.optimising import available, optimise
from portfolio.domain.rebalancing import Asset, Rules, plan

FACTORS = 30
CAP = 0.3
SIZES = (500, 3_000, 10_000)
COSTS = {"": 1e-4, "_dear": 5e-4}
"""Of a unit traded; the dear ones bite, where first-order solvers go astray."""


def measure(rounds: int = 3) -> dict[str, Any]:
    """Return seconds from arrays to weights by number of names, the model's building in it, and what the weights are worth.

    Processor time stands beside the clock's: on a machine with other work it is the steadier of the two.
    """
    if not available():
        return {"skipped": "the extra `optimiser` is not installed"}
    problem(50, 1e-4)  # the solver's import, some seconds, is told by itself
    found: dict[str, Any] = {"rounds": rounds, "factors": FACTORS, "turnover_cap": CAP}
    for size in SIZES:
        for name, cost in COSTS.items():
            runs = [problem(size, cost) for _ in range(rounds)]
            found[f"seconds_{size}{name}"] = round(median(r["seconds"] for r in runs), 3)
            found[f"cpu_seconds_{size}{name}"] = round(median(r["cpu"] for r in runs), 3)
            found[f"against_the_heuristic_{size}{name}"] = round(runs[0]["objective"] / runs[0]["heuristic"], 3)
    found["plan_seconds_3000"] = round(median(planned(3_000) for _ in range(rounds)), 3)
    return found


def problem(size: int, cost: float) -> dict[str, float]:
    """Solve one and hold it to its constraints."""
    draw = np.random.default_rng(size)
    held, wanted = draw.dirichlet(np.ones(size)), draw.dirichlet(np.ones(size))
    loadings = draw.normal(0, 1, (size, FACTORS)) * 0.3
    root = draw.normal(0, 0.05, (FACTORS, FACTORS))
    covariance, specific = root @ root.T, draw.uniform(0.01, 0.1, size)
    costs = np.full(size, cost)
    start, cpu = time.perf_counter(), time.process_time()
    weights = optimise(held, wanted, costs, loadings, covariance, specific, aversion=10.0, turnover_cap=CAP)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    traded = np.abs(weights - held).sum()
    assert traded <= CAP + 1e-6
    assert weights.min() >= -1e-8
    assert weights.sum() <= 1 + 1e-6
    # what a desk without a solver does: go toward the targets as far as the cap lets it
    plain = held + (wanted - held) * min(1.0, CAP / np.abs(wanted - held).sum())

    def objective(w: Any) -> float:
        active = w - wanted
        exposure = loadings.T @ active
        variance = exposure @ covariance @ exposure + (specific * active * active).sum()
        return float(10.0 * variance + (costs * np.abs(w - held)).sum())

    return {"seconds": seconds, "cpu": cpu, "objective": objective(weights), "heuristic": objective(plain)}


def planned(size: int) -> float:
    """Return the seconds from targets to orders in whole lots, in decimals, without an optimiser."""
    draw, at = random.Random(size), datetime.now(UTC)
    one = Decimal(1)
    assets = {}
    for i in range(size):
        price = Decimal(draw.randint(500, 50_000)) / 100
        instrument = InstrumentRef(i, f"S{i}", "equity", "", "USD", Decimal("0.01"), one, 1, True)
        quote = QuoteRef(i, f"S{i}", price, price + Decimal("0.02"), None, None, None, at, price)
        assets[i] = Asset(instrument, Decimal(draw.randint(0, 2_000)), quote, one)
    wanted = {i: Decimal(1) / size for i in range(size)}
    start = time.perf_counter()
    made = plan(assets, Decimal(1_000_000), wanted, Rules(min_trade=Decimal(500), turnover_cap=Decimal("0.3")))
    assert made.trades
    assert made.turnover <= Decimal("0.3")
    return time.perf_counter() - start
