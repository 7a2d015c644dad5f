"""Doorbells and ticks. Each finds its work in the database; none carries any."""

import os
import socket
from datetime import UTC, datetime

import structlog
from celery import shared_task

from brokers import queries as brokers
from oms.kernel.actor import Actor
from oms.runtime import doorbell, sql
from orders import operations as desk

OWNER = f"{socket.gethostname()}:{os.getpid()}"
log = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the time; the one clock of this module."""
    return datetime.now(UTC)


@shared_task(name=doorbell.SEND_TASK)
def send(code: str) -> None:
    """Send what is due at a broker."""
    doorbell.answer(code)
    broker = brokers.brokers_by_code().get(code)
    if broker is not None and broker.enabled:
        desk.send(broker, owner=f"{socket.gethostname()}:{os.getpid()}", clock=now)


@shared_task(name="orders.resolve")
def resolve(code: str) -> None:
    """Ask a broker about what stayed unanswered, and try reports again that came too early."""
    broker = brokers.brokers_by_code().get(code)
    if broker is not None and broker.enabled:
        desk.resolve(broker, clock=now)
        desk.apply_parked(broker.id, actor=Actor.system("resolver"), at=now())


@shared_task(name="orders.sweep")
def sweep() -> None:
    """Find due work whatever became of its doorbell. Safe to run in several places at once."""
    for code, unsent, unanswered in due_work():
        if unsent:
            send.delay(code)
        if unanswered:
            resolve.delay(code)
    doorbell.note_sweep()


def due_work() -> list[tuple[str, bool, bool]]:
    """Return (broker code, has something to send, has something to ask about) of brokers with work."""
    rows = sql.run(
        """
        SELECT b.code,
          EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                  AND s.kind <> 'cancel' AND s.due_at < now())
          OR EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                     AND s.kind = 'cancel' AND s.due_at < now()),
          EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.due_at < now()
                  AND (s.state = 'unknown' OR (s.state = 'sent' AND s.lease_until < now())))
          OR EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                     AND s.kind <> 'cancel' AND s.valid_until < now())
          OR EXISTS (SELECT 1 FROM orders_parkedreport p WHERE p.broker_id = b.id AND p.applied_at IS NULL
                     AND p.received_at < now() - interval '1 second')
        FROM brokers_broker b WHERE b.enabled
        """
    )
    return [r for r in rows.fetchall() if r[1] or r[2]]
