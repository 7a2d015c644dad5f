"""Follow the quotes: mark positions for the screens, let go what the desk watches for brokers, halt where losses say so."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError, connection

from brokers.operations import sample_bars, sample_ticks
from orders import operations as desk
from portfolio.marking import Marker
from risk.operations import push_exposures

INTERVAL_SECONDS = 0.25
GUARD_SECONDS = 1.0
MARK_SECONDS = 0.1
"""A quote is on the screens within a quarter of a second; marks have a thread of their own, so that nothing else holds them up."""
SHOW_SECONDS = 2.0
"""How often screens may get new exposures."""
OWNER = f"{socket.gethostname()}:{os.getpid()}"
log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Four times a second: orders and slices whose price or time has come. Ten times a second: quotes that moved, and the positions
    that they move."""

    help = "Trigger what the desk watches, engage automatic halts, push live P&L. Safe to run twice."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        marks = threading.Thread(target=self._mark, args=(stop,), name="marks", daemon=True)
        marks.start()
        guarded = showed = 0.0
        shown: dict[str, str] = {}
        while not stop.wait(INTERVAL_SECONDS):
            try:
                self._try("triggers_failed", desk.watch)
                self._try("releases_failed", desk.release_apart)
                self._try("slices_failed", partial(desk.work, owner=OWNER))
                self._try("groups_failed", desk.follow_groups)
                if time.monotonic() - guarded >= GUARD_SECONDS:
                    guarded = time.monotonic()
                    self._try("guard_failed", desk.guard)
                    self._try("liquidation_failed", desk.advance_all)
                    self._try("bars_failed", sample_bars)
                    self._try("allocation_failed", desk.advance_blocks)
                    self._try("rebalance_failed", desk.advance_rebalances)
                sample_ticks()
                if time.monotonic() - showed >= SHOW_SECONDS:
                    showed = time.monotonic()
                    shown = push_exposures(shown, at=datetime.now(UTC))
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", error=str(error).strip())
                connection.close()
        marks.join(5.0)

    @staticmethod
    def _mark(stop: threading.Event) -> None:
        """Keep the live book and tell the screens; after any trouble begin with a new one."""
        marker = Marker()
        while not stop.wait(MARK_SECONDS):
            try:
                marker.look(at=datetime.now(UTC))
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", error=str(error).strip())
                connection.close()
                marker = Marker()
            except Exception:
                log.exception("marks_failed")
                marker = Marker()
        connection.close()

    @staticmethod
    def _try(trouble: str, work: Callable[..., object]) -> None:
        """Do one part; what goes wrong there must not stop the marks, nor the next look."""
        try:
            work(at=datetime.now(UTC))
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            log.exception(trouble)
