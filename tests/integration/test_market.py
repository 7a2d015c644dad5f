"""The demo market's command: it keeps off quotes from outside, and opens, moves and closes venues."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from brokers import queries
from brokers.management.commands.run_market import Market
from brokers.models import Broker, Instrument, Quote
from brokers.operations import QuoteUpdate, record_quotes
from brokers.simulation.wire import Message

AT = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def record(source: str, bid: str, at: datetime) -> None:
    record_quotes([QuoteUpdate("AAPL", Decimal(bid), Decimal(bid) + 1, at=at)], source=source, at=at)


def bid() -> Decimal:
    return Quote.objects.get(instrument__symbol="AAPL").bid


@pytest.mark.usefixtures("desk")
class TestQuotesFromOutside:
    def test_the_market_keeps_off_them_for_a_minute(self) -> None:
        Quote.objects.all().delete()
        record("posted", "150", AT)
        record("market", "100", AT + timedelta(seconds=59))
        assert bid() == 150
        record("market", "101", AT + timedelta(seconds=60))
        assert bid() == 101

    def test_a_quote_from_outside_always_replaces_the_markets(self) -> None:
        Quote.objects.all().delete()
        record("market", "100", AT)
        record("replay", "150", AT)
        assert bid() == 150


async def settings_of(market: Market, code: str) -> dict[str, Any]:
    return await market._in_database(lambda: Broker.objects.get(code=code).settings)


async def look(market: Market) -> dict[str, int]:
    """Take one look at the roster, as the running market does, and return where the venues listen."""
    await market._in_database(queries.forget_cache)
    await market._open_venues()
    return market.host.ports


async def greeted(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b'{"type": "orders"}\n')
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


def play(folder: Path, scenario: Callable[[Market], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario on a market of its own and close what it opened."""
    queries.forget_cache()
    market = Market(folder)

    async def run() -> None:
        try:
            await scenario(market)
        finally:
            await market.host.stop()
            await market._in_database(connections.close_all)
            await asyncio.sleep(0)

    asyncio.run(run())
    market.database.shutdown()


@pytest.mark.usefixtures("live_desk")
class TestVenues:
    def test_a_broker_without_an_address_gets_one_and_is_reached_there(self, tmp_path: Path) -> None:
        Broker.objects.create(code="SIM", adapter="simulated", settings={"venue": {"seed": 3}})

        async def scenario(market: Market) -> None:
            ports = await look(market)
            assert (await settings_of(market, "SIM"))["port"] == ports["SIM"]
            assert b'"ok":true' in await greeted(ports["SIM"])
            assert await look(market) == ports

        play(tmp_path, scenario)

    def test_a_port_that_is_taken_is_left_for_another(self, tmp_path: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            taken = other.getsockname()[1]
            Broker.objects.create(code="SIM", adapter="simulated", settings={"host": "127.0.0.1", "port": taken})

            async def scenario(market: Market) -> None:
                ports = await look(market)
                assert ports["SIM"] != taken
                assert (await settings_of(market, "SIM"))["port"] == ports["SIM"]

            play(tmp_path, scenario)

    def test_settings_that_can_not_be_read_stop_nobody_else(self, tmp_path: Path) -> None:
        Broker.objects.create(code="BAD", adapter="simulated", settings={"venue": {"latency": "yes"}})
        Broker.objects.create(code="SIM", adapter="simulated", settings={})

        async def scenario(market: Market) -> None:
            assert list(await look(market)) == ["SIM"]

        play(tmp_path, scenario)

    def test_a_disabled_broker_closes_and_a_changed_one_opens_anew(self, tmp_path: Path) -> None:
        Broker.objects.create(code="SIM", adapter="simulated", settings={"venue": {"reject_rate": 0.0}})

        async def scenario(market: Market) -> None:
            first = await look(market)
            known = await settings_of(market, "SIM")
            rows = Broker.objects.filter(code="SIM")
            await market._in_database(lambda: rows.update(settings=known | {"venue": {"reject_rate": 1.0}}))
            assert await look(market) == first
            assert market.host.servers["SIM"].venue.knobs.reject_rate == 1.0
            await market._in_database(lambda: rows.update(enabled=False))
            assert await look(market) == {}
            with pytest.raises(ConnectionRefusedError):
                await greeted(first["SIM"])

        play(tmp_path, scenario)

    def test_an_instrument_added_later_trades_at_open_venues(self, tmp_path: Path) -> None:
        Broker.objects.create(code="SIM", adapter="simulated", settings={})

        async def scenario(market: Market) -> None:
            await look(market)
            await market._in_database(
                lambda: Instrument.objects.create(
                    symbol="NEW", asset_class="equity", currency="USD", tick_size="0.05", lot_size="10"
                )
            )
            await look(market)
            venue = market.host.servers["SIM"].venue
            order = Message("new", "c1", "A", "NEW", "buy", Decimal(20), "limit", "gtc", Decimal("9.95"))
            assert venue.submit([order], AT)[0].code == 200

        play(tmp_path, scenario)

    def test_a_still_market_passes_quotes_on_and_moves_none(self, tmp_path: Path) -> None:
        Broker.objects.create(code="SIM", adapter="simulated", settings={})
        queries.forget_cache()
        market = Market(tmp_path, still=True)
        at = datetime.now(UTC)
        record("posted", "150", at)

        async def scenario() -> None:
            await look(market)
            await market._step()
            assert market.host.servers["SIM"].venue.markets["AAPL"].bid == 150
            assert await market._in_database(bid) == 150
            await market.host.stop()
            await market._in_database(connections.close_all)

        asyncio.run(scenario())
        market.database.shutdown()
