"""Tell of a user's second factor, or take it away from who lost device and codes."""

import argparse
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from oms.access import factors
from oms.access.models import SecondFactor
from oms.runtime.commands import actor_named, add_options, tell


class Command(BaseCommand):
    """`second_factor USER [--remove]`: they enrol by themselves, at /second-factor/."""

    help = "Tell whether a user has a second factor; --remove takes it away."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the user's name."""
        parser.add_argument("owner", metavar="user")
        parser.add_argument("--remove", action="store_true", help="after a look at who asks for it")
        add_options(parser, changes=True, role="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Tell, or take away."""
        actor = actor_named(options["user"], "admin")
        owner = get_user_model().objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"There is no user {options['owner']}.", returncode=2)
        there = SecondFactor.objects.filter(user=owner, confirmed_at__isnull=False).exists()
        removed = options["remove"] and not options["dry_run"]
        if removed:
            factors.take_away(owner, actor=actor, at=datetime.now(UTC))
        told = {
            "user": options["owner"], "enrolled": there and not removed, "required": factors.required(owner),
            "removed": bool(removed and there), "dry_run": options["dry_run"],
        }  # fmt: skip
        tell(
            self,
            options,
            told,
            f"{options['owner']}: {'removed' if removed and there else 'enrolled' if there else 'none'}.",
        )
