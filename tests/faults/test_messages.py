"""Messages that come twice, late, or never: the rows are the queue, so none of it counts."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from celery import Celery

from oms.servers.valkey import Valkey
from orders.models import Execution, Submission
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.client import Client, Intent
from tests.faults.conftest import database_url
from tests.faults.desk import ROOT
from tests.faults.nursery import Nursery
from tests.faults.test_claims import until
from tests.faults.test_crash_points import Web

pytestmark = pytest.mark.django_db(transaction=True)
SLOW_MS = 4_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey of this test's own, so that nobody else fetches its messages."""
    server = Valkey(tmp_path / "valkey", tmp_path / "valkey.log", durable=False)
    server.start()
    yield server
    assert server.process is not None
    server.process.kill()
    server.process.wait()


def test_d03_a_message_whose_visibility_runs_out_sends_nothing_twice(
    live_desk: Desk, join: Callable[..., Venue], store: Valkey, tmp_path: Path
) -> None:
    """The broker takes four seconds, the message is given out again after one: the second finds nothing to claim."""
    venue = join(dedupe="none", latency_ms={"ack": (SLOW_MS, 0)})
    live_desk.place("buy 1 AAPL", "buy 2 AAPL")
    log = tmp_path / "worker.log"
    env = os.environ | {"DATABASE_URL": database_url(), "REDIS_URL": store.url}
    words = ("-m", "celery", "-A", "tests.faults.impatient", "worker", "-l", "info", "-c", "4", "-O", "fair")
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", *words], cwd=ROOT, env=env, stdout=output, stderr=output
        )
    try:
        with Celery(broker=store.url, set_as_current=False) as app:
            app.send_task("orders.send", args=["NEAR"], ignore_result=True)
        until(lambda: not Submission.objects.exclude(state="accepted").exists(), 60)
        until(lambda: max(received(log).values(), default=0) >= 2, 60)
    finally:
        worker.terminate()
        worker.wait(30)

    assert len(venue.book()["orders"]) == 2
    assert set(Submission.objects.values_list("attempts", flat=True)) == {1}


def received(log: Path) -> Counter[str]:
    """Return how often each message was given to the worker."""
    return Counter(
        line.split("orders.send[")[1].split("]")[0]
        for line in log.read_text().splitlines()
        if "received" in line and "orders.send[" in line
    )


def test_d11_what_was_done_and_not_yet_told_is_done_once(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    """The web dies after its commit, before a doorbell rings; the gateway after keeping the bytes, before it marks them
    as applied. Everything is found again, and nothing counts twice."""
    venue = join(dedupe="none")
    live_desk.at = datetime.now(UTC)
    live_desk.quote("AAPL", "100.00", "100.02")
    body = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "7", "order_type": "market"}
    untold = Intent("untold", body)
    assert Web(nursery, client).take([untold], crash="after_commit:1")
    nursery.run("send", "NEAR")
    assert nursery.run("follow", "NEAR", "20", crash="after_raw:1") < 0
    assert not Execution.objects.exists()

    gateway = nursery.start("follow", "NEAR", "60")
    proof.wait_until_all_ended(database_url(), 60)
    nursery.kill(gateway)

    assert Execution.objects.count() == 1
    assert proof.compare_with_clients(database_url(), [untold]) == 1
    proof.compare_with_books(database_url(), {"NEAR": venue.book()})
    live_desk.holds()
