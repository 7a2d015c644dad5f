"""A day of a large broker reconciled: 100,000 positions and 1,000,000 fills from staged rows, the import timed beside it.

The books are written by plain SQL as old ones would stand, the broker's files are the same with differences planted in
known places; a run that does not find exactly those gives no figure. Measured in a process of its own (`main`), which is
what a command or a worker would be.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.benchmarks.desk import ROOT, Desk

BROKER = "BIGBANK"
ACCOUNTS = 20
PLANTED = 40
"""Differences of each kind."""
FACTS_OFF = "SET session_replication_role = replica"
"""The rows are written past keys and triggers: they stand in for years of books, not for a load."""

ACCOUNT_ROWS = """
WITH made AS (
  INSERT INTO portfolio_account (code, name, base_currency, lot_method, status, created_at)
  SELECT 'BIG' || lpad(n::text, 2, '0'), '', 'USD', 'fifo', 'open', now() FROM generate_series(0, %(accounts)s - 1) n
  RETURNING id, code
), broker AS (
  INSERT INTO brokers_broker (code, name, adapter, settings, enabled) VALUES (%(broker)s, '', 'simulated', '{}', false) RETURNING id
), kept AS (
  INSERT INTO brokers_brokeraccount (broker_id, external_id) SELECT broker.id, 'U' || made.code FROM made, broker
  RETURNING id, broker_id, external_id
)
INSERT INTO portfolio_brokerlink (account_id, broker_account_id, broker_id)
SELECT made.id, kept.id, kept.broker_id FROM made JOIN kept ON kept.external_id = 'U' || made.code
"""
INSTRUMENTS = """
INSERT INTO brokers_instrument (symbol, name, asset_class, base_currency, currency, tick_size, lot_size, settlement_days, calendar,
  sector, country, active)
SELECT 'BIG' || n, '', 'equity', '', 'USD', 0.01, 1, 1, '', '', '', true FROM generate_series(1, %(instruments)s) n
"""
FILLS = """
CREATE TEMP TABLE drawn AS
WITH places AS (
  SELECT (SELECT array_agg(id ORDER BY id) FROM brokers_instrument WHERE symbol LIKE 'BIG%%') AS instruments,
    (SELECT array_agg(symbol ORDER BY id) FROM brokers_instrument WHERE symbol LIKE 'BIG%%') AS symbols,
    array_agg(l.account_id ORDER BY a.code) AS accounts, array_agg(l.broker_account_id ORDER BY a.code) AS kept, min(l.broker_id) AS broker
  FROM portfolio_brokerlink l JOIN portfolio_account a ON a.id = l.account_id WHERE a.code LIKE 'BIG%%'
)
SELECT n, accounts[1 + n %% %(accounts)s] AS account, kept[1 + n %% %(accounts)s] AS broker_account_id, broker AS broker_id,
  instruments[1 + (n / %(accounts)s) %% %(instruments)s] AS instrument, symbols[1 + (n / %(accounts)s) %% %(instruments)s] AS symbol,
  CASE WHEN n %% 3 = 0 THEN 'sell' ELSE 'buy' END AS side,
  (1 + n %% 7)::numeric AS quantity, (100 + n %% 50)::numeric + 0.25 AS price, 0.35::numeric AS fees,
  %(day)s::date + make_interval(secs => 86000.0 * n / %(fills)s) AS at, md5(n::text) AS noise
FROM generate_series(1, %(fills)s) n, places
"""
ORDERS = """
INSERT INTO orders_order (id, account_id, client_order_id, body_hash, placed_sequence, instrument_id, side, quantity, order_type,
  time_in_force, note, origin, correlation_id, unknown, overfilled, filled_quantity, leaves_quantity, filled_amount, fees, reason,
  reason_detail, version, created_at, updated_at, decided_at, status)
SELECT gen_random_uuid(), account, 'big-' || account || '-' || instrument || '-' || side, decode(repeat('00', 32), 'hex'), 0, instrument, side,
  sum(quantity), 'market', 'day', '', 'desk', '', false, false, sum(quantity), 0, sum(quantity * price), sum(fees), '', '', 2, min(at), max(at), min(at), 'filled'
