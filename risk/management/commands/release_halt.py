"""Release a halt."""

import argparse
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from risk import operations, queries
from risk.models import Halt


class Command(BaseCommand):
    """`release_halt ID --as USER --reason TEXT`, by another person than the one who engaged it."""

    help = "Let the scope of a halt trade again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the halt, the person and the reason."""
        parser.add_argument("id", type=UUID)
        parser.add_argument("--reason", required=True)
        add_options(parser, changes=True, role="risk")

    def handle(self, *args: Any, **options: Any) -> None:
        """Release, or show what would be released."""
        actor = actor_named(options["user"], "risk")
        try:
            if options["dry_run"]:
                halt = Halt.objects.get(pk=options["id"])
            else:
                halt = operations.release_halt(options["id"], reason=options["reason"], actor=actor, at=timezone.now())
        except (DomainError, Halt.DoesNotExist) as error:
            raise CommandError(str(error), returncode=2) from error
        told = {"halt": queries.halt_out(halt), "dry_run": options["dry_run"]}
        done = "would be released" if options["dry_run"] else "is released"
        tell(self, options, told, f"The halt of {halt.scope_kind} {halt.scope_key} {done}.")
