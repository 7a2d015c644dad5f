"""Judge what every account holds by the compliance rules of a day's end."""

import argparse
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from risk import operations
from risk.queries import breach_out


class Command(BaseCommand):
    """Exit 0: no open breach of the day. Exit 1: those that are open are told."""

    help = "Judge positions by the end-of-day compliance rules; safe to run again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the day."""
        parser.add_argument("--date", type=date.fromisoformat, default=None, help="a UTC day, today unless told")
        add_options(parser, changes=True, role="risk")

    def handle(self, *args: Any, **options: Any) -> None:
        """Judge and report."""
        at, actor = datetime.now(UTC), actor_named(options["user"], "risk")
        try:
            breaches = operations.review(options["date"] or at.date(), store=not options["dry_run"], actor=actor, at=at)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from None
        told = [breach_out(b) for b in breaches if b.disposition == "open"]
        lines = [
            f"{b['account']} {b['symbol'] or ''} {b['rule']} ({b['clause']}): {b['figure']} > {b['limit']}"
            for b in told
        ]
        tell(self, options, {"open": told}, "\n".join([*lines, f"{len(told)} open breaches."]))
        if told:
            raise SystemExit(1)
