"""What brokers can do: combinations they don't take, parts of a quantity, how many messages a second."""

from dataclasses import replace as altered
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import adapters, queries
from brokers.adapters.port import CancelOrder, Capabilities
from oms.kernel.errors import InvalidFields
from orders.models import ChildOrder, SendBudget, Submission, Trigger
from orders.operations import sending
from routing.models import RoutingDecision
from tests.conftest import Desk, ticket
from tests.flows.test_hard_reports import cancel, working


def can(broker: Any, **abilities: Any) -> None:
    broker.capabilities = altered(broker.capabilities, **abilities)
    adapters._abilities.clear()


@pytest.mark.parametrize(
    ("exception", "asked", "taken"),
    [
        (("stop", "*", "crypto", "*"), ("stop", "gtc", "crypto"), False),
        (("stop", "*", "crypto", "*"), ("stop", "gtc", "equity"), True),
        (("market", "gtc", "*", "*"), ("market", "gtc", "equity"), False),
        (("market", "gtc", "*", "*"), ("market", "day", "equity"), True),
        (("*", "*", "*", "closed"), ("limit", "day", "equity"), True),
    ],
)
def test_what_is_not_taken_together(exception: Any, asked: tuple[str, str, str], taken: bool) -> None:
    abilities = Capabilities(exceptions=frozenset({exception}))
    assert abilities.takes(*asked) is taken
    if exception[3] == "closed":
        assert not abilities.takes(*asked, is_open=False)
    assert not abilities.takes("trailing_stop", "day", "equity")


def test_the_router_passes_a_broker_by_that_does_not_take_the_combination(desk: Desk) -> None:
    can(desk.near, exceptions=frozenset({("limit", "gtc", "equity", "*")}))
    desk.place("buy 10 AAPL limit 99.00 gtc")
    assert ChildOrder.objects.get().broker.code == "FAR"
    near = next(c for c in RoutingDecision.objects.get().candidates if c["broker"] == "NEAR")
    assert near["reasons"] == ["combination"]


def test_the_desk_watches_what_no_broker_takes_together(desk: Desk) -> None:
    for broker in (desk.near, desk.far):
        can(broker, exceptions=frozenset({("stop", "gtc", "*", "*")}))
    desk.place("buy 10 AAPL stop 105.00 gtc")
    assert Trigger.objects.get().price == 105


def test_parts_of_a_quantity_go_to_a_broker_that_can(desk: Desk) -> None:
    [placed] = desk.place("buy 100 AAPL limit 99.00", display_quantity="10", min_quantity="20")
    assert (desk.order(placed).status, desk.order(placed).reason) == ("denied", "no_route")
    can(desk.far, display_quantity=True, min_quantity=True)
    desk.place("buy 100 AAPL limit 99.00", display_quantity="10", min_quantity="20")
    desk.send("FAR")
    message = desk.far.sent[-1]
    assert (message.display_quantity, message.min_quantity) == (10, 20)


@pytest.mark.parametrize(
    ("text", "more", "field"),
    [
        ("buy 10 AAPL limit 99.00", {"display_quantity": "11"}, "display_quantity"),
        ("buy 10 AAPL", {"display_quantity": "5"}, "display_quantity"),
        ("buy 10 AAPL", {"min_quantity": "0"}, "min_quantity"),
    ],
)
def test_a_part_is_a_part(text: str, more: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        ticket(text, **more)
    assert field in [e.field for e in refused.value.errors]


class TestBudget:
    def test_e10_orders_leave_a_part_of_the_rate_to_cancels(self, desk: Desk) -> None:
        placed, _ = working(desk)
        can(desk.near, orders_per_second=5.0)
        desk.place(*["buy 1 AAPL limit 98.00"] * 8, broker="NEAR")
        near, at = queries.brokers_by_code()["NEAR"], desk.later(60)
        earlier = desk.at - timedelta(seconds=120)
        Submission.objects.filter(state="prepared").update(due_at=earlier, judged_at=at)
        assert len(sending.claim(near, owner="test", limit=100, at=at)) == 4
        assert sending.claim(near, owner="test", limit=100, at=at) == []
        cancel(desk, placed)
        Submission.objects.filter(state="prepared").update(due_at=earlier, judged_at=at)
        [claimed] = sending.claim(near, owner="test", limit=100, at=at)
        assert isinstance(claimed.message, CancelOrder)
        assert SendBudget.objects.get().tokens == pytest.approx(0)
        assert sending.claim(near, owner="test", limit=100, at=at) == []
        # it refills by the rate, to a second's worth
        assert len(sending.claim(near, owner="test", limit=100, at=at + timedelta(seconds=10))) == 4

    def test_without_a_documented_rate_nothing_is_counted(self, desk: Desk) -> None:
        desk.place("buy 1 AAPL limit 98.00")
        assert desk.send() == 1
        assert not SendBudget.objects.exists()
        assert desk.near.sent[-1].quantity == Decimal(1)
