"""Orders from request to booked fill: by thousands, one by one, at rest, and 50,000 in a row."""

import asyncio
import itertools
import json
import time
from statistics import median
from typing import Any

import websockets

from tests.benchmarks import load
from tests.benchmarks.desk import Desk
from tests.benchmarks.meter import growth

BATCH = 1_000
BATCH_CONNECTIONS = 2
SINGLE_CONNECTIONS = 32
REST_SECONDS = 0.05
"""Between two orders of the measurement at rest, so that the fill of the one does not meet the next."""
_numbers = itertools.count()


def batch(desk: Desk, count: int, *, rounds: int = 3) -> dict[str, Any]:
    """Place orders by thousands and wait until all are filled and booked; the median of some rounds."""
    warm_up(desk)
    runs: list[dict[str, Any]] = []
    before: dict[str, float] = {}
    for _ in range(rounds):
        bodies = _batches(count, prefix := unused_name("batch"))
        desk.meter.start()
        started = time.perf_counter()
        accepted, _, statuses = asyncio.run(
            load.post_all(desk.port, "/api/v1/orders/batch", desk.token, bodies, BATCH_CONNECTIONS)
        )
        desk.wait_ended("batch")
        booked = time.perf_counter() - started
        usage = desk.meter.stop()
        runs.append(
            {
                "accepted_per_second": count / accepted,
                "filled_and_booked_per_second": count / booked,
                "cpu_us_per_order": usage.per_order(count),
                "load_average": usage.load_average,
                "ended_as": desk.ended_as(prefix),
                "statuses": sorted(set(statuses)),
            }
        )
        before = before or desk.meter.memory()  # after the first round: what comes once has come
    told = summary(runs, count)
    return told | ({"memory": growth(before, desk.meter.memory(), count * (rounds - 1))} if rounds > 1 else {})


def warm_up(desk: Desk) -> None:
    """Place two thousand orders, so that connections, plans and caches are there."""
    asyncio.run(load.post_all(desk.port, "/api/v1/orders/batch", desk.token, _batches(2_000, unused_name("warm")), 2))
    desk.wait_ended("warm-up")


def unused_name(name: str) -> str:
    """Return a prefix of order ids that this run has not used."""
    return f"{name}{next(_numbers)}"


def _batches(count: int, prefix: str) -> list[bytes]:
    rows = [
        {
            "client_order_id": f"{prefix}-{n}", "account": "MAIN", "symbol": "EUR/USD", "quantity": "1",
            "order_type": "market", "side": ("buy", "sell")[n % 2],
        }
        for n in range(count)
    ]  # fmt: skip
    return in_batches(rows)


def in_batches(rows: list[dict[str, str]]) -> list[bytes]:
    """Return bodies of at most a thousand orders."""
    return [json.dumps({"orders": rows[i : i + BATCH]}).encode() for i in range(0, len(rows), BATCH)]


def summary(runs: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Return medians of the runs' figures, CPU by kind too, how all orders ended, and the runs themselves."""
    told: dict[str, Any] = {"orders": count, "rounds": len(runs)}
    for name, value in runs[0].items():
        if isinstance(value, float):
            told[name] = median(r[name] for r in runs)
        elif name == "cpu_us_per_order":
            kinds = {k: None for r in runs for k in r[name]}
            told[name] = {k: median(r[name].get(k, 0.0) for r in runs) for k in kinds}
        elif name == "ended_as":
            kinds = {k: None for r in runs for k in r[name]}
            told[name] = {k: sum(r[name].get(k, 0) for r in runs) for k in kinds}
        elif name == "statuses":
            told[name] = sorted({s for r in runs for s in r[name]})
    return told | {"runs": runs}


def single(desk: Desk, count: int, *, rounds: int = 3) -> dict[str, Any]:
    """Place single orders over 32 connections and wait until all are filled and booked; the median of some rounds."""
    warm_up(desk)
    runs = []
    for _ in range(rounds):
        prefix = unused_name("single")
        bodies = load.orders(count, prefix, account="MAIN", symbol="EUR/USD", order_type="market")
        desk.meter.start()
        started = time.perf_counter()
        seconds, latencies, statuses = asyncio.run(
            load.post_all(desk.port, "/api/v1/orders", desk.token, bodies, SINGLE_CONNECTIONS)
        )
        desk.wait_ended("single")
        booked = time.perf_counter() - started
        usage = desk.meter.stop()
        runs.append(
            {
                "accepted_per_second": count / seconds,
                "latency_ms_p50": load.percentile(latencies, 0.5) * 1000,
                "latency_ms_p99": load.percentile(latencies, 0.99) * 1000,
                "filled_and_booked_per_second": count / booked,
                "cpu_us_per_order": usage.per_order(count),
                "load_average": usage.load_average,
                "ended_as": desk.ended_as(prefix),
                "statuses": sorted(set(statuses)),
            }
        )
    return summary(runs, count)


def at_rest(desk: Desk, count: int) -> dict[str, Any]:
    """Place orders one at a time on an idle desk: milliseconds until the answer, and until a screen shows a broker's word.

    One connection for the orders and one WebSocket, both kept; the acknowledgement is the first frame of the order
    after the one that says that it was placed.
    """
    warm_up(desk)
    desk.meter.start()
    answered, acknowledged = asyncio.run(_at_rest(desk, count))
    usage = desk.meter.stop()
    return {
        "orders": count,
        "answered_ms_p50": load.percentile(answered, 0.5) * 1000,
        "answered_ms_p95": load.percentile(answered, 0.95) * 1000,
        "acknowledged_ms_p50": load.percentile(acknowledged, 0.5) * 1000,
        "acknowledged_ms_p95": load.percentile(acknowledged, 0.95) * 1000,
        "load_average": usage.load_average,
    }


async def _at_rest(desk: Desk, count: int) -> tuple[list[float], list[float]]:
    answered, acknowledged = [], []
    address = f"ws://127.0.0.1:{desk.port}/ws/blotter/"
    async with (
        websockets.connect(address, subprotocols=["token", desk.token], max_size=None) as screen,
        load.Connection(desk.port, desk.token) as line,
    ):
        await screen.send(json.dumps({"type": "subscribe", "accounts": ["MAIN"]}))
        while json.loads(await screen.recv())["type"] != "snapshot":
            pass
        for body in load.orders(count, unused_name("rest"), account="MAIN", symbol="EUR/USD", order_type="market"):
            name = json.loads(body)["client_order_id"]
            started = time.perf_counter()
            assert await line.post("/api/v1/orders", body) == 201
            answered.append(time.perf_counter() - started)
            async with asyncio.timeout(30):
                while not _acknowledges(json.loads(await screen.recv()), name):
                    pass
            acknowledged.append(time.perf_counter() - started)
            await asyncio.sleep(REST_SECONDS)
    return answered, acknowledged


def _acknowledges(frame: dict[str, Any], client_order_id: str) -> bool:
    data = frame.get("data")
    return frame["type"] == "order" and data["client_order_id"] == client_order_id and data["status"] != "pending_new"
