"""Targets, drift, allocation and plans: the desk's own cases, beside the published ones of tests/oracles."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel.errors import InvalidFields
from portfolio.domain.allocating import allocate, divide
from portfolio.domain.rebalancing import BANDS, CASH_FLOW, Asset, NoPrice, Plan, Rules, TaxLot, choose_lots, plan
from portfolio.domain.targets import (
    Band,
    Targets,
    amounts_to_trade,
    drift,
    flow_to_targets,
    parse_targets,
    target_quantity,
)

D = Decimal
AT = datetime(2026, 3, 2, tzinfo=UTC)


def asset(pk: int, held: str = "0", price: str = "100", **more: Any) -> Asset:
    ref = InstrumentRef(pk, f"S{pk}", "equity", "", "USD", D("0.01"), D(more.pop("lot", 1)), 1, True)
    mid = D(price)
    quote = QuoteRef(pk, ref.symbol, mid, mid, None, None, None, AT, mid)
    return Asset(ref, D(held), quote, D(1), **more)


def planned(
    assets: list[Asset], cash: str, wanted: dict[int, str], targets: Targets | None = None, **rules: Any
) -> Plan:
    weights = {i: D(w) for i, w in wanted.items()}
    flow = rules.pop("cash_flow", None)
    return plan({a.instrument.id: a for a in assets}, D(cash), weights, Rules(**rules), targets=targets, cash_flow=flow)


def traded(found: Plan) -> dict[int, Decimal]:
    return {t.instrument_id: t.signed for t in found.trades}


def test_groups_share_their_weight_by_what_their_members_are_to_each_other() -> None:
    raw = {"Tech": {"weight": "0.6", "targets": {"A": "2", "B": "1"}}, "C": "0.3", "cash": "0.1"}
    read = parse_targets(raw)
    assert {s: round(w, 6) for s, w in read.weights.items()} == {"A": D("0.4"), "B": D("0.2"), "C": D("0.3")}
    assert (read.cash, read.groups) == (D("0.1"), {"A": ("Tech",), "B": ("Tech",)})
    assert read.of_group("Tech") == pytest.approx(D("0.6"), abs=D("1e-20"))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        [],
        {"A": 1},
        {"A": "x"},
        {"A": "11"},
        {"G": {"weight": "1", "targets": {}}},
        {"cash": "-0.1"},
        {"A": "0.9", "cash": "0.2"},
    ],
)
def test_targets_that_can_not_be_are_refused(raw: Any) -> None:
    with pytest.raises(InvalidFields):
        parse_targets(raw)


def test_a_band_of_both_kinds_is_left_where_either_is() -> None:
    band = Band(absolute=D("0.05"), relative=D("0.2"))
    assert band.edges(D("0.1")) == (D("0.08"), D("0.12"))
    assert not band.breached(D("0.1"), D("0.12"))  # the edge is inside
    assert band.breached(D("0.1"), D("0.1201"))
    assert drift(D(0), D("0.1")) == (D("0.1"), None)


def test_amounts_add_up_to_the_flow_and_a_flow_alone_never_trades_both_ways() -> None:
    values, targets = [D(600), D(400)], [D("0.5"), D("0.5")]
    assert amounts_to_trade(values, targets, cash_flow=D(200)) == [0, 200]
    assert flow_to_targets(values, targets, D(100)) == [0, 100]
    assert flow_to_targets(values, targets, D(-500)) == [-350, -150]


def test_a_quantity_is_rounded_toward_zero_and_none_without_a_price() -> None:
    asked: dict[str, Any] = {"equity": D(1000), "price": D(300), "lot": D(1)}
    assert target_quantity(weight=D("0.95"), **asked) == 3
    assert target_quantity(weight=D("-0.95"), **asked) == -3
    assert target_quantity(weight=D("-0.95"), may_short=False, **asked) == 0
    assert target_quantity(weight=D(1), **asked | {"price": D(0)}) is None


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 500), min_size=1, max_size=8),
    st.sampled_from(["1", "0.001", "100"]),
    st.sampled_from([1, -1]),
)
def test_what_is_divided_adds_up_to_the_last_unit(count: int, parts: list[int], unit: str, sign: int) -> None:
    if not sum(parts):
        parts[0] = 1
    total, named = sign * count * D(unit), {i: D(p) for i, p in enumerate(parts)}
    got = divide(total, named, D(unit))
    assert sum(got.values()) == total
    for i, share in got.items():  # nobody is more than a unit from the exact share
        assert abs(share - total * named[i] / sum(named.values())) < D(unit)
    assert got == divide(total, named, D(unit))


def test_remainders_go_to_the_largest_then_to_the_larger_part_then_to_the_first() -> None:
    assert divide(D(100), dict.fromkeys("abc", D(1)), D(1)) == {"a": 34, "b": 33, "c": 33}
    assert divide(D(10), {"a": D(1), "b": D(3)}, D(1)) == {"a": 2, "b": 8}
    with pytest.raises(ValueError, match="multiple"):
        divide(D("1.5"), {"a": D(1)}, D(1))


def test_greedy_spends_what_is_left_on_whatever_is_furthest_below() -> None:
    got = allocate(D(100), {"A": D("0.5"), "B": D("0.5")}, {"A": D(30), "B": D(20)})
    assert got.units == {"A": 2, "B": 2}
    assert got.leftover == 0


def test_what_is_not_wanted_is_sold_and_min_trade_leaves_crumbs() -> None:
    found = planned([asset(1, "10"), asset(2, "1")], "0", {1: "0", 2: "0.1"}, min_trade=D(60))
    assert traded(found) == {1: -10}
    found = planned([asset(1, "10"), asset(2, "1")], "0", {1: "0.5", 2: "0.15"}, min_trade=D(60))
    assert traded(found) == {1: -5}
    assert found.skipped[2] == "less_than_a_lot"
    assert planned([asset(1, "10")], "100", {1: "0.95"}, min_trade=D(60)).skipped == {1: "less_than_a_lot"}


def test_bands_trade_only_names_outside_and_whole_groups_that_left_theirs() -> None:
    assets = [asset(1, "45"), asset(2, "27"), asset(3, "28")]
    wanted = {1: "0.4", 2: "0.3", 3: "0.3"}
    assert traded(planned(assets, "0", wanted, method=BANDS, band=Band(D("0.04")))) == {1: -5}
    grouped = Targets({"S1": D("0.4"), "S2": D("0.3"), "S3": D("0.3")}, groups={"S2": ("G",), "S3": ("G",)})
    both = planned(assets, "0", wanted, grouped, method=BANDS, band=Band(D("0.04")))
    assert traded(both) == {1: -5, 2: 3, 3: 2}
    assert not planned(assets, "0", wanted, method=BANDS).trades  # inside of 5/25


def test_a_cash_flow_only_buys_or_only_sells() -> None:
    assets, wanted = [asset(1, "60"), asset(2, "40")], {1: "0.5", 2: "0.5"}
    assert traded(planned(assets, "1000", wanted, method=CASH_FLOW)) == {2: 10}
    assert traded(planned(assets, "1000", wanted, method=CASH_FLOW, cash_flow=D(-3000))) == {1: -25, 2: -5}


def test_caps_scale_all_trades_alike_and_buys_wait_for_no_cash_that_is_not_there() -> None:
    found = planned([asset(1, "100"), asset(2)], "0", {1: "0", 2: "1"}, turnover_cap=D("0.5"))
    assert traded(found) == {1: -25, 2: 25}
    assert found.turnover == D("0.5")
    stuck = planned([asset(1, "50", restricted=True), asset(2), asset(3)], "5000", {2: "0.5", 3: "0.5"})
    assert traded(stuck) == {2: 25, 3: 25}


def test_going_through_zero_takes_a_sale_and_a_short_sale() -> None:
    found = planned([asset(1, "10")], "1000", {1: "-0.5"}, may_short=True)
    assert [(t.side, t.quantity) for t in found.trades] == [("sell", 10), ("sell_short", 10)]
    assert traded(planned([asset(1, "10")], "1000", {1: "-0.5"})) == {1: -10}
    assert planned([asset(1)], "1000", {1: "-0.5"}).skipped == {1: "no_shorts"}


def test_nearest_lots_lie_nearer_and_what_is_held_without_a_price_stops_all() -> None:
    down = planned([asset(1, price="70")], "1000", {1: "0.9"})
    near = planned([asset(1, price="70")], "1000", {1: "0.9"}, nearest_lot=True)
    assert (traded(down), traded(near)) == ({1: 12}, {1: 13})
    with pytest.raises(NoPrice):
        plan({1: Asset(asset(1).instrument, D(1))}, D(0), {}, Rules())


def test_lots_are_chosen_by_the_tax_they_cost_and_washed_losses_save_none() -> None:
    from uuid import UUID

    names = [UUID(int=i) for i in range(4)]
    lots = [
        TaxLot(names[0], D(5), D(80), long_term=False),  # gains 20, costs 8
        TaxLot(names[1], D(5), D(70), long_term=True),  # gains 30, costs 6
        TaxLot(names[2], D(5), D(120), long_term=False),  # loses 20, saves 8
        TaxLot(names[3], D(5), D(130), long_term=False, washes=True),  # loses 30, saves nothing
    ]
    rules = Rules(tax_aware=True, short_term_tax=D("0.4"), long_term_tax=D("0.2"))
    chosen = choose_lots(lots, D(17), D(100), rules)
    assert [(c.id, c.quantity) for c in chosen] == [(names[2], 5), (names[3], 5), (names[1], 5), (names[0], 2)]
    assert [c.tax for c in chosen] == [-40, 0, 30, 16]
    assert chosen[1].washed == 150


weights = st.lists(st.integers(0, 100), min_size=2, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    weights,
    st.lists(st.integers(0, 200), min_size=6, max_size=6),
    st.lists(st.integers(1, 400), min_size=6, max_size=6),
    st.integers(0, 20_000),
    st.booleans(),
)
def test_a_plan_never_spends_more_than_there_is_nor_sells_more_than_is_held(
    parts: list[int], held: list[int], prices: list[int], cash: int, near: bool
) -> None:
    total = sum(parts) or 1
    assets = [asset(i, str(held[i]), str(prices[i])) for i in range(6)]
    found = planned(
        assets, str(cash), {i: str(D(p) / total) for i, p in enumerate(parts)}, nearest_lot=near, cash_buffer=D("0.01")
    )
    assert found.cash_after >= 0
    for trade in found.trades:
        assert trade.quantity == trade.quantity.to_integral_value()
        assert trade.side == "buy" or trade.quantity <= held[trade.instrument_id]
    worth = found.cash_after + sum((held[i] + traded(found).get(i, 0)) * prices[i] for i in range(6))
    assert worth + found.cost == pytest.approx(found.equity, abs=D("1e-6"))
    short = [
        i
        for i, p in enumerate(parts)
        if found.after
        and abs(found.after[i] - found.target[i]) * found.equity > 2 * prices[i] + found.equity * D("0.011")
    ]
    assert not short
