"""The journal app."""

from django.apps import AppConfig


class JournalConfig(AppConfig):
    """Append-only, hash-chained events."""

    name = "oms.journal"
    label = "journal"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Listen to refusals and log-ins."""
        from oms.journal import security  # noqa: PLC0415 - models must be loaded first

        security.listen()
