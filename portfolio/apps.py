"""The portfolio app."""

from django.apps import AppConfig


class PortfolioConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "portfolio"
    default_auto_field = "django.db.models.BigAutoField"
