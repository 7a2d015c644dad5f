"""Print an API token of a user, and nothing else."""

import argparse
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from knox.models import AuthToken


class Command(BaseCommand):
    """Tokens are kept as hashes: this one can't be shown again."""

    help = "Print a new API token of a user."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the user's name."""
        parser.add_argument("user")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the token."""
        user = get_user_model().objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['user']}.", returncode=2)
        _, secret = AuthToken.objects.create(user=user)
        self.stdout.write(secret)
