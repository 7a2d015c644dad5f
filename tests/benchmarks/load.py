"""A cheap HTTP client for load: keep-alive sockets, one request at a time each, no library in the way."""

import asyncio
import json
import time
from collections.abc import Sequence


async def post_all(
    port: int, path: str, token: str, bodies: Sequence[bytes], connections: int
) -> tuple[float, list[float], list[int]]:
    """Post every body once over that many connections; return wall seconds, each latency in seconds, each status."""
    queue = list(reversed(bodies))
    latencies: list[float] = []
    statuses: list[int] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            body = queue.pop()
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            started = time.perf_counter()
            writer.write(head.encode() + body)
            statuses.append(await _answer(reader))
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - started, latencies, statuses


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(" ", 2)[1])


def orders(count: int, prefix: str, **fields: str) -> list[bytes]:
    """Return bodies of single orders, buying and selling in turn."""
    sides = ("buy", "sell")
    return [
        json.dumps({"client_order_id": f"{prefix}-{n}", "side": sides[n % 2], "quantity": "1", **fields}).encode()
        for n in range(count)
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
