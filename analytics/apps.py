"""The analytics app."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "analytics"
    default_auto_field = "django.db.models.BigAutoField"
