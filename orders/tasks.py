"""Doorbells and ticks. Each finds its work in the database; none carries any."""

import os
import socket
import time
from datetime import UTC, datetime, timedelta

import structlog
from celery import shared_task

from brokers import queries as brokers
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, DomainError
from oms.runtime import doorbell, sql
from orders import operations as desk
from orders.operations.reconciling import reconcile as reconcile_broker
from portfolio.rebalances import rules_to_look_at

BREATH_SECONDS = 0.01
"""Between two calls a sender rests: what is placed meanwhile goes together, and costs a part of what it would alone."""
SENDING_SECONDS_MAX = 20.0
"""How long one task goes on while there is something to send: well below a task's time limit."""
SLICES_LATE = timedelta(seconds=1)
"""The pricer sends slices the moment they are due; workers take what it has left."""
OWNER = f"{socket.gethostname()}:{os.getpid()}"
log = structlog.get_logger(__name__)


def now() -> datetime:
    """Return the time; the one clock of this module."""
    return datetime.now(UTC)


@shared_task(name=doorbell.SEND_TASK)
def send(code: str) -> None:
    """Send what is due at a broker, and what becomes due meanwhile, so that nobody need ring for it."""
    doorbell.begin(code)
    broker = brokers.brokers_by_code().get(code)
    if broker is None:
        return
    end = time.monotonic() + SENDING_SECONDS_MAX
    while time.monotonic() < end:
        went = desk.send_once(broker, owner=f"{socket.gethostname()}:{os.getpid()}", clock=now)
        if not went and not doorbell.finish(code):
            return
        time.sleep(BREATH_SECONDS)
        doorbell.begin(code)
    doorbell.finish(code)
    doorbell.ring([code], urgent=True)


@shared_task(name="orders.resolve")
def resolve(code: str) -> None:
    """Ask a broker about what stayed unanswered, and try reports again that came too early."""
    broker = brokers.brokers_by_code().get(code)
    if broker is not None:
        desk.probe(broker, clock=now)
        desk.resolve(broker, clock=now)
        desk.apply_parked(broker.id, actor=Actor.system("resolver"), at=now())


@shared_task(name="orders.work")
def work() -> None:
    """Send the slices of large orders that are due."""
    desk.work(owner=f"{socket.gethostname()}:{os.getpid()}", at=now())


@shared_task(name="orders.sweep")
def sweep() -> None:
    """Find due work whatever became of its doorbell. Safe to run in several places at once."""
    for code, unsent, unanswered in due_work():
        if unsent:
            send.delay(code)
        if unanswered:
            resolve.delay(code)
    if desk.is_due(at=now() - SLICES_LATE):
        work.delay()
    desk.lapse_held(at=now())
    desk.release_apart(at=now())
    desk.follow_groups(at=now())
    doorbell.note_sweep()


@shared_task(name="orders.reconcile")
def reconcile_all() -> None:
    """Have every broker that is switched on reconciled, each by a task of its own."""
    for code in sorted(b.code for b in brokers.brokers().values() if b.enabled):
        reconcile.delay(code)


@shared_task(name="orders.reconcile_broker")
def reconcile(code: str) -> None:
    """Reconcile with a broker by what it answers now; one that is being reconciled is left to whoever does it."""
    try:
        reconcile_broker(code, actor=Actor.system("reconciler"), clock=now)
    except Conflict as error:
        log.info("not_reconciled", broker=code, why=error.code)


def due_work() -> list[tuple[str, bool, bool]]:
    """Return (broker code, has something to send, has something to ask about) of brokers with work.

    A broker that is switched off still gets cancels, and is asked about what stayed unanswered; one whose breaker is half open is
    asked whether it answers.
    """
    rows = sql.run(
        """
        SELECT b.code,
          b.enabled AND EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                  AND s.kind <> 'cancel' AND s.due_at < desk_clock())
          OR EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                     AND s.kind = 'cancel' AND s.due_at < desk_clock()),
          EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.due_at < desk_clock()
                  AND (s.state = 'unknown' OR (s.state = 'sent' AND s.lease_until < desk_clock())))
          OR EXISTS (SELECT 1 FROM orders_submission s WHERE s.broker_id = b.id AND s.state = 'prepared'
                     AND s.kind <> 'cancel' AND s.valid_until < desk_clock())
          OR EXISTS (SELECT 1 FROM orders_parkedreport p WHERE p.broker_id = b.id AND p.applied_at IS NULL
                     AND p.received_at < desk_clock() - interval '1 second')
          OR EXISTS (SELECT 1 FROM brokers_brokerhealth h WHERE h.broker_id = b.id AND h.open_until < desk_clock())
        FROM brokers_broker b
        """
    )
    return [r for r in rows.fetchall() if r[1] or r[2]]


@shared_task(name="orders.rebalance")
def rebalance() -> None:
    """Propose what the rules of accounts call for. Safe to run twice: a day has one proposal of a rule."""
    at = now()
    for rule in rules_to_look_at(at.date()):
        try:
            desk.propose_by_rule(rule, actor=Actor.system("rebalancing"), at=at)
        except DomainError as error:
            log.warning("rebalance_not_proposed", account=rule.account.code, error=str(error))
