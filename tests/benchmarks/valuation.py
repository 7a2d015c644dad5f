"""The live book: one tick, the whole book, and a quote's way to the screen, over 10,000 positions at five brokers."""

import asyncio
import json
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any

import httpx
import numpy as np
import psycopg
import websockets

from portfolio.domain.valuation import CLOSING, Holding, Price, Valuation
from tests.benchmarks.desk import Desk

INSTRUMENTS, BROKERS, ACCOUNTS = 2_000, 5, 20
TICKS = 20_000
SAMPLES = 60


def measure(rounds: int = 5) -> dict[str, Any]:
    """Return what a tick and a sweep of the book take, in Decimal, beside the same in numpy's floats."""
    now = datetime.now(UTC)
    found: dict[str, Any] = {"rounds": rounds, "positions": INSTRUMENTS * BROKERS, "brokers": BROKERS}
    book, prices = _book(INSTRUMENTS, now)
    ticks = [_ticks(book, INSTRUMENTS, now) for _ in range(rounds)]
    found["tick_us"], found["tick_cpu_us"] = (round(median(t), 2) for t in zip(*ticks, strict=True))
    larger = _book(INSTRUMENTS * 10, now)[0]
    found["tick_cpu_us_ten_times_the_book"] = round(
        median(_ticks(larger, INSTRUMENTS * 10, now)[1] for _ in range(rounds)), 2
    )
    sweeps, burnt = [], []
    for n in range(rounds + 1):
        moved = {i: p._replace(bid=p.bid + n, ask=p.ask + n, at=now + timedelta(seconds=n)) for i, p in prices.items()}
        start, cpu = time.perf_counter(), time.process_time()
        book.sweep(moved)
        sweeps.append((time.perf_counter() - start) * 1e3)
        burnt.append((time.process_time() - cpu) * 1e3)
    found["full_book_ms"], found["full_book_cpu_ms"] = round(median(sweeps[1:]), 2), round(median(burnt[1:]), 2)
    found["numpy_full_book_ms"] = round(_numpy(rounds), 3)
    found["load_ms"] = round(_timed(lambda: book.load(_holdings(INSTRUMENTS), prices)), 1)
    return found


def _holdings(instruments: int) -> list[Holding]:
    draw = random.Random(7)
    return [
        Holding(
            i % ACCOUNTS, i, "USD", Decimal(draw.randint(-5_000, 5_000)), Decimal(draw.randint(-500_000, 500_000)),
            broker=broker + 1, strategy=i % 7, policy=CLOSING,
        )
        for i in range(instruments)
        for broker in range(BROKERS)
    ]  # fmt: skip


def _book(instruments: int, at: datetime) -> tuple[Valuation, dict[int, Price]]:
    prices = {i: Price(Decimal("100.01"), Decimal("100.03"), at, Decimal("99.50")) for i in range(instruments)}
    return Valuation(_holdings(instruments), prices), prices


def _ticks(book: Valuation, instruments: int, at: datetime) -> tuple[float, float]:
    """Return microseconds a tick, by the clock and of the processor."""
    quotes = [
        Price(Decimal(10_001 + n) / 100, Decimal(10_003 + n) / 100, at, Decimal("99.50")) for n in range(97)
    ]  # fmt: skip
    start, cpu = time.perf_counter(), time.process_time()
    for n in range(TICKS):
        book.tick(n * 7 % instruments, quotes[n % 97])
    return (time.perf_counter() - start) / TICKS * 1e6, (time.process_time() - cpu) / TICKS * 1e6


def _numpy(rounds: int) -> float:
    """Return the same sweep in floats: values and sums by account, broker, symbol and strategy."""
    holdings = _holdings(INSTRUMENTS)
    quantity = np.array([float(h.quantity) for h in holdings])
    instrument = np.array([h.instrument for h in holdings])
    keys = [np.array(k) for k in zip(*[(h.account, h.broker, h.instrument, h.strategy) for h in holdings], strict=True)]
    bid, ask = np.full(INSTRUMENTS, 100.01), np.full(INSTRUMENTS, 100.03)

    def sweep() -> None:
        value = quantity * np.where(quantity > 0, bid[instrument], ask[instrument])
        for key in keys:
            np.bincount(key, value)

    return median(_timed(sweep) for _ in range(rounds * 5))


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