FROM drawn GROUP BY account, instrument, side
"""
CHILDREN = """
INSERT INTO orders_childorder (id, order_id, broker_id, broker_account_id, client_order_id, broker_order_id, quantity, time_in_force,
  filled_quantity, leaves_quantity, filled_amount, overfilled, ended_as, version, created_at, updated_at, status)
SELECT o.id, o.id, l.broker_id, l.broker_account_id, o.client_order_id, o.client_order_id, o.quantity, 'day', o.quantity, 0, o.filled_amount, false,
  '', 2, o.created_at, o.updated_at, 'filled'
FROM orders_order o JOIN portfolio_brokerlink l ON l.account_id = o.account_id WHERE o.client_order_id LIKE 'big-%'
"""
EXECUTIONS = """
INSERT INTO orders_execution (id, child_id, order_id, broker_id, broker_account_id, broker_execution_id, kind, side, quantity, price, fees, fee_items,
  settle_date, executed_at, received_at)
SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || left(noise, 3) || '8' || right(noise, 15))::uuid,
  o.id, o.id, d.broker_id, d.broker_account_id, 'BIG' || d.n, 'trade', d.side, d.quantity, d.price, d.fees, '[]', at::date + 1, at, at
FROM drawn d JOIN orders_order o ON o.client_order_id = 'big-' || d.account || '-' || d.instrument || '-' || d.side
  AND o.account_id = d.account
