"""The session against QuickFIX as the broker's side: logon, orders, cancels, replaces, questions, gaps, and numbers over restarts."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from brokers.models import BrokerSession, FixSession
from orders import operations as desk_operations
from orders.domain.tickets import Terms
from tests.benchmarks.desk import free_port
from tests.conftest import Desk
from tests.fix.conftest import CODE, Wired
from tests.fix.peer import Got

pytestmark = pytest.mark.skipif(
    find_spec("quickfix") is None, reason="QuickFIX has no build for this Python and machine"
)
ROOT = Path(__file__).resolve().parents[2]


class Acceptor:
    """QuickFIX in a process of its own."""

    def __init__(self, folder: Path, begin: str) -> None:
        self.folder, self.begin, self.port = folder, begin, free_port()
        self.said: list[dict[str, str]] = []
        self.start()

    def start(self) -> None:
        with (self.folder / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.fix.quickfix_acceptor", str(self.port), self.begin, str(self.folder)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "errors").read_text()

    def kill(self) -> list[dict[str, Any]]:
        """Kill -9, and return what it had said."""
        self.process.kill()
        assert self.process.stdout is not None
        said = [json.loads(line) for line in self.process.stdout.read().splitlines() if line.startswith("{")]
        self.process.wait()
        self.process.stdout.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.said += said
        return said


class Pretend:
    """What `Wired` wants of a counterparty, where it is another's."""

    def __init__(self, acceptor: Acceptor) -> None:
        self.port, self.begin = acceptor.port, acceptor.begin

    def expect(self, *_: str) -> Got:
        return Got()


@pytest.fixture(params=["FIX.4.4", pytest.param("FIX.4.2", marks=pytest.mark.long)])
def acceptor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Acceptor]:
    made = Acceptor(tmp_path, request.param)
    yield made
    if made.process.poll() is None:
        made.kill()


def test_quickfix_and_the_desk_understand_each_other(desk: Desk, acceptor: Acceptor, monkeypatch: Any) -> None:
    wired = Wired(desk, Pretend(acceptor))
    connect(wired)
    alice = desk.actor(desk.alice)

    order_id, _ = wired.place("buy 100 AAPL limit 99.00")
    wired.pump(lambda: wired.order(order_id).filled_quantity == 50)
    assert wired.order(order_id).status == "partially_filled"

    desk_operations.replace(order_id, Terms(quantity=60), actor=alice, at=desk.at)
    desk.send(CODE)
    wired.pump(lambda: wired.order(order_id).quantity == 60)

    desk_operations.cancel(order_id, actor=alice, at=desk.at)
    desk.send(CODE)
    wired.pump(lambda: wired.order(order_id).status == "canceled")

    # ours numbers are behind: QuickFIX sends again, with PossDup, and nothing counts twice
    before = FixSession.objects.get().next_out
    wired.hang_up()
    BrokerSession.objects.update(lease_until=None, cursor=(1 << 32) | 2)
    connect(wired)
    wired.pump(lambda: wired.stream.session.next_in > 6)
    assert wired.order(order_id).filled_quantity == 50

    # its numbers are behind: it asks for ours, and gets a gap filled
    wired.hang_up()
    BrokerSession.objects.update(lease_until=None)
    FixSession.objects.update(next_out=before + 20)
    connect(wired)
    other_id, _ = wired.place("buy 10 AAPL limit 99.00")
    wired.pump(lambda: wired.order(other_id).filled_quantity == 5)

    answer(wired, monkeypatch)
    adapter: Any = wired.gateway._adapter()
    name = wired.order(other_id).children.get().client_order_id
    known, unknown = adapter.look_up([name, "never-sent"], since=desk.at)
    assert (known.found.cumulative_quantity, unknown.found, unknown.authoritative) == (5, None, True)
    if acceptor.begin == "FIX.4.4":
        assert name in [s.client_order_id for s in adapter.open_orders()]

    said = acceptor.kill()
    assert [m["app"] for m in said if m.get("app") == "D"] == ["D", "D"]
    wired.hang_up()
    BrokerSession.objects.update(lease_until=None)
    acceptor.start()  # with the numbers that it kept
    connect(wired)
    third_id, _ = wired.place("buy 2 AAPL limit 99.00")
    wired.pump(lambda: wired.order(third_id).filled_quantity == 1)
    desk.holds()
    wired.hang_up()
    said = acceptor.kill()
    rejects = [m for m in acceptor.said if "|35=3|" in m.get("admin", "")]
    assert rejects == []


def connect(wired: Wired) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            return wired.log_on()
        except Exception:
            if time.monotonic() > end:
                raise
            wired.hang_up()
            BrokerSession.objects.update(lease_until=None)
            time.sleep(0.2)


def answer(wired: Wired, monkeypatch: Any) -> None:
    """Take in what comes while an answer is waited for."""
    from brokers.adapters.fix import adapter

    def wait(question: Any, seconds: float, done: Callable[[Any], bool]) -> Any:
        wired.pump(lambda: question.refused or done(question.got))
        return question.got

    monkeypatch.setattr(adapter.Question, "wait", wait)
