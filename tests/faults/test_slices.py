"""A twap whose workers die with -9 at every point of their work: done to the last lot, no slice asked for twice.

Real PostgreSQL, a real venue process; the workers, senders and the gateway are processes of their own, and no clock is moved.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from orders.models import Algo, AlgoSlice, ChildOrder
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery

POINTS = (
    "after_slice_claim:1",
    "after_slice_release:1",
    *(f"{side}_commit:{n}" for side in ("before", "after") for n in (1, 2)),
)
SECONDS, SLICES = 9, 7
QUANTITY = 97


@pytest.mark.django_db(transaction=True)
def test_d04_a_twap_survives_its_workers(live_desk: Desk, nursery: Nursery, join: Callable[..., Venue]) -> None:
    desk, venue, rng = live_desk, join(), random.Random(5)
    gateway = nursery.start("follow", "NEAR", "600")
    end = datetime.now(UTC) + timedelta(seconds=SECONDS)
    desk.at = datetime.now(UTC)
    desk.quote("AAPL", "100.00", "100.02")
    [placed] = desk.place(f"buy {QUANTITY} AAPL", algo={"name": "twap", "end_at": end.isoformat(), "slices": SLICES})
    assert placed.problem is None, placed.problem
    killed, limit = 0, time.monotonic() + SECONDS + 30
    while Algo.objects.get().state != "over":
        assert time.monotonic() < limit, nursery.log.read_text()[-3000:]
        desk.at = datetime.now(UTC)
        desk.quote("AAPL", "100.00", "100.02")
        killed += nursery.run("work", "1", crash=rng.choice(POINTS) if killed < 5 else "") != 0
        nursery.run("send", "NEAR", crash=rng.choice(("", "after_record:1")))
    nursery.kill(gateway)
    assert killed >= 3
    assert (desk.order(placed).status, desk.order(placed).filled_quantity) == ("filled", QUANTITY)
    sent = AlgoSlice.objects.filter(state="sent")
    assert sum(s.quantity for s in sent) == QUANTITY
    assert ChildOrder.objects.count() == sent.count()
    proof.compare_with_books(database_url(), {"NEAR": venue.book()})
    desk.holds()
