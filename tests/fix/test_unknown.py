"""What a broken session leaves open: nothing is guessed, nothing is sent twice, the broker is asked."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from brokers.models import BrokerSession
from orders import operations as desk_operations
from orders.models import ParkedReport, Submission
from tests.conftest import Desk
from tests.faults.conftest import nursery
from tests.faults.nursery import Nursery
from tests.fix.conftest import CODE, Wired
from tests.fix.peer import Got, Peer

__all__ = ["nursery"]


def aged(wired: Wired | None = None) -> None:
    """Let the time pass that proof of absence takes, and the lease of what was sent run out."""
    ago = datetime.now(UTC) - timedelta(seconds=30)
    Submission.objects.filter(state__in=["sent", "unknown"]).update(sent_at=ago, lease_until=ago)
    if wired is not None:
        desk_operations.resolve(wired.broker, clock=lambda: ago)
        Submission.objects.update(due_at=ago)


class Books:
    """The orders that a counterparty has, answered when it is asked."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.orders: dict[str, tuple[Got, str, str]] = {}  # by ClOrdID: as it came, OrdStatus, CumQty
        peer.on["H"], peer.on["AF"] = self.asked, self.asked_for_all

    def take(self, m: Got, status: str = "0", filled: str = "0") -> None:
        self.orders[m[11]] = (m, status, filled)

    def asked(self, q: Got) -> None:
        known = self.orders.get(q[11])
        name = (790, q.get(790))
        if known is None:
            return self._tell((37, "NONE"), (11, q[11]), (39, "8"), (103, "5"), (38, 0), (151, 0), (14, 0), name)
        return self._show(*known, name)

    def asked_for_all(self, q: Got) -> None:
        shown = list(self.orders.values())
        for n, known in enumerate(shown, 1):
            self._show(*known, (584, q[584]), (911, len(shown)), (912, "Y" if n == len(shown) else "N"))
        if not shown:
            self._tell((37, "NONE"), (39, "8"), (103, "5"), (38, 0), (151, 0), (14, 0), (584, q[584]), (911, 0))

    def _show(self, m: Got, status: str, filled: str, *more: tuple[int, Any]) -> None:
        leaves = 0 if status in "248" else int(m[38]) - int(filled)
        self._tell(
            (37, f"O-{m[11][-10:]}"), (11, m[11]), (39, status), (1, m[1]), (55, m[55]), (54, m[54]), (38, m[38]), (151, leaves),
            (14, filled), *more,
        )  # fmt: skip

    def _tell(self, *fields: tuple[int, Any]) -> None:
        self.peer.tell("8", (17, f"Q{self.peer.next_out}"), (150, "I"), (6, 0), *fields)


class Asking:
    """Somebody who asks while this thread takes in what comes, as the two threads of a gateway do."""

    def __init__(self, wired: Wired) -> None:
        self.wired = wired

    def look_up(self, monkeypatch: Any) -> None:
        """Let each wait for an answer take in what comes meanwhile: one thread plays both."""
        from brokers.adapters.fix import adapter

        def wait(question: Any, seconds: float, done: Callable[[Any], bool]) -> Any:
            end = time.monotonic() + min(seconds, 1.5)
            while not question.refused and not done(question.got) and time.monotonic() < end:
                self.wired.step(0.05)
            return question.got

        monkeypatch.setattr(adapter.Question, "wait", wait)


@pytest.fixture
def asking(wired: Wired, monkeypatch: Any) -> Wired:
    """A session in which questions are answered while they are asked."""
    Asking(wired).look_up(monkeypatch)
    return wired


def resolve(wired: Wired) -> int:
    return desk_operations.resolve(wired.broker, clock=lambda: datetime.now(UTC))


def reconnect(wired: Wired) -> None:
    wired.hang_up()
    assert wired.peer.lost.wait(5)
    BrokerSession.objects.update(lease_until=None)
    wired.log_on()


