"""Load a factor model of returns, which tracking errors and the optimiser go by."""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from portfolio.modelling import load_risk_model


class Command(BaseCommand):
    """`risk_model FILE`: exit 0 once it is loaded, 2 for a file that can't be used."""

    help = (
        'Load a factor model: {"code", "as_of", "factors": [names], "covariance": [[a year\'s]], '
        '"instruments": {symbol: {"loadings": [...], "specific_variance": ...}}}.'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the file."""
        parser.add_argument("file", type=Path)
        add_options(parser, changes=True, role="risk")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read and keep it."""
        actor = actor_named(options["user"], "risk")
        try:
            raw = json.loads(options["file"].read_text())
            known = {"code", "as_of", "factors", "covariance", "instruments"}
            if not isinstance(raw, dict) or raw.keys() != known:
                raise CommandError(f"The file holds one object with {', '.join(sorted(known))}.", returncode=2)
            if not options["dry_run"]:
                load_risk_model(**raw | {"as_of": date.fromisoformat(raw["as_of"])}, actor=actor, at=timezone.now())
        except (OSError, ValueError, TypeError, AttributeError, DomainError) as error:
            raise CommandError(str(error), returncode=2) from error
        told = {"model": raw["code"], "instruments": len(raw["instruments"]), "dry_run": options["dry_run"]}
        verb = "would be loaded" if options["dry_run"] else "loaded"
        tell(self, options, told, f"{raw['code']} of {raw['as_of']} {verb}: {len(raw['instruments'])} instruments.")
