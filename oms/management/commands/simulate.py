"""Run a simulated desk on throw-away servers and hold its books against its brokers'."""

import argparse
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from oms.kernel import json
from oms.runtime.commands import add_options, tell
from oms.simulating import FAULTS, Simulation, parse_faults
from orders.models import Order


class Command(BaseCommand):
    """Exit 0: nothing lost, nothing twice, every rule holds. Exit 1: what is wrong is printed."""

    help = "Trade random orders against simulated brokers that lie as told; the same seed ends in the same books."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the seed, the number of orders and the faults."""
        parser.add_argument("--seed", type=int, default=1)
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
        if options["orders"] < 1:
            raise CommandError("--orders must be above zero.", returncode=2)
        if options["dry_run"]:
            told = {"seed": options["seed"], "orders": options["orders"], "faults": faults, "dry_run": True}
            tell(self, options, told, f"Would trade {options['orders']} orders of seed {options['seed']}.")
            return
        call_command("migrate", verbosity=0, interactive=False)
        if Order.objects.exists():
            raise CommandError("This database has orders; a simulation needs one of its own.", returncode=2)
        told = Simulation(seed=options["seed"], orders=options["orders"], faults=faults).run()
        if options["report"]:
            told["report"] = _report(options["report"], told)
        tell(self, options, told, _sentence(told))
        if told["wrong"]:
            raise SystemExit(1)


def _sentence(told: dict[str, Any]) -> str:
    ended = ", ".join(f"{n} {status}" for status, n in told["statuses"].items())
    lines = [
        f"{told['orders']} orders of seed {told['seed']} in {told['seconds']} s: {ended}.",
        f"{told['executions']} executions; {told['resolved_by_asking']} unanswered requests resolved by asking.",
        f"digest {told['digest']}",
        *(f"WRONG {name}: {what}" for name, what in told["wrong"].items()),
    ]
    return "\n".join(
        [*lines, "" if told["wrong"] else "Nothing lost, nothing twice; books, rules and audit agree."]
    ).strip()


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