def meet(wired: Wired) -> None:
    desk_operations.meet_again(
        wired.broker, began_at=datetime.now(UTC), actor=wired.gateway.actor, clock=lambda: datetime.now(UTC)
    )


def test_an_order_lost_with_the_link_is_unknown_and_found_by_asking(asking: Wired) -> None:
    wired, books = asking, Books(asking.peer)
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    wired.peer.cut()  # it arrived; the answer never did
    books.take(m)
    reconnect(wired)
    aged(wired)
    resolve(wired)
    order = wired.order(order_id)
    assert (order.status, order.unknown, Submission.objects.get().state) == ("new", False, "accepted")
    assert len(wired.peer.came("D")) == 1


def test_what_a_lost_session_left_unanswered_is_unknown_at_once(asking: Wired) -> None:
    wired, books = asking, Books(asking.peer)
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    answered_id, answered = wired.place("buy 10 AAPL limit 99.00")
    wired.heard(wired.peer.report("0", "0", answered))
    wired.peer.cut()
    assert desk_operations.leave_open(wired.broker, at=datetime.now(UTC)) == 1
    assert (wired.order(order_id).unknown, wired.order(answered_id).unknown) == (True, False)
    books.take(m, "1", "40")
    reconnect(wired)
    resolve(wired)
    assert (wired.order(order_id).unknown, wired.order(order_id).status) == (False, "new")
    wired.heard(wired.peer.report("F", "1", m, (17, "E1"), (32, 40), (31, "99"), filled=40, leaves=60))
    assert wired.order(order_id).filled_quantity == 40


def test_the_list_of_all_orders_settles_it_without_a_question_of_its_own(asking: Wired) -> None:
    wired, books = asking, Books(asking.peer)
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    wired.peer.cut()
    books.take(m)
    reconnect(wired)
    meet(wired)
    assert wired.order(order_id).status == "new"
    [question] = wired.peer.came("AF")
    assert question[585] == "7"
    assert wired.peer.came("H") == []


def test_an_order_that_never_arrived_is_absent_only_by_proof(asking: Wired) -> None:
    wired = asking
    Books(wired.peer)
    wired.peer.takes = lambda m: m[35] != "D"
    [placed] = wired.desk.place("buy 100 AAPL limit 99.00", broker=CODE)
    wired.desk.send(CODE)
    time.sleep(0.1)
    wired.peer.cut()
    wired.peer.takes = lambda _: True
    reconnect(wired)
    aged(wired)
    resolve(wired)
    assert Submission.objects.get().state == "unknown", "one answer is no proof"
    time.sleep(1.1)
    Submission.objects.update(due_at=datetime.now(UTC))
    resolve(wired)
    assert Submission.objects.get().state == "absent"
    assert wired.order(placed.order_id).status == "rejected"
    assert len(wired.peer.came("D")) == 0
    assert wired.peer.came("4"), "its number was passed by"


def test_a_broker_that_does_not_answer_proves_nothing(asking: Wired) -> None:
    wired = asking
    order_id, _ = wired.place("buy 100 AAPL limit 99.00")
    reconnect(wired)
    aged(wired)
    for _ in range(3):
        Submission.objects.update(due_at=datetime.now(UTC))
        resolve(wired)
    assert Submission.objects.get().state == "unknown"
    assert wired.order(order_id).unknown


def test_an_end_that_nobody_told_is_found_and_other_fills_are_alerted(asking: Wired, caplog: Any) -> None:
    wired, books = asking, Books(asking.peer)
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    other_id, other = wired.place("buy 10 AAPL limit 98.00")
    for one in (m, other):
        wired.heard(wired.peer.report("0", "0", one))
    wired.hang_up()
    books.take(m, "4")
    books.take(other, "1", "5")
    reconnect(wired)
    meet(wired)
    assert wired.order(order_id).status == "canceled"
    assert wired.order(other_id).filled_quantity == 0
    assert ParkedReport.objects.count() == 0


