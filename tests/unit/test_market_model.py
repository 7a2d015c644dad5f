"""The demo market: seeded, on the tick, never crossed, and out of the way of quotes from outside."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from brokers.simulation.demo import DEMO_INSTRUMENTS
from brokers.simulation.market import LEFT_ALONE, MarketModel, MarketQuote

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def walk(seed: int, steps: int) -> list[list[MarketQuote]]:
    model = MarketModel(DEMO_INSTRUMENTS, seed=seed)
    return [model.step(START + timedelta(seconds=n / 4)) for n in range(steps)]


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    assert walk(5, 40) == walk(5, 40)
    assert walk(5, 40) != walk(6, 40)


def test_every_quote_is_exact_positive_uncrossed_and_on_the_grid() -> None:
    grid = {i["symbol"]: (Decimal(i["tick_size"]), Decimal(i["lot_size"])) for i in DEMO_INSTRUMENTS}
    for quotes in walk(1, 400):
        assert {q.symbol for q in quotes} == set(grid)
        for q in quotes:
            tick, lot = grid[q.symbol]
            assert 0 < q.bid < q.ask
            assert q.bid % tick == q.ask % tick == 0
            assert q.bid_size > 0
            assert q.ask_size > 0
            assert q.bid_size % lot == q.ask_size % lot == 0


def test_prices_move_but_stay_near_home_within_an_hour() -> None:
    last = {q.symbol: q for q in walk(3, 4 * 3600)[-1]}
    for instrument in DEMO_INSTRUMENTS:
        start, volatility = Decimal(instrument["start_price"]), Decimal(instrument["volatility"])
        assert abs(last[instrument["symbol"]].bid / start - 1) < 2 * volatility
    moved = sum(last[i["symbol"]].bid != Decimal(i["start_price"]) for i in DEMO_INSTRUMENTS)
    assert moved >= len(DEMO_INSTRUMENTS) - 2


def test_a_symbol_quoted_from_outside_is_left_alone_for_a_minute_and_goes_on_from_there() -> None:
    model = MarketModel(DEMO_INSTRUMENTS, seed=1)
    model.step(START)
    model.external("AAPL", Decimal("150.00"), Decimal("150.02"), START)
    during = model.step(START + LEFT_ALONE - timedelta(seconds=1))
    after = {q.symbol: q for q in model.step(START + LEFT_ALONE)}

    assert "AAPL" not in {q.symbol for q in during}
    assert len(during) == len(DEMO_INSTRUMENTS) - 1
    assert abs(after["AAPL"].bid - 150) < 2


def test_a_suspended_machine_makes_no_leap() -> None:
    model = MarketModel(DEMO_INSTRUMENTS, seed=1)
    before = {q.symbol: q.bid for q in model.step(START)}
    after = {q.symbol: q.bid for q in model.step(START + timedelta(days=20))}
    assert all(abs(after[s] / before[s] - 1) < Decimal("0.005") for s in before)


def test_the_model_starts_where_the_market_was() -> None:
    model = MarketModel(DEMO_INSTRUMENTS, seed=1, mids={"AAPL": Decimal(300), "GONE": Decimal(1)})
    assert abs(next(q for q in model.step(START) if q.symbol == "AAPL").bid - 300) < 1
