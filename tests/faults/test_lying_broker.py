"""A broker that lies in every way it can: what is true is found, and nothing is there twice.

It drops replies, answers errors for what it took, hides orders, repeats, turns around, loses and spoils frames, fills
after cancels, busts and corrects trades, falls silent and goes away; it takes an id twice if it gets it twice. When it is
honest again everything ends, and the desk's books agree with its own.
"""

import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import BrokerSession
from orders.models import Order
from orders.operations.changing import cancel_batch
from orders.states import CLOSED
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery
from tests.faults.report import publish

pytestmark = pytest.mark.django_db(transaction=True)
LIES: dict[str, Any] = {
    "drop_reply": 0.15,
    "error_though_accepted": 0.1,
    "hide_orders": 0.2,
    "hide_seconds": 0.8,
    "duplicate_reports": 0.2,
    "reorder_reports": 0.2,
    "gap": 0.1,
    "corrupt": 0.05,
    "garbage": 0.02,
    "late_fill_after_cancel": 0.5,
    "bust": 0.05,
    "bust_seconds": 0.5,
}
HONEST = {name: 0.0 for name in LIES if not name.endswith("seconds")} | {"silence": False}
ENDED_SECONDS_MAX = 60.0
FIRST_SEED = int(os.environ.get("SEED", "7"))
SEEDS = [FIRST_SEED, *(pytest.param(FIRST_SEED + n, marks=pytest.mark.long) for n in range(1, 6))]
ROUNDS = 12
_told: dict[str, list[int]] = {"seeds": [], "orders": []}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lying_broker_gets_nothing_twice_and_its_truth_is_found(
    live_desk: Desk, nursery: Nursery, join: Callable[..., Venue], seed: int
) -> None:
    rng = random.Random(seed)
    venue = join(seed=seed, dedupe="none", partial_fill_rate=0.3, latency_ms={"ack": (5, 5), "fill": (10, 10)})
    venue.lies(**LIES)
    gateway = nursery.start("follow", "NEAR", "600")
    for number in range(ROUNDS):
        trade(live_desk, rng)
        if rng.random() < 0.5:
            gateway = send_blindly(nursery, gateway)
        else:
            nursery.run("send", "NEAR")
        meddle(live_desk, venue, rng)
        if number == ROUNDS // 2:
            venue.lies(silence=True)
            time.sleep(1)
            venue.lies(silence=False)
        if number == ROUNDS * 3 // 4:
            venue.admin("down", arguments={"for_seconds": 1})
            trade(live_desk, rng)
            nursery.run("send", "NEAR")
            time.sleep(1.5)

    venue.lies(**HONEST)
    cancel_open(live_desk, 1.0, rng)
    ended = proof.wait_until_all_ended(database_url(), ENDED_SECONDS_MAX)
    time.sleep(1)  # a bust may be on its way
    nursery.kill(gateway)
    proof.compare_with_books(database_url(), {"NEAR": venue.book()})
    live_desk.holds()
    tell(seed, Order.objects.count(), ended)


def send_blindly(nursery: Nursery, gateway: int) -> int:
    """Send twice while no report comes in: what was not answered must stay where it is. Returns the next gateway."""
    nursery.kill(gateway)
    nursery.run("send", "NEAR")
    time.sleep(0.3)
    nursery.run("send", "NEAR")
    BrokerSession.objects.update(lease_until=None, owner="")  # its successor need not wait for the lease of the dead
    return nursery.start("follow", "NEAR", "600")


def trade(desk: Desk, rng: random.Random) -> None:
    """Place what fills and what waits, and let a price move through what waits."""
    desk.at = datetime.now(UTC)
    desk.quote("AAPL", "100.00", "100.02")
    side = rng.choice(("buy", "sell_short"))
    desk.place(
        f"{side} {rng.randint(1, 99)} AAPL",
        f"buy {rng.randint(1, 99)} AAPL limit {100 - rng.randint(1, 9)}",
        f"sell_short {rng.randint(1, 99)} AAPL limit {100 + rng.randint(1, 9)}",
    )


def meddle(desk: Desk, venue: Venue, rng: random.Random) -> None:
    """Cancel some of what is open; have the broker move its market and correct a trade."""
    cancel_open(desk, 0.3, rng)
    low = 100 - rng.randint(0, 5)
    venue.quote("AAPL", f"{low}.00", f"{low}.02", "1000", "1000")
    done = venue.book()["executions"]
    if done and rng.random() < 0.5:
        chosen = rng.choice(done)
        price = Decimal(chosen["price"]) + Decimal("0.01")
        venue.admin("correct", arguments={"execution_id": chosen["execution_id"], "price": str(price)})


def cancel_open(desk: Desk, share: float, rng: random.Random) -> None:
    ids = Order.objects.exclude(status__in=[*CLOSED, "pending_cancel"]).order_by("id").values_list("id", flat=True)
    chosen = [i for i in ids if rng.random() < share]
    cancel_batch(chosen, actor=desk.actor(desk.alice), at=datetime.now(UTC), reason="enough")


def tell(seed: int, orders: int, ended: float) -> None:
    """Add a seed to the report of this run."""
    _told["seeds"].append(seed)
    _told["orders"].append(orders)
    figures = {"seeds": list(_told["seeds"]), "ended_seconds": round(ended, 1)}
    publish("a lying broker", n=sum(_told["orders"]), **figures)
