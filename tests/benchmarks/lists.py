"""Pages of the blotter list over a million orders: every filter, the first page and deep ones, with their plans."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg

from oms.kernel.ids import first_id
from tests.benchmarks import load
from tests.benchmarks.desk import Desk

PAGE = 100
DAYS = 250
"""How far back the orders go; they are spread evenly."""

ORDERS = """
WITH drawn AS (
  SELECT n, now() - make_interval(secs => %(seconds)s * (1 - n / %(count)s::float8)) AS at, md5(n::text) AS noise,
    random() AS a, random() AS i, random() AS s, random() AS t, random() AS d
  FROM generate_series(1, %(count)s) n
), told AS (
  SELECT *, (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || left(noise, 3) || '8'
    || right(noise, 15))::uuid AS id,
    CASE WHEN a < 0.70 THEN 'MAIN' WHEN a < 0.9999 THEN 'EURO' ELSE 'ALPHA' END AS account,
    CASE WHEN s < 0.92 THEN 'filled' WHEN s < 0.96 THEN 'canceled' WHEN s < 0.98 THEN 'denied' WHEN s < 0.9899 THEN 'rejected'
      WHEN s < 0.99 THEN 'expired' ELSE 'new' END AS status
  FROM drawn
), symbols AS (
  SELECT array_agg(id ORDER BY id) AS ids, count(*) AS count FROM brokers_instrument
)
INSERT INTO orders_order (id, account_id, client_order_id, body_hash, placed_sequence, instrument_id, side, quantity,
  order_type, limit_price, time_in_force, strategy_id, note, origin, correlation_id, unknown, overfilled, filled_quantity, leaves_quantity,
  filled_amount, fees, reason, reason_detail, version, created_by_id, created_at, updated_at, decided_at, status)
SELECT told.id, a.id, 'list-' || n, decode(noise || noise, 'hex'), 0,
  -- a few symbols trade most; the last one hardly ever
  ids[CASE WHEN i > 0.99998 THEN symbols.count ELSE 1 + floor((symbols.count - 1) * i * i) END],
  CASE WHEN d < 0.5 THEN 'buy' WHEN d < 0.9999 THEN 'sell' ELSE 'sell_short' END, 1,
  CASE WHEN told.status = 'new' THEN 'limit' ELSE 'market' END, CASE WHEN told.status = 'new' THEN 1 END, 'gtc',
  CASE WHEN t < 0.3 THEN s.first WHEN t < 0.3001 THEN s.last END, '', 'desk', '', false, false,
  CASE WHEN told.status = 'filled' THEN 1 ELSE 0 END, CASE WHEN told.status = 'new' THEN 1 ELSE 0 END,
  CASE WHEN told.status = 'filled' THEN 100 ELSE 0 END, 0, '', '', 3, u.id,
  at, at, at, told.status
FROM told JOIN portfolio_account a ON a.code = told.account
CROSS JOIN symbols
CROSS JOIN (SELECT min(id) AS first, max(id) AS last FROM portfolio_strategy) s
CROSS JOIN (SELECT min(id) AS id FROM auth_user) u
"""
CHILDREN = """
INSERT INTO orders_childorder (id, order_id, broker_id, broker_account_id, client_order_id, broker_order_id, quantity,
  time_in_force, filled_quantity, leaves_quantity, filled_amount, overfilled, ended_as, version, created_at, updated_at, status)
SELECT gen_random_uuid(), o.id, l.broker_id, l.broker_account_id, o.client_order_id, o.client_order_id, o.quantity, o.time_in_force,
  o.filled_quantity, o.leaves_quantity, o.filled_amount, false, '', 3, o.created_at, o.updated_at, o.status
