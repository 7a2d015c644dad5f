"""The journal app."""

from django.apps import AppConfig


class JournalConfig(AppConfig):
    """Append-only, hash-chained events."""

    name = "oms.journal"
    label = "journal"
    default_auto_field = "django.db.models.BigAutoField"
