"""Splits, spin-offs, mergers and the like in the books: lots, positions, cash, by whatever order the trades come in."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import queries as market
from oms.kernel.ids import uuid7
from orders.api import corporate as desk_api
from portfolio import api, queries
from portfolio.models import Entitlement, LedgerEntry, LotPolicy, ModelPortfolio, Position
from tests.conftest import Desk
from tests.integration.test_corporate_actions import act, broken, cash
from tests.integration.test_portfolio import book, fill
from tests.integration.test_risk_api import call

EX = date(2026, 3, 9)
MORNING = datetime(2026, 3, 9, tzinfo=UTC)
BEFORE, AFTER = MORNING - timedelta(days=40), MORNING + timedelta(hours=15)
D = Decimal


def announced(desk: Desk, kind: str, **more: Any) -> str:
    body = {"type": kind, "symbol": "AAPL", "ex_date": str(EX)} | more
    status, told = call(api.CorporateActions, "post", desk.oona, body)
    assert status == 201, told
    return str(told["id"])


def applied(desk: Desk, kind: str, **more: Any) -> str:
    action = announced(desk, kind, **more)
    status, told = act(desk, desk_api.CorporateActionApply, action)
    assert status == 200, told
    assert broken() == []
    return action


def bought(desk: Desk, text: str = "buy 100 AAPL @ 15", at: datetime = BEFORE, **more: Any) -> Any:
    one = fill(desk, text, executed_at=at, **more)
    book(desk, one)
    return one


def held(desk: Desk, symbol: str = "AAPL") -> dict[str, Any]:
    found = [p for p in queries.positions_of(desk.account.pk) if p["symbol"] == symbol]
    return found[0] if found else {"quantity": "0", "cost": "0", "realized_pnl": "0"}


def books(desk: Desk) -> Any:
    """All that the books say, but ids and the times of bookings."""
    positions = [
        (p.instrument_id, p.quantity, p.cost, p.realized, p.fees)
        for p in Position.objects.order_by("instrument_id") if p.quantity or p.realized
    ]  # fmt: skip
    lots = [
        (x["symbol"], x["opened_at"], x["remaining"], x["cost"], x["held_since"])
        for x in queries.lots_of(desk.account.pk, at=desk.at)
    ]
    return positions, lots, queries.balances_of(desk.account.pk)


def test_a_split_in_whole_units_with_its_preview_and_reversal(desk: Desk) -> None:
    bought(desk)
    before = books(desk)
    action = announced(desk, "split", ratio=[2, 1])
    [due] = act(desk, api.CorporateActionPreview, action)[1]["results"]
    assert (due["quantity"], due["units"], due["amount"]) == ("100", [{"symbol": "AAPL", "quantity": "100"}], "0")
    assert books(desk) == before
    for _ in range(2):
        assert act(desk, desk_api.CorporateActionApply, action)[0] == 200
    assert (held(desk)["quantity"], held(desk)["average_cost"], held(desk)["cost"]) == ("200", "7.5", "1500")
    assert Entitlement.objects.count() == 1
    assert broken() == []
    bought(desk, "sell 50 AAPL @ 9", AFTER)
    assert held(desk)["realized_pnl"] == "75"
    assert act(desk, desk_api.CorporateActionReversal, action, reason="wrong")[0] == 200
    assert (held(desk)["quantity"], held(desk)["realized_pnl"], held(desk)["cost"]) == ("50", "-300", "750")
    assert broken() == []


def test_a_reverse_split_pays_for_the_fraction(desk: Desk) -> None:
    bought(desk, "buy 100 AAPL @ 15.1")
    action, money = announced(desk, "reverse_split", ratio=[1, 3]), cash(desk)
    assert act(desk, desk_api.CorporateActionApply, action)[1]["code"] == "cash_in_lieu_needed"
    assert act(desk, desk_api.CorporateActionApply, action, cash_in_lieu="75")[0] == 200
    assert (held(desk)["quantity"], held(desk)["cost"]) == ("33", "1494.9")
    assert D(cash(desk)) - D(money) == D("24.9999999975").quantize(D("1E-8"))
    assert held(desk)["realized_pnl"] == "9.9"
    assert broken() == []


def test_brokers_pay_for_their_own_fractions(desk: Desk) -> None:
    far = {"broker_id": market.brokers_by_code()["FAR"].id}
    bought(desk, "buy 5 AAPL @ 10")
    bought(desk, "buy 5 AAPL @ 10", **far)
    applied(desk, "reverse_split", ratio=[1, 2], cash_in_lieu="22")
    assert held(desk)["quantity"] == "4"
    shares = {p["broker"]: p["quantity"] for p in queries.positions_by_broker(desk.account.pk)}
    assert shares == {"NEAR": "2", "FAR": "2"}
    assert sorted(
        LedgerEntry.objects.filter(code="cash", transaction__source_kind="corporate").values_list("amount", flat=True)
    ) == [11, 11]


SPLIT_TERMS = {"ratio": [3, 2], "cash_in_lieu": "9"}
SPIN_TERMS = {"ratio": [1, 4], "target": "MSFT", "cost_share": "0.25", "cash_in_lieu": "12"}


@pytest.mark.parametrize(
    ("method", "kind", "terms"),
    [
        ("fifo", "split", SPLIT_TERMS), ("average", "split", SPLIT_TERMS), ("section_104", "split", SPLIT_TERMS),
        ("fifo", "stock_dividend", {"ratio": [1, 10], "cash_in_lieu": "9"}),
        ("fifo", "return_of_capital", {"cash": "14.5"}),
        ("fifo", "spin_off", SPIN_TERMS), ("section_104", "spin_off", SPIN_TERMS),
        ("fifo", "merger", {"ratio": [3, 10], "target": "MSFT", "cash": "2", "price": "60", "cash_in_lieu": "60"}),
        ("section_104", "merger", {"cash": "22"}),
        ("average", "rights", {"ratio": [1, 5], "cash": "3.5"}),
        ("fifo", "delisting", {"cash": "0"}),
    ],
)  # fmt: skip
def test_b18_late_fills_busts_and_a_late_action_end_the_same(desk: Desk, method: str, kind: str, terms: Any) -> None:
    if method != "fifo":
        LotPolicy.objects.create(account=desk.account, since=date(2020, 1, 1), method=method)
    first = fill(desk, "buy 103 AAPL @ 15.1", executed_at=BEFORE)
    second = fill(desk, "buy 10 AAPL @ 14", executed_at=BEFORE + timedelta(days=1), fees=D(1))
    sale = fill(desk, "sell 12 AAPL @ 17", executed_at=BEFORE + timedelta(days=2))
    wrong = fill(desk, "buy 7 AAPL @ 14", executed_at=BEFORE + timedelta(days=3))
    bust = replace(wrong, source_id=uuid7(), kind="bust", ref_source_id=wrong.source_id)
    child = fill(desk, "sell 5 MSFT @ 50", executed_at=AFTER)
    with_child = [child] if "target" in terms else []
    start = books(desk)
    book(desk, first, second, sale, *with_child)
    action = applied(desk, kind, **terms)
    in_turn = books(desk)
    assert act(desk, desk_api.CorporateActionReversal, action, reason="again, in another order")[0] == 200
    for one in (first, second, sale, *with_child):
        book(desk, replace(one, source_id=uuid7(), kind="bust", ref_source_id=one.source_id))
    assert books(desk) == start
    assert broken() == []
    again = [replace(f, source_id=uuid7()) for f in (first, second, sale, *with_child, wrong)]
    book(desk, again[0])
    applied(desk, kind, **terms)
    book(desk, *reversed(again[1:]))
    book(desk, replace(bust, ref_source_id=again[-1].source_id))
    assert broken() == []
    assert books(desk) == in_turn


def test_shorts_owe_what_is_spun_off(desk: Desk) -> None:
    bought(desk, "sell 100 AAPL @ 20")
    applied(desk, "spin_off", ratio=[1, 4], target="MSFT", price="10", own_price="20")
    assert (held(desk)["quantity"], held(desk, "MSFT")["quantity"]) == ("-100", "-25")
    assert D(held(desk)["cost"]) + D(held(desk, "MSFT")["cost"]) == -2000


def test_what_was_merged_away_trades_no_longer(desk: Desk) -> None:
    bought(desk)
    action = applied(desk, "merger", cash="20")
    assert market.instruments_by_symbol()["AAPL"].active is False
    assert held(desk)["realized_pnl"] == "500"
    act(desk, desk_api.CorporateActionReversal, action, reason="the deal broke")
    assert market.instruments_by_symbol()["AAPL"].active is True
    assert held(desk)["quantity"] == "100"
    assert broken() == []


def test_a_new_symbol_keeps_all_that_is_booked(desk: Desk) -> None:
    bought(desk)
    inner = {"tech": {"weight": "0.6", "targets": {"AAPL": "0.5", "MSFT": "0.5"}}, "AAPL": "0.1"}
    ModelPortfolio.objects.create(code="HOUSE", targets=inner)
    action = applied(desk, "symbol_change", new_symbol="APPL2")
    told = ModelPortfolio.objects.get().targets
    assert told == {"tech": {"weight": "0.6", "targets": {"APPL2": "0.5", "MSFT": "0.5"}}, "APPL2": "0.1"}
    assert held(desk, "APPL2")["quantity"] == "100"
    listed = {x.symbol for x in market.listings().values()}
    assert "APPL2" in listed
    assert "AAPL" not in listed
    act(desk, desk_api.CorporateActionReversal, action, reason="misread")
    assert held(desk)["cost"] == "1500"


def test_rights_are_taken_up_as_far_as_the_account_elects(desk: Desk) -> None:
    bought(desk, "buy 1000 AAPL @ 4.30")
    applied(desk, "rights", ratio=[1, 5], cash="3.50", elections={"MAIN": "50"})
    assert (held(desk)["quantity"], held(desk)["cost"]) == ("1050", "4475")


def test_a_dividend_after_a_split_counts_the_units_of_its_day(desk: Desk) -> None:
    bought(desk)
    dividend = announced(desk, "cash_dividend", cash="1")
    applied(desk, "split", ratio=[2, 1], ex_date=str(EX + timedelta(days=3)))
    later = announced(desk, "cash_dividend", cash="1", ex_date=str(EX + timedelta(days=7)))
    due = [act(desk, api.CorporateActionPreview, a)[1]["results"][0]["amount"] for a in (dividend, later)]
    assert due == ["100", "200"]


def test_who_owes_whom_is_told_beside_the_entitlement(desk: Desk) -> None:
    late = MORNING - timedelta(hours=8)
    bought(desk, at=late, settle_date=EX + timedelta(days=2))
    action = announced(desk, "split", ratio=[2, 1], record_date=str(EX + timedelta(days=1)))
    [due] = act(desk, api.CorporateActionPreview, action)[1]["results"]
    assert due["claims"] == [{"kind": "due_bill", "quantity": "100"}]


def test_gains_tell_what_an_action_closed(desk: Desk) -> None:
    bought(desk, "buy 101 AAPL @ 15")
    applied(desk, "split", ratio=[3, 2], cash_in_lieu="12")
    [gain] = queries.gains_of(desk.account.pk)
    assert (gain["quantity"], gain["cost"], gain["proceeds"], gain["gain"]) == ("0.5", "5", "6", "1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "split"}, "required"), ({"type": "split", "ratio": [1, 2]}, "out_of_range"),
        ({"type": "reverse_split", "ratio": [2, 1]}, "out_of_range"), ({"type": "split", "ratio": [2, 0]}, "out_of_range"),
        ({"type": "split", "ratio": ["2", 1]}, "not_a_ratio"), ({"type": "split", "ratio": [2, 1], "cash": "1"}, "not_allowed"),
        ({"type": "spin_off", "ratio": [1, 4], "target": "MSFT"}, "required"),
        ({"type": "spin_off", "ratio": [1, 4], "target": "AAPL", "cost_share": "0.1"}, "not_allowed"),
        ({"type": "spin_off", "ratio": [1, 4], "target": "NONE", "cost_share": "0.1"}, "unknown_symbol"),
        ({"type": "spin_off", "ratio": [1, 4], "target": "MSFT", "cost_share": "2"}, "out_of_range"),
        ({"type": "merger"}, "required"), ({"type": "merger", "ratio": [1, 2]}, "required"),
        ({"type": "merger", "ratio": [1, 2], "target": "MSFT", "cash": "1"}, "required"),
        ({"type": "symbol_change", "new_symbol": "MSFT"}, "symbol_taken"), ({"type": "symbol_change"}, "required"),
        ({"type": "rights", "ratio": [1, 2], "cash": "1", "elections": {"NOBODY": "1"}}, "unknown_account"),
        ({"type": "return_of_capital", "cash": "1", "currency": "EUR"}, "currency_mismatch"),
        ({"type": "return_of_capital", "cash": "0"}, "not_positive"), ({"type": "delisting", "cash": "-1"}, "not_positive"),
        ({"type": "cash_dividend", "cash": "1", "ex_date": None}, "required"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_not_announced(desk: Desk, body: dict[str, Any], code: str) -> None:
    status, told = call(api.CorporateActions, "post", desk.oona, {"symbol": "AAPL", "ex_date": str(EX)} | body)
    assert (status, code) == (
        400,
        next(c for c in (told["code"], *(e["code"] for e in told.get("errors", []))) if c == code),
    )


def test_the_ex_date_follows_from_the_record_date(desk: Desk) -> None:
    body = {"type": "cash_dividend", "symbol": "AAPL", "cash": "1", "record_date": "2026-03-10"}
    status, told = call(api.CorporateActions, "post", desk.oona, body)
    assert (status, told["ex_date"]) == (201, "2026-03-10")
