"""Add a broker."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from oms.kernel import json
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
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
        add_options(parser, changes=True, role="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the settings, then add."""
        actor = actor_named(options["user"], "admin")
        try:
            settings = json.loads(Path(options["file"]).read_bytes())
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
        except (OSError, msgspec.DecodeError) as error:
            raise CommandError(f"These settings can't be used: {error}", returncode=2) from error
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error
        done = "would be added" if options["dry_run"] else "is added"
        told = {"broker": options["code"], "dry_run": options["dry_run"]}
        tell(self, options, told, f"Broker {options['code']} {done}.")
