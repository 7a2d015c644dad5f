"""Run every invariant of every app on the real rows."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from oms.runtime.commands import add_options, tell
from portfolio import rebuilding

STATEMENT_MINUTES_MAX = 15
APPS = ("portfolio", "risk", "orders")


def violations() -> dict[str, list[str]]:
    """Return the rows that break each invariant, by its name; clean data gives only empty lists."""
    found = {}
    with connection.cursor() as cursor, _patience(cursor):
        for app in APPS:
            for name, predicate in import_module(f"{app}.invariants").PREDICATES.items():
                cursor.execute(predicate)
                found[name] = [str(row[0]) for row in cursor.fetchmany(50)]
    return found


@contextmanager
def _patience(cursor: Any) -> Iterator[None]:
    """Give each statement as long as the whole history takes, not what an operation may."""
    cursor.execute("SELECT current_setting('statement_timeout')")
    [usual] = cursor.fetchone()
    cursor.execute("SELECT set_config('statement_timeout', %s, false)", [f"{STATEMENT_MINUTES_MAX}min"])
    try:
        yield
    finally:
        if not connection.needs_rollback and connection.connection is not None and not connection.connection.broken:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", [usual])


def _written(balance: list[dict[str, str]]) -> str:
    """Return the trial balance as lines to read."""
    return "\n".join(f"{b['currency']:12} {b['code']:14} {b['debits']:>24} {b['credits']:>24}" for b in balance)


class Command(BaseCommand):
    """Exit 0: all hold. Exit 1: the broken ones are printed with the rows that break them."""

    help = "Check all invariants of orders, holds, ledger and positions."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --rebuild and --json."""
        parser.add_argument(
            "--rebuild", action="store_true",
            help="build lots, positions, cash and gains anew from all trades and postings, and compare",
        )  # fmt: skip
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run and report."""
        found = violations()
        if options["rebuild"]:
            with connection.cursor() as cursor, _patience(cursor):
                found |= {f"rebuilt {name}": rows for name, rows in rebuilding.differences().items()}
        broken = {name: rows for name, rows in found.items() if rows}
        lines = [f"{name}: {', '.join(rows)}" for name, rows in broken.items()]
        sentence = "\n".join([*lines, f"{len(found)} invariants checked, {len(broken)} broken."])
        told: dict[str, Any] = {"checked": len(found), "violations": broken}
        if options["rebuild"]:
            told["trial_balance"] = rebuilding.trial_balance()
            sentence += "\n" + _written(told["trial_balance"])
        tell(self, options, told, sentence)
        if broken:
            raise SystemExit(1)
