"""Verify the journal's hash chains."""

import argparse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from oms.journal import checkpoints, queries
from oms.runtime.commands import add_options, tell


class Command(BaseCommand):
    """Exit 0: every chain is whole. Exit 1: what is wrong is printed."""

    help = "Verify that no audit event was changed, removed or added."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --json, and where exported checkpoints are."""
        add_options(parser)
        parser.add_argument("--checkpoints", metavar="DIR", default=settings.CHECKPOINTS, help="exported checkpoints")
        parser.add_argument(
            "--no-checkpoints", action="store_true", help="the chains alone, for a restored copy that ends earlier"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Walk all chains."""
        folder = None if options["no_checkpoints"] else Path(options["checkpoints"])
        faults = list(queries.faults(checkpoints.anchors(folder)))
        tell(self, options, {"intact": not faults, "faults": faults}, "\n".join(faults) or "The audit trail is intact.")
        if faults:
            raise SystemExit(1)
