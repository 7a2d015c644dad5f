"""The live book and returns, over random holdings, ticks and flows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.domain.rates import Rates
from portfolio.domain.performance import Flow, Known, curve, deepest, growth, money_weighted, rate_over
from portfolio.domain.valuation import ACCOUNT, CLOSING, DIMENSIONS, MID, Holding, Price, Valuation

D = Decimal
T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
AFTER = timedelta(seconds=60)
amounts = st.decimals("-1000", "1000", places=2)
prices = st.builds(
    lambda bid, spread, hours, opened: Price(bid, bid + spread, T0 + timedelta(hours=hours), opened),
    st.decimals("1", "500", places=2), st.decimals("0", "2", places=2), st.integers(0, 40), st.decimals("1", "500", places=2),
)  # fmt: skip
held = st.builds(
    Holding, st.integers(1, 3), st.integers(1, 5), st.sampled_from(["USD", "EUR"]), amounts, amounts, broker=st.integers(0, 3),
    strategy=st.integers(0, 2), policy=st.sampled_from([MID, CLOSING]), day=st.sampled_from([None, T0.date(), T0.date() + timedelta(days=1)]),
    day_quantity=amounts, day_amount=amounts,
)  # fmt: skip
steps = st.lists(st.tuples(st.integers(1, 5), st.one_of(prices, st.lists(held, max_size=3))), max_size=25)


def sums(book: Valuation) -> dict[object, tuple[object, ...]]:
    return {k: (t.value, t.cost, t.day_basis, t.count, t.unpriced) for k, t in book.totals.items() if t.count}


@settings(max_examples=150, deadline=None)
@given(st.lists(held, max_size=12), steps)
def test_ticks_and_trades_one_by_one_end_where_a_whole_valuation_does(start: list[Holding], steps: list) -> None:
    live = Valuation(start)
    holdings = {i: [h for h in start if h.instrument == i] for i in range(1, 6)}
    last: dict[int, Price] = {}
    for instrument, what in steps:
        if isinstance(what, Price):
            last[instrument] = what
            live.tick(instrument, what)
        else:
            holdings[instrument] = [h._replace(instrument=instrument) for h in what]
            live.replace(instrument, holdings[instrument])
    whole = Valuation([h for group in holdings.values() for h in group], last)
    assert sums(live) == sums(whole)
    whole.sweep(last)
    assert sums(live) == sums(whole)
    for dimension in DIMENSIONS:  # each way of splitting the book adds up to the same
        kept = [t for k, t in live.totals.items() if k[0] == dimension]
        assert sum(t.count for t in kept) == sum(map(len, holdings.values()))
        assert sum((t.value for t in kept), D(0)) == sum(
            (t.value for k, t in live.totals.items() if k[0] == ACCOUNT), D(0)
        )


def test_a_tick_moves_no_total_of_what_it_does_not_touch() -> None:
    holdings = [Holding(1, i, "USD", D(10), D(100), broker=i) for i in (1, 2)]
    book = Valuation(holdings, {i: Price(D(9), D(11), T0, D(10)) for i in (1, 2)})
    other = book.totals["symbol", 2, "USD"]
    before = (other.value, other.cost, other.day_basis)
    book.tick(1, Price(D(19), D(21), T0 + timedelta(seconds=1), D(10)))
    assert (other.value, other.cost, other.day_basis) == before
    assert book.totals["symbol", 1, "USD"].value == 200
    assert book.totals["account", 1, "USD"].unrealized == 100


def test_longs_count_at_the_bid_and_shorts_at_the_ask_where_the_account_closes_its_book() -> None:
    holdings = [Holding(1, 1, "USD", D(10), D(0), policy=CLOSING), Holding(1, 2, "USD", D(-10), D(0), policy=CLOSING)]
    book = Valuation(holdings, {i: Price(D(9), D(11), T0, D(10)) for i in (1, 2)})
    assert [book.totals["symbol", i, "USD"].value for i in (1, 2)] == [90, -110]


def test_what_is_missing_or_old_is_counted_and_never_zero_or_one() -> None:
    holdings = [
        Holding(1, 1, "USD", D(10), D(50)),
        Holding(1, 2, "USD", D(10), D(50)),
        Holding(1, 3, "JPY", D(10), D(50)),
    ]
    book = Valuation(holdings, {1: Price(D(9), D(11), T0, D(10)), 3: Price(D(9), D(11), T0 - AFTER * 2, D(10))})
    worth = book.worth(ACCOUNT, 1, "USD", Rates({}, {}), at=T0, after=AFTER)
    assert (worth.value, worth.unrealized, worth.count, worth.unpriced, worth.stale, worth.unrated) == (
        100,
        50,
        3,
        1,
        1,
        ("JPY",),
    )
    assert not worth.whole


# ---------------------------------------------------------------- returns

growths = st.lists(st.decimals("-0.5", "0.5", places=4), min_size=1, max_size=12)


def at(days: float) -> datetime:
    return T0 + timedelta(days=days)


@settings(max_examples=150, deadline=None)
@given(growths, st.data())
def test_time_weighted_growth_knows_nothing_of_flows(moves: list[Decimal], data: st.DataObject) -> None:
    """The same growth day by day, once untouched and once with money coming and going in between."""
    plain = [Known(at(0), D(1000))]
    for i, move in enumerate(moves, 1):
        plain.append(Known(at(i), plain[-1].equity * (1 + move)))
    equity, known, flows = D(1000), [Known(at(0), D(1000))], []
    for i, move in enumerate(moves, 1):
        flow = data.draw(st.decimals("-0.9", "3", places=2)) * equity
        flows.append(Flow(at(i - 0.5), flow, equity))
        equity = (equity + flow) * (1 + move)
        known.append(Known(at(i), equity))
    expected = curve(plain, [])[-1].index
    assert curve(known, flows)[-1].index == pytest.approx(expected, rel=D("1e-20"))
    assert curve(plain, [])[-1].index == pytest.approx(plain[-1].equity / 1000, rel=D("1e-20"))


@settings(max_examples=100, deadline=None)
@given(
    st.decimals("-0.95", "20", places=3),
    st.lists(st.tuples(st.integers(0, 1400), st.decimals("1", "1000", places=2)), min_size=1, max_size=8),
)
def test_the_money_weighted_rate_is_the_one_that_the_money_grew_at(
    rate: Decimal, paid: list[tuple[int, Decimal]]
) -> None:
    end = 1500
    worth = sum(float(a) * (1 + float(rate)) ** ((end - d) / 365) for d, a in paid)
    flows = [(at(d), -a) for d, a in paid] + [(at(end), D(worth))]
    found = money_weighted(flows)
    assert found is not None
    assert float(found) == pytest.approx(float(rate), rel=1e-6, abs=1e-7)


def test_the_money_weighted_rate_of_a_spreadsheets_own_example() -> None:
    """-10,000 on 2008-01-01; 2,750, 4,250, 3,250, 2,750 on 2008-03-01, -10-30, 2009-02-15, -04-01: 37.34 %."""
    days = [(2008, 1, 1), (2008, 3, 1), (2008, 10, 30), (2009, 2, 15), (2009, 4, 1)]
    paid = [-10_000, 2_750, 4_250, 3_250, 2_750]
    found = money_weighted([(datetime(*d, tzinfo=UTC), D(a)) for d, a in zip(days, paid, strict=True)])
    assert found == pytest.approx(D("0.373362535"), abs=D("1e-8"))


@pytest.mark.parametrize(
    "flows",
    [
        [],
        [(at(0), D(-100))],
        [(at(0), D(-100)), (at(10), D(-100))],
        [(at(0), D(-100)), (at(0), D(100))],
    ],
)
def test_there_is_no_rate_without_money_on_both_sides_of_time(flows: list[tuple[datetime, Decimal]]) -> None:
    assert money_weighted(flows) is None


def test_a_rate_is_found_where_a_slope_would_lead_astray() -> None:
    assert money_weighted([(at(0), D(-100)), (at(1), D("0.01"))]) == -1  # all but gone overnight
    lost = money_weighted([(at(0), D(-100)), (at(3650), D("0.01"))])
    assert lost == pytest.approx(D("-0.6019"), abs=D("0.0001"))
    two = money_weighted([(at(0), D(-1000)), (at(365), D(2300)), (at(730), D(-1320))])
    assert two == pytest.approx(D("0.1"), abs=D("1e-6"))  # 10 % and 20 % both solve it: the one nearer to nothing


def test_a_fall_is_told_from_its_peak_to_where_it_is_made_good() -> None:
    known = [Known(at(i), D(e)) for i, e in enumerate((100, 120, 90, 100, 130, 125))]
    fall = deepest(curve(known, []))
    assert fall is not None
    assert (fall.depth, fall.peak_at, fall.trough_at, fall.recovered_at) == (D("0.25"), at(1), at(2), at(4))
    assert deepest(curve(known[:2], [])) is None
    assert deepest(curve(known[:3], [])).recovered_at is None


def test_a_flow_whose_moment_is_not_known_is_weighted_by_its_place() -> None:
    # 100 for a day, then 100 more for the other half of two: (220 - 100 - 100) / (100 + 100 × 1/2)
    found = growth(Known(at(0), D(100)), [Flow(at(1), D(100))], Known(at(2), D(220)))
    assert found == pytest.approx(1 + D(20) / 150, rel=D("1e-20"))
    assert growth(Known(at(0), D(0)), [], Known(at(1), D(0))) is None
    assert rate_over(D("0.1"), at(0), at(365)) == pytest.approx(D("0.1"), abs=D("1e-9"))
