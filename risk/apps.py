"""The risk app."""

from django.apps import AppConfig


class RiskConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "risk"
    default_auto_field = "django.db.models.BigAutoField"
