"""Schedules of large orders: exact to the lot, never above what remains, and the published trajectory where there is one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from math import exp, isclose, sinh
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.domain.algos import CATCH_UPS, AlgoTerms, settled
from orders.domain.schedules import (
    KAPPA_MOST,
    between,
    by_volumes,
    display_of,
    due_now,
    evenly,
    front_loaded,
    kappa_of,
    plan,
    rescaled,
    shown,
    split,
    u_shaped,
    within_volume,
)

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
LOTS = st.sampled_from([Decimal(1), Decimal(100), Decimal("0.0001")])
SHAPES = st.sampled_from(
    [evenly, u_shaped, front_loaded(Decimal(3)), by_volumes([Decimal(v) for v in (9, 0, 0, 4, 7)]),
     between(u_shaped, Decimal("0.2"), Decimal("0.3"))]
)  # fmt: skip


@st.composite
def worked(draw: Any) -> tuple[AlgoTerms, Decimal, Decimal]:
    lot = draw(LOTS)
    asked = AlgoTerms(
        name=draw(st.sampled_from(["twap", "vwap", "is"])),
        start_at=START + timedelta(seconds=draw(st.integers(0, 10_000))),
        slices=draw(st.integers(1, 60)),
        seed=draw(st.integers(0, 2**40)),
        vary_size=Decimal(draw(st.integers(0, 50))) / 100,
        vary_time=Decimal(draw(st.integers(0, 50))) / 100,
    )
    terms = settled(asked, order_type="market", seed=0, at=START, closes_at=None)
    return terms, lot * draw(st.integers(1, 1_000_000)), lot


@given(worked(), SHAPES)
def test_slices_sum_to_the_order_in_whole_lots_and_in_the_order_of_time(order: Any, shape: Any) -> None:
    terms, quantity, lot = order
    slices = plan(terms, quantity, lot, shape)
    assert sum(s.quantity for s in slices) == quantity
    assert all(s.quantity > 0 and s.quantity % lot == 0 for s in slices)
    assert [s.number for s in slices] == list(range(1, len(slices) + 1))
    times = [s.due_at for s in slices]
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    assert terms.start_at <= times[0]
    assert times[-1] < terms.end_at
    assert plan(terms, quantity, lot, shape) == slices, "the same seed makes the same slices"


def test_another_seed_makes_other_slices_and_none_varies_without_leave() -> None:
    terms = settled(AlgoTerms("twap", slices=12), order_type="market", seed=1, at=START, closes_at=None)
    other = settled(AlgoTerms("twap", slices=12), order_type="market", seed=2, at=START, closes_at=None)
    args = (Decimal(12_000), Decimal(1), evenly)
    assert plan(terms, *args) != plan(other, *args)
    still = settled(
        AlgoTerms("twap", slices=12, vary_size=Decimal(0), vary_time=Decimal(0)),
        order_type="market", seed=1, at=START, closes_at=None,
    )  # fmt: skip
    assert [s.quantity for s in plan(still, *args)] == [1000] * 12
    assert [s.due_at for s in plan(still, *args)] == [START + timedelta(minutes=5 * i) for i in range(12)]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(0, 10**6), LOTS)
def test_a_split_gives_all_and_nothing_twice(weights: list[int], lots: int, lot: Decimal) -> None:
    parts = split(lot * lots, [Decimal(w) for w in weights], lot)
    assert sum(parts) == lot * lots
    assert all(p >= 0 and p % lot == 0 for p in parts)
    assert len(parts) == len(weights)


@given(SHAPES, st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_a_shape_never_falls_and_ends_at_all_of_it(shape: Any, places: list[int]) -> None:
    shares = [shape(Decimal(p) / 1000) for p in sorted(places)]
    assert shares == sorted(shares)
    assert shape(Decimal(0)) == 0
    assert isclose(shape(Decimal(1)), 1, rel_tol=1e-25)


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=12),
    st.lists(st.sampled_from(["fill", "part", "rest", "deny", "late", "miss"]), min_size=12, max_size=12),
    st.sampled_from(CATCH_UPS),
)
def test_whatever_becomes_of_slices_the_whole_is_asked_for_and_never_more(
    planned: list[int], outcomes: list[str], catch_up: str
) -> None:
    """Slices are filled, filled in part and canceled, left resting, denied, filled after their cancel, or missed."""
    sizes = [Decimal(p) for p in planned]
    quantity, filled, works, late = sum(sizes, Decimal(0)), Decimal(0), Decimal(0), Decimal(0)
    for number, outcome in enumerate(outcomes[: len(sizes)]):
        filled, late = filled + late, Decimal(0)
        if outcome == "miss" and number < len(sizes) - 1:
            continue
        left = quantity - filled - works
        asked = due_now(left, sizes[number], sizes[number + 1 :], catch_up=catch_up, lot=Decimal(1))
        assert 0 <= asked <= max(left, Decimal(0))
        assert asked % 1 == 0
        if outcome in ("fill", "miss"):
            filled += asked
        elif outcome == "part":
            filled += asked // 2
        elif outcome == "rest":
            works += asked
        elif outcome == "late" and filled + works + asked < quantity:
            late = Decimal(1) if asked else Decimal(0)
        assert filled + works <= quantity
    last = due_now(quantity - filled - works - late, Decimal(0), [], catch_up="at_once", lot=Decimal(1))
    assert filled + works + late + last == quantity, "what came back is asked for, to the last lot"


def test_what_was_missed_is_made_up_for_as_told() -> None:
    twenty = [Decimal(20)] * 3
    args = (Decimal(100), Decimal(20), twenty)
    assert due_now(*args, catch_up="at_once", lot=Decimal(1)) == 40
    assert due_now(*args, catch_up="spread", lot=Decimal(1)) == 25
    assert due_now(*args, catch_up="never", lot=Decimal(1)) == 20
    assert due_now(Decimal(70), Decimal(20), twenty, catch_up="at_once", lot=Decimal(1)) == 10, "ahead of its time"


@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(0, 500), st.integers(1, 100))
def test_a_share_of_the_volume_is_never_passed(quantity: int, observed: int, done: int, percent: int) -> None:
    share = Decimal(percent) / 100
    allowed = within_volume(
        Decimal(quantity), participation=share, observed=Decimal(observed), done=Decimal(done), lot=Decimal(1)
    )
    assert 0 <= allowed <= quantity
    assert allowed == 0 or done + allowed <= share * observed


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(0, 99), st.integers(0, 50))
def test_an_iceberg_shows_at_most_its_part(remaining: int, display: int, draw: int, vary: int) -> None:
    part = shown(
        Decimal(remaining), Decimal(display), vary=Decimal(vary) / 100, draw=Decimal(draw) / 100, lot=Decimal(1)
    )
    assert 1 <= part <= min(remaining, display)


@given(st.integers(1, 10_000), st.integers(1, 50))
def test_so_many_parts_show_the_whole(lots: int, parts: int) -> None:
    part = display_of(Decimal(lots), parts, Decimal(1))
    assert part * parts >= lots
    assert (part - 1) * parts < lots or part == 1


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(0, 10_000))
def test_plans_are_rescaled_to_the_whole_of_another_remainder(planned: list[int], remaining: int) -> None:
    parts = rescaled([Decimal(p) for p in planned], Decimal(remaining), Decimal(1))
    assert sum(parts) == (remaining if planned else 0)


class TestTheDay:
    def test_its_ends_are_four_times_as_busy_as_its_middle(self) -> None:
        step = Decimal("0.001")
        edge = u_shaped(step) - u_shaped(Decimal(0))
        middle = u_shaped(Decimal("0.5") + step / 2) - u_shaped(Decimal("0.5") - step / 2)
        assert isclose(edge / middle, 4, rel_tol=0.01)

    def test_a_known_curve_is_followed(self) -> None:
        terms = settled(
            AlgoTerms("vwap", slices=4, vary_size=Decimal(0), vary_time=Decimal(0)), order_type="market", seed=1, at=START,
            closes_at=None,
        )  # fmt: skip
        curve = by_volumes([Decimal(v) for v in (500, 100, 100, 300)])
        assert [s.quantity for s in plan(terms, Decimal(1000), Decimal(1), curve)] == [500, 100, 100, 300]


class TestAlmgrenAndChriss:
    """The numerical example of Optimal Execution of Portfolio Transactions (2000): a million shares, five days, a trade a day."""

    SHARES, DAYS, VOLATILITY = 1e6, 5, 0.95
    PERMANENT, TEMPORARY, AVERSION = 2.5e-7, 2.5e-6, 1e-6

    def kappa(self) -> float:
        """Solve for a step of one day: 2 (cosh(kappa) - 1) = aversion volatility² / (temporary - permanent / 2)."""
        wanted = self.AVERSION * self.VOLATILITY**2 / (self.TEMPORARY - self.PERMANENT / 2)
        low, high = 0.0, 5.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if exp(middle) + exp(-middle) - 2 < wanted else (low, middle)
        return low

    def test_the_published_kappa(self) -> None:
        assert isclose(self.kappa(), 0.61, abs_tol=0.005)
        assert isclose(float(kappa_of(Decimal("0.5"))), 0.61 * self.DAYS, abs_tol=0.06), "the middle is their example"

    def test_the_closed_form(self) -> None:
        kappa = self.kappa()
        share = front_loaded(Decimal(repr(kappa * self.DAYS)))
        for day in range(self.DAYS + 1):
            held = sinh(kappa * (self.DAYS - day)) / sinh(kappa * self.DAYS)
            assert isclose(float(1 - share(Decimal(day) / self.DAYS)), held, abs_tol=1e-12)

    def test_no_other_trajectory_costs_less(self) -> None:
        """Cost and risk together are least on it: every small detour of two days' holdings costs more."""
        share = front_loaded(Decimal(repr(self.kappa() * self.DAYS)))
        held = [self.SHARES * float(1 - share(Decimal(d) / self.DAYS)) for d in range(self.DAYS + 1)]
        best = self.worth(held)
        for day in range(1, self.DAYS):
            for detour in (-5_000, -50, 50, 5_000):
                assert self.worth([h + detour * (d == day) for d, h in enumerate(held)]) > best

    def worth(self, held: list[float]) -> float:
        """Return expected cost and variance by their aversion, without what is the same for all trajectories."""
        trades = [a - b for a, b in pairwise(held)]
        cost = 0.5 * self.PERMANENT * self.SHARES**2
        cost += (self.TEMPORARY - 0.5 * self.PERMANENT) * sum(t * t for t in trades)
        return cost + self.AVERSION * self.VOLATILITY**2 * sum(h * h for h in held[1:])

    def test_no_urgency_is_a_straight_line_and_all_of_it_half_done_in_an_eighth(self) -> None:
        assert front_loaded(kappa_of(Decimal(0))) is evenly
        assert isclose(front_loaded(KAPPA_MOST)(Decimal("0.125")), 0.53, abs_tol=0.01)


@pytest.mark.parametrize(("order_type", "name", "at_end"), [
    ("market", "twap", "complete"), ("limit", "twap", "cancel"), ("market", "pov", "cancel"), ("limit", "iceberg", "cancel"),
])  # fmt: skip
def test_what_the_end_does_where_nobody_says(order_type: str, name: str, at_end: str) -> None:
    terms = settled(AlgoTerms(name), order_type=order_type, seed=7, at=START, closes_at=START + timedelta(minutes=30))
    assert (terms.at_end, terms.seed) == (at_end, 7)
    assert terms.end_at == (START + timedelta(minutes=30) if name == "twap" else None)
