"""Run a simulated desk on throw-away servers and hold its books against its brokers'."""

import argparse
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError

from oms.kernel import json
from oms.runtime.commands import add_options, tell
from oms.simulating import FAULTS, Simulation, furnish, parse_faults
from oms.simulating.databases import Databases


class Command(BaseCommand):
    """Exit 0: nothing lost, nothing twice, every rule holds. Exit 1: what is wrong is printed."""

    help = "Trade random orders against simulated brokers that lie as told; the same seed ends in the same books."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the seed, the number of orders and the faults."""
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument(
            "--seeds", type=int, default=1, help="how many seeds in a row, each in a database of its own"
        )
        parser.add_argument("--orders", type=int, default=500)
        parser.add_argument(
            "--faults", default="all", help=f"none, all, or a list, each with =RATE: {', '.join(FAULTS)}"
        )
        parser.add_argument("--report", type=Path, default=None, help="a folder for simulate-<utc>.json")
        parser.add_argument("--dry-run", action="store_true", help="tell what would be simulated")
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Trade, reckon, report."""
        try:
            faults = parse_faults(options["faults"])
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        for name in ("orders", "seeds"):
            if options[name] < 1:
                raise CommandError(f"--{name} must be above zero.", returncode=2)
        seeds = range(options["seed"], options["seed"] + options["seeds"])
        if options["dry_run"]:
            told = {
                "seed": options["seed"],
                "seeds": len(seeds),
                "orders": options["orders"],
                "faults": faults,
                "dry_run": True,
            }
            tell(self, options, told, f"Would trade {options['orders']} orders of each of {len(seeds)} seeds.")
            return
        runs = list(self._runs(seeds, options["orders"], faults, quiet=options["json"]))
        told = runs[0] if len(seeds) == 1 else _sum(runs, faults)
        if options["report"]:
            told["report"] = _report(options["report"], told)
        tell(self, options, told, _sentence(told))
        if told["wrong"]:
            raise SystemExit(1)

    def _runs(
        self, seeds: Sequence[int], orders: int, faults: dict[str, float], *, quiet: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield what came of each seed, until one goes wrong."""
        try:
            with Databases(furnish).ready() as databases:
                for seed in seeds:
                    with databases.fresh():
                        told = Simulation(seed=seed, orders=orders, faults=faults).run()
                    if not quiet and len(seeds) > 1:
                        self.stdout.write(
                            f"{seed}: {told['orders']} orders, {told['executions']} executions, {told['seconds']} s"
                        )
                    yield told
                    if told["wrong"]:
                        return
        except ProgrammingError as error:
            raise CommandError(f"A simulation makes databases of its own: {error}", returncode=2) from error


def _sum(runs: Sequence[dict[str, Any]], faults: dict[str, float]) -> dict[str, Any]:
    """Return many runs as one; the first that went wrong is told whole."""
    happened: Counter[str] = Counter()
    for run in runs:
        happened.update(run["happened"])
    wrong = next((r for r in runs if r["wrong"]), None)
    told = {
        name: sum(r[name] for r in runs) for name in ("orders", "executions", "resolved_by_asking", "simulated_seconds")
    }
    return told | {
        "seeds": [runs[0]["seed"], runs[-1]["seed"]],
        "seed": wrong["seed"] if wrong else runs[0]["seed"],
        "faults": faults,
        "happened": dict(sorted(happened.items())),
        "statuses": dict(sorted(sum((Counter(r["statuses"]) for r in runs), Counter()).items())),
        "digest": sha256("".join(r["digest"] for r in runs).encode()).hexdigest(),
        "seconds": round(sum(r["seconds"] for r in runs), 1),
        "wrong": wrong["wrong"] if wrong else {},
    }


def _sentence(told: dict[str, Any]) -> str:
    ended = ", ".join(f"{n} {status}" for status, n in told["statuses"].items())
    first, last = told.get("seeds", (told["seed"], told["seed"]))
    lines = [
        f"{told['orders']} orders of seeds {first} to {last} in {told['seconds']} s ({told['simulated_seconds']} s there): {ended}.",
        f"{told['executions']} executions; {told['resolved_by_asking']} unanswered requests resolved by asking.",
        ", ".join(f"{n} {what}" for what, n in told["happened"].items()),
        f"digest {told['digest']}",
        *(f"WRONG {name}: {what}" for name, what in told["wrong"].items()),
        f"Play it again: manage.py simulate --seed {told['seed']}, with the same --orders and --faults."
        if told["wrong"]
        else "Nothing lost, nothing twice; books, rules and audit agree.",
    ]
    return "\n".join(lines)


def _report(folder: Path, told: dict[str, Any]) -> str:
    """Write the figures with the machine and the commit; return the file's name."""
    at = datetime.now(UTC)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=settings.BASE_DIR, capture_output=True, text=True, check=False
    ).stdout.strip()
    where = {
        "at": at.isoformat(), "commit": commit, "cores": os.cpu_count(), "machine": platform.machine(),
        "python": platform.python_version(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"simulate-{at:%Y%m%dT%H%M%SZ}.json"
    target.write_text(json.dumps(where | told) + "\n")
    return str(target)
