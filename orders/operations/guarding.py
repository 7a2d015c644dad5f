"""Halts that the desk engages by itself. Needs PostgreSQL alone; safe to run in several places at once."""

from datetime import datetime, timedelta

import structlog

from oms.kernel.actor import Actor
from oms.kernel.decimals import text
from oms.kernel.ids import first_id
from oms.runtime import sql
from orders.operations.halting import halt
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.domain.tripwires import Tripped, Wire

ACTOR = Actor.system("tripwire")
SLACK_SECONDS = 60
"""How much longer than the window an order may take from its making to its refusal."""
log = structlog.get_logger(__name__)


def guard(*, at: datetime) -> list[Tripped]:
    """Look at every trigger that is switched on, and halt for those newly crossed; return them.

    A trigger that stays crossed halts once: whoever releases it has looked. It is armed again when it is crossed no more.
    """
    wires = risk.wires()
    tripped = [t for t in risk.losses(at=at) if t.kind in wires]
    if wire := wires.get("clock_drift"):
        tripped += risk.clock_drift(wire, at=at)
    if wire := wires.get("quotes_stale"):
        tripped += risk.quotes_stale(wire, at=at)
    if wire := wires.get("reject_storm"):
        tripped += _reject_storm(wire, at)
    if wire := wires.get("message_rate"):
        tripped += _message_rate(wire, at)
    if wire := wires.get("break_storm"):
        tripped += _break_storm(wire, at)
    crossed = risk.newly_crossed(tripped, at=at)
    for trip in crossed:
        log.error("tripped", kind=trip.kind, scope=str(trip.scope), detail=trip.detail)
        halt(trip.scope, mode=wires[trip.kind].mode, reason=f"{trip.kind}: {trip.detail}", actor=ACTOR, at=at)
        risk.note_trip(trip, at=at)
    return crossed


def _reject_storm(wire: Wire, at: datetime) -> list[Tripped]:
    """Count new orders that a broker refused, by broker."""
    found = sql.run(
        "SELECT b.code, count(*) FROM orders_childorder c JOIN brokers_broker b ON b.id = c.broker_id "
        "WHERE c.id >= %s AND c.ended_as = 'rejected' AND c.updated_at > %s "
        "GROUP BY b.code HAVING count(*) > %s",
        [first_id(_before(at, wire, SLACK_SECONDS)), _before(at, wire), wire.threshold],
    )
    return [
        Tripped("reject_storm", Scope("broker", code), f"{n} orders refused in {text(wire.window)} s.")
        for code, n in found
    ]


def _message_rate(wire: Wire, at: datetime) -> list[Tripped]:
    """Count what was prepared for brokers, by account; cancels are left out: they must always go."""
    found = sql.run(
        "SELECT a.code, count(*) FROM orders_submission s JOIN portfolio_account a ON a.id = s.account_id "
        "WHERE s.id >= %s AND s.kind <> 'cancel' AND s.created_at > %s GROUP BY a.code HAVING count(*) > %s",
        [first_id(_before(at, wire, SLACK_SECONDS)), _before(at, wire), wire.threshold],
    )
    return [
        Tripped("message_rate", Scope("account", code), f"{n} messages in {text(wire.window)} s.") for code, n in found
    ]


def _break_storm(wire: Wire, at: datetime) -> list[Tripped]:
    """Count differences found lately, by broker: many at once mean that one side's books are wrong."""
    found = sql.run(
        "SELECT b.code, count(*) FROM portfolio_break x JOIN brokers_broker b ON b.id = x.broker_id "
        "WHERE x.id >= %s AND x.opened_at > %s GROUP BY b.code HAVING count(*) > %s",
        [first_id(_before(at, wire, SLACK_SECONDS)), _before(at, wire), wire.threshold],
    )
    return [
        Tripped("break_storm", Scope("broker", code), f"{n} new breaks in {text(wire.window)} s.") for code, n in found
    ]


def _before(at: datetime, wire: Wire, more: int = 0) -> datetime:
    return at - timedelta(seconds=float(wire.window) + more)
