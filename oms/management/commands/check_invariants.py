"""Run every invariant of every app on the real rows."""

import argparse
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from oms.kernel import json

APPS = ("portfolio", "risk", "orders")


def violations() -> dict[str, list[str]]:
    """Return the rows that break each invariant, by its name; clean data gives only empty lists."""
    found = {}
    for app in APPS:
        for name, predicate in import_module(f"{app}.invariants").PREDICATES.items():
            with connection.cursor() as cursor:
                cursor.execute(predicate)
                found[name] = [str(row[0]) for row in cursor.fetchmany(50)]
    return found


class Command(BaseCommand):
    """Exit 0: all hold. Exit 1: the broken ones are printed with the rows that break them."""

    help = "Check all invariants of orders, holds, ledger and positions."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --json."""
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run and report."""
        found = violations()
        broken = {name: rows for name, rows in found.items() if rows}
        if options["json"]:
            self.stdout.write(json.dumps({"checked": len(found), "violations": broken}))
        else:
            for name, rows in broken.items():
                self.stdout.write(f"{name}: {', '.join(rows)}")
            self.stdout.write(f"{len(found)} invariants checked, {len(broken)} broken.")
        if broken:
            raise SystemExit(1)