"""
POSITIONS = """
INSERT INTO portfolio_brokerposition (account_id, broker_id, instrument_id, quantity)
SELECT account, min(broker_id), instrument, sum(CASE WHEN side = 'buy' THEN quantity ELSE -quantity END) FROM drawn GROUP BY account, instrument
"""
TOTALS = """
INSERT INTO portfolio_position (account_id, instrument_id, quantity, cost, realized, fees, day, day_quantity, day_amount, lots_chosen)
SELECT account_id, instrument_id, quantity, quantity * 100, 0, 0, NULL, 0, 0, false FROM portfolio_brokerposition b
JOIN brokers_instrument i ON i.id = b.instrument_id WHERE i.symbol LIKE 'BIG%'
"""
CASH = """
INSERT INTO portfolio_brokercash (account_id, broker_id, currency, balance)
SELECT account, min(broker_id), 'USD', sum(CASE WHEN side = 'buy' THEN -quantity * price ELSE quantity * price END - fees) FROM drawn GROUP BY account
"""
FILLS_FILE = """
COPY (
  SELECT 'UBIG' || lpad((n %% {accounts})::text, 2, '0') AS account, symbol, side, quantity,
    CASE WHEN n <= {planted} THEN price + 1 ELSE price END AS price, fees, 'BIG' || n AS reference, to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS.US') AS at
  FROM drawn WHERE n NOT BETWEEN {planted} + 1 AND 2 * {planted}
  UNION ALL
  SELECT 'UBIG00', 'BIG' || n, 'buy', 3, 100, 0, 'NEW' || n, '{day}T12:00:00' FROM generate_series(1, {planted}) n
) TO STDOUT WITH (FORMAT csv, HEADER)
"""
HOLDINGS_FILE = """
COPY (
  SELECT 'position' AS section, 'U' || a.code AS account, i.symbol, '' AS currency,
    trim_scale(b.quantity + CASE WHEN row_number() OVER (ORDER BY b.id) <= {planted} THEN 5 ELSE 0 END)::text AS quantity, '' AS amount
  FROM portfolio_brokerposition b JOIN portfolio_account a ON a.id = b.account_id JOIN brokers_instrument i ON i.id = b.instrument_id
  WHERE a.code LIKE 'BIG%'
  UNION ALL
  SELECT 'cash', 'U' || a.code, '', c.currency, '', trim_scale(c.balance + CASE WHEN a.code < 'BIG05' THEN 1 ELSE 0 END)::text
  FROM portfolio_brokercash c JOIN portfolio_account a ON a.id = c.account_id WHERE a.code LIKE 'BIG%'
) TO STDOUT WITH (FORMAT csv, HEADER)
"""
WANTED = {"fill": PLANTED, "unknown_fill": PLANTED, "missing_fill": PLANTED, "position": PLANTED, "cash": 5}
"""What the run must find, and nothing else."""


def measure(desk: Desk, *, positions: int, fills: int, rounds: int) -> dict[str, Any]:
    """Write the books and the files, take the files in, reconcile; return what each took."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    with tempfile.TemporaryDirectory(prefix="statements") as folder:
        with psycopg.connect(desk.database_url, autocommit=True) as connection:
            _write(connection, day, positions=positions, fills=fills, folder=Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.reconciliation", folder, day.isoformat(), str(rounds)],
            cwd=ROOT, env=os.environ | {"DATABASE_URL": desk.database_url, "REDIS_URL": desk.redis_url}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"reconcile: {done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _write(connection: psycopg.Connection[Any], day: date, *, positions: int, fills: int, folder: Path) -> None:
    given = {
        "accounts": ACCOUNTS, "broker": BROKER, "instruments": positions // ACCOUNTS, "fills": fills, "day": day,
    }  # fmt: skip
    connection.execute(FACTS_OFF)
    for statement in (ACCOUNT_ROWS, INSTRUMENTS, FILLS):
        connection.execute(statement, given)
    connection.execute("CREATE INDEX ON drawn (account, instrument, side); ANALYZE drawn")
    for statement in (ORDERS, CHILDREN, EXECUTIONS, POSITIONS, TOTALS, CASH):
        connection.execute(statement)
    connection.execute("VACUUM ANALYZE orders_execution, orders_order, portfolio_brokerposition, portfolio_position")
    form = {"accounts": ACCOUNTS, "planted": PLANTED, "day": day}
    for name, statement in (("fills", FILLS_FILE.replace("%%", "%")), ("holdings", HOLDINGS_FILE)):
        _save(connection, statement.format(**form), folder / f"{name}.csv")


def _save(connection: psycopg.Connection[Any], statement: str, target: Path) -> None:
    with target.open("wb") as out, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in copy:
            out.write(chunk)


def _database_cpu() -> float:
    """Return the processor time that PostgreSQL's process for our connection has taken so far, whatever else runs here."""
    from oms.runtime import sql

    [pid] = sql.run("SELECT pg_backend_pid()").fetchone() or (0,)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Take the files of a folder in, reconcile, and print what it took."""
    folder, day, rounds = Path(sys.argv[1]), date.fromisoformat(sys.argv[2]), int(sys.argv[3])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "oms.settings")
    import django

    django.setup()
    from oms.kernel.actor import Actor
    from orders.operations.reconciling import reconcile
    from portfolio import statements
    from portfolio.models import Break

    actor, end = Actor.system("bench"), datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
    told: dict[str, Any] = {}
    for name, profile in (("fills", "fills"), ("holdings", "standard")):
        content = (folder / f"{name}.csv").read_bytes()
        started = time.perf_counter()
        statements.import_file(
            content, broker=BROKER, name=name, profile=profile, as_of=end, actor=actor, at=datetime.now(UTC)
        )
        told[f"import_{name}_seconds"] = time.perf_counter() - started
        told[f"import_{name}_mib"] = len(content) / 2**20
    runs = []
    for _ in range(rounds):
        database, started, cpu = _database_cpu(), time.perf_counter(), time.process_time()
        run = reconcile(BROKER, on=day, actor=actor, clock=lambda: datetime.now(UTC))
        runs.append(
            {
                "seconds": time.perf_counter() - started,
                "own_cpu_seconds": time.process_time() - cpu,
                "database_cpu_seconds": _database_cpu() - database,
            }
        )
        found = {k: Break.objects.filter(broker__code=BROKER, kind=k).count() for k in WANTED}
        if run.state != "done" or found != WANTED:
            raise SystemExit(f"{run.state} {run.failure} {run.detail}: found {found}, planted {WANTED}")
    sides = {name: section["theirs"] for name, section in run.sections.items()}
    told |= {
        "rounds": rounds, "lines": sides, "seconds": sorted(r["seconds"] for r in runs)[len(runs) // 2],
        "own_cpu_seconds": sorted(r["own_cpu_seconds"] for r in runs)[len(runs) // 2], "runs": runs,
        "database_cpu_seconds": sorted(r["database_cpu_seconds"] for r in runs)[len(runs) // 2],
        "breaks": found, "own_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main()
