"""Settle what is due."""

import argparse
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from portfolio import settlement


class Command(BaseCommand):
    """Runs by itself every hour on a desk whose beat is up; by hand for a day that was missed."""

    help = "Settle trades that are due until today, or until a day before."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the day."""
        parser.add_argument("--date", type=date.fromisoformat, help="a day like 2026-11-25; today (UTC) without it")
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Settle, or tell what is due."""
        actor, at = actor_named(options["user"], "ops"), datetime.now(UTC)
        on = options["date"] or at.date()
        try:
            dry = options["dry_run"]
            done = settlement.due(on) if dry else settlement.settle(on, actor=actor, at=at)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        counted = ", ".join(f"{code}: {n}" for code, n in done.items()) or "nothing"
        told = {"date": on.isoformat(), "accounts": done, "dry_run": dry}
        tell(self, options, told, f"Until {on}: {counted} {'due' if dry else 'settled'}.")
