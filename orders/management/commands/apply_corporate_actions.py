"""Apply the corporate actions whose day has come."""

import argparse
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from orders.operations import restating
from portfolio import corporate


class Command(BaseCommand):
    """Each in a transaction of its own; a second run finds nothing left. What can't be applied yet doesn't stop the rest."""

    help = "Carry out what is announced and due until today, or until a day before: books first, then open orders."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the day."""
        parser.add_argument("--date", type=date.fromisoformat, help="a day like 2026-11-25; today (UTC) without it")
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply, or tell what is due."""
        actor, at = actor_named(options["user"], "ops"), datetime.now(UTC)
        until = min(options["date"] or at.date(), at.date())
        actions, orders = corporate.due_until(until), restating.due_to_restate(until)
        failed: dict[str, str] = {}
        if not options["dry_run"]:
            for action in actions:
                try:
                    restating.apply(action.pk, actor=actor, at=at)
                except DomainError as error:
                    failed[str(action.pk)] = error.detail
            for action in orders:
                restating.restate(action.pk, actor=actor, at=at)
        told = {"actions": [str(a.pk) for a in actions], "failed": failed, "dry_run": options["dry_run"]}
        done = f"{len(actions) - len(failed)} {'due' if options['dry_run'] else 'applied'}."
        tell(self, options, told, "\n".join([*(f"{pk}: {why}" for pk, why in failed.items()), done]))
        if failed:
            raise SystemExit(1)
