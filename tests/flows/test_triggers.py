"""What no broker waits for, the desk does: trailing and touched prices, starts, opens and closes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import queries
from brokers.domain.calendars import Calendar
from oms.kernel.errors import Conflict, InvalidFields
from oms.runtime import sql
from orders import operations as desk_operations
from orders.domain.tickets import Terms, parse_ticket
from orders.models import ChildOrder, Order, Submission, Trigger
from orders.queries import events_of
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Hold, Limit
from tests.conftest import Desk
from tests.flows.test_hard_reports import cancel, replace, trade


def placed(desk: Desk, side: str = "sell", quantity: str = "10", **more: Any) -> Any:
    raw = {"account": "MAIN", "symbol": "AAPL", "side": side, "quantity": quantity} | more
    [answer] = desk_operations.place([parse_ticket(raw, at=desk.at)], actor=desk.actor(desk.alice), at=desk.at)
    assert answer.problem is None, answer.problem
    return answer


def own(desk: Desk, quantity: str = "100") -> None:
    """Buy, so that there is something to protect."""
    desk.place(f"buy {quantity} AAPL")
    desk.send()
    desk.report(trade(desk, desk.near.sent[-1], "OWN", quantity, "100"))


def market(desk: Desk, bid: str, ask: str) -> int:
    desk.later(1)
    desk.quote("AAPL", bid, ask)
    return desk_operations.watch(at=desk.at)


def sent_since(desk: Desk, before: int) -> Any:
    earlier = datetime.now(UTC) - timedelta(seconds=5)  # the test's clock runs ahead
    Submission.objects.filter(state="prepared").update(due_at=earlier, created_at=earlier)
    desk.send()
    [message] = desk.near.sent[before:]
    return message


class TestTrailing:
    def test_a_sale_follows_the_best_bid_up_and_is_let_go_on_the_way_down(self, desk: Desk) -> None:
        own(desk)
        answer = placed(desk, order_type="trailing_stop", trail_amount="2.00", time_in_force="gtc")
        order = desk.order(answer)
        assert (order.status, order.triggered_at, ChildOrder.objects.filter(order=order).count()) == ("new", None, 0)
        assert Trigger.objects.get().price == Decimal("97.99")
        assert market(desk, "105.00", "105.02") == 0
        assert Trigger.objects.get().price == Decimal("103.00")
        assert market(desk, "104.00", "104.02") == 0
        assert Trigger.objects.get().price == Decimal("103.00"), "it never goes back"
        before = len(desk.near.sent)
        assert market(desk, "103.00", "103.02") == 1
        message = sent_since(desk, before)
        assert (message.order_type, message.stop_price, message.limit_price) == ("market", None, None)
        order = desk.order(answer)
        assert (order.status, order.triggered_at, order.stop_price) == ("new", desk.at, Decimal("103.00"))
        assert order.order_type == "trailing_stop"
        desk.report(trade(desk, message, "E1", "10", "103"))
        assert desk.order(answer).status == "filled"
        assert "order.triggered" in [e["kind"] for e in events_of(answer.order_id)]
        desk.holds()

    def test_a_buy_follows_the_best_ask_down_in_percent(self, desk: Desk) -> None:
        placed(desk, "buy", order_type="trailing_stop", trail_percent="1")
        assert Trigger.objects.get().price == Decimal("101.02")  # 100.01 × 1.01, rounded away
        assert market(desk, "89.98", "90.00") == 0
        assert Trigger.objects.get().price == Decimal("90.90")
        assert market(desk, "90.88", "90.90") == 1

    def test_a_jump_is_judged_by_the_price_before_it(self, desk: Desk) -> None:
        """A quote that is the best so far moves the price; it can't be what the price is reached by."""
        own(desk)
        placed(desk, order_type="trailing_stop", trail_amount="0.01", time_in_force="gtc")
        assert market(desk, "120.00", "120.02") == 0
        assert Trigger.objects.get().price == Decimal("119.99")

    def test_a_limit_that_trails_keeps_its_distance(self, desk: Desk) -> None:
        own(desk)
        answer = placed(
            desk, order_type="trailing_stop_limit", trail_amount="2.00", limit_price="97.49", time_in_force="gtc"
        )
        assert Trigger.objects.get().limit_offset == Decimal("-0.50")
        market(desk, "105.00", "105.02")
        before = len(desk.near.sent)
        assert market(desk, "103.00", "103.02") == 1
        message = sent_since(desk, before)
        assert (message.order_type, message.limit_price) == ("limit", Decimal("102.50"))
        assert desk.order(answer).limit_price == Decimal("102.50")
        desk.holds()

    def test_who_watches_next_goes_on_where_the_last_one_stopped(self, desk: Desk) -> None:
        own(desk)
        placed(desk, order_type="trailing_stop", trail_amount="2.00", time_in_force="gtc")
        market(desk, "110.00", "110.02")
        Order.objects.update(updated_at=desk.at)  # nothing else is kept anywhere
        assert market(desk, "108.00", "108.02") == 1


