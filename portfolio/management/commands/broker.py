"""Add a broker, look at its session, set the numbers of its FIX session."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from brokers import queries, sessions
from oms.kernel import json
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from portfolio import operations


class Command(BaseCommand):
    """`broker add CODE --adapter NAME --settings FILE`; a running desk starts its gateway within seconds.

    `broker show CODE` tells how its session is. `broker numbers CODE --next-in N --next-out N --reason …` sets the numbers of a FIX
    session, as agreed with the broker: its gateway logs on anew with them.
    """

    help = "Add a broker, with the listings and accounts that its settings imply; show its session, or set its numbers."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the verb and its arguments."""
        parser.add_argument("verb", choices=["add", "show", "numbers"])
        parser.add_argument("code")
        parser.add_argument("--adapter", help="add: which adapter speaks to it")
        parser.add_argument("--broker-settings", dest="file", help="add: a file of JSON; written --settings")
        parser.add_argument("--next-in", type=int, help="numbers: MsgSeqNum of the broker's next message")
        parser.add_argument("--next-out", type=int, help="numbers: MsgSeqNum of our next message")
        parser.add_argument("--reason", default="", help="numbers: why, for the audit trail")
        add_options(parser, changes=True, role="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the verb says."""
        try:
            {"add": self._add, "show": self._show, "numbers": self._set_numbers}[options["verb"]](options)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error

    def _add(self, options: dict[str, Any]) -> None:
        if not options["adapter"] or not options["file"]:
            raise CommandError("broker add takes --adapter NAME and --settings FILE.", returncode=2)
        actor = actor_named(options["user"], "admin")
        try:
            settings = json.loads(Path(options["file"]).read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise CommandError(f"These settings can't be used: {error}", returncode=2) from error
        if options["dry_run"]:
            operations.require_usable(options["adapter"], settings)
        else:
            operations.add_broker(
                code=options["code"],
                adapter=options["adapter"],
                settings=settings,
                actor=actor,
                at=datetime.now(UTC),
            )
        done = "would be added" if options["dry_run"] else "is added"
        told = {"broker": options["code"], "dry_run": options["dry_run"]}
        tell(self, options, told, f"Broker {options['code']} {done}.")

    def _show(self, options: dict[str, Any]) -> None:
        row = queries.health_of(options["code"])
        session = row["session"]
        lines = [f"{row['code']} ({row['adapter']}): {'connected' if row['connected'] else 'not connected'}"]
        if session:
            lines += [
                f"  {name.replace('_', ' ')}: {'-' if value is None else value}" for name, value in session.items()
            ]
        tell(self, options, row, "\n".join(lines))

    def _set_numbers(self, options: dict[str, Any]) -> None:
        if options["next_in"] is None and options["next_out"] is None:
            raise CommandError("broker numbers takes --next-in N, --next-out N or both.", returncode=2)
        if not options["reason"]:
            raise CommandError("Say why with --reason: it stands in the audit trail.", returncode=2)
        actor = actor_named(options["user"], "admin")
        set_ = sessions.judge_numbers if options["dry_run"] else sessions.set_numbers
        next_in, next_out = set_(
            options["code"],
            next_in=options["next_in"],
            next_out=options["next_out"],
            reason=options["reason"],
            actor=actor,
            at=datetime.now(UTC),
        )
        told = {"broker": options["code"], "next_in": next_in, "next_out": next_out, "dry_run": options["dry_run"]}
        done = "would be" if options["dry_run"] else "are"
        tell(self, options, told, f"{options['code']}: the next numbers {done} {next_in} in, {next_out} out.")
