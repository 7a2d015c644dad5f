"""Add a broker."""

import argparse
import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from brokers.adapters import build
from oms.kernel import json
from oms.kernel.actor import Actor
from portfolio import operations


class Command(BaseCommand):
    """`broker add CODE --adapter NAME --settings FILE`; a running desk starts its gateway within seconds."""

    help = "Add a broker, with the listings and accounts that its settings imply."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the verb and its arguments."""
        parser.add_argument("verb", choices=["add"])
        parser.add_argument("code")
        parser.add_argument("--adapter", required=True)
        parser.add_argument("--broker-settings", dest="file", required=True, help="a file of JSON; written --settings")
        parser.add_argument("--as", dest="user", default="")
        parser.add_argument("--dry-run", action="store_true")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the settings, then add."""
        try:
            settings = json.loads(Path(options["file"]).read_bytes())
            build(options["adapter"], settings)
        except (OSError, msgspec.DecodeError, ValueError, KeyError) as error:
            raise CommandError(f"These settings can't be used: {error}", returncode=2) from error
        actor = Actor(f"user:{options['user']}" if options["user"] else f"cli:{getpass.getuser()}")
        if not options["dry_run"]:
            operations.add_broker(
                code=options["code"],
                adapter=options["adapter"],
                settings=settings,
                actor=actor,
                at=datetime.now(UTC),
            )
        done = "would be added" if options["dry_run"] else "is added"
        told = {"broker": options["code"], "dry_run": options["dry_run"]}
        self.stdout.write(json.dumps(told) if options["json"] else f"Broker {options['code']} {done}.")
