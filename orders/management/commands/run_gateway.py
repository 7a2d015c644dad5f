"""Keep a broker's session and stream its reports in."""

import argparse
import os
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, connection

from brokers import operations as inbox
from brokers import queries as brokers
from brokers.adapters import adapter_for
from brokers.adapters.port import BrokerError, Frame
from brokers.domain.reference import BrokerRef
from oms.kernel.actor import Actor
from oms.runtime import crash, sql
from oms.runtime.commands import add_options, tell
from orders import operations as desk
from orders.tasks import due_work

LEASE_SECONDS = 6
RENEW_SECONDS = 2
POLL_SECONDS = 0.25
RECONNECT_SECONDS = 0.5
BREATH_SECONDS_MAX = 0.02
FULL = 200
"""After applying few reports a gateway rests as long as that took, at most so long: what arrives meanwhile is applied
together, and those who place orders in the same accounts get their turn. A batch of so many is full: waiting for more
gains nothing."""
WELCOME_SECONDS = 10.0
"""A broker that starts together with the desk may be late by so much before anybody is warned."""
log = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the time; the one clock of this process."""
    return datetime.now(UTC)


class Command(BaseCommand):
    """One gateway a broker works; a second one waits for its lease."""

    help = "Keep the session with one broker: reports in, and sending as well while no worker does."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the broker's code."""
        parser.add_argument("broker")
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        broker = brokers.brokers_by_code().get(options["broker"])
        if broker is None:
            raise CommandError(f"There is no broker {options['broker']}; `broker add` makes one.", returncode=2)
        gateway = Gateway(broker)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: gateway.stop.set())
        gateway.run()
        told = {"broker": broker.code, "frames": gateway.frames, "reports": gateway.reports}
        tell(self, options, told, f"{broker.code}: {gateway.frames} frames, {gateway.reports} reports taken in.")


class Gateway:
    """The session of one broker in this process."""

    def __init__(self, broker: BrokerRef) -> None:
        self.broker = broker
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.stop = threading.Event()
        self.actor = Actor.system("gateway")
        self.renewed = 0.0
        self.began, self.met = time.monotonic(), False
        self.frames = self.reports = 0

    def run(self) -> None:
        """Hold the lease, follow the stream, reconnect when it breaks."""
        threading.Thread(target=self._sweep, daemon=True).start()
        while not self.stop.is_set():
            try:
                self._session()
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", broker=self.broker.code, error=str(error).strip())
                connection.close()
                self.stop.wait(RECONNECT_SECONDS)
        self._release()

    def _session(self) -> None:
        """Follow the stream until it breaks, if the lease is ours; what PostgreSQL does meanwhile is the caller's matter."""
        if not self._hold_lease():
            self.stop.wait(1)
            return
        # an administrator, or a venue that moved, may have changed where the broker is found
        self.broker = brokers.brokers_by_code().get(self.broker.code, self.broker)
        try:
            self._follow()
        except BrokerError as error:
            early = not self.met and time.monotonic() - self.began < WELCOME_SECONDS
            (log.info if early else log.warning)("session_lost", broker=self.broker.code, error=str(error))
            self._connected(False)
            self.stop.wait(RECONNECT_SECONDS)

    def _hold_lease(self) -> bool:
        """Take or renew the lease; False while another gateway has it."""
        if time.monotonic() - self.renewed < RENEW_SECONDS:
            return True
        held = sql.run(
            """
            INSERT INTO brokers_brokersession AS s (broker_id, owner, fence, lease_until, connected)
            VALUES (%(broker)s, %(owner)s, 1, desk_clock() + make_interval(secs => %(lease)s), false)
            ON CONFLICT (broker_id) DO UPDATE SET owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until,
              fence = s.fence + (s.owner <> EXCLUDED.owner)::int
            WHERE s.owner = EXCLUDED.owner OR s.lease_until IS NULL OR s.lease_until < desk_clock()
            """,
            {"broker": self.broker.id, "owner": self.owner, "lease": LEASE_SECONDS},
        ).rowcount
        self.renewed = time.monotonic() if held else 0.0
        return bool(held)

    def _follow(self) -> None:
        self.broker = brokers.brokers().get(self.broker.id, self.broker)  # its address may have changed
        adapter = adapter_for(self.broker.id, self.broker.adapter, self.broker.settings)
        cursor = sql.run("SELECT cursor FROM brokers_brokersession WHERE broker_id = %s", [self.broker.id]).fetchone()
        stream = adapter.stream((cursor[0] if cursor else None) or 0)
        self._connected(True)
        self.met = True
        desk.apply_parked(self.broker.id, actor=self.actor, at=now(), mended=True)
        try:
            while not self.stop.is_set() and self._hold_lease():
                frames = stream.receive(POLL_SECONDS)
                if frames:
                    started = time.monotonic()
                    if self._take(frames) < FULL:
                        self.stop.wait(min(time.monotonic() - started, BREATH_SECONDS_MAX))
        finally:
            stream.close()

    def _take(self, frames: list[Frame]) -> int:
        """Keep and apply what arrived; return how many reports that were."""
        at = now()
        inbox.keep_raw(self.broker.id, [(f.raw, f.sequence, f.error or "") for f in frames], at=at)
        crash.point("after_raw")
        for frame in frames:
            if frame.error:
                log.error("report_unreadable", broker=self.broker.code, sequence=frame.sequence, error=frame.error)
        reports = [r for f in frames for r in f.reports]
        self.frames += len(frames)
        self.reports += len(reports)
        cursor = max((f.sequence for f in frames if f.sequence is not None), default=None)
        desk.apply(self.broker.id, reports, actor=self.actor, at=at, cursor=cursor)
        crash.point("after_apply")
        return len(reports)

    def _connected(self, connected: bool) -> None:
        sql.run(
            "UPDATE brokers_brokersession SET connected = %s, seen_at = desk_clock() WHERE broker_id = %s AND owner = %s",
            [connected, self.broker.id, self.owner],
        )

    def _release(self) -> None:
        sql.run(
            "UPDATE brokers_brokersession SET lease_until = NULL, connected = false WHERE broker_id = %s AND owner = %s",
            [self.broker.id, self.owner],
        )

    def _sweep(self) -> None:
        """Send and resolve what workers leave lying: without Redis or Celery orders still go out, only later."""
        while not self.stop.wait(1.0):
            try:
                for code, unsent, unanswered in due_work():
                    if code != self.broker.code:
                        continue
                    if unsent:
                        desk.send(self.broker, owner=f"{self.owner}:sweep", clock=now)
                    if unanswered:
                        desk.resolve(self.broker, clock=now)
                        desk.apply_parked(self.broker.id, actor=self.actor, at=now())
            except (OperationalError, InterfaceError):
                connection.close()
            except Exception:
                log.exception("sweep_failed", broker=self.broker.code)