class TestTouched:
    def test_a_buy_below_the_market_and_a_sale_above_it(self, desk: Desk) -> None:
        own(desk)
        buy = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00", time_in_force="gtc")
        sell = placed(
            desk, "sell", order_type="limit_if_touched", stop_price="105.00", limit_price="104.90", time_in_force="gtc"
        )
        assert market(desk, "99.00", "99.02") == 0
        before = len(desk.near.sent)
        assert market(desk, "94.98", "95.00") == 1
        assert (message := sent_since(desk, before)).order_type == "market"
        assert message.side == "buy"
        assert market(desk, "105.00", "105.02") == 1
        assert (message := sent_since(desk, before + 1)).limit_price == Decimal("104.90")
        assert {desk.order(buy).status, desk.order(sell).status} == {"new"}
        desk.holds()


class TestGuards:
    @pytest.fixture
    def waiting(self, desk: Desk) -> Any:
        own(desk)
        return placed(desk, order_type="trailing_stop", trail_amount="2.00", time_in_force="gtc")

    def test_an_old_quote_triggers_nothing(self, desk: Desk, waiting: Any) -> None:
        desk.quote("AAPL", "90.00", "90.02")
        assert desk_operations.watch(at=desk.at + timedelta(seconds=20)) == 0
        assert desk_operations.watch(at=desk.at + timedelta(seconds=5)) == 1

    def test_it_is_let_go_once(self, desk: Desk, waiting: Any) -> None:
        assert market(desk, "90.00", "90.02") == 1
        assert market(desk, "89.00", "89.02") == 0
        assert ChildOrder.objects.filter(order_id=waiting.order_id).count() == 1

    def test_under_a_halt_it_waits_on(self, desk: Desk, waiting: Any) -> None:
        halt = risk.engage_halt(Scope("account", "MAIN"), reason="test", actor=desk.actor(desk.rita), at=desk.at)
        assert market(desk, "90.00", "90.02") == 0
        assert desk.order(waiting).status == "new"
        risk.release_halt(halt.id, reason="over", actor=desk.actor(desk.oona), at=desk.at)
        assert market(desk, "90.00", "90.02") == 1

    def test_what_risk_refuses_now_ends(self, desk: Desk) -> None:
        answer = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00", time_in_force="gtc")
        Limit.objects.filter(kind="order_quantity").update(value=Decimal(5))
        assert market(desk, "94.00", "94.02") == 0
        order = desk.order(answer)
        assert (order.status, order.reason, Hold.objects.get(pk=order.id).open_quantity) == (
            "canceled",
            "quantity_limit",
            0,
        )
        desk.holds()

    def test_a_cancel_ends_it_at_once(self, desk: Desk, waiting: Any) -> None:
        cancel(desk, waiting)
        order = desk.order(waiting)
        assert (order.status, order.leaves_quantity, Hold.objects.get(pk=order.id).open_quantity) == ("canceled", 0, 0)
        assert market(desk, "90.00", "90.02") == 0
        with pytest.raises(Conflict):
            cancel(desk, waiting)
        desk.holds()

    def test_a_replace_changes_it_at_once(self, desk: Desk) -> None:
        answer = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00", time_in_force="gtc")
        replace(desk, answer, quantity=Decimal(20), stop_price=Decimal("97.00"))
        order = desk.order(answer)
        assert (order.status, order.quantity, order.leaves_quantity, order.stop_price) == ("new", 20, 20, 97)
        assert Hold.objects.get(pk=order.id).open_quantity == 20
        assert market(desk, "96.98", "97.00") == 1
        assert ChildOrder.objects.get(order=order).quantity == 20
        desk.holds()

    def test_a_day_s_order_made_lasting_outlives_the_day(self, desk: Desk) -> None:
        answer = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00")
        assert Trigger.objects.get().valid_until is not None
        replace(desk, answer, time_in_force="gtc")
        assert Trigger.objects.get().valid_until is None

    def test_a_day_s_order_expires_with_its_day(self, desk: Desk) -> None:
        answer = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00")
        desk.later(25 * 3600)
        desk.quote("AAPL", "94.00", "94.02")
        assert desk_operations.watch(at=desk.at) == 0
        order = desk.order(answer)
        assert (order.status, order.reason) == ("expired", "too_late")
        desk.holds()

    def test_a_broker_that_takes_stops_gets_them(self, desk: Desk) -> None:
        placed(desk, "buy", order_type="stop", stop_price="105.00")
        assert not Trigger.objects.exists()
        assert ChildOrder.objects.count() == 1

    def test_a_directed_broker_that_takes_none_has_the_desk_watch(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dataclasses import replace as altered

        from brokers import adapters

        desk.near.capabilities = altered(desk.near.capabilities, order_types=frozenset({"market", "limit"}))
        adapters._abilities.clear()
        placed(desk, "buy", order_type="stop_limit", stop_price="105.00", limit_price="106.00", broker="NEAR")
        assert market(desk, "104.98", "105.00") == 1
        message = sent_since(desk, 0)
        assert (message.order_type, message.limit_price, message.stop_price) == ("limit", Decimal("106.00"), None)


class TestTimes:
    def test_nothing_is_sent_before_the_start(self, desk: Desk) -> None:
        start = desk.at + timedelta(hours=1)
        answer = placed(desk, "buy", order_type="limit", limit_price="99.00", good_after=start.isoformat())
        assert (desk.order(answer).status, ChildOrder.objects.count()) == ("new", 0)
        assert market(desk, "99.98", "100.00") == 0
        desk.later(3600)
        assert market(desk, "99.98", "100.00") == 1
        assert sent_since(desk, 0).limit_price == Decimal("99.00")
        desk.holds()

    @pytest.fixture
    def hours(self, desk: Desk, settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
        """Two sessions: one open now for an hour, one tomorrow."""
        settings.SESSIONS = True
        opens = [desk.at - timedelta(hours=1), desk.at + timedelta(hours=23)]
        closes = [o + timedelta(hours=2) for o in opens]
        kept = Calendar([o.date() for o in opens], opens, closes)
        monkeypatch.setattr(queries, "calendar", lambda code: kept)
        sql.run("UPDATE brokers_instrument SET calendar = 'XTEST'")
        queries.forget_cache()
        return [*opens, *closes]

    def test_an_order_for_the_open_waits_for_it_and_is_immediate_then(self, desk: Desk, hours: list[datetime]) -> None:
        answer = placed(desk, "buy", order_type="market", time_in_force="opg")
        assert Trigger.objects.get().starts_at == hours[1]
        desk.at = hours[1]
        assert market(desk, "99.98", "100.00") == 1
        message = sent_since(desk, 0)
        assert (message.order_type, message.time_in_force) == ("market", "ioc")
        assert desk.order(answer).time_in_force == "opg"
        desk.holds()

    def test_an_order_for_the_close_is_sent_shortly_before_it(self, desk: Desk, hours: list[datetime]) -> None:
        placed(desk, "buy", order_type="limit", limit_price="99.00", time_in_force="cls")
        assert Trigger.objects.get().starts_at == hours[2] - timedelta(minutes=2)
        desk.at = hours[2] - timedelta(minutes=1)
        desk.quote("AAPL", "99.98", "100.00")
        late = placed(desk, "buy", order_type="limit", limit_price="98.00", time_in_force="cls")
        assert Trigger.objects.get(order_id=late.order_id).starts_at == hours[3] - timedelta(minutes=2)
        assert market(desk, "99.98", "100.00") == 1
        assert sent_since(desk, 0).time_in_force == "day"

    def test_where_there_is_no_open_nobody_takes_an_order_for_it(self, desk: Desk) -> None:
        answer = placed(desk, "buy", order_type="market", time_in_force="opg")
        assert (desk.order(answer).status, desk.order(answer).reason) == ("denied", "no_route")


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"order_type": "trailing_stop"}, "trail_amount", "required"),
        ({"order_type": "trailing_stop", "trail_amount": "1", "trail_percent": "1"}, "trail_amount", "required"),
        ({"order_type": "trailing_stop", "trail_percent": "100"}, "trail_percent", "out_of_range"),
        ({"order_type": "limit", "limit_price": "9", "trail_amount": "1"}, "trail_amount", "not_allowed"),
        ({"order_type": "market_if_touched"}, "stop_price", "required"),
        (
            {"order_type": "market_if_touched", "stop_price": "9", "time_in_force": "ioc"},
            "time_in_force",
            "not_allowed",
        ),
        ({"order_type": "stop", "stop_price": "9", "time_in_force": "opg"}, "time_in_force", "not_allowed"),
        ({"order_type": "market", "good_after": "2020-01-01T00:00:00Z"}, "good_after", "out_of_range"),
        ({"order_type": "market", "good_after": "tomorrow"}, "good_after", "not_a_time"),
    ],
)
def test_what_can_not_be_waited_for_is_refused(fields: dict[str, str], field: str, code: str) -> None:
    raw = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "1"} | fields
    with pytest.raises(InvalidFields) as refused:
        parse_ticket(raw, at=datetime.now(UTC))
    assert (field, code) in [(e.field, e.code) for e in refused.value.errors]


def test_terms_of_a_waiting_order_keep_the_version_rule(desk: Desk) -> None:
    answer = placed(desk, "buy", order_type="market_if_touched", stop_price="95.00")
    with pytest.raises(Conflict) as refused:
        desk_operations.replace(
            answer.order_id, Terms(quantity=Decimal(5), expected_version=9), actor=desk.actor(desk.alice), at=desk.at
        )
    assert refused.value.code == "version_conflict"