FROM (SELECT *, random() AS r FROM orders_order WHERE client_order_id LIKE 'list-%%' AND status <> 'denied') o
JOIN LATERAL (
  SELECT l.broker_id, l.broker_account_id FROM portfolio_brokerlink l WHERE l.account_id = o.account_id
  ORDER BY l.broker_id DESC
  LIMIT 1 OFFSET CASE WHEN o.r < 0.00005 THEN 0 WHEN o.r < 0.1 THEN 1 WHEN o.r < 0.3 THEN 2 ELSE 3 END
) l ON true
"""


def write(connection: psycopg.Connection[Any], count: int) -> None:
    """Write that many orders with their broker orders, as old books would hold them."""
    connection.execute(ORDERS, {"count": count, "seconds": DAYS * 86_400})
    connection.execute(CHILDREN, {})


FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"account": "MAIN"},
    {"account": "ALPHA"},
    {"symbol": "AAPL"},
    {"symbol": "USDT/USD"},
    {"status": "filled"},
    {"status": "rejected"},
    {"status": "expired"},
    {"status": "held"},
    {"side": "buy"},
    {"side": "sell_short"},
    {"broker": "PRIME"},
    {"broker": "CHEAP"},
    {"broker": "FLAKY"},
    {"strategy": "momentum"},
    {"strategy": "rebalance"},
    {"parent": "01930000-0000-7000-8000-000000000001"},
    {"client_order_id": "list-500000"},
    {"created_after": "-1"},
    {"created_before": f"-{DAYS - 2}"},
    {"created_after": "-125", "created_before": "-124"},
    {"open": "true"},
    {"open": "true", "account": "EURO", "symbol": "AAPL"},
    {"account": "MAIN", "symbol": "AAPL", "status": "filled"},
    {"account": "EURO", "symbol": "KO", "status": "rejected", "side": "sell"},
    {"account": "EURO", "broker": "CHEAP", "symbol": "MSFT"},
    {"symbol": "USDT/USD", "status": "filled", "side": "sell"},
    {"strategy": "momentum", "status": "canceled", "broker": "FAST"},
    {"symbol": "SPY", "created_after": "-125", "created_before": "-124"},
    {"status": "expired", "created_before": f"-{DAYS - 2}", "broker": "FAST"},
    {"broker": "FLAKY", "symbol": "AAPL"},
    {"open": "true", "broker": "FLAKY"},
)
"""One filter, several; common values and rare ones, and such as find nothing. Times in days from now."""
DEPTHS = (None, 1, 30, 125, 200, 248)
"""Pages: the first, and those that begin so many days back."""


def timed(wanted: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Return the filters with times for days."""
    return {k: (now + timedelta(days=int(v))).isoformat() if k.startswith("created_") else v for k, v in wanted.items()}


def cursor(days: int | None, now: datetime) -> UUID | None:
    """Return the id that a page so many days back begins after."""
    return None if days is None else first_id(now - timedelta(days=days))


def measure(desk: Desk, count: int, *, repeats: int = 5) -> dict[str, Any]:
    """Ask the desk for pages of a hundred over one connection; milliseconds by filter, over all its pages."""
    started = time.perf_counter()
    with psycopg.connect(desk.database_url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        with connection.transaction():
            write(connection, count)
        connection.execute("VACUUM ANALYZE orders_order, orders_childorder")
    filled = time.perf_counter() - started
    before = _whole_scans(desk)
    desk.meter.start()
    times = asyncio.run(_pages(desk, repeats))
    usage = desk.meter.stop()
    by_filter = {name: load.percentile(values, 0.95) * 1000 for name, values in times.items()}
    slowest = max(by_filter, key=lambda name: by_filter[name])
    every = [t for values in times.values() for t in values]
    return {
        "orders": count,
        "written_in_seconds": filled,
        "pages": len(every),
        "all_pages_p50_ms": load.percentile(every, 0.5) * 1000,
        "all_pages_p95_ms": load.percentile(every, 0.95) * 1000,
        "slowest_filter": slowest,
        "slowest_p95_ms": by_filter[slowest],
        "whole_table_scans": _whole_scans(desk) - before,
        "cpu_us_per_order": usage.per_order(len(every)),
        "load_average": usage.load_average,
        "runs": [{"p95_ms_by_filter": by_filter}],
    }


async def _pages(desk: Desk, repeats: int) -> dict[str, list[float]]:
    now = datetime.now(UTC)
    times: dict[str, list[float]] = {}
    async with load.Connection(desk.port, desk.token) as line:
        for wanted in FILTERS:
            for days in DEPTHS:
                asked = timed(wanted, now) | {"limit": str(PAGE)}
                if days is not None:
                    asked["cursor"] = str(cursor(days, now))
                for _ in range(repeats):
                    started = time.perf_counter()
                    status, body = await line.get(f"/api/v1/orders?{urlencode(asked)}")
                    times.setdefault(json.dumps(wanted), []).append(time.perf_counter() - started)
                    assert status == 200, body
    return times


def _whole_scans(desk: Desk) -> int:
    """Return how often the two tables were read from end to end, by anybody."""
    time.sleep(2)  # sessions tell their counts about once a second
    [row] = desk.sql(
        "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('orders_order', 'orders_childorder')"
    )
    return int(str(row[0]))
