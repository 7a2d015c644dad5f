"""The brokers app."""

from django.apps import AppConfig


class BrokersConfig(AppConfig):
    """See the package's docstrings and docs/architecture.md for what it owns."""

    name = "brokers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the adapters where they may connect: they know no settings themselves."""
        from django.conf import settings  # noqa: PLC0415 - read when it is known

        from brokers.adapters import reach  # noqa: PLC0415 - together with what it is told

        reach.permit(settings.BROKER_HOSTS)
