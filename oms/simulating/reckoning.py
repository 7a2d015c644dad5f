"""The reckoning: the desk's books against the venues', the rules and the audit trail."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any

from brokers.simulation.venue import Venue
from oms.journal import queries as audit
from oms.kernel import decimals, json
from oms.management.commands.check_invariants import violations
from oms.runtime import sql
from oms.simulating.world import World
from orders.models import Execution, Order
from orders.states import OPEN, OrdStatus
from portfolio.models import Break, Reconciliation


def broken() -> dict[str, list[str]]:
    """Return the invariants that do not hold, with the rows that break them."""
    return {name: rows for name, rows in violations().items() if rows}


def apart(world: World, *, at_the_end: bool) -> dict[str, Any]:
    """Return where the desk and its venues disagree; what may still be on its way counts only at the end."""
    lost, strange = _compare(world, at_the_end=at_the_end)
    wrong: dict[str, Any] = {"executions_strange": strange, "orders_at_a_broker_twice": _sent_twice(world)}
    if at_the_end:
        stuck = [str(o.id) for o in Order.objects.filter(status__in=sorted(OPEN - {OrdStatus.DONE_FOR_DAY}))]
        wrong |= {
            "executions_lost": lost,
            "positions_apart": _positions_apart(world),
            "audit": [str(f) for f in audit.faults()],
            "open": stuck,
            "orders_done_twice": _done_twice(),
            "breaks": [f"{b.kind} {b.subject}: {b.ours} {b.theirs}" for b in Break.objects.exclude(state="closed")],
            "not_reconciled": _not_reconciled(world),
        }
    return {name: what for name, what in wrong.items() if what}


def _not_reconciled(world: World) -> list[str]:
    """Return brokers whose last reconciliation failed."""
    last = {r.broker.code: r for r in Reconciliation.objects.order_by("id").select_related("broker")}
    return [
        f"{code}: {r.failure} {r.detail}" for code, r in last.items() if r.state != r.State.DONE and code in world.lines
    ]


def _done_twice() -> list[str]:
    """Return orders filled past their quantity though no broker filled more than it was asked for."""
    rows = sql.run(
        "SELECT o.id::text FROM orders_order o WHERE o.overfilled AND NOT EXISTS "
        "(SELECT 1 FROM orders_childorder c WHERE c.order_id = o.id AND c.overfilled)"
    )
    return [pk for (pk,) in rows.fetchall()]


def _compare(world: World, *, at_the_end: bool) -> tuple[list[str], list[str]]:
    """Return executions that a venue has and the desk hasn't, and the reverse; by broker, id, quantity and price.

    Before the end the desk may not have heard yet that one was undone: then it is enough that the venue ever made it.
    """
    there = {
        f"{code} {e.execution_id} {decimals.text(e.quantity)} @ {decimals.text(e.price)}"
        for code, line in world.lines.items()
        for e in (line.venue.living() if at_the_end else line.venue.book.executions.values())
    }
    rows = Execution.objects.filter(execution=None).exclude(kind="bust").select_related("broker")
    here = {
        f"{e.broker.code} {e.broker_execution_id} {decimals.text(e.quantity)} @ {decimals.text(e.price)}" for e in rows
    }
    return sorted(there - here), sorted(here - there)


def _sent_twice(world: World) -> list[str]:
    """Return client order ids under which a venue opened more than one order."""
    counts = Counter((code, name) for code, line in world.lines.items() for name in _names(line.venue))
    return [f"{code} {name}" for (code, name), n in counts.items() if n > 1]


def _positions_apart(world: World) -> list[str]:
    ours: dict[tuple[str, str, str], Decimal] = {
        (code, account, symbol): quantity
        for code, account, symbol, quantity in sql.run(
            "SELECT b.code, a.external_id, i.symbol, p.quantity FROM portfolio_brokerposition p JOIN brokers_broker b ON b.id = p.broker_id "
            "JOIN portfolio_brokerlink l ON (l.account_id, l.broker_id) = (p.account_id, p.broker_id) "
            "JOIN brokers_brokeraccount a ON a.id = l.broker_account_id JOIN brokers_instrument i ON i.id = p.instrument_id WHERE p.quantity <> 0"
        ).fetchall()
    }
    theirs = {
        (code, account, symbol): quantity
        for code, line in world.lines.items()
        for (account, symbol), quantity in line.venue.book.positions.items()
        if quantity
    }
    return [" ".join(k) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k, 0) != theirs.get(k, 0)]


def resolved_by_asking() -> int:
    row = sql.run(
        "SELECT count(*) FROM orders_submission WHERE state = 'accepted' AND log @> '[{\"outcome\": \"unknown\"}]'::jsonb"
    ).fetchone()
    return int(row[0]) if row else 0


def _names(venue: Venue) -> Sequence[str]:
    return [o.client_order_id for o in venue.book.orders.values()]


def digest(orders: Sequence[Order]) -> str:
    """Return a hash of how every order ended, and of all positions and cash."""
    told: list[Any] = [
        [
            o.side, decimals.text(o.quantity), o.instrument_id, o.account_id, str(o.status), o.reason,
            decimals.text(o.filled_quantity), decimals.text(o.filled_amount), decimals.text(o.fees), o.overfilled,
        ]
        for o in orders
    ]  # fmt: skip
    for statement in (
        (
            "SELECT a.code, i.symbol, p.quantity::text, p.cost::text, p.realized::text FROM portfolio_position p "
            "JOIN portfolio_account a ON a.id = p.account_id JOIN brokers_instrument i ON i.id = p.instrument_id ORDER BY 1, 2"
        ),
        (
            "SELECT a.code, c.currency, c.balance::text FROM portfolio_cashbalance c JOIN portfolio_account a ON a.id = c.account_id "
            "ORDER BY 1, 2"
        ),
    ):
        told += [list(row) for row in sql.run(statement).fetchall()]
    return sha256(json.dump_bytes(told)).hexdigest()
