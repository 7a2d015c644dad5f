"""A cheap HTTP client for load: keep-alive sockets, one request at a time each, no library in the way."""

import asyncio
import json
import time
from collections.abc import Sequence


class Connection:
    """One kept connection to the web process, with a token."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def post(self, path: str, body: bytes) -> int:
        """Post one JSON body and return the status, once all of the answer is here."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        return (await self._answer())[0]

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and body of an address."""
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {self.token}\r\n\r\n"
        self.writer.write(head.encode())
        return await self._answer()

    async def _answer(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return int(head.split(" ", 2)[1]), await self.reader.readexactly(length)


async def post_all(
    port: int, path: str, token: str, bodies: Sequence[bytes], connections: int
) -> tuple[float, list[float], list[int]]:
    """Post every body once over that many connections; return wall seconds, each latency in seconds, each status."""
    queue = list(reversed(bodies))
    latencies: list[float] = []
    statuses: list[int] = []

    async def one() -> None:
        async with Connection(port, token) as line:
            while queue:
                body = queue.pop()
                started = time.perf_counter()
                statuses.append(await line.post(path, body))
                latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - started, latencies, statuses


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
