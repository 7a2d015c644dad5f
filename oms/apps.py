"""The shell as an installed app."""

from django.apps import AppConfig


class OmsConfig(AppConfig):
    """Loads the Celery application, so that every process rings the same doorbell."""

    name = "oms"

    def ready(self) -> None:
        """Import for its effect: it becomes the current Celery app."""
        import oms.celery  # noqa: F401, PLC0415
