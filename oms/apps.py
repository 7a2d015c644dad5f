"""The shell as an installed app."""

import gc

from django.apps import AppConfig


class OmsConfig(AppConfig):
    """Loads the Celery application, so that every process rings the same doorbell, and settles the memory manager."""

    name = "oms"

    def ready(self) -> None:
        """Import for their effects: the current Celery app, and what production refuses to start with.

        A batch of orders makes some ten thousand objects and no cycle: looking for cycles after every 700 of them, over
        all that the libraries loaded, took a seventh of the order path's time.
        """
        import oms.celery  # noqa: PLC0415
        import oms.runtime.sessions  # noqa: PLC0415
        import oms.safety  # noqa: F401, PLC0415

        gc.freeze()
        gc.set_threshold(50_000, 10, 20)
