"""The bound: the rows of an order's whole life, written by bare psycopg in batches of a hundred, nothing decided.

Takes a hundred orders that the desk has filled and booked and writes copies of their rows with fresh ids into the
same tables, under the same keys, constraints and triggers: first as placed, then with the updates that sending,
reporting and booking make, in one transaction and one pipeline a batch.
"""

import time
import uuid
from typing import Any

import psycopg
from psycopg import sql

BATCH = 100
TABLES = (
    "orders_order", "risk_riskcheck", "risk_hold", "routing_routingdecision", "routing_routeleg", "orders_childorder",
    "orders_submission", "orders_execution", "portfolio_trade", "portfolio_ledgertransaction", "portfolio_ledgerentry",
    "portfolio_lot", "journal_event",
)  # fmt: skip
UPDATES = (
    "UPDATE orders_submission SET state = 'accepted', attempts = attempts + 1 WHERE id = ANY(%s)",
    "UPDATE orders_childorder SET version = version + 1 WHERE id = ANY(%s)",
    "UPDATE orders_order SET version = version + 1 WHERE id = ANY(%s)",
    "UPDATE risk_hold SET open_quantity = 0 WHERE id = ANY(%s)",
)
CACHES = (
    "UPDATE risk_exposure SET buying = buying",
    "UPDATE portfolio_position SET fees = fees",
    "UPDATE portfolio_brokerposition SET quantity = quantity",
    "UPDATE portfolio_cashbalance SET balance = balance",
    "UPDATE journal_stream SET sequence = sequence",
)


def measure(url: str, count: int) -> dict[str, float]:
    """Return orders per second and client CPU per order of writing that many orders' rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        template = _template(connection)
        started, cpu = time.perf_counter(), time.process_time()
        for number in range(count // BATCH):
            with connection.pipeline(), connection.transaction():
                _write(connection, template, number)
        return {
            "orders_per_second": count / (time.perf_counter() - started),
            "client_cpu_us_per_order": (time.process_time() - cpu) / count * 1e6,
        }


def _template(connection: psycopg.Connection[Any]) -> dict[str, tuple[list[str], list[str], list[tuple[Any, ...]]]]:
    ids = [
        r[0]
        for r in connection.execute(
            "SELECT id FROM orders_order WHERE status = 'filled' ORDER BY id DESC LIMIT %s", [BATCH]
        ).fetchall()
    ]
    wheres = {
        "orders_order": "id = ANY(%s)",
        "risk_riskcheck": "id = ANY(%s)",
        "risk_hold": "id = ANY(%s)",
        "routing_routingdecision": "source_id = ANY(%s)",
        "routing_routeleg": "decision_id IN (SELECT id FROM routing_routingdecision WHERE source_id = ANY(%s))",
        "orders_childorder": "order_id = ANY(%s)",
        "orders_submission": "child_id IN (SELECT id FROM orders_childorder WHERE order_id = ANY(%s))",
        "orders_execution": "order_id = ANY(%s)",
        "portfolio_trade": "source_id IN (SELECT id FROM orders_execution WHERE order_id = ANY(%s))",
        "portfolio_ledgertransaction": "source_id IN (SELECT id FROM orders_execution WHERE order_id = ANY(%s))",
        "portfolio_ledgerentry": "transaction_id IN (SELECT t.id FROM portfolio_ledgertransaction t "
        "JOIN orders_execution e ON e.id = t.source_id WHERE e.order_id = ANY(%s))",
        "portfolio_lot": "trade_id IN (SELECT id FROM orders_execution WHERE order_id = ANY(%s))",
        "journal_event": "object_id = ANY(%s::text[])",
    }
    template = {}
    for table in TABLES:
        types = dict(
            connection.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass "
                "AND attnum > 0 AND NOT attisdropped",
                [table],
            ).fetchall()
        )
        names = [n for n in types if not (n == "id" and types[n] == "bigint")]
        query = sql.SQL("SELECT {} FROM {} WHERE " + wheres[table]).format(  # type: ignore[arg-type]
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(table)
        )
        rows = connection.execute(query, [ids]).fetchall()
        template[table] = (names, [types[n] for n in names], rows)
    return template


def _write(connection: psycopg.Connection[Any], template: dict[str, Any], number: int) -> None:
    fresh: dict[Any, Any] = {}

    def renew(name: str, value: Any, index: int) -> Any:
        if isinstance(value, uuid.UUID):
            return fresh.setdefault(value, uuid.uuid4())
        if name in ("client_order_id", "broker_execution_id"):
            return f"{number}-{index}-{value[-12:]}"
        if name == "object_id":
            return str(fresh.get(uuid.UUID(value), value)) if len(value) == 36 else value
        if name == "sequence":
            return 10_000_000 + number * 1000 + index
        if isinstance(value, dict | list):
            return psycopg.types.json.Jsonb(value)
        return value

    made = {}
    for table in TABLES:
        names, types, rows = template[table]
        if not rows:
            continue
        columns = [[renew(n, r[i], k) for k, r in enumerate(rows)] for i, n in enumerate(names)]
        made[table] = columns[names.index("id")]
        arrays = ", ".join(f"%s::{t}[]" for t in types)
        listed = ", ".join(f'"{n}"' for n in names)
        connection.execute(f"INSERT INTO {table} ({listed}) SELECT * FROM unnest({arrays})", columns)
    for statement, table in zip(
        UPDATES, ("orders_submission", "orders_childorder", "orders_order", "risk_hold"), strict=True
    ):
        connection.execute(statement, [made[table]])
    for statement in CACHES:
        connection.execute(statement)
