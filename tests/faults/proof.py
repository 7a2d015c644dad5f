"""What must be true after the faults, read from the database and from the venues' own books."""

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

from tests.faults.client import Intent, broken_promises

ENDED = ("filled", "canceled", "rejected", "expired", "denied")
FIRST_ANSWERS = """
SELECT k.key, e.body FROM orders_idempotencykey k JOIN orders_order o ON o.id = k.order_id
JOIN portfolio_account a ON a.id = o.account_id
JOIN journal_stream t ON t.name = 'account:' || a.code
JOIN journal_event e ON e.stream_id = t.id AND e.sequence = o.placed_sequence
"""
BROKER_ORDERS = """
SELECT b.code, o.id::text, o.quantity, o.filled_quantity, c.filled_quantity, array_agg(s.client_order_id)
FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id JOIN brokers_broker b ON b.id = c.broker_id
JOIN orders_submission s ON s.child_id = c.id GROUP BY b.code, o.id, c.id
"""
LIVING_EXECUTIONS = """
SELECT b.code, e.broker_execution_id, e.quantity, e.price FROM orders_execution e JOIN brokers_broker b ON b.id = e.broker_id
WHERE e.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM orders_execution r WHERE r.ref_id = e.id)
"""


def rows(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    """Read over a connection of its own, so that no fault of the desk's is met here."""
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        return connection.execute(statement).fetchall()


def recorded(database_url: str) -> dict[str, str]:
    """Return the first answer of every key, as the journal tells it."""
    from orders.operations.placing import first_answer

    return {key: first_answer(body) for key, body in rows(database_url, FIRST_ANSWERS)}


def still_open(database_url: str) -> list[tuple[Any, ...]]:
    """Return the orders that have not ended, and whatever nobody has answered."""
    return rows(
        database_url,
        f"""SELECT o.id::text, o.status, o.unknown, array_agg(s.kind || ' ' || s.state || ' ' || b.code) FROM orders_order o
        LEFT JOIN orders_childorder c ON c.order_id = o.id LEFT JOIN orders_submission s ON s.child_id = c.id
        LEFT JOIN brokers_broker b ON b.id = c.broker_id
        WHERE o.status NOT IN {ENDED} OR o.unknown OR s.state IN ('prepared', 'sent', 'unknown') GROUP BY o.id""",
    )


def wait_until_all_ended(database_url: str, seconds: float) -> float:
    """Liveness: return after how many seconds nothing was open any more; fail when that takes longer than told."""
    started = time.monotonic()
    while left := still_open(database_url):
        waited = time.monotonic() - started
        assert waited < seconds, f"{len(left)} orders are open {waited:.0f} s after the faults stopped: {left[:10]}"
        time.sleep(0.25)
    return time.monotonic() - started


def compare_with_books(database_url: str, books: Mapping[str, Mapping[str, Any]]) -> None:
    """Hold the desk's broker orders and executions against the venues' books, which are the oracle."""
    cumulative: dict[str, Decimal] = {}
    for code, book in books.items():
        named = [order["client_order_id"] for order in book["orders"]]
        assert len(named) == len(set(named)), f"{code} has an order twice"
        cumulative |= {n: Decimal(o["cumulative_quantity"]) for o in book["orders"] for n in o["client_order_ids"]}
    ours: dict[str, tuple[Decimal, Decimal, Decimal]] = {}  # order: wanted, filled as we say, filled as they say
    names: set[str] = set()
    for code, order, wanted, filled, child_filled, ids in rows(database_url, BROKER_ORDERS):
        if code not in books:
            continue
        names |= set(ids)
        theirs = next((cumulative[i] for i in ids if i in cumulative), Decimal(0))
        assert theirs == child_filled, f"{code} filled {theirs} of {ids}, we say {child_filled}"
        ours[order] = (wanted, filled, ours.get(order, (wanted, filled, Decimal(0)))[2] + theirs)
    assert set(cumulative) <= names, f"orders at a broker that we did not send: {set(cumulative) - names}"
    doubled = {o: row for o, row in ours.items() if row[2] > row[0] or row[1] != row[2]}
    assert not doubled, f"filled more than was wanted, or otherwise than we say: {doubled}"
    booked = {(c, i): (q, p) for c, i, q, p in rows(database_url, LIVING_EXECUTIONS) if c in books}
    done = {
        (code, e["execution_id"]): (Decimal(e["quantity"]), Decimal(e["price"]))
        for code, book in books.items()
        for e in book["executions"]
    }
    assert booked == done, f"executions differ: {set(booked.items()) ^ set(done.items())}"


def compare_with_clients(database_url: str, intents: Sequence[Intent], *, prefix: str = "") -> int:
    """Hold what clients were promised against what is there (L1); return how many orders were promised.

    `prefix` is what the keys of these clients begin with.
    """
    answers = {key: told for key, told in recorded(database_url).items() if key.startswith(prefix)}
    assert broken_promises(intents, answers) == []
    strange = set(answers) - {i.key for i in intents}
    assert not strange, f"orders that nobody asked for: {strange}"
    unanswered = [i for i in intents if not i.settled()]
    assert not unanswered, f"clients without an answer: {[(i.key, i.answers[-1:]) for i in unanswered[:5]]}"
    refused = [i for i in intents if i.promised() is None]
    assert not refused, f"clients refused: {[(i.key, i.answers[-1]) for i in refused[:5]]}"
    return len(intents)
