"""A bound on request bodies, kept before anything is read into memory or onto disk."""

from collections.abc import Awaitable, Callable
from typing import Any

from oms.kernel import json

BODY_BYTES_MAX = 1_048_576
"""Of one request; larger files are for commands, not for the web."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_PROBLEM = json.dump_bytes(
    {
        "type": "urn:oms:problem:body_too_large",
        "title": "Content Too Large",
        "status": 413,
        "code": "body_too_large",
        "detail": f"Send at most {BODY_BYTES_MAX} bytes.",
        "errors": [],
    }
)


class BodyLimit:
    """ASGI middleware: 413 by the length told, or by the bytes counted when none is told."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Pass the request on while its body stays within the bound."""
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            await _refuse(send)
            return
        taken = 0

        async def counted() -> dict[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return {"type": "http.disconnect"} if taken > BODY_BYTES_MAX else message

        async def passed_on(message: dict[str, Any]) -> None:
            if taken <= BODY_BYTES_MAX:  # what the app says to a body that it never saw whole is not said
                await send(message)

        await self.app(scope, counted, passed_on)
        if taken > BODY_BYTES_MAX:
            await _refuse(send)


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": _PROBLEM})
