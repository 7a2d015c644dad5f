"""Venues on the network: each broker on a port of its own, all of them in one event loop, no task per order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from brokers.simulation import wire
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.session import Session
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Quote

HEARTBEAT_SECONDS = 1.0
NONSENSE = b'{"seq": not-a-number, "reports": [\xff\xfe'


class BrokerConfig(msgspec.Struct):
    """One venue: where it listens (0: any free port), the key it asks for, how it behaves, what it charges."""

    port: int = 0
    host: str = ""
    key: str = ""
    venue: Knobs = msgspec.field(default_factory=Knobs)
    fees: dict[str, list[dict[str, Any]]] | None = None


class HostConfig(msgspec.Struct):
    """All venues of a process. `data` is the folder of their journals; None keeps them in memory."""

    instruments: list[Instrument]
    brokers: dict[str, BrokerConfig]
    data: str | None = None
    host: str = "127.0.0.1"


def utc_now() -> datetime:
    """Return the time; the one clock of a venue process."""
    return datetime.now(UTC)


def distort(venue: Venue, line: bytes) -> bytes:
    """Return what goes over the wire for a frame: itself, or what a lie makes of it. The journal stays true."""
    lies, lucky = venue.lies, venue.chance
    if lucky(lies.gap):
        return b""
    if lies.reorder_reports > 0 or lies.duplicate_reports > 0:
        frame = wire.decode_frame(line)
        reports = [r for r in frame.reports for _ in range(2 if lucky(lies.duplicate_reports) else 1)]
        line = wire.encode(wire.FrameOut(frame.seq, reports[::-1] if lucky(lies.reorder_reports) else reports))
    if lucky(lies.corrupt):
        line = line[: len(line) // 2]
    if lucky(lies.garbage):
        line = NONSENSE + b"\n" + line
    return line + b"\n"


class VenueServer:
    """A venue, its port, its connections and its alarm."""

    def __init__(
        self, code: str, config: BrokerConfig, host: str, venue: Venue, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.code = code
        self.config = config
        self.host = config.host or host
        self.port = config.port
        self.venue = venue
        self.clock = clock
        self.started = clock()
        self.sessions: set[Session] = set()
        self.streams: set[Session] = set()
        self.server: asyncio.Server | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at: datetime | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen; the port is kept for good, so that a restart is found again."""
        await self._listen()
        self.tasks = [asyncio.create_task(self._beat())]
        if self.venue.knobs.down is not None:
            self.tasks.append(asyncio.create_task(self._planned_outages()))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Session(self), self.host, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port, the connections and the journal."""
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.alarm is not None:
            self.alarm.cancel()
        self._hang_up()
        self.venue.seal()
        self.venue.journal.close()

    def _hang_up(self) -> None:
        if self.server is not None:
            self.server.close()
        for session in list(self.sessions):
            session.transport.abort()

    async def outage(self, seconds: float) -> None:
        """Be away: no port, no connections; then listen again."""
        self._hang_up()
        await asyncio.sleep(seconds)
        await self._listen()

    async def _planned_outages(self) -> None:
        down = self.venue.knobs.down
        while down is not None:
            await asyncio.sleep(down.every_seconds)
            await self.outage(down.for_seconds)

    async def _beat(self) -> None:
        """Tell every stream where the venue stands, so that a frame lost at the end is missed too."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self.wake()
            if not self.venue.lies.silence:
                line = wire.encode({"heartbeat": self.venue.sequence}) + b"\n"
                for session in self.streams:
                    if session.caught_up:
                        session.transport.write(line)

    # -- time passing ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Do what is due, send what became ready, set the alarm for what comes next."""
        self.venue.tick(self.clock())
        self.settle()

    def settle(self) -> None:
        """Send ready frames and set the alarm."""
        for number, line in self.venue.frames():
            self._broadcast(number, line)
        when = self.venue.next_due()
        if when is None or (self.alarm_at is not None and self.alarm_at <= when):
            return
        if self.alarm is not None:
            self.alarm.cancel()
        delay = max((when - self.clock()).total_seconds(), 0.0005)
        self.alarm_at = when
        # an alarm may not lie further ahead than the loop can count; an early one finds nothing due and sets the next
        self.alarm = asyncio.get_running_loop().call_later(min(delay, 3600.0), self._ring)

    def _ring(self) -> None:
        self.alarm = self.alarm_at = None
        self.wake()

    def _broadcast(self, number: int, line: bytes) -> None:
        sent = distort(self.venue, line) if self.streams else b""
        for session in self.streams:
            session.follow(number, sent)

    def quote(self, quotes: Sequence[Quote]) -> None:
        """Bring the market to the venue."""
        self.venue.quote(quotes, self.clock())
        self.settle()


class VenueHost:
    """All venues of a process."""

    def __init__(self, config: HostConfig, clock: Callable[[], datetime] = utc_now) -> None:
        self.config = config
        self.clock = clock
        self.instruments = {i.symbol: i for i in config.instruments}
        self.servers: dict[str, VenueServer] = {}

    async def start(self) -> None:
        """Open every venue of the configuration."""
        for code, broker in self.config.brokers.items():
            await self.add(code, broker)

    async def add(self, code: str, broker: BrokerConfig) -> int:
        """Open one more venue and return its port."""
        path = Path(self.config.data) / f"{code}.journal" if self.config.data else None
        venue = Venue(code, self.instruments, broker.venue, Journal(path), fees=broker.fees)
        server = VenueServer(code, broker, self.config.host, venue, self.clock)
        try:
            await server.start()
        except OSError:
            venue.journal.close()
            raise
        server.wake()
        self.servers[code] = server
        return server.port

    def list_instruments(self, instruments: Sequence[Instrument]) -> None:
        """Let every venue trade these from now on; one that is known gets its new terms."""
        for instrument in instruments:
            if self.instruments.get(instrument.symbol) != instrument:
                self.instruments[instrument.symbol] = instrument
                for server in self.servers.values():
                    server.venue.list_instrument(instrument)

    async def remove(self, code: str) -> None:
        """Close one venue; its journal stays."""
        await self.servers.pop(code).stop()

    @property
    def ports(self) -> dict[str, int]:
        """Return where each venue listens."""
        return {code: server.port for code, server in self.servers.items()}

    def set_quotes(self, quotes: Sequence[Quote]) -> None:
        """Bring the market to every venue."""
        for server in self.servers.values():
            server.quote(quotes)

    async def stop(self) -> None:
        """Close every venue."""
        for code in list(self.servers):
            await self.remove(code)
