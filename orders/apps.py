"""The orders app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the build that migrates the database be the one that sends."""
        from orders.operations.building import release_build  # noqa: PLC0415 - models must be loaded first

        post_migrate.connect(release_build, sender=self, dispatch_uid="release_build")
