"""The WebSocket /ws/blotter/: who may connect, and what a client may say."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import msgspec
import structlog
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from oms.kernel import json
from oms.live import reading
from oms.live.hub import INVALID_TOKEN, hub
from oms.live.socket import Socket

SUBSCRIBE_BYTES_MAX = 16_384
ACCOUNTS_MAX = 100
WRONG_ORIGIN = 4403
log = structlog.get_logger(__name__)


class Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    """What a client says: which accounts it follows, and the last sequence it has of each."""

    type: str
    accounts: list[str]
    since: dict[str, int] = {}


_decoder = msgspec.json.Decoder(Subscribe)


class Blotter(AsyncWebsocketConsumer):
    """One connection. It authenticates and subscribes; the hub does the rest."""

    socket: Socket | None = None
    pump: "asyncio.Task[None] | None" = None

    async def connect(self) -> None:
        """Accept a program with a valid token, or a browser with a session from our own origin."""
        token = self._token()
        if token is not None:
            identity = await reading.identify(token)
        elif not self._same_origin():
            await self.close(WRONG_ORIGIN)  # before accepting: a foreign page gets no socket at all
            return
        else:
            session = self.scope.get("session")
            identity = await reading.identify_session(session.session_key if session is not None else None)
        if identity is None:
            await self._turn_away(INVALID_TOKEN)
            return
        await self.accept("token" if "token" in self.scope["subprotocols"] else None)
        self.socket = Socket(self._send, self.close, identity)
        self.pump = asyncio.ensure_future(self._run(self.socket))
        hub.join(self.socket)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take a subscription; anything else is answered with an error and changes nothing."""
        if self.socket is None:
            return
        try:
            if text_data is None or len(text_data) > SUBSCRIBE_BYTES_MAX:
                raise ValueError("send one JSON text")
            asked = _decoder.decode(text_data)
            if asked.type != "subscribe" or len(asked.accounts) > ACCOUNTS_MAX:
                raise ValueError("only subscribe is known, with at most 100 accounts")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.socket.put([json.dumps({"type": "error", "code": "invalid", "detail": str(error)})])
            return
        try:
            await hub.subscribe(self.socket, list(dict.fromkeys(asked.accounts)), asked.since)
        except Exception:
            log.exception("subscribe_failed")
            await self.close(1011)

    async def disconnect(self, code: int) -> None:
        """Leave nothing behind."""
        if self.socket is not None:
            self.socket.closed = True
            hub.leave(self.socket)
        if self.pump is not None:
            self.pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.pump

    async def _run(self, socket: Socket) -> None:
        try:
            await socket.pump(hub.load)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.info("socket_ended", error=str(error))
            hub.leave(socket)
            with contextlib.suppress(Exception):
                await self.close(1011)

    async def _send(self, text: str) -> None:
        await self.base_send({"type": "websocket.send", "text": text})

    async def _turn_away(self, code: int) -> None:
        """Accept and close: a refused handshake would hide the code from the client."""
        await self.accept("token" if "token" in self.scope["subprotocols"] else None)
        await self.close(code)

    def _token(self) -> str | None:
        offered = list(self.scope["subprotocols"])
        if "token" in offered:
            others = [p for p in offered if p != "token"]
            return others[0] if len(others) == 1 else ""
        header = dict(self.scope["headers"]).get(b"authorization", b"").decode("latin-1")
        return header[6:].strip() if header.lower().startswith("token ") else None

    def _same_origin(self) -> bool:
        """Tell whether a browser's page of ours opened this: a cookie alone proves nothing."""
        headers = dict(self.scope["headers"])
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
        domain = split_domain_port(host)[0]
        if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
            return False
        asked = urlsplit(origin)
        secure = asked.scheme == "https" or not settings.SESSION_COOKIE_SECURE
        return origin in settings.CSRF_TRUSTED_ORIGINS or (secure and asked.netloc.lower() == host.lower())
