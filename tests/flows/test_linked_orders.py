"""One group at a broker that links orders itself, and at one that doesn't: from outside nobody can tell."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from brokers.simulation.wire import Quote
from orders.models import GroupLeg, Order, OrderGroup, Submission
from portfolio.models import Position
from risk.models import Hold
from tests.conftest import Desk
from tests.flows.floor import Floor

EXITS = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"}}


def market(floor: Floor, bid: str, ask: str, bid_size: str | None = None, ask_size: str | None = None) -> None:
    """Move the market, with as much at its prices as told."""
    floor.desk.at = floor.at
    floor.desk.quote("AAPL", bid, ask)
    sizes = [None if s is None else Decimal(s) for s in (bid_size, ask_size)]
    for venue in floor.venues.values():
        venue.quote([Quote("AAPL", Decimal(bid), Decimal(ask), *sizes)], floor.at)


def shape() -> list[tuple[str, str, int, int, str]]:
    rows = GroupLeg.objects.select_related("order").order_by("order_id")
    return [
        (p.role, str(p.order.status), int(p.order.quantity), int(p.order.filled_quantity), p.order.reason) for p in rows
    ]


@pytest.fixture(params=[True, False], ids=["linked", "followed"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def floor(open_floor: Callable[..., Floor], native: bool) -> Floor:
    return open_floor({"oco": native, "depth": 1.0}, oco=native, depth=1.0)


def test_a_bracket_lives_the_same_life_at_both(floor: Floor, native: bool) -> None:
    desk: Desk = floor.desk
    [placed] = floor.place("buy 100 AAPL limit 99.00 gtc", **EXITS)
    floor.turn(2)
    market(floor, "98.98", "98.99", ask_size="40")
    floor.turn(3)
    assert shape() == [
        ("parent", "partially_filled", 100, 40, ""), ("take_profit", "new", 40, 0, ""), ("stop_loss", "new", 40, 0, ""),
    ]  # fmt: skip
    desk.holds()
    market(floor, "98.98", "98.99", ask_size="60")
    floor.turn(3)
    market(floor, "110.00", "110.02", bid_size="30")
    floor.turn(3)
    assert shape() == [
        ("parent", "filled", 100, 100, ""), ("take_profit", "partially_filled", 100, 30, ""), ("stop_loss", "new", 70, 0, ""),
    ]  # fmt: skip
    desk.holds()
    replaces = Submission.objects.filter(kind="replace", child__order__leg__role="stop_loss").count()
    assert replaces == (1 if native else 2), (
        "the growth is the desk's; what a sibling fills the broker takes off itself"
    )
    market(floor, "89.00", "89.02")
    floor.turn(3)
    assert shape() == [
        ("parent", "filled", 100, 100, ""), ("take_profit", "canceled", 100, 30, "sibling_filled"), ("stop_loss", "filled", 70, 70, ""),
    ]  # fmt: skip
    cancels = Submission.objects.filter(kind="cancel").count()
    assert cancels == (0 if native else 1)
    assert Position.objects.get().quantity == 0
    assert not Hold.objects.filter(open_quantity__gt=0).exists()
    assert OrderGroup.objects.get().due_at is None
    floor.agrees()
    desk.holds()
    assert placed.problem is None


def test_an_entry_that_grows_after_its_exits_were_done(floor: Floor) -> None:
    floor.place("buy 100 AAPL limit 99.00 gtc", **EXITS)
    floor.turn(2)
    market(floor, "98.98", "98.99", ask_size="40")
    floor.turn(3)
    market(floor, "110.00", "110.02")
    floor.turn(4)
    assert shape()[1:] == [("take_profit", "filled", 40, 40, ""), ("stop_loss", "held", 100, 0, "")]
    market(floor, "98.98", "98.99")
    floor.turn(4)
    assert shape() == [
        ("parent", "filled", 100, 100, ""), ("take_profit", "partially_filled", 100, 40, ""), ("stop_loss", "new", 60, 0, ""),
    ]  # fmt: skip
    market(floor, "110.00", "110.02")
    floor.turn(4)
    assert [s for _, s, *_ in shape()] == ["filled", "filled", "canceled"]
    assert Position.objects.get().quantity == 0
    floor.agrees()
    floor.desk.holds()


def test_both_legs_in_one_moment(floor: Floor, native: bool) -> None:
    """B14: a market that jumps through both prices at once fills one leg where the broker links them. Where it doesn't, both
    can be, and what would undo the second is proposed to a person."""
    floor.place("buy 100 AAPL", **EXITS)
    floor.turn(3)
    market(floor, "110.00", "110.02")
    market(floor, "89.00", "89.02")
    floor.turn(4)
    position = Position.objects.get().quantity
    assert position == (0 if native else -100)
    assert OrderGroup.objects.get().excess == (0 if native else 100)
    assert Order.objects.filter(leg__role="flatten", status="held").count() == (0 if native else 1)
    floor.desk.holds()


def test_one_cancels_the_other(floor: Floor, native: bool) -> None:
    floor.place("buy 10 AAPL")
    floor.turn(2)
    seat: dict[str, Any] = {"group": {"kind": "oco", "id": "G"}}
    desk = floor.desk
    from orders import operations
    from tests.conftest import ticket

    legs = [ticket("sell 10 AAPL limit 105 gtc", **seat), ticket("sell 10 AAPL stop 95 gtc", **seat)]
    operations.place(legs, actor=desk.actor(desk.alice), at=floor.at)
    floor.turn(2)
    assert {o.link is not None for o in floor.at_venue()[1:]} == {native}
    market(floor, "105.00", "105.02", bid_size="4")
    floor.turn(3)
    assert [x[1:4] for x in shape()] == [("partially_filled", 10, 4), ("new", 6, 0)]
    market(floor, "105.00", "105.02")
    floor.turn(3)
    assert [x[1:] for x in shape()] == [("filled", 10, 10, ""), ("canceled", 6, 0, "sibling_filled")]
    floor.agrees()
    desk.holds()
