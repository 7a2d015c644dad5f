"""Meeting a broker again: what its session lost, or kept from us, is asked for as soon as it stands."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from brokers import operations as health
from brokers.adapters import adapter_for
from brokers.adapters.hosting import Hosted, may_speak
from brokers.adapters.port import BrokerAdapter, BrokerError, OrderState
from brokers.domain.reference import BrokerRef
from oms.kernel.actor import Actor
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.models import ChildOrder, Submission
from orders.operations.reporting import apply
from orders.operations.sending import LOOK_BACK, end_shown, mark_unknown
from orders.states import CLOSED, SubmissionState

ASK_MAX = 100
PROBE = "probe"
"""An id that no order has: a broker that says so has answered."""
SETTLING_SECONDS = 1.0
"""What the session sends again may still be on its way when the broker tells how orders stand: a difference is looked at twice."""
log = structlog.get_logger(__name__)


def meet_again(broker: BrokerRef, *, began_at: datetime, actor: Actor, clock: Any) -> int:
    """Ask how our orders stand at a broker whose session has begun; return how many had ended without our knowing.

    What waits to be canceled, or to be asked about, waits no longer. Fills are told by the session alone; where the broker
    counts others than we do somebody must look.
    """
    adapter = adapter_for(broker.id, broker.adapter, broker.settings)
    if not may_speak(broker.id, adapter) or not isinstance(adapter, Hosted):
        return 0
    leave_open(broker, at=clock(), before=began_at)
    _hurry(broker)
    names = list(_open(broker))
    if not names and not _unanswered(broker):
        return 0
    try:
        shown = _shown(adapter, names, clock)
    except BrokerError as error:
        log.warning("orders_not_shown", broker=broker.code, error=str(error), open=len(names))
        return 0
    ended = [r for s in shown if s.client_order_id in names and (r := end_shown(s)) is not None]
    if ended:
        log.warning("ends_found_by_asking", broker=broker.code, orders=[r.client_order_id for r in ended])
        apply(broker.id, ended, actor=actor, at=clock())
    _compare(broker, shown)
    return len(ended)


def probe(broker: BrokerRef, *, clock: Any) -> bool | None:
    """Ask a broker whose breaker is half open anything at all; tell whether it answered, None where nobody had to ask.

    An order is no probe: the router passes such a broker by while it has another. A session of the gateway's own closes its
    breaker with its logon.
    """
    adapter = adapter_for(broker.id, broker.adapter, broker.settings)
    if adapter.capabilities.hosted or not health.begin_probe(broker.id, at=clock()):
        return None
    try:
        adapter.look_up([PROBE], since=clock())
    except BrokerError as error:
        log.info("breaker_stays_open", broker=broker.code, error=str(error))
        answered = False
    else:
        log.info("breaker_closed", broker=broker.code)
        answered = True
    health.note_sending(broker.id, reached=answered, ack_ms=None, at=clock())
    return answered


def leave_open(broker: BrokerRef, *, at: datetime, before: datetime | None = None) -> int:
    """Take what was written to a session that is over, and never answered, for unknown; return how many.

    `before` is when the next one began, where it has.
    """
    lost = _leave_open(broker, before or at)
    if lost:
        mark_unknown(lost, at=at)
    return len(lost)


@in_transaction
def _leave_open(broker: BrokerRef, before: datetime) -> list[UUID]:
    rows = sql.run(
        "UPDATE orders_submission SET state = 'unknown', due_at = desk_clock(), lease_until = NULL "
        "WHERE broker_id = %s AND state = 'sent' AND sent_at < %s AND log->-1->>'outcome' = 'pending' RETURNING id",
        [broker.id, before],
    )
    return [r[0] for r in rows.fetchall()]


def _hurry(broker: BrokerRef) -> None:
    sql.run(
        "UPDATE orders_submission SET due_at = desk_clock() WHERE broker_id = %s AND due_at > desk_clock() "
        "AND (state = 'unknown' OR (state = 'prepared' AND kind = 'cancel'))",
        [broker.id],
    )


def _open(broker: BrokerRef) -> Sequence[str]:
    rows = ChildOrder.objects.filter(broker_id=broker.id).exclude(status__in=sorted(CLOSED)).order_by("-id")
    return list(rows.values_list("client_order_id", flat=True)[:1000])


def _unanswered(broker: BrokerRef) -> bool:
    states = (SubmissionState.SENT, SubmissionState.UNKNOWN)
    return Submission.objects.filter(broker_id=broker.id, state__in=states).exists()


def _shown(adapter: BrokerAdapter, names: Sequence[str], clock: Any) -> list[OrderState]:
    """Return how orders stand by the broker: all at once where it can be asked so, else one by one."""
    if isinstance(adapter, Hosted) and adapter.open_orders_asked():
        return adapter.open_orders()
    found = adapter.look_up(names[:ASK_MAX], since=clock() - LOOK_BACK)
    return [x.found for x in found if x.found is not None]


def _compare(broker: BrokerRef, shown: Sequence[OrderState]) -> None:
    """Alert where the broker counts other fills than we have."""
    counted = {s.client_order_id: s.cumulative_quantity for s in shown}
    for _ in range(2):
        ours = ChildOrder.objects.filter(broker_id=broker.id, client_order_id__in=list(counted))
        differing = {
            c: (str(counted[c]), str(filled))
            for c, filled in ours.values_list("client_order_id", "filled_quantity")
            if counted[c] != filled
        }
        if not differing:
            return
        time.sleep(SETTLING_SECONDS)
    log.error("fills_differ", broker=broker.code, orders=differing)
