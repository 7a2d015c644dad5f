"""End a day, step by step."""

import argparse
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from oms.dayend import STEPS, end_day
from oms.kernel.errors import DomainError
from oms.kernel.json import rfc3339
from oms.runtime.commands import actor_named, add_options, tell
from portfolio.models import DayEndStep


class Command(BaseCommand):
    """Exit 0: every step is done. Exit 1: a step failed; what is in its way is told, and the next run goes on there."""

    help = "Settle, snapshot, look for statements, reconcile, look for what should have ended, and verify."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the day."""
        parser.add_argument("--date", type=date.fromisoformat, help="a day like 2026-11-25; today (UTC) without it")
        parser.add_argument("--again", action="store_true", help="take steps again that are done")
        add_options(parser, changes=True, role="ops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Take the steps, telling each as it ends."""
        actor = actor_named(options["user"], "ops")
        day = options["date"] or datetime.now(UTC).date()
        if options["dry_run"]:
            done = set(DayEndStep.objects.filter(day=day, state="done").values_list("step", flat=True))
            left = [s for s in STEPS if s not in done or options["again"]]
            told = {"date": day.isoformat(), "steps": left, "dry_run": True}
            tell(self, options, told, f"{day}: would take {', '.join(left) or 'nothing'}.")
            return
        say = None if options["json"] else self.stdout.write
        try:
            rows = end_day(day, again=options["again"], actor=actor, clock=lambda: datetime.now(UTC), say=say)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        failed = [r.step for r in rows if r.state != DayEndStep.State.DONE]
        told = {"date": day.isoformat(), "done": not failed, "steps": [_out(r) for r in rows], "dry_run": False}
        tell(self, options, told, f"{day}: {'not ended, see ' + ', '.join(failed) if failed else 'ended'}.")
        if failed:
            raise SystemExit(1)


def _out(row: DayEndStep) -> dict[str, Any]:
    return {
        "step": row.step, "state": row.state, "detail": row.detail, "tries": row.tries, "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip
