"""What the simulated adapter makes of answers: a table, and a counterparty that says whatever a test tells it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import BrokerError, BrokerUnavailable, NewOrder, Outcome
from brokers.adapters.simulated.client import classify
from tests.brokers.venue import Client, long_ago, soon

Reply = Callable[[dict[str, Any]], bytes | None]


@pytest.mark.parametrize(
    ("code", "accepted", "status", "outcome"),
    [
        (200, None, "", "accepted"),
        (409, None, "filled", "accepted"),
        (409, None, "rejected", "rejected"),
        (422, None, "", "rejected"),
        (429, False, "", "not_sent"),
        (408, False, "", "not_sent"),
        (429, None, "", "unknown"),
        (429, True, "", "unknown"),
        (400, None, "", "unknown"),
        (400, False, "", "unknown"),
        (404, None, "", "unknown"),
        (500, None, "", "unknown"),
        (500, False, "", "unknown"),
        (503, None, "", "unknown"),
        (0, None, "", "unknown"),
    ],
)
def test_only_documented_codes_are_proof(code: int, accepted: bool | None, status: str, outcome: str) -> None:
    assert classify(code, accepted=accepted, status=status) == Outcome(outcome)


class Peer:
    """Listens, greets, and answers each line as told; None hangs up."""

    def __init__(self, reply: Reply, *, greeting: bytes = b'{"ok":true,"seq":0}\n') -> None:
        self.reply = reply
        self.greeting = greeting
        self.lines: list[dict[str, Any]] = []
        self.clients: list[Client] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.settings = {"host": "127.0.0.1", "port": self.listener.getsockname()[1], "key": "k"}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link, link.makefile("rb") as lines:
                if not lines.readline():
                    continue
                link.sendall(self.greeting)
                for line in lines:
                    self.lines.append(json.loads(line))
                    answer = self.reply(self.lines[-1])
                    if answer is None:
                        break
                    link.sendall(answer)

    def client(self) -> Client:
        self.clients.append(Client(self.settings))
        return self.clients[-1]

    def close(self) -> None:
        self.listener.close()
        for client in self.clients:
            client.hang_up()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Start counterparties that end with the test."""
    started: list[Peer] = []

    def start(reply: Reply, **more: Any) -> Peer:
        started.append(Peer(reply, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


def order(identifier: str = "a") -> NewOrder:
    return NewOrder(
        client_order_id=identifier,
        account="ACC",
        symbol="AAPL",
        side="buy",
        quantity=Decimal("1E+2"),
        order_type="market",
        time_in_force="day",
    )


def said(**answer: Any) -> bytes:
    return json.dumps(answer).encode() + b"\n"


@pytest.mark.parametrize(
    "reply",
    [
        lambda r: None,
        lambda r: b"",
        lambda r: b"not json\n",
        lambda r: b'{"id": "x"}\n',
        lambda r: b"\xff\xfe\n",
        lambda r: said(id=r["id"] + 1, answers=[{"client_order_id": "a", "code": 200}]),
        lambda r: said(id=r["id"], code=500),
        lambda r: said(id=r["id"], code=422, reason="the batch"),
        lambda r: said(id=r["id"], answers=[]),
        lambda r: said(id=r["id"], answers=[{"client_order_id": "b", "code": 200}]),
        lambda r: said(id=r["id"], answers=[{"client_order_id": "a", "code": "200"}]),
    ],
)
def test_whatever_is_no_proof_for_this_message_is_unknown(peer: Callable[..., Peer], reply: Reply) -> None:
    there = peer(reply)
    (answer,) = there.client().send([order()], deadline=soon(0.4))
    assert answer.outcome is Outcome.UNKNOWN
    assert answer.reason
    assert len(there.lines) == 1, "a send is never repeated"


def test_half_a_batch_answered_is_half_a_batch_known(peer: Callable[..., Peer]) -> None:
    there = peer(lambda r: said(id=r["id"], answers=[{"client_order_id": "b", "code": 200, "broker_order_id": "1"}]))
    answers = there.client().send([order("a"), order("b")], deadline=soon())
    assert [a.outcome for a in answers] == [Outcome.UNKNOWN, Outcome.ACCEPTED]


@pytest.mark.parametrize("greeting", [b'{"ok":false,"error":"key"}\n', b"?\n", b"\n"])
def test_nothing_is_sent_to_a_broker_that_does_not_greet(peer: Callable[..., Peer], greeting: bytes) -> None:
    there = peer(lambda r: b"", greeting=greeting)
    (answer,) = there.client().send([order()], deadline=soon(0.5))
    assert answer.outcome is Outcome.NOT_SENT
    assert there.lines == []


def test_a_connection_left_by_the_broker_is_replaced_before_anything_is_written(peer: Callable[..., Peer]) -> None:
    replies: list[bytes | None] = []

    def reply(request: dict[str, Any]) -> bytes | None:
        replies.append(None)
        return said(
            id=request["id"], answers=[{"client_order_id": request["messages"][0]["client_order_id"], "code": 200}]
        )

    there = peer(reply)
    broker = there.client()
    (first,) = broker.send([order("a")], deadline=soon())
    assert broker._connection is not None
    broker._connection.socket.shutdown(socket.SHUT_WR)  # the peer sees the end and hangs up
    time.sleep(0.1)
    (second,) = broker.send([order("b")], deadline=soon())
    assert [first.outcome, second.outcome] == [Outcome.ACCEPTED, Outcome.ACCEPTED]


def test_quantities_travel_in_plain_notation_with_a_time_to_stop(peer: Callable[..., Peer]) -> None:
    there = peer(lambda r: None)
    there.client().send([order()], deadline=soon(2))
    (request,) = there.lines
    assert request["messages"][0]["quantity"] == "100"
    assert time.time() < request["expires_at"] <= time.time() + 2


@pytest.mark.parametrize(
    "reply",
    [
        lambda r: None,
        lambda r: b"[]\n",
        lambda r: said(id=r["id"]),
        lambda r: said(id=r["id"], orders=None),
        lambda r: said(id=0, orders=[]),
    ],
)
def test_a_question_without_a_readable_answer_is_never_an_empty_one(peer: Callable[..., Peer], reply: Reply) -> None:
    broker = peer(reply).client()
    with pytest.raises(BrokerUnavailable):
        broker.open_orders()
    with pytest.raises(BrokerUnavailable):
        broker.look_up(["a"], since=long_ago())


def test_an_id_left_out_of_a_look_up_is_not_called_absent(peer: Callable[..., Peer]) -> None:
    broker = peer(lambda r: said(id=r["id"], orders=[])).client()
    (lookup,) = broker.look_up(["a"], since=long_ago())
    assert lookup.found is None
    assert not lookup.authoritative


def report(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "trade", "client_order_id": "a", "account": "ACC", "symbol": "AAPL", "side": "buy", "order_status": "filled",
        "order_quantity": "1", "cumulative_quantity": "1", "leaves_quantity": "0", "execution_id": "e", "last_quantity": "1",
        "last_price": "5",
    } | fields  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"last_price": "NaN"},
        {"last_price": "Infinity"},
        {"last_quantity": "-1"},
        {"order_quantity": "1" + "0" * 40},
        {"kind": "surprise"},
        {"execution_id": None},
        {"execution_id": "x" * 65},
        {"client_order_id": "x" * 65},
        {"text": "a\u0000b"},
        {"cumulative_quantity": None},
        {"executed_at": "yesterday"},
    ],
)
def test_a_report_that_must_not_reach_the_books_is_kept_raw_and_counted_as_received(
    peer: Callable[..., Peer], fields: dict[str, Any]
) -> None:
    bad, good = said(seq=1, reports=[report(**fields)]), said(seq=2, reports=[report()])
    there = peer(lambda r: b"", greeting=b'{"ok":true,"seq":2}\n' + bad + good)
    stream = there.client().stream(0)
    frames = stream.receive(1)
    while len(frames) < 2:
        frames += stream.receive(1)

    assert [f.sequence for f in frames] == [1, 2]
    assert frames[0].error
    assert frames[0].reports == ()
    assert frames[0].raw == bad.strip()
    assert (frames[1].error, frames[1].reports[0].execution_id) == (None, "e")


def test_a_gap_that_can_not_be_filled_is_passed_by_loudly(peer: Callable[..., Peer]) -> None:
    greeting = b'{"ok":true,"seq":3}\n' + said(seq=1, reports=[report()]) + said(seq=3, reports=[report()])
    there = peer(lambda r: said(resent=r["last"]), greeting=greeting)
    stream = there.client().stream(0)
    frames: list[Any] = []
    while len(frames) < 3:
        frames += stream.receive(1)

    assert [f.sequence for f in frames] == [1, 2, 3]
    assert frames[1].error
    assert [(line["first"], line["last"]) for line in there.lines] == [(2, 2)]


def test_a_broker_that_lost_its_memory_is_not_followed(peer: Callable[..., Peer]) -> None:
    there = peer(lambda r: b"", greeting=b'{"ok":true,"seq":3}\n')
    with pytest.raises(BrokerError) as caught:
        there.client().stream(17)
    assert caught.value.permanent
