"""The bound: the rows of a hundred orders' whole lives, written by bare psycopg in one transaction, nothing decided.

A hundred real orders are placed on the quiet desk and watched: how many rows their lives insert in each table and how
many they update. Copies with fresh ids are then written into the same tables, under the same keys, constraints and
triggers: first as placed, then updated as often as the real rows were. The counts must agree, else there is no figure.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from oms.kernel.ids import uuid7
from tests.benchmarks import load
from tests.benchmarks.desk import Desk
from tests.benchmarks.orderpath import summary, unused_name

BATCH = 100
BROKER = "PRIME"
QUIET_SECONDS = 12.0
"""How long counts need to settle: an idle session tells its own after ten seconds."""
BACKGROUND = {
    "brokers_quote", "brokers_quotetick", "brokers_bar", "brokers_brokersession", "brokers_brokerhealth",
    "analytics_executionquality", "analytics_fillquality", "analytics_routequality", "analytics_routetime", "analytics_fillsum",
    "analytics_routesum", "analytics_measured", "routing_routeoutcome", "routing_brokerscore",
}  # fmt: skip
"""Written all the time, or later than the orders' own rows: what is measured and learned of them."""
FIRST: dict[str, dict[str, Any]] = {
    "orders_order": {"status": "pending_new", "filled_quantity": 0, "filled_amount": 0, "fees": 0, "version": 1},
    "orders_childorder": {
        "status": "pending_new", "filled_quantity": 0, "filled_amount": 0, "version": 1, "broker_order_id": "", "ended_as": "",
    },
    "orders_submission": {
        "state": "prepared", "attempts": 0, "fence": 0, "owner": "", "sent_at": None, "resolved_at": None, "log": [],
    },
    "risk_hold": {"open_quantity": 1},
}  # fmt: skip
"""How a row stands when the order is placed, where that is not how it ends."""
OPENED = {"orders_order": ("leaves_quantity", "quantity"), "orders_childorder": ("leaves_quantity", "quantity")}
"""A column that begins as another one."""
EARLY = ("orders_order", "orders_childorder", "portfolio_trade", "portfolio_ledgerentry", "portfolio_ledgertransaction")
"""Tables that triggers on others look at."""
TOUCHED = {
    "risk_exposure": "buying", "portfolio_position": "fees", "portfolio_brokerposition": "quantity",
    "portfolio_cashbalance": "balance", "portfolio_brokercash": "balance", "journal_stream": "sequence", "portfolio_lot": "price",
}  # fmt: skip
"""A column of the caches, the chains' heads and the lots that were open before, updated as often as the orders did."""
FAR = 10_000_000
"""Sequences of copied events lie beyond those of real ones."""
BINARY = ("uuid", "jsonb", "text", "bytea", "date", "timestamp with time zone")
"""Types that travel in binary, as the desk sends them."""


@dataclass
class Table:
    """The rows that the real orders left in one table, by columns."""

    name: str
    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]

    def arrays(self, names: list[str]) -> str:
        """Return the parameters for some columns."""
        types = dict(zip(self.columns, self.types, strict=True))
        return ", ".join(f"{'%b' if types[n] in BINARY else '%s'}::{types[n]}[]" for n in names)


@dataclass
class Life:
    """What the lives of a hundred orders wrote: tables in the order of their keys, and rows updated by table."""

    tables: list[Table]
    inserted: dict[str, int]
    updated: dict[str, int]


def observe(desk: Desk) -> Life:
    """Place a hundred orders on the desk, which must be quiet, and return what their lives wrote."""
    _place(desk)  # what only a first order at the broker makes is there
    desk.pause("celery beat", " beat ")  # the tick that chains all journals is no part of an order's life
    try:
        return _watch(desk)
    finally:
        desk.resume()


