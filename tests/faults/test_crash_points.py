"""Kill -9 at every point of the send path: nothing is lost, nothing is at the broker twice, the books agree.

Real PostgreSQL, a real venue process that lies if told to; the web, the senders, the resolvers and the gateways are
processes of their own that die at a named point, or on either side of the n-th commit. No clock is moved: leases
run out and absence is proven in real time. A short run stands in the default suite; `make faults` runs it at length.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from brokers.models import BrokerSession
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.client import Client, Intent
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery
from tests.faults.report import publish

COMMITS = tuple(f"{side}_commit:{n}" for side in ("before", "after") for n in (1, 2, 3))
POINTS = {
    "web": ("before_reply:1", "before_reply:2", "before_commit:1", "after_commit:1", "after_commit:2"),
    "send": ("after_claim:1", "after_send:1", "after_record:1", *COMMITS),
    "follow": ("after_raw:1", "after_apply:1", *COMMITS),
    "resolve": ("after_look_up:1", *COMMITS),
}
LIES = {
    "drop_reply": 0.1,
    "error_though_accepted": 0.05,
    "hide_orders": 0.05,
    "duplicate_reports": 0.1,
    "reorder_reports": 0.1,
    "gap": 0.05,
}
ORDERS_A_ROUND = 4
ENDED_SECONDS_MAX = 60.0
"""Liveness: lease 10 s, call 6 s, two denials, and again for what was sent again; then everything has ended."""


class Web:
    """The order entry in a process of its own; whoever finds it dead starts it again."""

    def __init__(self, nursery: Nursery, client: Client) -> None:
        self.nursery, self.client, self.pid = nursery, client, 0

    def start(self, crash: str = "") -> None:
        self.pid = self.nursery.start("web", str(self.client.port), crash=crash)
        for _ in range(600):
            if self.client.call("GET", "/healthz").status == 200:
                return
            assert self.nursery.wait(self.pid, 0.02) is None, "the web died before it served"
        raise AssertionError(f"the web does not serve:\n{self.nursery.log.read_text()[-3000:]}")

    def take(self, intents: list[Intent], crash: str) -> bool:
        """Have intents placed at the same time by a web that dies; tell whether it did. All are answered in the end."""
        self.start(crash)
        threads = [threading.Thread(target=self._once, args=(i,)) for i in intents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hung_up = any(i.answers[-1].status == 0 for i in intents)
        died = self.nursery.wait(self.pid, 10 if hung_up else 0) is not None
        if died:
            self.start()
        for intent in intents:
            self.client.insist(intent, 20)
            assert intent.promised(), f"{intent.answers[-1]}\n{self.nursery.log.read_text()[-3000:]}"
            self.client.place(intent)  # once more: the same key is answered with the same bytes, for good
            if not intent.settled():  # it died on the repeat: how many commits the first calls shared is chance
                died = self.nursery.wait(self.pid, 10) is not None
                self.start()
                self.client.insist(intent, 20)
        self.nursery.kill(self.pid)
        return died

    def _once(self, intent: Intent) -> None:
        self.client.place(intent)
        self.client.close()


def crash_until(
    desk: Desk, nursery: Nursery, client: Client, kills: int, seed: int
) -> tuple[list[Intent], Counter[str]]:
    """Place, send, follow and resolve, each killed at a random point, until so many processes have died."""
    rng, died, intents = random.Random(seed), Counter[str](), list[Intent]()
    web = Web(nursery, client)
    while died.total() < kills:
        desk.at = datetime.now(UTC)
        desk.quote("AAPL", "100.00", "100.02")
        wanted = [Intent(f"{seed}-{len(intents) + n}", ticket(rng)) for n in range(ORDERS_A_ROUND)]
        intents += wanted
        died["web"] += web.take(wanted, rng.choice(POINTS["web"]))
        for what, more in (("send", ()), ("resolve", ()), ("follow", ("1",)), ("send", ())):
            if what == "follow":  # another gateway would wait 6 s for the lease of the dead one
                BrokerSession.objects.update(lease_until=None, owner="")
            died[what] += nursery.run(what, "NEAR", *more, crash=rng.choice(POINTS[what])) != 0
    return intents, died


def ticket(rng: random.Random) -> dict[str, str]:
    side, quantity = rng.choice(("buy", "sell_short")), str(rng.randint(1, 99))
    return {"account": "MAIN", "symbol": "AAPL", "side": side, "quantity": quantity, "order_type": "market"}


def prove(desk: Desk, nursery: Nursery, client: Client, venue: Venue, kills: int, seed: int) -> dict[str, Any]:
    """Kill, let a gateway alone finish everything in real time, compare; return what to report."""
    intents, died = crash_until(desk, nursery, client, kills, seed)
    venue.lies(**dict.fromkeys(LIES, 0.0))
    gateway = nursery.start("follow", "NEAR", "600")
    ended = proof.wait_until_all_ended(database_url(), ENDED_SECONDS_MAX)
    nursery.kill(gateway)
    promised = proof.compare_with_clients(database_url(), intents)
    proof.compare_with_books(database_url(), {"NEAR": venue.book()})
    assert proof.rows(database_url(), "SELECT count(*) FROM orders_order") == [(promised,)]
    desk.holds()
    return {"n": promised, "kills": died.total(), "killed": dict(died), "ended_seconds": round(ended, 1), "seed": seed}


@pytest.mark.django_db(transaction=True)
def test_d04_a_few_kills_of_every_process_lose_and_double_nothing(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    found = prove(live_desk, nursery, client, join(), kills=12, seed=1)
    assert found["kills"] >= 12


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_d04_many_kills_of_every_process_lose_and_double_nothing(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    """At a broker that takes an id twice: only never sending blindly keeps its book single."""
    kills, seed = int(os.environ.get("KILLS", "300")), int(os.environ.get("SEED", "7"))
    venue = join(dedupe="none")
    venue.lies(**LIES)
    publish("kills of web, senders, resolvers and gateways", **prove(live_desk, nursery, client, venue, kills, seed))
