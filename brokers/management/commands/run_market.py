"""The demo market: moves prices and hosts the simulated brokers, in a process of its own."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError, connection

from brokers import queries
from brokers.models import Quote as QuoteRow
from brokers.operations import QuoteUpdate, record_quotes
from brokers.simulation.demo import DEMO_INSTRUMENTS
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.market import MarketModel
from brokers.simulation.server import BrokerConfig, HostConfig, VenueHost
from brokers.simulation.wire import Quote

STEP_SECONDS = 0.25
ROSTER_STEPS = 8
"""New simulated brokers are looked for every so many steps."""
log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Demo only: a real desk has real brokers and real prices."""

    help = "Move the demo market and run the simulated brokers."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        asyncio.run(Market(Path(os.environ.get("OMS_DATA", settings.BASE_DIR / "var")) / "venues").run())


class Market:
    """Prices and venues of one demo desk. The database is spoken to by one thread, outside of the event loop."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        known = {row["symbol"]: row for row in DEMO_INSTRUMENTS}
        instruments = [
            Instrument(
                symbol=i.symbol,
                tick_size=i.tick_size,
                lot_size=i.lot_size,
                currency=i.currency,
                asset_class=i.asset_class,
            )
            for i in queries.instruments().values()
        ]
        mids = {q.symbol: q.mid for q in queries.quotes().values()}
        walked = [known[i.symbol] for i in instruments if i.symbol in known]
        self.model = MarketModel(walked, seed=settings_seed(), mids=mids)
        self.host = VenueHost(HostConfig(instruments=instruments, brokers={}, data=str(data)))
        self.database = ThreadPoolExecutor(1, thread_name_prefix="market-db")
        self.external_seen: dict[str, datetime] = {}

    async def run(self) -> None:
        """Open the venues, then step until told to stop."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        steps = 0
        while not stop.is_set():
            try:
                if steps % ROSTER_STEPS == 0:
                    await self._open_venues()
                await self._step()
            except (OperationalError, InterfaceError) as error:
                log.warning("database_lost", error=str(error).strip())
                await self._in_database(connection.close)
            steps += 1
            try:
                await asyncio.wait_for(stop.wait(), STEP_SECONDS)
            except TimeoutError:
                continue
        await self.host.stop()

    async def _in_database(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.database, call)

    async def _open_venues(self) -> None:
        rows = await self._in_database(
            lambda: [b for b in queries.brokers().values() if b.adapter == "simulated" and b.enabled]
        )
        for broker in rows:
            if broker.code in self.host.servers or broker.settings.get("host") not in ("127.0.0.1", "localhost"):
                continue
            config = BrokerConfig(
                port=int(broker.settings["port"]),
                key=broker.settings.get("key", ""),
                venue=msgspec.convert(broker.settings.get("venue", {}), Knobs),
            )
            try:
                await self.host.add(broker.code, config)
                self.host.servers[broker.code].quote(await self._in_database(self._all_quotes))
            except OSError as error:
                log.error("venue_not_opened", broker=broker.code, error=str(error))

    @staticmethod
    def _all_quotes() -> list[Quote]:
        return [
            Quote(symbol=q.symbol, bid=q.bid, ask=q.ask, bid_size=q.bid_size, ask_size=q.ask_size)
            for q in queries.quotes().values()
        ]

    async def _step(self) -> None:
        at = datetime.now(UTC)
        for symbol, bid, ask, seen in await self._in_database(self._external):
            if self.external_seen.get(symbol) != seen:
                self.external_seen[symbol] = seen
                self.model.external(symbol, bid, ask, seen)
                self.host.set_quotes([Quote(symbol=symbol, bid=bid, ask=ask)])
        moved = self.model.step(at)
        if not moved:
            return
        updates = [QuoteUpdate(q.symbol, q.bid, q.ask, q.bid_size, q.ask_size, at=at) for q in moved]
        await self._in_database(lambda: record_quotes(updates, source="market", at=at))
        self.host.set_quotes(
            [Quote(symbol=q.symbol, bid=q.bid, ask=q.ask, bid_size=q.bid_size, ask_size=q.ask_size) for q in moved]
        )

    @staticmethod
    def _external() -> list[tuple[Any, ...]]:
        rows = QuoteRow.objects.exclude(source="market").order_by("instrument_id")
        return list(rows.values_list("instrument__symbol", "bid", "ask", "at"))


def settings_seed() -> int:
    """Return the market's seed, from the environment so that a run can be repeated."""
    return int(os.environ.get("OMS_MARKET_SEED", "1"))
