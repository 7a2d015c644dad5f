"""Live screens under load: clients of one web process, frames published as the journal does, every one counted."""

import asyncio
import json
import time
from typing import Any

import msgspec
import redis
import websockets

from oms.runtime.live import CHANNEL, FrameBatch

PADDING = "x" * 600
"""Makes a frame as long as an order's."""


async def measure(
    address: str,
    token: str,
    redis_url: str,
    account: str,
    *,
    clients: int = 100,
    per_second: int = 20,
    seconds: int = 10,
) -> dict[str, Any]:
    """Return how many of the frames arrived, gaps in sequence, and the delay from publishing to arrival in ms.

    The account must be quiet meanwhile: the frames continue its sequence.
    """
    wanted = per_second * seconds
    delays: list[float] = []
    heads: list[int] = []
    gaps = 0

    async def listen() -> None:
        nonlocal gaps
        async with websockets.connect(address, subprotocols=["token", token], max_size=None) as line:
            await line.send(json.dumps({"type": "subscribe", "accounts": [account]}))
            seen, count = None, 0
            async for text in line:
                message = json.loads(text)
                if message["type"] == "snapshot":
                    seen = message["seq"]
                    heads.append(seen)
                elif message["type"] == "order":
                    delays.append(time.time() - message["data"]["sent"])
                    gaps += message["seq"] != (seen or 0) + 1
                    seen, count = message["seq"], count + 1
                    if count == wanted:
                        return

    tasks = [asyncio.ensure_future(listen()) for _ in range(clients)]
    async with asyncio.timeout(60):
        while len(heads) < clients:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    await _publish(redis_url, account, max(heads), wanted, per_second)
    await asyncio.wait(tasks, timeout=15)
    for task in tasks:
        task.cancel()
    delays.sort()

    def at(share: float) -> float:
        return round(delays[min(len(delays) - 1, int(len(delays) * share))] * 1000, 1)

    return {
        "clients": clients,
        "updates_per_second": per_second,
        "frames_sent": clients * wanted,
        "frames_seen": len(delays),
        "gaps": gaps,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    }


async def _publish(redis_url: str, account: str, head: int, count: int, per_second: int) -> None:
    broker, encoder, start = redis.Redis.from_url(redis_url), msgspec.msgpack.Encoder(), time.time()
    for number in range(1, count + 1):
        data = json.dumps({"sent": time.time(), "note": PADDING})
        frame = f'{{"type":"order","account":"{account}","seq":{head + number},"data":{data}}}'
        broker.publish(CHANNEL, encoder.encode(FrameBatch(f"account:{account}", head + number, [frame])))
        await asyncio.sleep(max(0.0, start + number / per_second - time.time()))
    broker.close()
