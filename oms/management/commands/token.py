"""Print an API token of a user, and nothing else."""

import argparse
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from knox.models import AuthToken

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.transactions import in_transaction


class Command(BaseCommand):
    """Tokens are kept as hashes: this one can't be shown again."""

    help = "Print a new API token of a user."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the user's name."""
        parser.add_argument("owner", metavar="user")
        add_options(parser, changes=True, role="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the token, and tell the journal for whom."""
        actor = actor_named(options["user"], "admin")
        owner = get_user_model().objects.filter(username=options["owner"], is_active=True).first()
        if owner is None:
            raise CommandError(f"There is no active user {options['owner']}.", returncode=2)
        secret = "" if options["dry_run"] else make(owner, actor=actor, at=datetime.now(UTC))
        told = {"user": options["owner"], "token": secret or None, "dry_run": options["dry_run"]}
        tell(self, options, told, secret or f"A token would be made for {options['owner']}.")


@in_transaction
def make(owner: Any, *, actor: Actor, at: datetime) -> str:
    """Make a token of a user and return it; the journal knows that, not the token."""
    secret = str(AuthToken.objects.create(user=owner)[1])
    body = json.dumps({"data": {"user": owner.get_username()}})
    journal.append([Entry(SYSTEM_STREAM, "token.made", owner.get_username(), body)], actor=actor, at=at)
    return secret
