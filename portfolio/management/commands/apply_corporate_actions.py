"""Apply the corporate actions whose day has come."""

import argparse
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from portfolio import corporate


class Command(BaseCommand):
    """Each in a transaction of its own; a second run finds nothing left."""

    help = "Pay what is announced and due until today, or until a day before."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the day."""
        parser.add_argument("--date", type=date.fromisoformat, help="a day like 2026-11-25; today (UTC) without it")
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply, or tell what is due."""
        actor, at = actor_named(options["user"], "ops"), datetime.now(UTC)
        actions = corporate.due_until(min(options["date"] or at.date(), at.date()))
        try:
            if not options["dry_run"]:
                for action in actions:
                    corporate.apply(action.pk, actor=actor, at=at)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        told = {"actions": [str(a.pk) for a in actions], "dry_run": options["dry_run"]}
        tell(self, options, told, f"{len(actions)} {'due' if options['dry_run'] else 'applied'}.")
