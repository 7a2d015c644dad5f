"""A gateway that dies with -9 between the fill of an entry and the beginning of its exits: they begin once, and for all of it.

Real PostgreSQL, a real venue process; gateways and senders are processes of their own, and no clock is moved.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from brokers.models import BrokerSession
from orders.models import GroupLeg, Order, OrderGroup
from risk.models import Hold
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery

SECONDS = 20.0


class Played:
    """A bracket over one venue, whose gateway dies at the moment that the desk would follow a fill."""

    def __init__(self, desk: Desk, nursery: Nursery, venue: Venue) -> None:
        self.desk, self.nursery, self.venue = desk, nursery, venue

    def market(self, bid: str, ask: str, **sizes: str) -> None:
        self.desk.at = datetime.now(UTC)
        self.desk.quote("AAPL", bid, ask)
        self.venue.quote("AAPL", bid, ask, **sizes)

    def order(self, role: str) -> Order:
        return GroupLeg.objects.select_related("order").get(role=role).order

    def die(self, until: Callable[[], bool]) -> None:
        """Have gateways die right after each commit that changed the group, until what is awaited is booked."""
        end = time.monotonic() + SECONDS
        while not until():
            assert time.monotonic() < end, self.nursery.log.read_text()[-3000:]
            BrokerSession.objects.update(lease_until=None, owner="")
            assert self.nursery.run("follow", "NEAR", "3", crash="before_groups:1") != 0, "it did not die there"

    def live(self, until: Callable[[], bool]) -> None:
        """Let one gateway go on where the dead ones stopped, until what is awaited stands."""
        BrokerSession.objects.update(lease_until=None, owner="")
        gateway, end = self.nursery.start("follow", "NEAR", "60"), time.monotonic() + SECONDS
        while not until():
            assert time.monotonic() < end, self.nursery.log.read_text()[-3000:]
            self.nursery.run("send", "NEAR")
            time.sleep(0.1)
        self.nursery.kill(gateway)

    def shape(self) -> dict[str, tuple[str, int, int]]:
        rows = GroupLeg.objects.select_related("order")
        return {p.role: (str(p.order.status), int(p.order.quantity), int(p.order.filled_quantity)) for p in rows}


@pytest.mark.django_db(transaction=True)
def test_b14_a_gateway_killed_between_the_fill_of_an_entry_and_its_exits(
    live_desk: Desk, nursery: Nursery, join: Callable[..., Venue]
) -> None:
    played = Played(live_desk, nursery, join(depth=1.0))
    exits: dict[str, Any] = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"}}
    played.market("99.99", "100.01")
    [placed] = live_desk.place("buy 100 AAPL limit 99.00 gtc", **exits)
    nursery.run("send", "NEAR")
    played.market("98.98", "98.99", ask_size="40")
    played.die(lambda: played.order("parent").filled_quantity == 40)
    assert {s for s, *_ in list(played.shape().values())[1:]} == {"held"}, "nobody followed the fill"
    assert OrderGroup.objects.get().due_at is not None, "but it stands that somebody has to"
    played.live(
        lambda: played.shape()["stop_loss"] == ("new", 40, 0) and played.shape()["take_profit"] == ("new", 40, 0)
    )
    played.market("98.98", "98.99", ask_size="60")
    played.die(lambda: played.order("parent").filled_quantity == 100)
    played.live(
        lambda: played.shape()["stop_loss"] == ("new", 100, 0) and played.shape()["take_profit"] == ("new", 100, 0)
    )
    played.market("110.00", "110.02")
    played.die(lambda: played.order("take_profit").filled_quantity == 100)
    played.live(lambda: played.shape()["stop_loss"][0] == "canceled")
    assert placed.problem is None
    assert Order.objects.count() == 3
    assert not Hold.objects.filter(open_quantity__gt=0).exists()
    proof.compare_with_books(database_url(), {"NEAR": played.venue.book()})
    live_desk.holds()
