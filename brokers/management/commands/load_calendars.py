"""Load the sessions of the exchanges that instruments trade on."""

import argparse
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers import queries
from brokers.operations import Sessions, published_sessions, store_sessions
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.transactions import in_transaction

BEHIND = timedelta(days=30)
AHEAD = timedelta(days=400)


class Command(BaseCommand):
    """Run it monthly: settlement dates and session hours are known as far as it was loaded."""

    help = "Load trading sessions, a month back and thirteen ahead, for every calendar that instruments trade or settle by."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the common options."""
        add_options(parser, changes=True, role="ops or admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Load, and tell the journal."""
        at, actor = datetime.now(UTC), actor_named(options["user"], "ops", "admin")
        queries.forget_cache()
        codes = sorted(queries.calendars_needed())
        try:
            rows = [] if options["dry_run"] else _published(codes, at)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        loaded = Counter(code for code, *_ in rows)
        if rows:
            _store(rows, dict(loaded), actor=actor, at=at)
        told = {"calendars": codes, "sessions": dict(loaded), "dry_run": options["dry_run"]}
        sentence = (
            ", ".join(f"{code}: {n} sessions" for code, n in loaded.items())
            or f"Calendars: {', '.join(codes) or 'none'}."
        )
        tell(self, options, told, sentence)


def _published(codes: list[str], at: datetime) -> Sessions:
    return published_sessions(codes, since=(at - BEHIND).date(), until=(at + AHEAD).date())


@in_transaction
def _store(rows: Sessions, counts: dict[str, int], *, actor: Actor, at: datetime) -> None:
    store_sessions(rows)
    body = json.dumps({"data": {"sessions": counts}})
    journal.append([Entry(SYSTEM_STREAM, "calendars.loaded", ",".join(counts)[:64], body)], actor=actor, at=at)
