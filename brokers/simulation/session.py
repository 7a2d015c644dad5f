"""One connection to a venue: a hello, then the lines of its kind."""

from __future__ import annotations

import asyncio
import hmac
from time import time
from typing import TYPE_CHECKING

import msgspec

from brokers.simulation import wire
from brokers.simulation.answers import admin_reply, reply
from brokers.simulation.wire import Hello, Request

if TYPE_CHECKING:
    from brokers.simulation.server import VenueServer

LINE_BYTES_MAX = 16 << 20
CATCH_UP_FRAMES = 100


class Session(asyncio.Protocol):
    """One connection: a hello, then lines of its kind."""

    transport: asyncio.Transport

    def __init__(self, server: VenueServer) -> None:
        self.server = server
        self.rest = b""
        self.kind = ""
        self.sent = 0  # number of the last frame this stream was given
        self.paused = False
        self.busy_until = 0.0
        self.closed = False

    # -- connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.server.sessions.discard(self)
        self.server.streams.discard(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._catch_up()

    def data_received(self, data: bytes) -> None:
        if self.server.venue.lies.silence and self.kind != "admin" and b'"admin"' not in data:
            return
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if len(self.rest) > LINE_BYTES_MAX:
            self.transport.abort()
            return
        for line in lines:
            if not self.closed:
                self._line(line)

    def _line(self, line: bytes) -> None:
        try:
            if not self.kind:
                self._greet(wire.decode_hello(line))
            else:
                self._request(wire.decode_request(line))
        except msgspec.MsgspecError as error:
            self.transport.write(wire.encode({"error": f"unreadable: {error}"}) + b"\n")
            self.transport.close()

    def _greet(self, hello: Hello) -> None:
        server = self.server
        fault = ""
        if hello.hello != wire.VERSION:
            fault = f"speak version {wire.VERSION}"
        elif hello.type not in ("orders", "stream", "market", "admin"):
            fault = "unknown type of connection"
        elif not hmac.compare_digest(hello.key.encode(), server.config.key.encode()):
            fault = "wrong key"
        if fault:
            self.transport.write(wire.encode({"error": fault}) + b"\n")
            self.transport.close()
            return
        if server.venue.lies.down and hello.type != "admin":
            self.transport.abort()
            return
        if server.venue.lies.silence and hello.type != "admin":
            return
        self.kind = hello.type
        self.transport.write(wire.encode({"ok": True, "seq": server.venue.sequence}) + b"\n")
        if self.kind == "stream":
            server.settle()
            self.sent = server.venue.sequence if hello.after is None else min(hello.after, server.venue.sequence)
            server.streams.add(self)
            self._catch_up()

    # -- stream ------------------------------------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """Tell whether this stream has been given every frame there is."""
        return self.sent == self.server.venue.sequence

    def follow(self, number: int, sent: bytes) -> None:
        """Take a live frame; one that is behind or slow gets it from the journal later."""
        if self.sent == number - 1 and not self.paused and not self.server.venue.lies.silence:
            self.sent = number
            self.transport.write(sent)
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        """Send what is missing, a little at a time, so that no reader makes the venue wait or its memory grow."""
        venue = self.server.venue
        if self.closed or self.kind != "stream" or self.paused or venue.lies.silence or self.caught_up:
            return
        last = min(self.sent + CATCH_UP_FRAMES, venue.sequence)
        lines = [venue.journal.read(n) for n in range(self.sent + 1, last + 1)]
        self.sent = last
        self.transport.write(b"\n".join(lines) + b"\n")
        if not self.caught_up:
            asyncio.get_running_loop().call_soon(self._catch_up)

    def _resend(self, first: int, last: int) -> None:
        journal = self.server.venue.journal
        last = min(last, len(journal))
        for number in range(max(first, 1), last + 1):
            self.transport.write(journal.read(number) + b"\n")
        self.transport.write(wire.encode({"resent": last}) + b"\n")

    # -- requests ----------------------------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        if self.kind == "stream":
            if request.op == "resend":
                self._resend(request.first, request.last)
        elif self.kind == "admin":
            self._administer(request)
        elif request.op == "quotes":
            self.server.quote(request.quotes)
            self.transport.write(wire.encode({"id": request.id}) + b"\n")
        elif self.kind == "orders":
            self._in_turn(request)

    def _in_turn(self, request: Request) -> None:
        """Act at once, or after the latency of this venue; requests of a connection keep their order."""
        delay = self.server.venue.ack_delay()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if delay <= 0 and self.busy_until <= now:
            self._serve(request)
            return
        self.busy_until = max(now + delay, self.busy_until + 1e-6)
        loop.call_at(self.busy_until, self._serve, request)

    def _serve(self, request: Request) -> None:
        if self.server.server is None or not self.server.server.is_serving():
            return
        server = self.server
        answer = reply(server.venue, request, server.clock(), expired=0 < request.expires_at < time())
        server.settle()
        if self.closed:
            return
        if request.op == "submit" and server.venue.chance(server.venue.lies.drop_reply):
            self.transport.abort()
            return
        self.transport.write(wire.encode(answer) + b"\n")

    def _administer(self, request: Request) -> None:
        server = self.server
        if request.op == "down":
            outage = server.outage(float(request.arguments.get("for_seconds", 2)))
            self.transport.write(wire.encode({"id": request.id, "done": True}) + b"\n")
            server.tasks.append(asyncio.get_running_loop().create_task(outage))
            return
        answer = admin_reply(server.venue, request, server.clock())
        server.settle()
        for session in list(server.streams):
            session._catch_up()
        self.transport.write(wire.encode(answer) + b"\n")
