"""Open orders over a corporate action: put into the terms after it, once, wherever they work."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import queries
from brokers.models import Broker
from orders.models import ChildOrder, Order, Submission, Trigger
from orders.operations import restating
from orders.queries import events_of
from portfolio import corporate
from portfolio.corporate import Announcement
from portfolio.models import CorporateAction
from risk.models import Hold
from tests.conftest import Desk
from tests.flows.test_groups import bracket
from tests.flows.test_hard_reports import trade
from tests.flows.test_triggers import placed

D = Decimal


def tomorrow(desk: Desk) -> datetime:
    return desk.at + timedelta(days=1)


def ex(desk: Desk) -> date:
    return tomorrow(desk).date()


def announced(desk: Desk, kind: str, **more: Any) -> CorporateAction:
    told = Announcement(type=kind, symbol="AAPL", ex_date=ex(desk), **more)
    return corporate.announce(told, actor=desk.actor(desk.oona), at=desk.at)


def applied(desk: Desk, kind: str, **more: Any) -> CorporateAction:
    action = announced(desk, kind, **more)
    for _ in range(2):
        restating.apply(action.pk, actor=desk.actor(desk.oona), at=tomorrow(desk))
    return action


def terms(answer: Any) -> tuple[str, Decimal, Decimal, Decimal, Decimal | None]:
    order = Order.objects.get(pk=answer.order_id)
    return order.status, order.quantity, order.filled_quantity, order.leaves_quantity, order.limit_price


def working(desk: Desk, filled: str = "20") -> tuple[Any, Any]:
    """A purchase of 100 at 90 for good, of which 20 are done."""
    answer = placed(desk, "buy", "100", order_type="limit", limit_price="90.00", time_in_force="gtc")
    desk.send()
    message = desk.near.sent[-1]
    desk.report(desk.near.report("new", message), trade(desk, message, "E1", filled, "90"))
    return answer, message


def overdue(desk: Desk) -> Any:
    """Send what is due tomorrow; return the last message."""
    earlier = datetime.now(UTC) - timedelta(seconds=5)
    Submission.objects.filter(state="prepared").update(due_at=earlier, created_at=earlier)
    desk.send()
    return desk.near.sent[-1]


def test_a_broker_that_restates_nothing_is_asked_anew(desk: Desk) -> None:
    answer, message = working(desk)
    applied(desk, "split", ratio=(2, 1))
    assert terms(answer) == ("pending_replace", 200, 40, 160, 45)
    hold = Hold.objects.get(pk=answer.order_id)
    assert hold.open_quantity == 160
    assert 45 <= hold.unit_amount < 46
    cancel = overdue(desk)
    assert cancel.orig_client_order_id == message.client_order_id
    desk.report(
        desk.near.report(
            "canceled", message, orig_client_order_id=message.client_order_id, client_order_id=cancel.client_order_id
        )
    )
    again = overdue(desk)
    assert (again.quantity, again.limit_price, again.time_in_force) == (160, 45, "gtc")
    desk.report(desk.near.report("new", again))
    assert terms(answer)[:4] == ("partially_filled", 200, 40, 160)
    assert [e["kind"] for e in events_of(answer.order_id)].count("order.restated") == 1
    desk.holds()


def test_a_broker_that_restates_by_itself_is_told_nothing(desk: Desk) -> None:
    near = Broker.objects.get(code="NEAR")
    near.settings = near.settings | {"restates_orders": True}
    near.save()
    queries.forget_cache()
    answer, message = working(desk)
    before = len(desk.near.sent)
    applied(desk, "split", ratio=(2, 1))
    assert terms(answer) == ("partially_filled", 200, 40, 160, 45)
    assert not Submission.objects.filter(state="prepared").exists()
    told = desk.near.report(
        "restated", message, reason="corporate_action", order_quantity=D(200), cumulative_quantity=D(40),
        leaves_quantity=D(160), limit_price=D(45), executed_at=tomorrow(desk),
    )  # fmt: skip
    desk.report(told)
    assert terms(answer) == ("partially_filled", 200, 40, 160, 45)
    late = trade(desk, message, "E2", "10", "45")
    desk.report(late)  # executed today, so before the split: twenty of the new units
    assert terms(answer)[1:4] == (200, 60, 140)
    assert len(desk.near.sent) == before
    desk.holds()


def test_what_the_desk_watches_is_put_into_new_units_where_it_waits(desk: Desk) -> None:
    desk.place("buy 100 AAPL")
    desk.send()
    desk.report(trade(desk, desk.near.sent[-1], "OWN", "100", "100"))
    answer = placed(desk, "sell", "100", order_type="trailing_stop", trail_amount="2.00", time_in_force="gtc")
    price = Trigger.objects.get().price
    applied(desk, "reverse_split", ratio=(1, 4), cash_in_lieu=D(400))
    assert terms(answer)[:4] == ("new", 25, 0, 25)
    trigger = Trigger.objects.get()
    assert (trigger.price, trigger.trail_amount) == (price * 4, 8)
    desk.holds()


def test_a_dividend_lowers_what_would_buy_into_it(desk: Desk) -> None:
    desk.place("buy 100 AAPL")
    desk.send()
    desk.report(trade(desk, desk.near.sent[-1], "OWN", "100", "100"))
    gtc: dict[str, Any] = {"order_type": "limit", "time_in_force": "gtc"}
    lowered = placed(desk, "buy", "10", limit_price="90.00", **gtc)
    kept = [
        placed(desk, "buy", "11", limit_price="90.00", do_not_reduce=True, **gtc),
        placed(desk, "buy", "12", order_type="limit", limit_price="90.00"),
        placed(desk, "sell", "13", limit_price="120.00", **gtc),
    ]
    action = announced(desk, "cash_dividend", cash=D("0.625"), pay_date=ex(desk) + timedelta(days=20))
    for _ in range(2):
        assert restating.restate(action.pk, actor=desk.actor(desk.oona), at=tomorrow(desk)) in (0, 1)
    assert Order.objects.get(pk=lowered.order_id).limit_price == D("89.37")
    assert [Order.objects.get(pk=k.order_id).limit_price for k in kept] == [90, 90, 120]
    assert restating.due_to_restate(ex(desk)) == []
    desk.holds()


def test_of_what_is_delisted_nothing_stays_open(desk: Desk) -> None:
    answer, _ = working(desk)
    applied(desk, "delisting", cash=D(0))
    assert Order.objects.get(pk=answer.order_id).status == "pending_cancel"
    assert ChildOrder.objects.get(order_id=answer.order_id).status == "pending_cancel"
    desk.holds()


def test_less_than_a_lot_is_taken_out(desk: Desk) -> None:
    answer = placed(desk, "buy", "3", order_type="market_if_touched", stop_price="90.00", time_in_force="gtc")
    applied(desk, "reverse_split", ratio=(1, 4), cash_in_lieu=D(400))
    order = Order.objects.get(pk=answer.order_id)
    assert (order.status, order.reason) == ("canceled", "corporate_action")
    desk.holds()


def test_only_what_lasts_may_say_that_nothing_is_lowered(desk: Desk) -> None:
    from oms.kernel.errors import InvalidFields

    with pytest.raises(InvalidFields):
        placed(desk, "buy", "1", do_not_reduce=True)


def test_a_bracket_goes_over_a_split_whole(desk: Desk) -> None:
    near = Broker.objects.get(code="NEAR")
    near.settings = near.settings | {"restates_orders": True}
    near.save()
    queries.forget_cache()
    group = bracket(desk)
    group.fill(group.order("parent"), "60")
    group.fill(group.order("take_profit"), "10", "110")
    applied(desk, "split", ratio=(2, 1))
    shape = {
        "parent": ("partially_filled", 200, 120), "take_profit": ("partially_filled", 120, 20), "stop_loss": ("new", 100, 0),
    }  # fmt: skip
    assert group.shape() == shape
    before = len(desk.near.sent)
    group.turn()
    assert (group.shape(), len(desk.near.sent)) == (shape, before)
    assert group.order("stop_loss").stop_price == 45
    desk.holds()


def test_what_follows_a_done_entry_counts_in_the_same_units(desk: Desk) -> None:
    near = Broker.objects.get(code="NEAR")
    near.settings = near.settings | {"restates_orders": True}
    near.save()
    queries.forget_cache()
    group = bracket(desk)
    group.fill(group.order("parent"), "100")
    applied(desk, "reverse_split", ratio=(1, 4), cash_in_lieu=D(400))
    group.turn()
    assert group.shape() == {"parent": ("filled", 25, 25), "take_profit": ("new", 25, 0), "stop_loss": ("new", 25, 0)}
    assert group.order("take_profit").limit_price == 440
    desk.holds()
