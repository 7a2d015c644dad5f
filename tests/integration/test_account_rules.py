"""Rules of accounts on a real desk: a second person sets them, and orders are judged by them from then on."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from oms.kernel.errors import Conflict, Forbidden, Invalid
from portfolio import operations as portfolio
from portfolio import settlement
from portfolio.models import Settlement
from risk import operations as risk
from risk.domain.replaying import replay
from risk.models import AccountRules, Approval, Hold, RiskCheck
from tests.conftest import Desk


@pytest.fixture
def rolf(desk: Desk, django_user_model: Any) -> Any:
    """Another person of risk."""
    from django.contrib.auth.models import Group

    user = django_user_model.objects.create_user("rolf", password="demo")
    user.groups.add(Group.objects.get(name="risk"))
    return user


def put(desk: Desk, rolf: Any, **rules: Any) -> AccountRules:
    """Set rules of MAIN, proposed by rita and approved by rolf."""
    asked = risk.propose_rules("MAIN", **rules, reason="as agreed", actor=desk.actor(desk.rita), at=desk.at)
    return risk.decide_rules(asked.id, "approve", reason="seen", actor=desk.actor(rolf), at=desk.at)


def answers(desk: Desk, *texts: str, **more: Any) -> list[str]:
    """Return the status, or the reason of a denial, of each order placed one after another."""
    found = []
    for text in texts:
        order = desk.order(desk.place(text, **more)[0])
        found.append(order.reason if order.status == "denied" else order.status)
    return found


def fill(desk: Desk, text: str, price: str) -> None:
    """Place an order and fill all of it."""
    [placed] = desk.place(text)
    assert desk.order(placed).status == "pending_new", desk.order(placed).reason
    desk.send()
    sent = desk.near.sent[-1]
    fields = {
        "execution_id": f"X-{sent.client_order_id}",
        "last_quantity": sent.quantity,
        "cumulative_quantity": sent.quantity,
        "last_price": Decimal(price),
        "executed_at": datetime.now(UTC),
    }
    desk.report(desk.near.report("trade", sent, **fields))
    assert desk.order(placed).status == "filled"


def leave(desk: Desk, amount: int) -> None:
    """Take cash out of MAIN until so much is left of its opening million."""
    portfolio.transfer(
        account="MAIN", kind="withdrawal", currency="USD", amount=Decimal(1_000_000 - amount), to="", reason="out",
        key="out", actor=desk.actor(desk.oona), at=desk.at,
    )  # fmt: skip


class TestSettingThem:
    def test_another_person_must_approve_what_then_holds_at_once(self, desk: Desk, rolf: Any) -> None:
        rita = desk.actor(desk.rita)
        asked = risk.propose_rules("MAIN", margin="cash", reason="as agreed", actor=rita, at=desk.at)
        assert answers(desk, "sell_short 1 AAPL") == ["pending_new"]
        with pytest.raises(Forbidden, match="approver_is_maker"):
            risk.decide_rules(asked.id, "approve", reason="mine", actor=rita, at=desk.at)
        risk.decide_rules(asked.id, "approve", reason="seen", actor=desk.actor(rolf), at=desk.at)
        assert answers(desk, "sell_short 1 AAPL") == ["short_not_allowed"]
        assert Approval.objects.get(object_id=asked.id).status == "approved"
        desk.holds()

    def test_refused_ones_never_hold(self, desk: Desk, rolf: Any) -> None:
        asked = risk.propose_rules("MAIN", margin="cash", reason="as agreed", actor=desk.actor(desk.rita), at=desk.at)
        risk.decide_rules(asked.id, "refuse", reason="no", actor=desk.actor(rolf), at=desk.at)
        assert answers(desk, "sell_short 1 AAPL") == ["pending_new"]

    def test_those_of_tomorrow_wait_and_later_ones_take_their_place(self, desk: Desk, rolf: Any) -> None:
        put(desk, rolf, margin="cash", since=desk.at.date() + timedelta(days=1))
        assert answers(desk, "sell_short 1 AAPL") == ["pending_new"]
        put(desk, rolf, margin="cash")
        assert answers(desk, "sell_short 1 AAPL") == ["short_not_allowed"]
        put(desk, rolf, margin="house")
        assert answers(desk, "sell_short 1 AAPL") == ["pending_new"]

    @pytest.mark.parametrize(
        ("rules", "field"),
        [
            ({"margin": "magic"}, "margin"),
            ({"margin": "haircut"}, "haircuts"),
            ({"margin": "haircut", "haircuts": {"equity": "1.1"}}, "haircuts.equity"),
            ({"margin": "haircut", "haircuts": {"equity": "NaN"}}, "haircuts.equity"),
            ({"margin": "haircut", "haircuts": {"stamps": "0.1"}}, "haircuts"),
            ({"margin": "reg_t", "haircuts": {"equity": "0.5"}}, "haircuts"),
            ({"borrowing": True}, "borrowing"),
            ({"day_trading": True}, "day_trading"),
            ({"migrated_on": date(2026, 6, 4)}, "migrated_on"),
            ({"self_trade": "fight"}, "self_trade"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, desk: Desk, rules: dict[str, Any], field: str) -> None:
        with pytest.raises(Invalid) as refused:
            risk.propose_rules("MAIN", **rules, reason="x", actor=desk.actor(desk.rita), at=desk.at)
        assert refused.value.field == field
        assert not AccountRules.objects.exists()


class TestBeingJudgedByThem:
    def test_a_cash_account_sells_only_what_is_there(self, desk: Desk, rolf: Any) -> None:
        put(desk, rolf, margin="cash")
        fill(desk, "buy 10 AAPL", "100")
        assert answers(desk, "sell 11 AAPL", "sell 6 AAPL limit 120", "sell 6 AAPL limit 120") == [
            "short_not_allowed",
            "pending_new",
            "short_not_allowed",
        ]
        assert answers(desk, "sell 1 EUR/USD") == ["buying_power"]
        portfolio.transfer(
            account="MAIN", kind="deposit", currency="EUR", amount=Decimal(50), to="", reason="in", key="in",
            actor=desk.actor(desk.oona), at=desk.at,
        )  # fmt: skip
        assert answers(desk, "sell 51 EUR/USD", "sell 50 EUR/USD") == ["buying_power", "pending_new"]
        for stored in RiskCheck.objects.all():
            assert replay(stored.checks)[:2] == (stored.approved, stored.reason)
        desk.holds()

    def test_proceeds_pay_for_nothing_until_they_have_settled(self, desk: Desk, rolf: Any) -> None:
        leave(desk, 1_000)
        fill(desk, "buy 10 AAPL limit 100", "90")  # 100 are left, settled or not
        put(desk, rolf, margin="cash", settled_only=True)
        fill(desk, "sell 10 AAPL", "100")  # 1,000 more are to come
        assert answers(desk, "buy 2 AAPL limit 100") == ["unsettled_cash"]
        assert answers(desk, "buy 1 AAPL limit 100") == ["pending_new"]
        coming = Settlement.objects.get(amount__gt=0)
        later = datetime.combine(coming.due_on, datetime.min.time(), UTC) + timedelta(hours=23)
        settlement.settle(coming.due_on, actor=desk.actor(desk.oona), at=later)
        assert answers(desk, "buy 2 AAPL limit 100") == ["pending_new"]
        desk.holds()

    def test_reg_t_lends_as_much_again_and_haircuts_by_class(self, desk: Desk, rolf: Any) -> None:
        leave(desk, 10_000)
        assert answers(desk, "buy 101 AAPL limit 100") == ["buying_power"]
        put(desk, rolf, margin="reg_t")
        assert answers(desk, "buy 201 AAPL limit 100", "buy 200 AAPL limit 100") == ["buying_power", "pending_new"]
        assert Hold.objects.get(open_quantity=200).unit_amount == 50
        put(desk, rolf, margin="haircut", haircuts={"equity": "0.25", "fx": "0.05"})
        assert answers(desk, "buy 1 AAPL limit 100") == ["buying_power"]  # the open order holds all of it
        desk.holds()

    def test_a_short_sale_needs_units_located_for_today(self, desk: Desk, rolf: Any) -> None:
        put(desk, rolf, margin="house", locates=True)
        assert answers(desk, "sell_short 5 AAPL") == ["not_located"]
        rita = desk.actor(desk.rita)
        terms = {"lender": "PB", "reference": "L-1", "actor": rita, "at": desk.at}
        first = risk.locate("MAIN", "AAPL", Decimal(10), **terms)
        assert risk.locate("MAIN", "AAPL", Decimal(10), **terms).id == first.id
        with pytest.raises(Conflict, match="locate_known"):
            risk.locate("MAIN", "AAPL", Decimal(11), **terms)
        fill(desk, "sell_short 6 AAPL", "100")
        assert answers(desk, "sell_short 5 AAPL", "sell_short 4 AAPL", "sell_short 1 AAPL") == [
            "not_located",
            "pending_new",
            "not_located",
        ]
        desk.holds()

    def test_the_fourth_day_trade_needs_the_equity_unless_the_rule_is_gone(self, desk: Desk, rolf: Any) -> None:
        leave(desk, 20_000)
        put(desk, rolf, margin="reg_t", day_trading=True)
        for _ in range(3):
            fill(desk, "buy 10 AAPL", "100")
            fill(desk, "sell 10 AAPL", "100")
        fill(desk, "buy 10 AAPL", "100")
        assert answers(desk, "sell 10 AAPL") == ["day_trade_limit"]
        stored = RiskCheck.objects.get(reason="day_trade_limit")
        assert replay(stored.checks)[:2] == (False, "day_trade_limit")
        assert answers(desk, "buy 1 MSFT") == ["pending_new"]  # opens, and meets nothing
        put(desk, rolf, margin="reg_t", day_trading=True, migrated_on=desk.at.date())
        assert answers(desk, "sell 10 AAPL") == ["pending_new"]
        desk.holds()
