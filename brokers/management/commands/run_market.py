"""The demo market: moves prices and hosts the simulated brokers, in a process of its own."""

import argparse
import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError, connection
from msgspec import structs

from brokers import queries
from brokers.models import Quote as QuoteRow
from brokers.operations import QuoteUpdate, place_venue, record_quotes, record_volumes
from brokers.simulation.demo import DEMO_INSTRUMENTS
from brokers.simulation.knobs import Instrument
from brokers.simulation.market import LEFT_ALONE, STEP_SECONDS_MAX, MarketModel
from brokers.simulation.server import BrokerConfig, HostConfig, VenueHost
from brokers.simulation.wire import Quote
from oms.kernel.json import dump_bytes

STEP = timedelta(milliseconds=250)
EXTERNAL_SECONDS = 0.05
VOLUME_SECONDS = 1.0
"""How often what others traded is told."""
ROSTER_SECONDS = 2.0
"""How often new simulated brokers are looked for."""
HERE = ("127.0.0.1", "localhost")
log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Demo only: a real desk has real brokers and real prices."""

    help = "Move the demo market and run the simulated brokers."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take --still."""
        parser.add_argument(
            "--still", action="store_true", help="move no price: pass on posted and replayed quotes only"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        data = Path(os.environ.get("OMS_DATA", settings.BASE_DIR / "var")) / "venues"
        asyncio.run(Market(data, still=options["still"]).run())


class Market:
    """Prices and venues of one demo desk. The database is spoken to by one thread, outside of the event loop."""

    def __init__(self, data: Path, *, still: bool = False) -> None:
        data.mkdir(parents=True, exist_ok=True)
        instruments = _instruments()
        known = {} if still else {row["symbol"]: row for row in DEMO_INSTRUMENTS}
        mids = {q.symbol: q.mid for q in queries.quotes().values()}
        walked = [known[i.symbol] for i in instruments if i.symbol in known]
        self.model = MarketModel(walked, seed=settings_seed(), mids=mids)
        self.host = VenueHost(HostConfig(instruments=instruments, brokers={}, data=str(data)))
        self.database = ThreadPoolExecutor(1, thread_name_prefix="market-db")
        self.external_seen: dict[str, datetime] = {}
        self.opened: dict[str, tuple[int, bytes]] = {}
        self.traded_at = monotonic()

    async def run(self) -> None:
        """Open the venues, then step until told to stop."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        looked = 0.0
        while not stop.is_set():
            try:
                if monotonic() - looked >= ROSTER_SECONDS:
                    looked = monotonic()
                    await self._open_venues()
                await self._step()
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", error=str(error).strip())
                await self._in_database(_hang_up)
            try:
                await asyncio.wait_for(stop.wait(), self._pause())
            except TimeoutError:
                continue
        await self.host.stop()

    async def _in_database(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.database, call)

    async def _open_venues(self) -> None:
        """Open what was added, close what was disabled, open anew what has other settings; list new instruments."""
        self.host.list_instruments(await self._in_database(_instruments))
        wanted = await self._in_database(_simulated)
        for code in [c for c in self.host.servers if self.opened.get(c) != wanted.get(c)]:
            await self.host.remove(code)
        for code, (broker_id, stamp) in wanted.items():
            if code in self.host.servers or self.opened.get(code) == (broker_id, stamp):
                continue  # open, or found unreadable as it stands
            self.opened[code] = (broker_id, stamp)
            try:
                config = msgspec.json.decode(stamp, type=BrokerConfig)
                port = await self._open(code, config)
            except (msgspec.ValidationError, OSError) as error:
                log.error("venue_not_opened", broker=code, error=str(error))
                continue
            if port != config.port:
                await self._in_database(partial(place_venue, broker_id, self.host.servers[code].host, port))
                self.opened[code] = (await self._in_database(_simulated))[code]
            self.host.servers[code].quote(await self._in_database(self._all_quotes))

    async def _open(self, code: str, config: BrokerConfig) -> int:
        """Open a venue on its port, or on a free one where it has none or another program sits there."""
        try:
            return await self.host.add(code, config)
        except OSError as error:
            log.warning("venue_moves", broker=code, port=config.port, error=str(error))
            return await self.host.add(code, structs.replace(config, port=0))

    @staticmethod
    def _all_quotes() -> list[Quote]:
        return [
            Quote(symbol=q.symbol, bid=q.bid, ask=q.ask, bid_size=q.bid_size, ask_size=q.ask_size)
            for q in queries.quotes().values()
        ]

    async def _step(self) -> None:
        """Pass on what was posted or replayed; move the rest of the market when its time has come."""
        at = datetime.now(UTC)
        fresh = await self._take_external()
        if fresh:
            self.host.set_quotes(fresh)
        if self.model.stepped_at is not None and at - self.model.stepped_at < STEP * 0.9:
            return
        resting = await self._in_database(partial(_resting, at)) if settings.SESSIONS else set()
        moved = [q for q in self.model.step(at) if q.symbol not in resting]
        updates = [QuoteUpdate(q.symbol, q.bid, q.ask, q.bid_size, q.ask_size, at=at) for q in moved]
        stored = await self._in_database(partial(record_quotes, updates, source="market", at=at))
        if stored < len(moved):  # a quote from outside came between; it stands
            fresh = await self._take_external()
            moved = [q for q in moved if not self.model.left_alone(q.symbol, at)]
            self.host.set_quotes(fresh)
        self.host.set_quotes([Quote(*q) for q in moved])
        passed = monotonic() - self.traded_at
        if passed >= VOLUME_SECONDS:
            self.traded_at += passed
            traded = {s: v for s, v in self.model.traded(min(passed, STEP_SECONDS_MAX)).items() if s not in resting}
            await self._in_database(partial(record_volumes, traded, at=at))

    async def _take_external(self) -> list[Quote]:
        """Return quotes from outside that are new here, and let the model leave their symbols alone."""
        rows = await self._in_database(self._external)
        fresh = [r for r in rows if self.external_seen.get(r[0]) != r[-1]]
        for symbol, bid, ask, _, _, seen in fresh:
            self.external_seen[symbol] = seen
            self.model.external(symbol, bid, ask, seen)
        return [Quote(*row[:-1]) for row in fresh]

    def _pause(self) -> float:
        """Return how long to wait: quotes that are being replayed reach the venues sooner."""
        at = datetime.now(UTC)
        replaying = any(at - seen < LEFT_ALONE for seen in self.external_seen.values())
        return EXTERNAL_SECONDS if replaying else STEP.total_seconds()

    @staticmethod
    def _external() -> list[tuple[Any, ...]]:
        rows = QuoteRow.objects.exclude(source="market").order_by("instrument_id")
        return list(rows.values_list("instrument__symbol", "bid", "ask", "bid_size", "ask_size", "at"))


def _instruments() -> list[Instrument]:
    """Return what a venue must know of everything that trades."""
    return [
        Instrument(
            symbol=i.symbol,
            tick_size=i.tick_size,
            lot_size=i.lot_size,
            currency=i.currency,
            asset_class=i.asset_class,
        )
        for i in queries.instruments().values()
    ]


def _resting(at: datetime) -> set[str]:
    """Return the symbols whose exchange is closed."""
    calendars = {code: queries.calendar(code) for code in {i.calendar for i in queries.instruments().values()} - {""}}
    closed = {code for code, found in calendars.items() if found is None or not found.is_open(at)}
    return {i.symbol for i in queries.instruments().values() if i.calendar in closed}


def _simulated() -> dict[str, tuple[int, bytes]]:
    """Return id and venue configuration of every simulated broker that lives here, by code."""
    today = datetime.now(UTC).date()
    classes = sorted({asset_class for _, asset_class in queries.fee_schedules()})
    found = {}
    for broker in queries.brokers().values():
        if broker.adapter != "simulated" or not broker.enabled:
            continue
        if broker.settings.get("host", HERE[0]) not in HERE:
            continue
        told = {k: broker.settings[k] for k in ("host", "port", "key", "venue") if k in broker.settings}
        fees = {c: queries.fee_items(broker.id, c, today) for c in classes}
        found[broker.code] = (broker.id, dump_bytes(told | {"fees": fees}))
    return found


def _hang_up() -> None:
    """Drop the connection of the thread that calls."""
    connection.close()


def settings_seed() -> int:
    """Return the market's seed, from the environment so that a run can be repeated."""
    return int(os.environ.get("OMS_MARKET_SEED", "1"))
