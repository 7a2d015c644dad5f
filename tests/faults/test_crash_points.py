"""Kill -9 at every named point of the send path: nothing is lost, nothing is at the broker twice, the books agree.

Real PostgreSQL, a real venue process that lies if told to, senders in processes of their own. A short run stands in
the default suite; `make faults` runs it at length (KILLS=300) and prints n, seeds and the bound that zero failures imply.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from brokers import queries
from brokers.models import Broker, BrokerSession
from orders import operations as desk_operations
from orders.models import Execution, Order, Submission
from tests.brokers.conftest import start_venue  # noqa: F401 - a fixture
from tests.brokers.venue import ROOT, Venue
from tests.conftest import Desk

SEND_POINTS = ("after_claim", "after_send", "after_record")
FOLLOW_POINTS = ("after_raw", "after_apply")
ORDERS_A_ROUND = 4


def environment(crash: str) -> dict[str, str]:
    """Return the environment of a process that works on the test's own database and dies at a point."""
    told = connection.settings_dict
    url = f"postgresql://{told['USER']}:{told['PASSWORD']}@{told['HOST']}:{told['PORT']}/{told['NAME']}"
    return os.environ | {"DATABASE_URL": url, "OMS_CRASH": crash, "OMS_ENV": "test"}


def run(*words: str, crash: str = "") -> int:
    """Run a sender or a gateway to its end, or to its death; return its exit code."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.sender", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(crash), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, -9), done.stderr[-2000:]
    return done.returncode


def join(desk: Desk, venue: Venue) -> None:
    """Make the venue the one broker of the desk."""
    Broker.objects.filter(code="NEAR").update(adapter="simulated", settings=venue.settings)
    Broker.objects.filter(code="FAR").update(enabled=False)
    queries.forget_cache()


def settle(rounds: int = 12) -> None:
    """Let time pass for everything unanswered, and do what workers and gateway do until nothing is open."""
    for _ in range(rounds):
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE orders_submission SET lease_until = least(lease_until, now()), due_at = least(due_at, now()), "
                "sent_at = sent_at - interval '20 seconds', created_at = created_at - interval '20 seconds' WHERE state IN ('sent', 'unknown', 'prepared') AND sent_at IS NOT NULL"
            )
        broker = queries.brokers_by_code()["NEAR"]
        clock: Callable[[], datetime] = lambda: datetime.now(UTC)  # noqa: E731 - the clock of one round
        desk_operations.resolve(broker, clock=clock)
        desk_operations.send(broker, owner="recovery", clock=clock)
        BrokerSession.objects.update(lease_until=None, owner="")
        run("follow", "NEAR", "1.5")
        if not Order.objects.exclude(status__in=["filled", "canceled", "rejected", "expired", "denied"]).exists():
            return


def compare(venue: Venue, placed: int) -> None:
    """Hold our rows against the venue's own book, which is the oracle."""
    book = venue.admin("book")
    ours = {s.client_order_id for s in Submission.objects.filter(kind="new")}
    theirs = [o["client_order_id"] for o in book["orders"]]
    assert len(theirs) == len(set(theirs)), "an order is at the broker twice"
    assert set(theirs) <= ours, "the broker has an order we did not send"
    filled = sum((Decimal(o["cumulative_quantity"]) for o in book["orders"]), Decimal(0))
    booked = sum((e.quantity for e in Execution.objects.filter(kind="trade")), Decimal(0))
    assert booked == filled, f"the broker filled {filled}, we booked {booked}"
    assert Order.objects.count() == placed
    unfinished = Order.objects.exclude(status="filled").values_list("status", "unknown")
    assert not unfinished, f"not filled: {list(unfinished)}"


def crash_rounds(desk: Desk, venue: Venue, kills: int, seed: int) -> int:
    """Place, send and follow with kills at random points; return how many processes died."""
    rng = random.Random(seed)
    died = 0
    for number in range(kills):
        desk.at = datetime.now(UTC)
        desk.quote("AAPL", "100.00", "100.02")
        texts = [f"{rng.choice(('buy', 'buy', 'sell_short'))} {rng.randint(1, 9)} AAPL" for _ in range(ORDERS_A_ROUND)]
        desk.place(*texts)
        if number % 3 == 2:
            BrokerSession.objects.update(lease_until=None, owner="")
            died += run("follow", "NEAR", "2", crash=f"{rng.choice(FOLLOW_POINTS)}:1") == -9
        else:
            died += run("send", "NEAR", crash=f"{rng.choice(SEND_POINTS)}:1") == -9
    return died


def prove(desk: Desk, venue: Venue, kills: int, seed: int) -> dict[str, Any]:
    """Run the rounds, settle, compare; return what to report."""
    join(desk, venue)
    died = crash_rounds(desk, venue, kills, seed)
    venue.lies(drop_reply=0.0, error_though_accepted=0.0, duplicate_reports=0.0, reorder_reports=0.0, gap=0.0)
    settle()
    compare(venue, kills * ORDERS_A_ROUND)
    desk.holds()
    orders = kills * ORDERS_A_ROUND
    return {"kills": died, "orders": orders, "lost": 0, "duplicated": 0, "seed": seed, "bound_95": 3 / orders}


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_or_doubled_in_a_few_kills(live_desk: Desk, start_venue: Any) -> None:  # noqa: F811 - the fixture
    report = prove(live_desk, start_venue(), kills=4, seed=1)
    assert report["kills"] >= 3


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_or_doubled_in_many_kills(live_desk: Desk, start_venue: Any) -> None:  # noqa: F811 - the fixture
    kills, seed = int(os.environ.get("KILLS", "300")), int(os.environ.get("SEED", "7"))
    venue = start_venue()
    venue.lies(drop_reply=0.1, error_though_accepted=0.05, duplicate_reports=0.1, reorder_reports=0.1, gap=0.05)
    report = prove(live_desk, venue, kills, seed)
    print(report)
    write_report(report)


def write_report(report: dict[str, Any]) -> None:
    """Keep the figures where `make faults` says they are."""
    import json

    from tests.benchmarks.__main__ import machine

    folder = ROOT / "var" / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"faults-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    target.write_text(json.dumps({"at": datetime.now(UTC).isoformat(), **machine(), "crash_points": report}, indent=2))
