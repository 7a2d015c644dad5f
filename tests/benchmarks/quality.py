"""Execution quality of a million fills: everything measured again, and reports by any one or two keys."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from typing import Any

import psycopg

from tests.benchmarks import lists, load
from tests.benchmarks.desk import ROOT, Desk

GROUPS = ("broker", "symbol", "strategy", "algo", "day", "hour", "size", "account")
SENT = """
INSERT INTO orders_submission (id, child_id, broker_id, account_id, kind, client_order_id, message, correlation_id, reduces, state,
  attempts, fence, owner, created_at, sent_at, due_at, judged_at, resolved_at, detail, denials, log)
SELECT gen_random_uuid(), c.id, c.broker_id, o.account_id, 'new', c.client_order_id, jsonb_build_object('quantity', c.quantity::text, 'side', o.side), '', false, 'accepted', 1, 1, '',
  c.created_at, c.created_at, c.created_at, c.created_at, c.created_at, '', '[]',
  '[{"outcome": "accepted", "rtt_ms": 4.2, "market": {"sent": ["99.99", "100.01"], "answered": ["99.99", "100.01"]}}]'
FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id WHERE o.client_order_id LIKE 'list-%%'
"""
EXECUTIONS = """
INSERT INTO orders_execution (id, child_id, order_id, broker_id, broker_account_id, broker_execution_id, kind, side, quantity, price,
  fees, fee_items, settle_date, executed_at, received_at, market_bid, market_ask)
SELECT gen_random_uuid(), c.id, o.id, c.broker_id, c.broker_account_id, 'quality-' || o.client_order_id, 'trade', o.side, 1,
  99.98 + floor(random() * 5) / 100, 0.01, '[]', o.created_at::date, o.created_at + interval '40 ms', o.created_at, 99.99, 100.01
FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id WHERE o.client_order_id LIKE 'list-%%' AND o.status = 'filled'
"""
ARRIVALS = "UPDATE orders_order SET arrival_bid = 99.98, arrival_ask = 100.00, arrival_at = created_at WHERE client_order_id LIKE 'list-%%'"
REBUILD = """
import json, time, django
django.setup()
from datetime import UTC, datetime
from analytics import operations
started = time.perf_counter()
fills = operations.rebuild(at=datetime.now(UTC), benchmarks=False)
print(json.dumps([fills, time.perf_counter() - started]))
"""


def measure(desk: Desk, count: int, *, repeats: int = 5) -> dict[str, Any]:
    """Write that many orders with a fill each where none are there yet, rebuild, ask for every grouping; milliseconds."""
    with psycopg.connect(desk.database_url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        with connection.transaction():
            there = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM orders_order WHERE client_order_id = 'list-1')"
            ).fetchone()
            if not (there and there[0]):
                lists.write(connection, count)
            connection.execute(ARRIVALS)
            connection.execute(SENT)
            connection.execute(EXECUTIONS)
        connection.execute("VACUUM ANALYZE orders_order, orders_childorder, orders_submission, orders_execution")
    fills, seconds = _rebuild(desk)
    times = asyncio.run(_reports(desk, repeats))
    slowest = max(times, key=lambda name: times[name])
    return {
        "fills": fills,
        "rebuilt_in_seconds": seconds,
        "reports": len(times),
        "reports_p50_ms": load.percentile(list(times.values()), 0.5),
        "slowest_report": slowest,
        "slowest_report_ms": times[slowest],
        "load_average": os.getloadavg()[0],
        "runs": [{"ms_by_report": times}],
    }


def _rebuild(desk: Desk) -> tuple[int, float]:
    environment = os.environ | {
        "DATABASE_URL": desk.database_url, "REDIS_URL": desk.redis_url, "DJANGO_SETTINGS_MODULE": "oms.settings", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", REBUILD], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    fills, seconds = json.loads(done.stdout.splitlines()[-1])
    return int(fills), float(seconds)


async def _reports(desk: Desk, repeats: int) -> dict[str, float]:
    """Return the 95th percentile of each report's milliseconds, over one connection."""
    token, found = desk.token_of("risk"), {}
    async with load.Connection(desk.port, token) as line:
        for keys in [(k,) for k in GROUPS] + list(itertools.combinations(GROUPS, 2)):
            times = []
            for _ in range(repeats):
                started = time.perf_counter()
                status, body = await line.get(f"/api/v1/analytics/tca?group_by={','.join(keys)}&from=2020-01-01")
                times.append((time.perf_counter() - started) * 1000)
                assert status == 200, body
            found["+".join(keys)] = load.percentile(times, 0.95)
    return found
