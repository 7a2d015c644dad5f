"""What corporate actions do to lots, by figures worked out by hand, and what must hold of all of them."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.domain.actions import (
    Act,
    CapitalReturn,
    Merger,
    Receipt,
    SpinOff,
    Split,
    Subscription,
    boot,
    cost_share,
    entitled,
    whole,
)
from portfolio.domain.contracts import inverse
from portfolio.domain.entitlement import DUE_BILL, RETURN_CLAIM, claim, ex_date
from portfolio.domain.lots import LiveTrade
from portfolio.domain.matching import Matching
from portfolio.domain.policies import IN_COST, METHODS, POOLED, Policies, Policy

OPEN = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
D = Decimal
ACT = UUID(int=7777)
LAST_DIGIT = D("0.00000001")


def trade(number: int, quantity: int, price: str, day: int, fees: str = "0") -> LiveTrade:
    key = UUID(int=number + 1)
    return LiveTrade(key, key, OPEN + day * DAY + timedelta(hours=1), D(quantity), D(price), D(fees))


def matched(*items: LiveTrade | Act, **policy: Any) -> Matching:
    matching = Matching((), Policies([Policy(**policy)]))
    matching.run(items)
    return matching


def lots(matching: Matching) -> list[tuple[Decimal, Decimal]]:
    return [(lot.remaining, lot.cost) for lot in matching.lots]


def test_a_split_makes_units_and_leaves_the_cost() -> None:
    found = matched(trade(0, 10, "100", 0), trade(1, 5, "110", 1), Split(ACT, OPEN + 2 * DAY, (2, 1)))
    assert lots(found) == [(20, 1000), (10, 550)]
    assert [lot.price for lot in found.lots] == [50, 55]
    found.run([trade(2, -25, "60", 3)])
    assert [(c.quantity, c.recognized) for c in found.closures] == [(20, 200), (5, 25)]


def test_of_a_fraction_the_first_lot_gives_first() -> None:
    split = Split(ACT, OPEN + 2 * DAY, (1, 3), D("0.3333333333"), D(75))
    found = matched(trade(0, 50, "15", 0), trade(1, 50, "15.2", 1), split)
    assert sum(lot.remaining for lot in found.lots) == 33
    [paid] = found.closures
    assert (paid.trade, paid.quantity, -paid.value) == (ACT, D("0.3333333333"), D("25"))
    assert found.moved[ACT] == -paid.cost


def test_shorts_split_like_longs() -> None:
    found = matched(trade(0, -10, "100", 0), Split(ACT, OPEN + DAY, (3, 2)), trade(1, 15, "50", 2))
    assert (lots(found), [c.recognized for c in found.closures]) == ([], [250])


def test_what_is_spun_off_takes_cost_and_time_along() -> None:
    parent = matched(trade(0, 100, "30", 0), SpinOff(ACT, OPEN + 400 * DAY, (1, 4), D("0.2")))
    assert lots(parent) == [(100, 2400)]
    child = matched(Receipt(ACT, OPEN + 400 * DAY, parent.given[ACT]))
    [lot] = child.lots
    assert (lot.remaining, lot.cost, lot.price, lot.opened_at) == (25, 600, 24, parent.lots[0].opened_at)


@pytest.mark.parametrize(
    ("cost", "cash", "stock", "gain", "left"),
    [("2400", "2200", "2812.66", "2200", "2400"), ("2400", "2200", "387.90", "187.90", "387.90"),
     ("5000", "100", "4000", "0", "4900")],
)  # fmt: skip
def test_cash_beside_units_is_gain_first(cost: str, cash: str, stock: str, gain: str, left: str) -> None:
    assert boot(D(cost), D(cash), D(stock)) == (D(gain), D(left))


def test_a_merger_for_cash_closes_everything() -> None:
    for size in (10, -10):
        found = matched(trade(0, size, "20", 0), Merger(ACT, OPEN + DAY, None, D(25)))
        assert (lots(found), [(c.quantity, c.recognized) for c in found.closures]) == ([], [(size, size * 5)])


def test_more_than_the_cost_that_comes_back_is_gain() -> None:
    found = matched(trade(0, 10, "3", 0), trade(1, 10, "20", 1), CapitalReturn(ACT, OPEN + 2 * DAY, D(5)))
    assert lots(found) == [(10, 0), (10, 150)]
    assert [c.recognized for c in found.closures] == [20, 0]


def test_rights_used_are_a_lot_of_their_own_and_join_a_pool() -> None:
    items = trade(0, 1000, "4.30", 0), Subscription(ACT, OPEN + DAY, D(200), D("3.50"))
    assert lots(matched(*items)) == [(1000, 4300), (200, 700)]
    assert lots(matched(*items, method="average")) == [(1200, 5000)]


def test_shares_bought_after_a_split_match_a_sale_before_it() -> None:
    found = matched(
        trade(0, 100, "4", 0), trade(1, -100, "10", 40), Split(ACT, OPEN + 50 * DAY, (2, 1)), trade(2, 200, "3", 60),
        method="section_104", commissions=IN_COST,
    )  # fmt: skip
    assert [(c.quantity, c.cost, c.match, c.recognized) for c in found.closures] == [(100, 600, "30_day", 400)]
    assert lots(found) == [(200, 400)]


def test_a_loss_that_waits_is_counted_in_todays_units() -> None:
    found = matched(
        trade(0, 10, "10", 0), trade(1, -10, "8", 60), Split(ACT, OPEN + 70 * DAY, (2, 1)), trade(2, 10, "4", 80),
        wash_sales=True,
    )  # fmt: skip
    assert [(c.gain, c.disallowed) for c in found.closures] == [(-20, 10)]
    assert lots(found) == [(10, 50)]


def test_who_sells_short_again_has_a_wash_sale_too() -> None:
    found = matched(trade(0, -10, "8", 0), trade(1, 10, "10", 60), trade(2, -10, "9", 70), wash_sales=True)
    assert [(c.gain, c.disallowed) for c in found.closures] == [(-20, 20)]
    assert lots(found) == [(-10, -70)]
    found.run([trade(3, 10, "9", 200)])
    assert sum(c.recognized for c in found.closures) == -20  # nothing of the loss is gone for good


def test_inverse_contracts_gain_in_the_base_currency() -> None:
    matching = Matching((), Policies(), inverse)
    matching.run([trade(0, 100_000, "10000", 0), trade(1, -50_000, "12500", 1)])
    assert [c.recognized for c in matching.closures] == [D(1)]
    assert inverse(D(50_000), D(8000)) - matching.cost == D("-1.25")


def test_costs_go_by_what_both_are_worth() -> None:
    assert cost_share(D(200), D(75), (1, 10)).quantize(D("0.000001")) == D("0.036145")


def test_whole_units_are_nearer_to_zero() -> None:
    assert [whole(D(q), D(1)) for q in ("33.3", "-33.3", "0.5", "-0.5")] == [33, -33, 0, 0]
    assert entitled(D(100), (1, 3)) == D("33.3333333333")


def weekday(day: date) -> bool:
    return day.weekday() < 5


@pytest.mark.parametrize(
    ("record", "days", "ex"),
    [("2017-09-18", 2, "2017-09-15"), ("2017-08-21", 3, "2017-08-17"), ("2026-03-09", 1, "2026-03-09")],
)
def test_the_ex_date_lies_a_cycle_before_the_record_date(record: str, days: int, ex: str) -> None:
    assert ex_date(date.fromisoformat(record), None, days, None, weekday) == date.fromisoformat(ex)


def test_a_large_distribution_goes_ex_after_it_is_paid() -> None:
    record, pay = date(2026, 2, 20), date(2026, 3, 6)
    assert ex_date(record, pay, 1, D("0.25"), weekday) == date(2026, 3, 9)
    with pytest.raises(ValueError, match="pay date"):
        ex_date(record, None, 1, D("0.25"), weekday)


def test_who_owes_whom_around_the_ex_date() -> None:
    ex, record = date(2026, 3, 9), date(2026, 3, 10)
    found = [
        claim(traded=date(2026, 3, t), settles=date(2026, 3, s), ex=ex, record=record)
        for t, s in ((6, 10), (6, 11), (9, 10), (9, 11))
    ]
    assert found == ["", DUE_BILL, RETURN_CLAIM, ""]


moves = st.tuples(st.integers(-9, 9).filter(bool), st.integers(1, 30), st.integers(0, 25))
ratios = st.tuples(st.integers(1, 7), st.integers(1, 7))
happenings = st.one_of(
    st.builds(lambda r: Split(ACT, OPEN, r), ratios),
    st.builds(lambda r, s: SpinOff(ACT, OPEN, r, D(s) / 8), ratios, st.integers(0, 8)),
    st.builds(lambda c: CapitalReturn(ACT, OPEN, D(c) / 4), st.integers(1, 90)),
    st.builds(lambda c: Merger(ACT, OPEN, None, D(c) / 4), st.integers(0, 90)),
    st.builds(lambda r, c, p: Merger(ACT, OPEN, r, D(c) / 4, D(p)), ratios, st.integers(0, 90), st.integers(0, 40)),
)
rules = st.sampled_from(
    [Policy(method=m, wash_sales=w) for m in METHODS for w in (False, True) if not (w and m in POOLED)]
)


@given(st.lists(moves, min_size=1, max_size=12), happenings, st.integers(0, 12), rules)
def test_nothing_of_cost_and_cash_is_lost(
    drawn: list[tuple[int, int, int]], act: Act, place: int, policy: Policy
) -> None:
    items: list[LiveTrade | Act] = []
    day = 0
    for number, (quantity, price, days) in enumerate(drawn):
        day += days
        items.append(trade(number, quantity, str(D(price) / 8), day))
    place = min(place, len(items))
    before = [i for i in items[:place] if isinstance(i, LiveTrade)]
    cut = before[-1].executed_at if before else OPEN
    later = [replace(i, executed_at=i.executed_at + 2 * DAY) for i in items[place:] if isinstance(i, LiveTrade)]
    act = replace(act, executed_at=cut + DAY)
    found = Matching((), Policies([policy]))
    found.run([*before, act, *later])
    paid = sum((t.quantity * t.price for t in [*before, *later]), D(0))
    cash = sum((-c.value for c in found.closures if c.trade == ACT), D(0))
    handed = sum((lot.cost for lot in found.given.get(ACT, ())), D(0))
    gains = sum((c.recognized for c in found.closures), D(0))
    assert abs(found.cost + handed + cash - paid - gains) <= LAST_DIGIT * 4 * len(items)
    if (
        policy.method != "section_104"
    ):  # there a later purchase may close an earlier sale, and the pool isn't the holding
        own = sum((c.recognized for c in found.closures if c.trade == ACT), D(0))
        assert found.moved[ACT] + handed + cash - own == 0
