"""The people of a demo: their password is known to everyone, so no production desk starts while one of them can log in."""

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import check_password
from django.core.exceptions import ImproperlyConfigured

DEMO_PASSWORD = "demo"  # noqa: S105 - known on purpose
DEMO_PEOPLE = {
    "trader": "trader", "trader2": "trader", "risk": "risk", "risk2": "risk", "ops": "ops", "ops2": "ops",
    "auditor": "auditor", "admin": "admin",
}  # fmt: skip
"""Name to role."""


def demo_people_here() -> list[str]:
    """Return the names of active users that still have the demo's password."""
    people = (
        get_user_model().objects.filter(username__in=DEMO_PEOPLE, is_active=True).values_list("username", "password")
    )
    return sorted(name for name, kept in people if check_password(DEMO_PASSWORD, kept))


def refuse_demo_people() -> None:
    """Raise `ImproperlyConfigured` while a user of the demo is there."""
    if found := demo_people_here():
        raise ImproperlyConfigured(
            f"Users of the demo are in this database ({', '.join(found)}): production does not start with a known password. "
            "Change it, switch them off, or use another database."
        )
