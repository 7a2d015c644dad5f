"""The door for HTTP and WebSockets."""

import asyncio
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "oms.settings")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

from oms.entry import OrderEntry
from oms.live.consumer import Blotter
from oms.live.hub import hub
from oms.runtime.bodies import BodyLimit
from oms.safety import refuse_unsafe_start

_http = BodyLimit(OrderEntry(_django) if settings.ORDER_ENTRY == "thin" else _django)
_websocket = AuthMiddlewareStack(URLRouter([path("ws/blotter/", Blotter.as_asgi())]))


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Hand a connection to Django or to the live screens; end the hub with the process."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "websocket":
        if scope["path"] == "/ws/blotter/":
            await _websocket(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404})
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await hub.stop()
        else:
            try:
                await asyncio.to_thread(refuse_unsafe_start)
            except ImproperlyConfigured as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
