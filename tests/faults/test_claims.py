"""Who may send, when several want to, and when one slept too long. Real processes, a real venue, real time."""

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psutil
import pytest

from orders.models import Order, Submission
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.client import Client, Intent
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery
from tests.faults.test_crash_points import Web

pytestmark = pytest.mark.django_db(transaction=True)
SENDERS, CALLERS = 8, 50


def until(so: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.05)


def test_a07_the_same_doorbell_at_eight_workers_sends_once(
    live_desk: Desk, nursery: Nursery, join: Callable[..., Venue]
) -> None:
    venue = join(dedupe="none", latency_ms={"ack": (300, 0)})
    live_desk.place("buy 1 AAPL", "buy 2 AAPL", "buy 3 AAPL", "sell_short 4 AAPL")

    for pid in [nursery.start("send", "NEAR") for _ in range(SENDERS)]:
        assert nursery.wait(pid) == 0

    taken = [o["client_order_id"] for o in venue.book()["orders"]]
    assert sorted(taken) == sorted(Submission.objects.values_list("client_order_id", flat=True))
    assert set(Submission.objects.values_list("attempts", flat=True)) == {1}


def test_a08_a_sender_frozen_past_its_lease_does_not_send_when_it_wakes(
    live_desk: Desk, nursery: Nursery, join: Callable[..., Venue]
) -> None:
    """Lease, call time and both denials pass in real time; the order ends as absent, and late bytes would be seen."""
    venue = join(dedupe="none")
    [placed] = live_desk.place("buy 5 AAPL")
    sleeper = nursery.start("send", "NEAR", crash="after_claim:1:SIGSTOP")
    until(lambda: psutil.Process(sleeper).status() == psutil.STATUS_STOPPED)
    assert Submission.objects.get().state == "sent"

    gateway = nursery.start("follow", "NEAR", "120")
    waited = proof.wait_until_all_ended(database_url(), 60)
    assert Submission.objects.get().state == "absent"
    os.kill(sleeper, signal.SIGCONT)
    assert nursery.wait(sleeper) == 0
    time.sleep(1)
    nursery.kill(gateway)

    assert waited > 10, "absence was proven before the lease had run out"
    assert venue.book()["orders"] == []
    assert live_desk.order(placed).status == "rejected"
    live_desk.holds()


def test_a16_one_key_from_fifty_callers_at_once_is_one_order(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    join()
    live_desk.at = datetime.now(UTC)
    live_desk.quote("AAPL", "100.00", "100.02")
    web = Web(nursery, client)
    web.start()
    body = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "7", "order_type": "market"}
    intent, barrier = Intent("one-key", body), threading.Barrier(CALLERS)

    def call() -> None:
        barrier.wait()
        client.place(intent)
        client.close()

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(a.status for a in intent.answers) == [200] * (CALLERS - 1) + [201]
    assert len({a.body for a in intent.answers}) == 1
    assert Order.objects.count() == 1
