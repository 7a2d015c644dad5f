"""The shell as an installed app."""

import gc

from django.apps import AppConfig


class OmsConfig(AppConfig):
    """Loads what works by being loaded: the Celery application, so that every process rings the same doorbell, the signals of
    log-ins, so that it is known when each began, the refusals of production; and settles the memory manager."""

    name = "oms"

    def ready(self) -> None:
        """Import for their effects, once the models are there.

        A batch of orders makes some ten thousand objects and no cycle: looking for cycles after every 700 of them, over
        all that the libraries loaded, took a seventh of the order path's time.
        """
        import oms.celery  # noqa: PLC0415 - needs the apps
        import oms.runtime.sessions  # noqa: PLC0415 - needs the models
        import oms.safety  # noqa: F401, PLC0415 - needs the settings

        gc.freeze()
        gc.set_threshold(50_000, 10, 20)
