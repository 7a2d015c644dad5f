"""Routing's rules: beliefs, choices, splits, and what another policy would have cost."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms.kernel.errors import InvalidFields
from routing.domain.choosing import choose
from routing.domain.learning import Outcome, Sums, believe, likelihoods, part_of_day, size_of
from routing.domain.replaying import Logged, doubly_robust, regret
from routing.domain.splitting import Taker, split
from routing.domain.weights import DEFAULT, parse, restored
from tests.benchmarks import learning

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
EXPLORING = replace(DEFAULT, explore_share=Decimal("0.2"))
D = Decimal


def taught(costs: list[float], *, spacing: float = 10.0, **more: float) -> Sums:
    """Return the sums of outcomes, the last of them now."""
    sums = Sums(AT - timedelta(seconds=spacing * len(costs)))
    for n, cost in enumerate(costs):
        sums = sums.aged(AT - timedelta(seconds=spacing * (len(costs) - 1 - n)), float(DEFAULT.half_life_hours))
        sums.add(Outcome(cost, more.get("share", 1.0), bool(more.get("rejected", 0)), more.get("ack_ms")), DEFAULT)
    return sums


class TestBeliefs:
    def test_nothing_seen_is_nothing_expected_and_much_doubt(self) -> None:
        found = believe([None, None], DEFAULT, AT)
        assert (found.cost_bps, found.error_bps, found.orders) == (0.0, 2.0, 0.0)

    def test_a_few_orders_move_it_a_little_and_many_all_the_way(self) -> None:
        few, many = believe([taught([4.0] * 2)], DEFAULT, AT), believe([taught([4.0] * 400)], DEFAULT, AT)
        assert 0.5 < few.cost_bps < 1.0
        assert 3.8 < many.cost_bps < 4.0
        assert many.error_bps < few.error_bps < 2.0

    def test_a_level_of_few_orders_leans_on_the_one_above(self) -> None:
        whole, part = taught([3.0] * 300), taught([6.0] * 2)
        found = believe([whole, part], DEFAULT, AT)
        assert 3.0 < found.cost_bps < 4.5

    def test_old_orders_are_forgotten_and_doubt_returns(self) -> None:
        sums = taught([4.0] * 200)
        later = believe([sums], DEFAULT, AT + timedelta(hours=48))
        assert believe([sums], DEFAULT, AT).cost_bps > 3.5
        assert later.cost_bps < 0.5
        assert later.error_bps > 1.8

    def test_a_venue_that_turns_bad_is_believed_within_a_dozen_orders(self) -> None:
        rng = random.Random(7)
        good = [rng.gauss(1, 3) for _ in range(300)]
        bad = [rng.gauss(12, 3) for _ in range(15)]
        assert believe([taught(good)], DEFAULT, AT).cost_bps < 1.6
        assert believe([taught(good + bad)], DEFAULT, AT).cost_bps > 6

    def test_rejects_and_slow_answers_are_learned_too(self) -> None:
        found = believe([taught([0.0] * 50, share=0.5, rejected=1, ack_ms=40.0)], DEFAULT, AT)
        assert found.share is not None
        assert found.reject_rate is not None
        assert found.share < 0.6
        assert found.reject_rate > 0.8
        assert found.ack_ms == pytest.approx(40.0)

    def test_sizes_and_hours_have_their_names(self) -> None:
        assert [size_of(q, 1000) for q in (0.5, 5, 20, 60)] == ["<0.1%", "<1%", "<5%", ">=5%"]
        assert size_of(5, None) == "unknown"
        assert part_of_day(AT) == 3


class TestChoices:
    def test_the_cheapest_is_taken_and_ties_go_to_the_first(self) -> None:
        found = choose([2.0, 1.0, 1.0], [1.0] * 3, value=1e4, weights=DEFAULT, seed=1)
        assert (found.index, found.explored, found.propensities) == (1, False, [0.0, 1.0, 0.0])

    @given(
        st.lists(st.tuples(st.floats(-5, 20), st.floats(0.01, 5)), min_size=1, max_size=6),
        st.integers(0, 2**60), st.floats(1, 1e7),
    )  # fmt: skip
    def test_a_choice_comes_again_by_its_seed_and_stays_within_the_rails(self, brokers, seed, value) -> None:
        means, errors = [m for m, _ in brokers], [e for _, e in brokers]
        found = choose(means, errors, value=value, weights=EXPLORING, seed=seed)
        assert choose(means, errors, value=value, weights=EXPLORING, seed=seed) == found
        most = min(float(EXPLORING.explore_bps), float(EXPLORING.explore_amount) / value * 10_000)
        assert means[found.index] <= min(means) + most
        assert sum(found.propensities) == pytest.approx(1.0)
        assert found.propensities[found.index] > 0

    def test_the_share_that_explores_keeps_to_its_cap(self) -> None:
        drawn = [choose([1.0, 1.2], [2.0, 2.0], value=1e4, weights=EXPLORING, seed=n) for n in range(4_000)]
        elsewhere = mean(d.index for d in drawn)
        assert elsewhere < 0.2
        assert elsewhere == pytest.approx(drawn[0].propensities[1], abs=0.02)

    def test_likelihoods_agree_with_draws(self) -> None:
        rng = random.Random(3)
        means, errors = [1.0, 1.5, 3.0], [1.0, 2.0, 0.5]
        wins = [0, 0, 0]
        for _ in range(20_000):
            draws = [rng.gauss(m, e) for m, e in zip(means, errors, strict=True)]
            wins[draws.index(min(draws))] += 1
        for found, count in zip(likelihoods(means, errors), wins, strict=True):
            assert found == pytest.approx(count / 20_000, abs=0.015)


TAKERS = st.builds(
    Taker,
    rate=st.decimals("0", "0.05", places=4), floor=st.decimals("0", "3", places=2),
    impact=st.decimals("0", "0.02", places=4), lot=st.just(D(1)),
)  # fmt: skip


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fail what has not ended after some seconds, instead of waiting for it."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TestSplits:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(TAKERS, min_size=1, max_size=3), st.integers(1, 24))
    def test_no_other_division_is_cheaper(self, takers: list[Taker], lots: int) -> None:
        quantity = D(lots)
        found = split(takers, quantity, lot=D(1))
        assert sum(found) == quantity

        def cost(parts: tuple[int, ...] | list[Decimal]) -> Decimal:
            return sum((t.cost(D(q)) for t, q in zip(takers, parts, strict=True)), D(0))

        best = min(cost(parts) for parts in product(range(lots + 1), repeat=len(takers)) if sum(parts) == lots)
        assert cost(found) <= best + D("0.000001")

    def test_floors_of_fees_keep_small_orders_whole(self) -> None:
        same = Taker(rate=D("0.001"), floor=D(1), impact=D("0.001"), lot=D(1))
        assert sorted(split([same, same], D(10), lot=D(1))) == [0, 10]
        assert split([same, same], D(10_000), lot=D(1)) == [5_000, 5_000]

    def test_the_time_does_not_grow_with_the_order(self) -> None:
        takers = [
            Taker(D("0.001"), D(0), D(0), D(1)),
            Taker(D("0.002"), D(0), D("0.000001"), D(1)),
            Taker(D(0), D(9), D(1), D(1)),
        ]
        with deadline(2.0):
            found = split(takers, D(10**12), lot=D(1))
        assert sum(found) == 10**12

    def test_lots_are_kept(self) -> None:
        takers = [Taker(D("0.001"), D(0), D("0.002"), D(100)), Taker(D("0.002"), D(0), D("0.001"), D(100))]
        found = split(takers, D(10_000), lot=D(100))
        assert sum(found) == 10_000
        assert all(q % 100 == 0 for q in found)


class TestReplay:
    def test_it_tells_what_another_policy_costs_from_what_was_explored(self) -> None:
        rng = random.Random(5)
        logged = []
        for _ in range(4_000):
            taken = 0 if rng.random() < 0.8 else 1
            cost = rng.gauss((3.0, 1.0)[taken], 2.0)
            logged.append(Logged([2.0, 2.0], [0.8, 0.2], taken, cost, [0.0, 1.0]))
        found = doubly_robust(logged)
        assert found is not None
        assert found.low < 1.0 < found.high
        assert found.high - found.low < 0.5
        assert found.effective < 1_000

    def test_one_decision_tells_nothing(self) -> None:
        assert doubly_robust([Logged([1.0], [1.0], 0, 1.0, [1.0])]) is None

    def test_regret_is_what_the_next_best_would_have_saved(self) -> None:
        assert regret([1.0, 2.0, 4.0], 0, 5.0) == 3.0
        assert regret([1.0], 0, 5.0) == 0.0


class TestWeights:
    def test_they_come_back_as_they_were_stored(self) -> None:
        told = parse({"explore_share": "0.1"})
        assert restored(told.as_json() | {"of_another_time": "1"}) == told

    @pytest.mark.parametrize(
        "told", [{"explore_share": "0.9"}, {"half_life_hours": "0"}, {"ms_bps": "NaN"}, {"ms_bps": "-1"}, {"luck": "1"}]
    )
    def test_nonsense_is_refused_by_field(self, told: dict[str, str]) -> None:
        with pytest.raises(InvalidFields) as caught:
            parse(told)
        assert [e.field for e in caught.value.errors] == list(told)


def test_learning_beats_every_simpler_policy_at_hidden_venues() -> None:
    found = learning.measure(seeds=10, orders=600)
    assert found["least_gain_bps"] > 0, found
    assert found["adapted_in_seeds"] == 10
