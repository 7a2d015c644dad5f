"""The brokers app."""

from django.apps import AppConfig


class BrokersConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "brokers"
    default_auto_field = "django.db.models.BigAutoField"
