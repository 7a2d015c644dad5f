"""Who acts when a command is run."""

import getpass

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from oms.kernel.actor import Actor


def actor_named(username: str, *roles: str) -> Actor:
    """Return the user as an actor, who must have one of the roles; without a name the login at this machine,
    which never counts as a second person."""
    if not username:
        return Actor(f"cli:{getpass.getuser()}")
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    if user is None or not user.groups.filter(name__in=roles).exists():
        raise CommandError(f"There is no active user {username} with the role {' or '.join(roles)}.", returncode=2)
    return Actor(f"user:{username}", user.pk)