def _watch(desk: Desk) -> Life:
    with psycopg.connect(desk.database_url, autocommit=True) as connection:
        names = _tables(connection)
        time.sleep(QUIET_SECONDS)
        marks = {name: _newest(connection, name) for name in names}
        before = _counts(connection)
        _place(desk)
        time.sleep(QUIET_SECONDS)
        after = _counts(connection)
        inserted, updated = (
            {t: after[t][i] - before[t][i] for t in names if after[t][i] != before[t][i]} for i in (0, 1)
        )
        tables = [_read(connection, name, marks[name]) for name in names if name in inserted]
    unlike = {t.name: (len(t.rows), inserted[t.name]) for t in tables if len(t.rows) != inserted[t.name]}
    if unlike:
        raise SystemExit(f"setbased: rows found and rows counted differ, the desk was not quiet: {unlike}")
    return Life(tables, inserted, updated)


def _place(desk: Desk) -> None:
    """Place a hundred orders at one broker and wait until nothing works any more."""
    prefix = unused_name("life")
    rows = [
        {
            "client_order_id": f"{prefix}-{n}", "account": "MAIN", "symbol": "EUR/USD", "quantity": "1", "order_type": "market",
            "side": ("buy", "sell")[n % 2], "broker": BROKER,
        }
        for n in range(BATCH)
    ]  # fmt: skip
    body = json.dumps({"orders": rows}).encode()
    asyncio.run(load.post_all(desk.port, "/api/v1/orders/batch", desk.token, [body], 1))
    desk.wait_ended("setbased")


def measure(desk: Desk, life: Life, *, rounds: int = 5, batches: int = 20) -> dict[str, Any]:
    """Write copies of the life, a transaction a batch over one connection; the median of some rounds."""
    runs = []
    with psycopg.connect(desk.database_url, autocommit=True) as connection:
        copier = Copier(connection, life)
        written = _watched(connection, copier)
        if written != (life.inserted, life.updated):
            raise SystemExit(
                f"setbased: a copy writes other rows than the orders did.\n{written}\n{life.inserted, life.updated}"
            )
        for _ in range(2):
            copier.write()
        for _ in range(rounds):
            desk.meter.start()
            started = time.perf_counter()
            for _ in range(batches):
                copier.write()
            seconds = time.perf_counter() - started
            usage = desk.meter.stop()
            count = BATCH * batches
            runs.append(
                {
                    "orders_per_second": count / seconds,
                    "cpu_us_per_order": usage.per_order(count),
                    "load_average": usage.load_average,
                }
            )
    told = summary(runs, BATCH * batches)
    return told | {"rows_inserted_by_100_orders": life.inserted, "rows_updated_by_100_orders": life.updated}


