"""Verify the journal's hash chains."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from oms.journal import queries
from oms.kernel import json


class Command(BaseCommand):
    """Exit 0: every chain is whole. Exit 1: what is wrong is printed."""

    help = "Verify that no audit event was changed, removed or added."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --json."""
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Walk all chains."""
        faults = list(queries.faults())
        if options["json"]:
            self.stdout.write(json.dumps({"intact": not faults, "faults": faults}))
        else:
            self.stdout.write("\n".join(faults) or "The audit trail is intact.")
        if faults:
            raise SystemExit(1)
