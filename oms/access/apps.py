"""The access app."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    """Second factors and the terms of tokens."""

    name = "oms.access"
    label = "access"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Give the sign-in below what it asks about users and tokens."""
        from oms.access import factors, tokens  # noqa: PLC0415 - models must be loaded first
        from oms.runtime import sessions, signin  # noqa: PLC0415 - they use models, too

        signin.second_factor, signin.scopes_of = factors.check, tokens.scopes_of
        sessions.lacks_second_factor = factors.lacks