# ---------------------------------------------------------------- a quote's way to the screen

FILL = """
INSERT INTO brokers_instrument (symbol, name, asset_class, base_currency, currency, tick_size, lot_size, settlement_days, calendar,
  sector, country, active)
SELECT 'VX' || n, '', 'equity', '', 'USD', 0.01, 1, 1, '', '', '', true FROM generate_series(1, %(instruments)s) n;
INSERT INTO brokers_quote (instrument_id, bid, ask, at, source, day_open)
SELECT id, 100, 100.02, now(), 'posted', 100 FROM brokers_instrument WHERE symbol LIKE 'VX%%';
INSERT INTO portfolio_account (code, name, base_currency, lot_method, status, created_at)
SELECT 'VALUE' || n, '', 'USD', 'fifo', 'open', now() FROM generate_series(1, 5) n;
INSERT INTO portfolio_accountgrant (account_id, user_id)
SELECT a.id, u.id FROM portfolio_account a, auth_user u WHERE a.code LIKE 'VALUE%%' AND u.username = 'trader';
INSERT INTO portfolio_position (account_id, instrument_id, quantity, cost, realized, fees, day_quantity, day_amount)
SELECT a.id, i.id, 100, 9900, 0, 0, 0, 0 FROM portfolio_account a, brokers_instrument i
WHERE a.code LIKE 'VALUE%%' AND i.symbol LIKE 'VX%%';
"""


def to_the_screen(desk: Desk) -> dict[str, Any]:
    """Return the milliseconds from posting a quote to its mark on a socket, with 10,000 positions in the live book."""
    with psycopg.connect(desk.database_url, autocommit=True) as connection:
        for statement in FILL.split(";\n"):
            if statement.strip():
                connection.execute(statement, {"instruments": INSTRUMENTS} if "%(" in statement else None)
    time.sleep(8)  # the pricer loads what is new within five seconds
    delays = asyncio.run(_follow(desk))
    delays.sort()
    return {
        "samples": len(delays),
        "positions": INSTRUMENTS * 5,
        "p50_ms": round(delays[len(delays) // 2], 1),
        "p95_ms": round(delays[int(len(delays) * 0.95)], 1),
        "max_ms": round(delays[-1], 1),
    }


async def _follow(desk: Desk) -> list[float]:
    delays: list[float] = []
    headers = {"Authorization": f"Token {desk.token_of('ops')}"}
    address = f"ws://127.0.0.1:{desk.port}/ws/blotter/"
    async with (
        websockets.connect(address, subprotocols=["token", desk.token], max_size=None) as line,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{desk.port}/api/v1", headers=headers) as http,
    ):
        await line.send(json.dumps({"type": "subscribe", "accounts": ["VALUE1"]}))
        for n in range(SAMPLES):
            bid = Decimal(20_000 + n) / 100
            symbol = f"VX{1 + n * 31 % INSTRUMENTS}"
            start = time.perf_counter()
            quote = {
                "symbol": symbol,
                "bid": str(bid),
                "ask": str(bid + Decimal("0.02")),
                "at": datetime.now(UTC).isoformat(),
            }
            answer = await http.post("/quotes", json=[quote])
            answer.raise_for_status()
            async with asyncio.timeout(10):
                async for text in line:
                    message = json.loads(text)
                    rows = message["data"] if message["type"] == "mark" else []
                    if any(r["symbol"] == symbol and Decimal(r["market_price"]) == bid + Decimal("0.01") for r in rows):
                        delays.append((time.perf_counter() - start) * 1e3)
                        break
            await asyncio.sleep(0.05)
    return delays
