"""Does an order cost the same after 50,000 others? Many accounts and symbols, positions that flip, lots and orders that stay.

The orders come in equal segments, each waited for, so that the CPU of each is its own.
"""

import asyncio
import json
import random
from statistics import median
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.desk import Desk, say
from tests.benchmarks.meter import growth
from tests.benchmarks.orderpath import BATCH_CONNECTIONS, in_batches, warm_up

ACCOUNTS = [f"FLAT{n:02}" for n in range(20)]
FLIPPING = ("EUR/USD", "USD/JPY", "GBP/USD", "USD/CHF", "EUR/GBP")
GROWING = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOGL", "META", "TSLA", "JPM", "V", "XOM", "KO", "SPY", "QQQ", "IWM")
RESTING = {"EUR/USD": "0.5", "GBP/USD": "0.5", "USD/CHF": "0.4", "KO": "20", "IWM": "80"}
"""Bought at prices that the market does not come to."""
SHARES = (0.70, 0.15, 0.15)
"""Of orders that flip a position, add a lot to one, and rest."""
SEGMENTS = 10
Place = tuple[str, str]
ENDS = 3
"""So many segments at either end are told against each other."""


def measure(desk: Desk, count: int) -> dict[str, Any]:
    """Place the orders of all segments; tell CPU an order early and late, and what processes grew by in between."""
    asyncio.run(_open_accounts(desk))
    warm_up(desk)
    draw = random.Random(7)  # the same orders in every run
    longs: set[Place] = set()
    seen: set[Place] = set()
    each = count // SEGMENTS
    segments, costs, loads = [], [], []
    before: dict[str, float] = {}
    for number in range(SEGMENTS):
        bodies = in_batches([_order(draw, longs, seen, f"flat-{number}-{n}") for n in range(each)])
        desk.meter.start()
        asyncio.run(load.post_all(desk.port, "/api/v1/orders/batch", desk.token, bodies, BATCH_CONNECTIONS))
        desk.wait_ended("flat")
        usage = desk.meter.stop()
        costs.append(usage.per_order(each))
        loads.append(usage.load_average)
        segments.append(costs[-1]["all"])
        before = before or desk.meter.memory()
        say(f"  flat: {(number + 1) * each} orders, {segments[-1]:.0f} us of CPU each")
    kinds = dict.fromkeys(kind for cost in costs for kind in cost)
    early, late = costs[:ENDS], costs[-ENDS:]
    return {
        "orders": each * SEGMENTS,
        "cpu_late_to_early": median(segments[-ENDS:]) / median(segments[:ENDS]),
        "cpu_us_by_segment": [round(cost) for cost in segments],
        "late_to_early_by_kind": {k: _ratio(early, late, k) for k in kinds if _middle(early, k) >= 20},
        "cpu_us_per_order": {kind: _middle(costs, kind) for kind in kinds},
        "ended_as": desk.ended_as("flat"),
        "open_orders": int(str(desk.sql("SELECT count(*) FROM orders_order WHERE leaves_quantity > 0")[0][0])),
        "positions": int(str(desk.sql("SELECT count(*) FROM portfolio_position WHERE quantity <> 0")[0][0])),
        "open_lots": int(str(desk.sql("SELECT count(*) FROM portfolio_lot WHERE remaining <> 0")[0][0])),
        "load_average": median(loads),
        "memory": growth(before, desk.meter.memory(), each * (SEGMENTS - 1)),
    }


def _middle(costs: list[dict[str, float]], kind: str) -> float:
    return median(cost.get(kind, 0.0) for cost in costs)


def _ratio(early: list[dict[str, float]], late: list[dict[str, float]], kind: str) -> float:
    return round(_middle(late, kind) / _middle(early, kind), 2)


def _order(draw: random.Random, longs: set[Place], seen: set[Place], name: str) -> dict[str, str]:
    account = draw.choice(ACCOUNTS)
    order = {"client_order_id": name, "account": account, "side": "buy", "quantity": "1", "order_type": "market"}
    [kind] = draw.choices(("flip", "grow", "rest"), SHARES)
    if kind == "grow":
        return order | {"symbol": draw.choice(GROWING)}
    if kind == "rest":
        symbol = draw.choice(list(RESTING))
        return order | {
            "symbol": symbol, "order_type": "limit", "limit_price": RESTING[symbol], "time_in_force": "gtc",
        }  # fmt: skip
    symbol = draw.choice(FLIPPING)
    place = (account, symbol)
    side = "sell" if place in longs else "buy"
    longs ^= {place}
    size = "1000" if place not in seen else "2000"  # 1000 long, then 1000 short, then long again: across zero each time
    seen.add(place)
    return order | {"symbol": symbol, "side": side, "quantity": size}


async def _open_accounts(desk: Desk) -> None:
    ops, admin = desk.token_of("ops"), desk.token_of("admin")
    async with load.Connection(desk.port, ops) as office, load.Connection(desk.port, admin) as owner:
        for code in ACCOUNTS:
            account = {"code": code, "base_currency": "USD"}
            money = {
                "kind": "deposit",
                "currency": "USD",
                "amount": "50000000",
                "reason": "bench",
                "key": f"open-{code}",
            }
            for line, path, body in (
                (office, "accounts", account),
                (office, f"accounts/{code}/transfers", money),
                (owner, f"accounts/{code}/grants", {"user": "trader"}),
            ):
                status = await line.post(f"/api/v1/{path}", json.dumps(body).encode())
                assert status < 300, (path, status)
