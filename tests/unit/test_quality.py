"""Execution quality against worked figures."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.domain.quality import Filled, anomalies, markout, score, shortfall, slippage_bps
from analytics.domain.statistics import bucket_of, interval, percentile, share_interval, student
from oms.kernel.decimals import ZERO, total

D = Decimal


def test_paying_above_the_arrival_costs_a_buyer() -> None:
    assert slippage_bps("buy", D("100.10"), D(100)) == 10


def test_selling_above_the_arrival_gains_a_seller() -> None:
    assert slippage_bps("sell", D("100.10"), D(100)) == -10


def test_what_stayed_undone_has_no_price_before_the_end() -> None:
    assert shortfall("sell", D(10), [Filled(D(4), D(100))], decision=D(100), end=None, fees=ZERO).total is None


PRICES = st.decimals("0.01", "10000", places=2)


@given(
    st.sampled_from(["buy", "sell", "sell_short"]),
    st.lists(st.tuples(st.integers(1, 500), PRICES, st.none() | PRICES), max_size=6),
    st.integers(0, 500), PRICES, PRICES, st.decimals("-5", "50", places=2),
)  # fmt: skip
def test_the_parts_sum_to_what_the_order_lost_against_paper(side, fills, undone, decision, end, fees) -> None:
    parts = [Filled(D(q), p, m) for q, p, m in fills]
    quantity = total(f.quantity for f in parts) + undone
    if not quantity:
        return
    found = shortfall(side, quantity, parts, decision=decision, end=end, fees=fees)
    sign = 1 if side == "buy" else -1
    paid = total(f.quantity * f.price for f in parts) + undone * end
    assert found.total == sign * (paid - quantity * decision) + fees


def test_a_markout_is_a_cost_when_the_market_turns_against_the_fill() -> None:
    assert markout("buy", D(100), D("99.9")) == 10
    assert markout("sell", D(100), D("99.9")) == -10


def test_a_perfect_order_scores_a_hundred_and_a_costly_one_less() -> None:
    best = score(arrival_bps=D(0), half_spread_bps=D(1), fill_rate=D(1), ack_ms=0.0)
    usual = score(arrival_bps=D(1), half_spread_bps=D(1), fill_rate=D(1), ack_ms=0.0)
    assert best
    assert usual
    assert (best[0], usual[0]) == (D(100), D(75))
    assert score(arrival_bps=None, half_spread_bps=D(1), fill_rate=D(1), ack_ms=None) is None


def test_a_fill_outside_of_its_quote_is_flagged() -> None:
    fills = [{"price": D("10.02"), "bid": D("10.00"), "ask": D("10.01")}]
    assert anomalies("buy", fills, ack_ms=1500.0, spread_bps=D(10), arrival_bps=D(31)) == [
        "far_from_arrival", "outside_quote", "slow_answer",
    ]  # fmt: skip
    assert anomalies("sell", fills, ack_ms=10.0, spread_bps=D(10), arrival_bps=D(1)) == []


@pytest.mark.parametrize(("freedom", "expected"), [(4, 2.776), (9, 2.262), (29, 2.045), (120, 1.980)])
def test_student_agrees_with_the_tables(freedom: int, expected: float) -> None:
    assert student(0.95, freedom) == pytest.approx(expected, abs=0.01)


def test_an_interval_narrows_with_the_sample() -> None:
    assert interval(1, 5.0, 25.0) is None
    mean, low, high = interval(4, 8.0, 20.0) or (0, 0, 0)  # 1, 1, 3, 3
    assert mean == 2.0
    assert high - low == pytest.approx(3.67, abs=0.03)
    assert share_interval(0, 0) is None
    assert share_interval(0, 20)[1] < 0.17


@given(st.lists(st.floats(1, 60_000), min_size=1, max_size=200))
def test_a_histogram_tells_percentiles_to_a_fifth(times: list[float]) -> None:
    counts: dict[int, int] = {}
    for t in times:
        counts[bucket_of(t)] = counts.get(bucket_of(t), 0) + 1
    found = percentile(counts, 0.5)
    exact = sorted(times)[(len(times) + 1) // 2 - 1]
    assert found is not None
    assert exact <= found * 1.0000001
    assert found <= exact * 1.2
