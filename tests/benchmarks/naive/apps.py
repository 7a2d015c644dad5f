"""The naive desk as an app."""

from django.apps import AppConfig


class NaiveConfig(AppConfig):
    """Starts Celery with the app, as its documentation tells."""

    name = "tests.benchmarks.naive"
    label = "naive"

    def ready(self):
        """Import for its effect."""
        import tests.benchmarks.naive.celery  # noqa: F401 - for its effect
