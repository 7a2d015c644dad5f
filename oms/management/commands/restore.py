"""Bring a copy of the desk's database back, or try whether it could be."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from oms.backups import BackupFailed, drill_database, read_manifest, restore
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.transactions import in_transaction
from orders import cache
from risk.domain.scopes import Scope
from risk.operations import engage_halt

RECOVER = "restored from a copy of {at}: reconcile with every broker, then another person releases this"
"""What happened since is at the brokers alone: nobody trades on books that don't know of it."""


class Command(BaseCommand):
    """`restore FILE --drill` tries a copy in a database of its own; `restore FILE` fills the desk's empty one.

    Exit 0: the copy is whole. Exit 1: it was brought back, and what is wrong with it is printed. Exit 2: it can't be.
    """

    help = "Restore a backup into the desk's empty database, or prove it restorable with --drill."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the file."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--drill", action="store_true", help="into a new database that is dropped afterwards")
        add_options(parser, changes=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the bytes, restore, judge."""
        file, url = options["file"].resolve(), os.environ["DATABASE_URL"]
        try:
            manifest = read_manifest(file)
            wrong = [] if options["dry_run"] else _bring_back(url, file, manifest, drill=options["drill"])
        except (BackupFailed, OSError, psycopg.Error) as error:
            raise CommandError(str(error).strip(), returncode=2) from error
        if not options["dry_run"] and not options["drill"]:
            cache.forget_all()
            actor, at = actor_named(options["user"]), datetime.now(UTC)
            _tell_journal(file, manifest["sha256"], actor=actor, at=at)
            engage_halt(Scope("all"), reason=RECOVER.format(at=manifest["at"]), actor=actor, at=at)
        told = {"file": str(file), "at": manifest["at"], "drill": options["drill"], "dry_run": options["dry_run"]}
        done = "could be restored" if options["drill"] else "is restored"
        sentence = f"{file} of {manifest['at']} " + (
            "is the file that was written." if options["dry_run"] else f"{done}, whole: chains, invariants, audit."
        )
        tell(self, options, {**told, "whole": not wrong, "wrong": wrong}, "\n".join(wrong) or sentence)
        if wrong:
            raise SystemExit(1)


def _bring_back(url: str, file: Path, manifest: dict[str, Any], *, drill: bool) -> list[str]:
    connection.close()  # an open one would keep the old schema in mind
    if not drill:
        return restore(url, file, manifest)
    with drill_database(url) as empty:
        return restore(empty, file, manifest)


@in_transaction
def _tell_journal(file: Path, sha256: str, *, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"file": str(file), "sha256": sha256}})
    journal.append([Entry(SYSTEM_STREAM, "desk.restored", sha256[:32], body)], actor=actor, at=at)