def test_a_cancel_that_got_lost_goes_out_again(asking: Wired) -> None:
    wired, books = asking, Books(asking.peer)
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    wired.heard(wired.peer.report("0", "0", m))
    books.take(m)
    wired.peer.takes = lambda m: m[35] != "F"
    desk_operations.cancel(order_id, actor=wired.desk.actor(wired.desk.alice), at=wired.desk.at)
    wired.desk.send(CODE)
    time.sleep(0.1)
    wired.peer.cut()
    wired.peer.takes = lambda _: True
    reconnect(wired)
    aged(wired)
    resolve(wired)
    time.sleep(1.1)
    Submission.objects.filter(kind="cancel").update(due_at=datetime.now(UTC))
    resolve(wired)
    wired.desk.send(CODE)
    again = wired.peer.expect("F")
    assert again[41] == m[11]
    wired.heard(wired.peer.report("4", "4", m, (11, again[11]), (41, m[11]), leaves=0))
    assert wired.order(order_id).status == "canceled"
    wired.desk.holds()


# -- with the gateway in processes of its own -----------------------------------------------------------------------


@pytest.fixture
def live(live_desk: Desk) -> Iterator[Wired]:
    """A desk whose FIX broker has no gateway yet."""
    peer = Peer()
    made = Wired(live_desk, peer, heartbeat_seconds=2)
    yield made
    made.hang_up()
    peer.close()


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def test_c07_of_two_gateways_one_logs_on_and_the_other_takes_over_what_a_kill_left(
    live: Wired, nursery: Nursery
) -> None:
    peer, books = live.peer, Books(live.peer)
    first = nursery.start("follow", CODE, "60")
    wait_for(lambda: peer.logons == 1)
    second = nursery.start("follow", CODE, "60")
    threading.Event().wait(1.5)
    assert peer.logons == 1
    [placed] = live.desk.place("buy 100 AAPL limit 99.00", broker=CODE)
    m = peer.expect("D", seconds=10)
    nursery.kill(first)  # with an order in flight
    assert peer.lost.wait(5)
    books.take(m, "1", "40")
    peer.report("0", "0", m)
    peer.report("F", "1", m, (17, "E1"), (32, 40), (31, "99"), filled=40, leaves=60)
    wait_for(lambda: peer.logons == 2)
    order = wait_for(lambda: (o := live.order(placed.order_id)).filled_quantity == 40 and o)
    assert (order.status, order.unknown) == ("partially_filled", False)
    assert len(peer.came("D")) == 1
    logons = peer.came("A")
    assert [int(x[34]) for x in logons] == sorted({int(x[34]) for x in logons}), "numbers went on"
    nursery.kill(second)
    live.desk.holds()


@pytest.mark.long
@pytest.mark.parametrize("where", ["after_claim", "after_send", "after_raw", "after_apply"])
def test_a_gateway_killed_anywhere_sends_nothing_twice(live: Wired, nursery: Nursery, where: str) -> None:
    peer, books = live.peer, Books(live.peer)

    def take(m: Got) -> None:
        books.take(m)
        if where != "after_send":
            peer.report("0", "0", m)

    peer.on["D"] = take
    passings = {"after_raw": ":2", "after_apply": ":2"}.get(where, "")
    first = nursery.start("follow", CODE, "60", crash=where + passings)
    wait_for(lambda: peer.logons == 1)
    [placed] = live.desk.place("buy 100 AAPL limit 99.00", broker=CODE)
    assert nursery.wait(first, 20, fails=True) is not None
    assert peer.lost.wait(5)
    second = nursery.start("follow", CODE, "60")
    wait_for(lambda: peer.logons >= 2)
    if where == "after_claim":
        aged()
        wait_for(lambda: live.order(placed.order_id).status == "rejected")
        assert peer.came("D") == []
    else:
        wait_for(lambda: live.order(placed.order_id).status == "new")
        assert len(peer.came("D")) == 1
    nursery.kill(second)
    live.desk.holds()
