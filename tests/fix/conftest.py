"""A desk with a FIX broker on loopback: the counterparty is the tests' own, the gateway the real one, driven step by step."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import Desk
from tests.fix.peer import Got, Peer

CODE = "FIXB"


class Wired:
    """A desk, its FIX counterparty, and the gateway between them in this thread."""

    def __init__(self, desk: Desk, peer: Peer, **settings: Any) -> None:
        from oms.kernel.actor import Actor
        from portfolio import operations as portfolio

        self.desk, self.peer = desk, peer
        self.settings: dict[str, Any] = {
            "host": "127.0.0.1", "port": peer.port, "begin_string": peer.begin, "sender_comp_id": "DESK", "target_comp_id": "BROKER",
            "heartbeat_seconds": 30, "reset_on_logon": False, "accounts": {"MAIN": "A1"},
        } | settings  # fmt: skip
        portfolio.add_broker(code=CODE, adapter="fix", settings=self.settings, actor=Actor.system("test"), at=desk.at)
        self.gateway: Any = None
        self.stream: Any = None

    @property
    def broker(self) -> Any:
        from brokers import queries

        return queries.brokers_by_code()[CODE]

    def log_on(self) -> None:
        """Open the session as `run_gateway` does."""
        from orders.management.commands.run_gateway import Gateway

        if self.gateway is None:
            self.gateway = Gateway(self.broker)
            self.gateway.hosts = True
        assert self.gateway._hold_lease()
        adapter = self.gateway._adapter()
        self.stream = adapter.stream(self.cursor())
        end = time.monotonic() + (0.3 if self.stream.session.numbers.next_out > 2 else 0)
        while time.monotonic() < end:  # what both sides miss is told first; no order leaves so early
            self.step(0.02)

    def cursor(self) -> int:
        from brokers.models import BrokerSession

        return BrokerSession.objects.values_list("cursor", flat=True).get(broker__code=CODE) or 0

    def pump(self, until: Callable[[], bool], seconds: float = 5.0) -> None:
        """Take in what comes until something holds."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it did not come"
            self.step(0.05)

    def step(self, seconds: float = 0.0) -> None:
        """Take in what has come."""
        self.gateway._hold_lease()
        frames = self.stream.receive(seconds)
        if frames:
            self.gateway._take(frames)

    def heard(self, number: int) -> None:
        """Wait until the message of a number was taken in."""
        self.pump(lambda: self.stream.session.next_in > number and not self.stream._first)

    def place(self, text: str, **more: Any) -> tuple[Any, Got]:
        """Place an order at the FIX broker and return it with the message that it became."""
        [placed] = self.desk.place(text, broker=CODE, **more)
        assert placed.problem is None, placed.problem
        self.desk.send(CODE)
        return placed.order_id, self.peer.expect("D")

    def order(self, order_id: Any) -> Any:
        from orders.models import Order

        return Order.objects.get(pk=order_id)

    def hang_up(self) -> None:
        """End the session without a word, as a crash does."""
        from brokers.adapters import hosting

        for broker_id in list(hosting._hosted):
            hosting.leave(broker_id)
        if self.stream is not None:
            self.stream.session.link.close()
            self.stream = None
        self.gateway = None


@pytest.fixture
def wire(desk: Desk) -> Iterator[Callable[..., Wired]]:
    """Put a FIX broker beside the desk's others; the session is not open yet."""
    with ExitStack() as ends:

        def make(begin: str = "FIX.4.4", **settings: Any) -> Wired:
            peer = Peer(begin)
            ends.callback(peer.close)
            wired = Wired(desk, peer, **settings)
            ends.callback(wired.hang_up)
            return wired

        yield make


@pytest.fixture
def wired(wire: Callable[..., Wired]) -> Wired:
    """A FIX.4.4 session that stands."""
    made = wire()
    made.log_on()
    return made
