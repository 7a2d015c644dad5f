"""Copy the desk's database."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from oms.backups import BackupFailed, back_up
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.transactions import in_transaction


class Command(BaseCommand):
    """`backup [--to FOLDER]`: a dump and its manifest, while the desk runs."""

    help = "Write a dump of the database with a manifest beside it; the desk may run meanwhile."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the folder."""
        parser.add_argument("--to", type=Path, default=None, help="the folder (default: backups in the data folder)")
        add_options(parser, changes=True, role="ops or admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Copy, and tell the journal."""
        at, actor = datetime.now(UTC), actor_named(options["user"], "ops", "admin")
        folder = options["to"] or Path(os.environ.get("OMS_DATA", settings.BASE_DIR / "var")) / "backups"
        target = folder.resolve() / f"oms-{at:%Y%m%dT%H%M%SZ}.dump"
        if options["dry_run"]:
            tell(self, options, {"file": str(target), "dry_run": True}, f"Would write {target}.")
            return
        try:
            told = back_up(os.environ["DATABASE_URL"], target, at=at)
        except (BackupFailed, OSError) as error:
            raise CommandError(str(error), returncode=2) from error
        _tell_journal({k: told[k] for k in ("file", "sha256", "bytes")}, actor=actor, at=at)
        sentence = (
            f"{target}: {told['bytes']} bytes, {sum(s for s, _ in told['heads'].values())} events. Keep the .json."
        )
        tell(self, options, {**told, "dry_run": False}, sentence)


@in_transaction
def _tell_journal(data: dict[str, Any], *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": data})
    journal.append([Entry(SYSTEM_STREAM, "desk.backed_up", data["sha256"][:32], body)], actor=actor, at=at)
