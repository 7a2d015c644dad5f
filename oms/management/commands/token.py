"""Print an API token of a user, and nothing else."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from oms.access import tokens
from oms.kernel.errors import DomainError
from oms.runtime.commands import actor_named, add_options, tell
from oms.runtime.roles import SCOPES


class Command(BaseCommand):
    """Tokens are kept as hashes: this one can't be shown again."""

    help = "Print a new API token of a user; list, rotate or revoke those there are."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the user's name, and the terms."""
        parser.add_argument("owner", metavar="user")
        parser.add_argument("--scopes", default="", help=f"of {', '.join(sorted(SCOPES))}, with commas; without it all")
        parser.add_argument("--days", type=float, help="how long it lives; without it as the settings say")
        parser.add_argument("--name", default="", help="what it is for")
        parser.add_argument("--list", action="store_true", help="tell the tokens there are, by how they begin")
        parser.add_argument("--rotate", default="", metavar="BEGINNING", help="make one in the place of another")
        parser.add_argument("--overlap-hours", type=float, default=24.0, help="how long the old one goes on")
        parser.add_argument("--revoke", default="", metavar="BEGINNING", help="end one now")
        add_options(parser, changes=True, role="admin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the token, and tell the journal for whom."""
        actor, at = actor_named(options["user"], "admin"), datetime.now(UTC)
        owner = get_user_model().objects.filter(username=options["owner"], is_active=True).first()
        if owner is None:
            raise CommandError(f"There is no active user {options['owner']}.", returncode=2)
        told: dict[str, Any] = {"user": options["owner"], "token": None, "dry_run": options["dry_run"]}
        try:
            if options["list"]:
                found = tokens.listed(owner)
                lines = [
                    f"{t['token']}… {','.join(t['scopes'])} until {t['expires_at'] or 'revoked'} {t['name']}"
                    for t in found
                ]
                tell(self, options, told | {"tokens": found}, "\n".join(lines) or "No tokens.")
            elif options["dry_run"]:
                tell(self, options, told, f"A token would be made for {options['owner']}.")
            elif options["revoke"]:
                tokens.revoke(options["revoke"], owner=owner, actor=actor, at=at)
                tell(self, options, told | {"revoked": options["revoke"]}, f"{options['revoke']}… is revoked.")
            else:
                secret = self._made(owner, options, actor, at)
                tell(self, options, told | {"token": secret}, secret)
        except DomainError as error:
            raise CommandError(error.detail, returncode=2) from error

    @staticmethod
    def _made(owner: Any, options: dict[str, Any], actor: Any, at: datetime) -> str:
        if options["rotate"]:
            overlap = timedelta(hours=options["overlap_hours"])
            return tokens.rotate(options["rotate"], owner=owner, overlap=overlap, actor=actor, at=at)
        return tokens.make(
            owner,
            scopes=[s.strip() for s in options["scopes"].split(",") if s.strip()],
            lives=None if options["days"] is None else timedelta(days=options["days"]),
            name=options["name"],
            actor=actor,
            at=at,
        )
