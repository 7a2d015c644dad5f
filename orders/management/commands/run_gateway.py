"""Keep a broker's session and stream its reports in."""

import argparse
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, connection

from brokers import operations as inbox
from brokers import queries as brokers
from brokers import sessions
from brokers.adapters import adapter_for
from brokers.adapters.hosting import Hosted, host, hosted_here, leave
from brokers.adapters.port import BrokerAdapter, BrokerClosed, BrokerError, Frame, Report, ReportKind
from brokers.domain.reference import BrokerRef
from oms.kernel.actor import Actor
from oms.runtime import crash, doorbell, sql
from oms.runtime.commands import add_options, tell
from orders import operations as desk
from orders.tasks import due_work

RENEW_SECONDS = 2
POLL_SECONDS = 0.25
RECONNECT_SECONDS = 0.5
RECONNECT_SECONDS_MAX = 10.0
"""A session that can't be had is tried for again after half a second, doubled with each failure up to this, with jitter."""
STOOD_SECONDS = 5.0
"""A session that stood for so long was one: its end is the first failure again."""
BREATH_SECONDS_MAX = 0.02
FULL = 200
"""After applying few reports a gateway rests as long as that took, at most so long: what arrives meanwhile is applied
together, and those who place orders in the same accounts get their turn. A batch of so many is full: waiting for more
gains nothing."""
SWEEP_SECONDS = 1.0
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
        self.fence = 0
        self.began_at = now()
        self.hosts = self.locked = False
        self.failures = 0
        self.stood_since: float | None = None
        self.anew = threading.Event()
        self.began, self.met = time.monotonic(), False
        self.frames = self.reports = 0

    def run(self) -> None:
        """Hold the lease, follow the stream, reconnect when it breaks."""
        threading.Thread(target=self._sweep, daemon=True).start()
        self.hosts = adapter_for(self.broker.id, self.broker.adapter, self.broker.settings).capabilities.hosted
        while not self.stop.is_set():
            try:
                self._session()
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", broker=self.broker.code, error=str(error).strip())
                connection.close()
                self.locked = False  # it went with the connection
                self.stop.wait(RECONNECT_SECONDS)
        self._let_go()
        self._release()

    def _session(self) -> None:
        """Follow the stream until it breaks, if the lease is ours; what PostgreSQL does meanwhile is the caller's matter."""
        if not self._hold_lease():
            self._let_go()
            self.stop.wait(1)
            return
        # an administrator, or a venue that moved, may have changed where the broker is found
        self.broker = brokers.brokers_by_code().get(self.broker.code, self.broker)
        try:
            self._follow()
        except BrokerError as error:
            early = not self.met and time.monotonic() - self.began < WELCOME_SECONDS
            quiet = early or isinstance(error, BrokerClosed)
            (log.info if quiet else log.warning)("session_lost", broker=self.broker.code, error=str(error))
            self._connected(False)
            if self.hosts:
                desk.leave_open(self.broker, at=now())
                sessions.note(self.broker.id, "closed" if isinstance(error, BrokerClosed) else "waiting", str(error))
            self._rest(self._pause(error))

    def _pause(self, error: BrokerError) -> float:
        """Return how long to wait before the next try."""
        if isinstance(error, BrokerClosed):
            return max((error.opens_at - now()).total_seconds(), 1.0)
        if self.stood_since is not None and time.monotonic() - self.stood_since > STOOD_SECONDS:
            self.failures = 0
        self.stood_since = None
        self.failures += 1
        ceiling = min(RECONNECT_SECONDS * 2.0 ** (self.failures - 1), RECONNECT_SECONDS_MAX)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret

    def _rest(self, seconds: float) -> None:
        """Wait, and keep the lease; what changes meanwhile in the settings is worth a try at once."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stop.wait(min(left, 1.0)):
            if not self._hold_lease() or self._settings_changed():
                return

    def _settings_changed(self) -> bool:
        there = brokers.brokers_by_code().get(self.broker.code)
        return there is not None and (there.adapter, there.settings) != (self.broker.adapter, self.broker.settings)

    def _hold_lease(self) -> bool:
        """Take or renew the lease; False while another gateway has it."""
        if time.monotonic() - self.renewed < RENEW_SECONDS:
            return True
        fence = sessions.take_lease(self.broker.id, self.owner)
        self.renewed = time.monotonic() if fence is not None else 0.0
        if fence is None:
            return False
        self.fence = fence
        if self.hosts and not self.locked:
            self.locked = sessions.lock_session(self.broker.id)
            if not self.locked:  # somebody who lost the lease has not let go yet: frozen, perhaps
                self.renewed = 0.0
                return False
        return True

    def _let_go(self) -> None:
        """Leave the session to whoever has the lease by now."""
        leave(self.broker.id)
        if self.locked:
            sessions.unlock_session(self.broker.id)
            self.locked = False

    def _follow(self) -> None:
        self.broker = brokers.brokers().get(self.broker.id, self.broker)  # its address may have changed
        adapter = self._adapter()
        fence = self.fence
        cursor = sql.run("SELECT cursor FROM brokers_brokersession WHERE broker_id = %s", [self.broker.id]).fetchone()
        began_at = now()  # from here on, what is sent goes to the new session
        stream = adapter.stream((cursor[0] if cursor else None) or 0)
        self.began_at = began_at
        self.stood_since = time.monotonic()
        try:
            self._connected(True)
            self.met = True
            if self.hosts:
                inbox.note_sending(self.broker.id, reached=True, ack_ms=None, at=now())  # who lets us in can be sent to
            self.anew.set()
            desk.apply_parked(self.broker.id, actor=self.actor, at=now(), mended=True)
            while (
                not self.stop.is_set() and self._hold_lease() and self.fence == fence and not self._settings_changed()
            ):
                frames = stream.receive(POLL_SECONDS)
                if frames:
                    started = time.monotonic()
                    if self._take(frames) < FULL:
                        self.stop.wait(min(time.monotonic() - started, BREATH_SECONDS_MAX))
        finally:
            stream.close()
        self._connected(False)

    def _adapter(self) -> BrokerAdapter:
        """Return the adapter; one that this process hosts is the same for all its threads, and knows whose session it is."""
        leave(self.broker.id)
        adapter = adapter_for(self.broker.id, self.broker.adapter, self.broker.settings)
        self.hosts = adapter.capabilities.hosted
        if isinstance(adapter, Hosted):
            adapter.attach(sessions.KeptSession(self.broker.id, self.owner, self.fence))
            host(self.broker.id, adapter)
        return adapter

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
        self._disown(reports, at)
        return len(reports)

    def _disown(self, reports: Sequence[Report], at: datetime) -> None:
        """Tell the broker which fills belong to no order of ours, where its protocol has a word for it."""
        adapter = hosted_here(self.broker.id)
        if not isinstance(adapter, Hosted) or not any(r.kind is ReportKind.TRADE for r in reports):
            return
        fits_none = desk.fits_none(self.broker.id, at)
        for report in reports:
            if report.kind is ReportKind.TRADE and (why := fits_none.get(report.execution_id or "")):
                log.error("trade_disowned", broker=self.broker.code, execution=report.execution_id, why=why)
                adapter.disown(report, why)

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
        """Send and resolve what workers leave lying: without Redis or Celery orders still go out, only later.

        Where the session is ours alone nobody else sends: the bell is for us, and the sweep finds what it did not tell.
        """
        ear, swept_at = doorbell.Ear(self.broker.code), 0.0
        while not self.stop.is_set():
            rung = ear.wait(SWEEP_SECONDS) if self.hosts else self.stop.wait(SWEEP_SECONDS)
            try:
                if rung and hosted_here(self.broker.id):
                    desk.send(self.broker, owner=f"{self.owner}:session", clock=now)
                if time.monotonic() - swept_at >= SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    self._sweep_once()
            except (OperationalError, InterfaceError):
                connection.close()
            except Exception:
                log.exception("sweep_failed", broker=self.broker.code)
        ear.close()

    def _sweep_once(self) -> None:
        if self.hosts and self.anew.is_set():
            self.anew.clear()
            desk.meet_again(self.broker, began_at=self.began_at, actor=self.actor, clock=now)
        desk.follow_groups(at=now())
        for code, unsent, unanswered in due_work():
            if code != self.broker.code:
                continue
            if unsent:
                desk.send(self.broker, owner=f"{self.owner}:sweep", clock=now)
            if unanswered:
                desk.probe(self.broker, clock=now)
                desk.resolve(self.broker, clock=now)
                desk.apply_parked(self.broker.id, actor=self.actor, at=now())
