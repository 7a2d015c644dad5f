"""What routing alone costs: batches of a hundred orders with six brokers to choose among, every decision stored."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.benchmarks.desk import ROOT, Desk

BATCH, BATCHES, BROKERS = 100, 60, 6
_PLAN = f"""
import json, os, time, django
django.setup()
from datetime import UTC, datetime
from decimal import Decimal
from django.db import connection, transaction
from brokers import queries as brokers
from brokers.models import Broker, BrokerSession, Listing
from oms.kernel.ids import uuid7
from oms.runtime import sql
from routing import operations
from routing.domain.candidates import RouteRequest

for n in range({BROKERS} - Broker.objects.filter(enabled=True).count()):
    like = Broker.objects.get(code="PRIME")
    more = Broker.objects.create(code=f"MORE{{n}}", name="", adapter=like.adapter, settings=like.settings)
    BrokerSession.objects.create(broker=more, connected=True)
    for listing in Listing.objects.filter(broker=like):
        listing.pk, listing.broker = None, more
        listing.save()
brokers.forget_cache()
instrument = brokers.instruments_by_symbol()["AAPL"]
ids = tuple(brokers.brokers())
pid = connection.cursor().connection.info.backend_pid


def server():
    fields = open(f"/proc/{{pid}}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch():
    requests = [
        RouteRequest(uuid7(), instrument, ("buy", "sell")[n % 2], Decimal(1 + n % 7), "market", "day", None, ids) for n in range({BATCH})
    ]
    with transaction.atomic(), sql.pipeline():
        plans = operations.plan(requests, at=datetime.now(UTC))
    assert all(p.legs and len(p.candidates) == {BROKERS} for p in plans), plans[0].candidates


for _ in range(10):
    batch()
own, theirs, wall = time.process_time(), server(), time.perf_counter()
for _ in range({BATCHES}):
    batch()
orders = {BATCH} * {BATCHES}
print(json.dumps([(time.process_time() - own) / orders * 1e6, (server() - theirs) / orders * 1e6, (time.perf_counter() - wall) / orders * 1e6]))
Broker.objects.filter(code__startswith="MORE").update(enabled=False)
"""


def measure(desk: Desk) -> dict[str, Any]:
    """Return microseconds of CPU an order, ours and PostgreSQL's, and of the wall."""
    environment = os.environ | {
        "DATABASE_URL": desk.database_url, "REDIS_URL": desk.redis_url, "DJANGO_SETTINGS_MODULE": "oms.settings", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PLAN], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    own, theirs, wall = map(float, json.loads(done.stdout.splitlines()[-1]))
    return {
        "orders": BATCH * BATCHES,
        "brokers": BROKERS,
        "cpu_us": own + theirs,
        "own_cpu_us": own,
        "postgres_cpu_us": theirs,
        "wall_us": wall,
        "load_average": os.getloadavg()[0],
    }
