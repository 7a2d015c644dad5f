"""The orders app."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"
