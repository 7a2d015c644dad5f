"""What management commands share: who acts, the options that all of them take, and how they tell what they did.

Exit codes: 0 good, 1 found something wrong, 2 cannot run.
"""

import argparse
import getpass
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from oms.kernel import json
from oms.kernel.actor import Actor


def add_options(parser: argparse.ArgumentParser, *, changes: bool = False, role: str = "") -> None:
    """Add `--json`, and for a command that changes something `--dry-run` and `--as`."""
    parser.add_argument("--json", action="store_true", help="tell the result as one JSON object")
    if changes:
        parser.add_argument("--dry-run", action="store_true", help="tell what would be done, do nothing")
        who = f"a user with the role {role}" if role else "a user of the desk"
        parser.add_argument("--as", dest="user", default="", help=f"{who}; without it the login at this machine")


def actor_named(username: str, *roles: str) -> Actor:
    """Return the user as an actor, who must have one of the roles if any are given; without a name the login at this
    machine, which never counts as a second person."""
    if not username:
        return Actor(f"cli:{getpass.getuser()}")
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    if user is None or (roles and not user.groups.filter(name__in=roles).exists()):
        wanted = f" with the role {' or '.join(roles)}" if roles else ""
        raise CommandError(f"There is no active user {username}{wanted}.", returncode=2)
    return Actor(f"user:{username}", user.pk)


def tell(command: BaseCommand, options: Mapping[str, Any], told: Mapping[str, Any], sentence: str) -> None:
    """Write the result: an object for programs, a sentence for people."""
    command.stdout.write(json.dumps(told) if options["json"] else sentence)
