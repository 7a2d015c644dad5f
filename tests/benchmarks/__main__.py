"""`make bench`: what one order costs here, beside what it costs elsewhere, in one run on one machine.

    python -m tests.benchmarks [--only NAME[,NAME]] [--orders N] [--singles N] [--naive N] [--rounds N]

Starts a desk of its own (durable PostgreSQL, Valkey, web, worker, gateways, simulated brokers), prints a table and
writes var/reports/bench-<utc>.json. One part alone brings the baselines that it is told against with `--only a,b`.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import (
    baselines,
    flat,
    judging,
    learning,
    lists,
    optimiser,
    orderpath,
    quality,
    reconciliation,
    report,
    routing,
    screens,
    setbased,
    valuation,
)
from tests.benchmarks.desk import ROOT, Desk, say

DESK_PARTS = ("batch", "single", "rest", "flat", "screens")
ALONE = ("routing", "learning", "valuation", "optimiser")
"""The desk is frozen meanwhile."""
BASELINES = ("setbased", "naive", "bare")
AFTERWARDS = ("risk", "reconcile", "marks", "lists", "quality")
"""Fill the desk's tables, so that they come after all that writes to them."""
PARTS = (*DESK_PARTS, *ALONE, *BASELINES, *AFTERWARDS)


def main() -> None:
    """Run the parts asked for, print the table and write the report."""
    options = parse()
    told: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), **machine(), "options": vars(options), "results": {}}
    with tempfile.TemporaryDirectory(prefix="bench") as folder, Desk(Path(folder)) as desk:
        for name, run in parts(desk, options):
            say(f"{name} ...")
            told["results"][name] = run()
            say(json.dumps(told["results"][name]))  # should a later part fail, this was measured
    told["marks"] = report.goals(told["results"])
    target = ROOT / "var" / "reports" / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(told, indent=2))
    print(report.table(told))
    print(f"\n{target}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("make bench")
    parser.add_argument("--only", default="", help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--orders", type=int, default=20_000, help="of a round of batches")
    parser.add_argument("--singles", type=int, default=2_000, help="of a round of single orders")
    parser.add_argument("--naive", type=int, default=500, help="of a round of the naive desk")
    parser.add_argument("--flat", type=int, default=50_000, help="orders in a row, in ten segments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--listed", type=int, default=1_000_000, help="orders that the lists are read from")
    parser.add_argument("--positions", type=int, default=100_000, help="that are reconciled")
    parser.add_argument("--fills", type=int, default=1_000_000, help="that are reconciled")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name]
    if strange := set(options.only) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}; not {', '.join(sorted(strange))}")
    return options


def parts(desk: Desk, options: argparse.Namespace) -> Any:
    """Yield name and measurement, the desk's own first; the baselines run while the desk is frozen."""
    wanted = options.only or PARTS
    line = f"ws://127.0.0.1:{desk.port}/ws/blotter/"
    own: dict[str, Callable[[], dict[str, Any]]] = {
        "batch": lambda: orderpath.batch(desk, options.orders, rounds=options.rounds),
        "single": lambda: orderpath.single(desk, options.singles, rounds=options.rounds),
        "rest": lambda: orderpath.at_rest(desk, 200),
        "flat": lambda: flat.measure(desk, options.flat),
        "screens": lambda: asyncio.run(screens.measure(line, desk.token, desk.redis_url, "EURO")),
    }
    yield from ((name, own[name]) for name in DESK_PARTS if name in wanted)
    life = None
    if "setbased" in wanted:
        orderpath.warm_up(desk)
        life = setbased.observe(desk)
    desk.pause()
    if "routing" in wanted:
        yield "routing", lambda: routing.measure(desk)
    if "learning" in wanted:
        yield "learning", learning.measure
    if "valuation" in wanted:
        yield "valuation", valuation.measure
    if "optimiser" in wanted:
        yield "optimiser", optimiser.measure
    if life is not None:
        yield "setbased", lambda: setbased.measure(desk, life)
    if "naive" in wanted or "bare" in wanted:
        with baselines.Naive(desk) as naive:
            if "naive" in wanted:
                yield "naive", lambda: naive.measure(options.naive)
            if "bare" in wanted:
                yield "bare", lambda: naive.bare(1_000)
    if "risk" in wanted:
        yield "risk", lambda: judging.measure(desk, rounds=options.rounds)
    if "reconcile" in wanted:
        yield (
            "reconcile",
            lambda: reconciliation.measure(
                desk, positions=options.positions, fills=options.fills, rounds=options.rounds
            ),
        )
    desk.resume()
    if "marks" in wanted:
        yield "marks", lambda: valuation.to_the_screen(desk)
    if "lists" in wanted:
        yield "lists", lambda: lists.measure(desk, options.listed)
    if "quality" in wanted:
        yield "quality", lambda: quality.measure(desk, options.listed)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