class Copier:
    """Writes a life again and again, each time with ids of its own."""

    def __init__(self, connection: psycopg.Connection[Any], life: Life) -> None:
        self.connection, self.life = connection, life
        self.number = 0
        self.by_name = {t.name: t for t in life.tables}

    def write(self) -> None:
        """Write one life in one transaction, its statements in one pipeline."""
        self.number += 1
        fresh: dict[UUID, UUID] = {}
        with self.connection.pipeline(), self.connection.transaction():
            written = {t.name: self._insert(t, fresh) for t in self.life.tables}
            for name, count in self.life.updated.items():
                passes, rest = divmod(count, len(self.by_name[name].rows)) if name in written else (0, count)
                for _ in range(passes):
                    self._finish(self.by_name[name], written[name])
                if rest:
                    self._touch(name, rest)

    def _insert(self, table: Table, fresh: dict[UUID, UUID]) -> dict[str, list[Any]]:
        """Insert the rows as they began; return their columns as they ended."""
        ended = {
            name: self._renewed(name, kind, [row[i] for row in table.rows], fresh)
            for i, (name, kind) in enumerate(zip(table.columns, table.types, strict=True))
        }
        first = {n: [Jsonb(v) if n == "log" else v] * len(table.rows) for n, v in FIRST.get(table.name, {}).items()}
        if table.name in OPENED:
            column, source = OPENED[table.name]
            first[column] = ended[source]
        columns = ended | first
        listed = ", ".join(f'"{n}"' for n in columns)
        statement = f"INSERT INTO {table.name} ({listed}) SELECT * FROM unnest({table.arrays(list(columns))})"
        self.connection.execute(statement, list(columns.values()))
        return ended

    def _finish(self, table: Table, ended: dict[str, list[Any]]) -> None:
        """Update every row once, to what it ended as."""
        names = ["id", *FIRST[table.name], *(c for c in OPENED.get(table.name, ())[:1])]
        sets = ", ".join(f'"{n}" = u."{n}"' for n in names[1:])
        listed = ", ".join(f'"{n}"' for n in names)
        self.connection.execute(
            f"UPDATE {table.name} t SET {sets} FROM unnest({table.arrays(names)}) u({listed}) WHERE t.id = u.id",
            [ended[n] for n in names],
        )

    def _touch(self, name: str, count: int) -> None:
        """Update one row so many times: a position, a balance, the head of a chain."""
        column = TOUCHED[name]
        for _ in range(count):
            self.connection.execute(
                f"UPDATE {name} SET {column} = {column} WHERE id = (SELECT id FROM {name} ORDER BY id DESC LIMIT 1)"
            )

    def _renewed(self, name: str, kind: str, values: list[Any], fresh: dict[UUID, UUID]) -> list[Any]:
        """Return a column with ids that nobody has used; rows of one order keep pointing at each other."""
        if kind == "uuid":
            return [v if v is None else fresh.setdefault(v, uuid7()) for v in values]
        if kind == "jsonb":
            return [Jsonb(v) for v in values]
        if name == "object_id":
            return [str(fresh.get(UUID(v), v)) if len(v) == 36 else v for v in values]
        if name in ("client_order_id", "broker_execution_id", "broker_order_id"):
            return [v[:1] + f"{self.number:07}" + v[8:] if len(v) == 27 else f"{self.number}-{v}" for v in values]
        if name == "digest":
            return [self.number.to_bytes(8) + bytes(v)[8:] for v in values]
        if name == "sequence":
            first = FAR + self.number * len(values)
            return list(range(first, first + len(values)))
        return values


def _watched(connection: psycopg.Connection[Any], copier: Copier) -> tuple[dict[str, int], dict[str, int]]:
    """Write one life and return the rows it inserted and updated by table, as the server counts them."""
    names = _tables(connection)
    time.sleep(QUIET_SECONDS)
    before = _counts(connection)
    copier.write()
    connection.execute("SELECT pg_stat_force_next_flush()")
    time.sleep(QUIET_SECONDS)
    after = _counts(connection)
    inserted, updated = ({t: after[t][i] - before[t][i] for t in names if after[t][i] != before[t][i]} for i in (0, 1))
    return inserted, updated


def _tables(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the tables that orders may write: those with triggers on others' rows after what they look at."""
    found = connection.execute("SELECT relname FROM pg_stat_user_tables ORDER BY relname").fetchall()
    others = sorted({str(name) for (name,) in found} - BACKGROUND - set(EARLY))
    return [*EARLY, *others]


def _counts(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    rows = connection.execute("SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_user_tables").fetchall()
    return {name: (inserted, updated) for name, inserted, updated in rows}


def _key(connection: psycopg.Connection[Any], table: str) -> str:
    """Return the column of a table's primary key; the last of several."""
    [(name,)] = connection.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
        "WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY a.attnum DESC LIMIT 1",
        [table],
    ).fetchall()
    return str(name)


def _newest(connection: psycopg.Connection[Any], table: str) -> Any:
    key = _key(connection, table)
    row = connection.execute(f"SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1").fetchone()
    return row[0] if row else None


def _columns(connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [table],
    ).fetchall()
    return dict(rows)


def _read(connection: psycopg.Connection[Any], table: str, mark: Any) -> Table:
    types = _columns(connection, table)
    listed = ", ".join(f'"{n}"' for n in types)
    key = _key(connection, table)
    newer = f"SELECT {listed} FROM {table} WHERE %s::{types[key]} IS NULL OR {key} > %s ORDER BY {key}"
    return Table(table, list(types), list(types.values()), connection.execute(newer, [mark, mark]).fetchall())
