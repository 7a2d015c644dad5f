"""The desk as programs reach it: HTTP without a server between, through either of its two doors."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from django.core.asgi import get_asgi_application
from django.db import connections
from knox.models import get_token_model

from oms.entry import OrderEntry
from oms.runtime.bodies import BodyLimit

BUY = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "10", "order_type": "market"}


@dataclass
class Client:
    """A program that talks to the desk with a token."""

    app: Any
    token: str = ""

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = {"Host": "localhost", **({"Authorization": f"Token {self.token}"} if self.token else {})}
        headers |= options.pop("headers", {})
        if body is not None:
            options["content"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        url = path if path.startswith("/") else f"/api/v1/{path}"

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, url, headers=headers, **options)

        return asyncio.run(run())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.call("POST", path, {} if body is None else body, **options)


def token(user: Any) -> str:
    return get_token_model().objects.create(user)[1]


@contextmanager
def opened(door: str) -> Iterator[Any]:
    """The application behind one of its doors: `thin`, order entry ahead of Django, or `views`, the REST views alone."""
    django = get_asgi_application()
    if door == "views":
        yield BodyLimit(django)
        return
    entry = OrderEntry(django)
    yield BodyLimit(entry)
    for threads in (entry.threads, entry.door):
        threads.submit(connections.close_all).result()
        threads.shutdown()
