"""The routing app."""

from django.apps import AppConfig


class RoutingConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "routing"
    default_auto_field = "django.db.models.BigAutoField"
