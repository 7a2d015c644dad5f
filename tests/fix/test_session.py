"""The session by the standard: numbers, gaps, resets, silence and nonsense; what they must never do to an order."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import BrokerClosed, BrokerError, BrokerUnavailable
from brokers.models import BrokerSession, FixMessage, FixSession, RawMessage
from orders.models import Execution, ParkedReport, Submission
from tests.fix.conftest import CODE, Wired
from tests.fix.peer import Got, Peer, build, now


def again(wired: Wired) -> None:
    """Let the session end as by a crash, and another gateway take it up."""
    wired.hang_up()
    assert wired.peer.lost.wait(5)
    BrokerSession.objects.update(lease_until=None)
    wired.log_on()


def new(wired: Wired, text: str = "buy 100 AAPL limit 99.00") -> tuple[Any, Got]:
    order_id, m = wired.place(text)
    wired.heard(wired.peer.report("0", "0", m))
    return order_id, m


def fill(wired: Wired, m: Got, quantity: int, total: int, exec_id: str) -> int:
    status = "2" if total == Decimal(m[38]) else "1"
    return wired.peer.report(
        "F", status, m, (17, exec_id), (32, quantity), (31, "99"), filled=total, leaves=Decimal(m[38]) - total
    )


def test_the_logon_says_who_we_are_and_keeps_its_secret(wire: Callable[..., Wired], monkeypatch: Any) -> None:
    monkeypatch.setenv("FIX_SECRET", "open sesame")
    wired = wire(username="desk", password={"env": "FIX_SECRET"}, logon_fields={"1137": "9"}, heartbeat_seconds=7)
    wired.log_on()
    [logon] = wired.peer.came("A")
    assert (logon[49], logon[56], logon[34], logon[98], logon[108]) == ("DESK", "BROKER", "1", "0", "7")
    assert (logon[553], logon[554], logon[1137], 141 in logon) == ("desk", "open sesame", "9", False)
    kept = bytes(FixMessage.objects.get(kind="A").raw)
    assert b"554=***" in kept
    assert b"sesame" not in kept


def test_fix_4_2_carries_the_password_as_raw_data(wire: Callable[..., Wired]) -> None:
    wired = wire("FIX.4.2", password="schlüssel")
    wired.log_on()
    [logon] = wired.peer.came("A")
    assert (logon[95], logon[96], 554 in logon) == ("10", "schlüssel", False)


def test_every_field_of_an_order_travels_exactly(wire: Callable[..., Wired]) -> None:
    wired = wire(order_fields={"528": "A"})
    wired.log_on()
    _, m = wired.place("buy 100 AAPL limit 99.50 gtc")
    kept = {t: m[t] for t in (1, 21, 55, 54, 38, 40, 44, 59, 528)}
    assert kept == {1: "A1", 21: "1", 55: "AAPL", 54: "1", 38: "100", 40: "2", 44: "99.5", 59: "1", 528: "A"}
    assert abs((datetime.now(UTC) - datetime.strptime(m[60], "%Y%m%d-%H:%M:%S.%f").replace(tzinfo=UTC)).seconds) < 10


def test_received_is_not_taken_yet(wired: Wired) -> None:
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    wired.heard(wired.peer.report("A", "A", m))
    assert wired.order(order_id).status == "pending_new"
    assert Submission.objects.get().state == "accepted"
    wired.heard(wired.peer.report("0", "0", m))
    assert wired.order(order_id).status == "new"
    wired.heard(wired.peer.report("A", "A", m))
    assert wired.order(order_id).status == "new"


def test_c06_a_gap_is_asked_for_and_what_came_behind_it_waits_its_turn(wired: Wired) -> None:
    order_id, m = new(wired)
    wired.peer.link, link = None, wired.peer.link  # two reports get lost on the way
    fill(wired, m, 10, 10, "E1")
    fill(wired, m, 10, 20, "E2")
    wired.peer.link = link
    last = fill(wired, m, 10, 30, "E3")
    wired.heard(last)
    order = wired.order(order_id)
    assert (order.filled_quantity, Execution.objects.count()) == (30, 3)
    assert [(r[7], r[16]) for r in wired.peer.came("2")] == [(str(last - 2), "0")]
    wired.desk.holds()


def test_what_is_passed_by_is_taken_if_it_is_at_hand(wired: Wired) -> None:
    """A broker that repeats no reports fills its gap over one that we hold."""
    order_id, m = new(wired)
    wired.peer.resends = False
    wired.peer.link, link = None, wired.peer.link
    wired.peer.tell("0")
    wired.peer.link = link
    number = fill(wired, m, 10, 10, "E1")
    wired.pump(lambda: bool(wired.peer.came("2")))
    wired.peer.write(wired.peer.bytes_of("4", number - 1, [(123, "Y"), (36, number + 1)], (43, "Y"), (122, now())))
    wired.heard(number)
    assert wired.order(order_id).filled_quantity == 10


@pytest.mark.parametrize("repeat", ["same number", "PossResend", "another ExecType"])
def test_what_is_told_twice_counts_once(wired: Wired, repeat: str) -> None:
    order_id, m = new(wired)
    number = fill(wired, m, 10, 10, "E1")
    wired.heard(number)
    fields = wired.peer.store[number][1:]
    if repeat == "same number":
        wired.peer.write(wired.peer.bytes_of("8", number, fields, (43, "Y"), (122, now())))
        wired.heard(wired.peer.tell("0"))
    elif repeat == "PossResend":
        wired.heard(wired.peer.tell("8", (97, "Y"), *fields))
    else:
        wired.heard(wired.peer.tell("8", *((150, "I") if f[0] == 150 else f for f in fields)))
    assert wired.order(order_id).filled_quantity == 10
    assert Execution.objects.count() == 1


def test_our_orders_are_never_sent_again_whatever_the_broker_asks(wired: Wired) -> None:
    for _ in range(3):
        wired.place("buy 1 AAPL")
    sent = len(wired.peer.log)
    wired.peer.tell("2", (7, 1), (16, 0))
    wired.pump(lambda: bool(wired.peer.came("4")))
    [gap] = wired.peer.came("4")
    assert (gap[34], gap[43], gap[123], gap[36]) == ("1", "Y", "Y", "5")
    assert 122 in gap
    assert len(wired.peer.came("D")) == 3
    assert len(wired.peer.log) == sent + 1
    wired.place("buy 1 AAPL")  # the numbers go on


def test_c06_both_sides_miss_something_at_once(wired: Wired) -> None:
    order_id, m = new(wired)
    wired.peer.link, link = None, wired.peer.link
    fill(wired, m, 10, 10, "E1")
    wired.peer.link = link
    wired.peer.next_in = 2  # and it believes that it has seen only our logon
    wired.peer.tell("2", (7, 2), (16, 0))
    wired.pump(lambda: bool(wired.peer.came("4")) and wired.order(order_id).filled_quantity == 10)
    assert wired.peer.next_in >= wired.stream.session.numbers.next_out
    assert len(wired.peer.came("D")) == 1


def test_too_low_a_number_ends_the_session(wired: Wired) -> None:
    wired.peer.tell("0", number=1, keep=False)
    with pytest.raises(BrokerUnavailable, match="too low, expecting 2 but received 1"):
        wired.pump(lambda: False)
    assert wired.peer.lost.wait(5)
    assert "too low" in wired.peer.came("5")[0][58]
    assert FixSession.objects.get().state == "ended by us"


def test_a_broker_that_lost_its_numbers_is_not_followed_until_a_person_says_so(wired: Wired) -> None:
    from brokers import sessions

    new(wired)
    wired.peer.next_out = 1
    wired.peer.store.clear()
    with pytest.raises(BrokerUnavailable, match="too low"):
        again(wired)
    wired.peer.next_in, wired.peer.next_out = 1, 1
    actor = wired.desk.actor(wired.desk.oona)
    sessions.set_numbers(CODE, next_in=1, next_out=1, reason="agreed by telephone", actor=actor, at=wired.desk.at)
    again(wired)
    assert wired.peer.came("A")[-1][34] == "1"
    wired.desk.holds()


def test_numbers_go_on_over_connections(wired: Wired) -> None:
    order_id, m = new(wired)
    wired.hang_up()
    assert wired.peer.lost.wait(5)
    fill(wired, m, 10, 10, "E1")  # told while nobody listens
    again(wired)
    logons = wired.peer.came("A")
    assert [x[34] for x in logons] == ["1", "3"]
    wired.pump(lambda: wired.order(order_id).filled_quantity == 10)
    assert [r[7] for r in wired.peer.came("2")] == ["3"]


def test_numbers_begin_anew_with_each_logon_where_that_is_agreed(wire: Callable[..., Wired]) -> None:
    wired = wire(reset_on_logon=True)
    wired.log_on()
    new(wired)
    again(wired)
    assert [(m[34], m[141]) for m in wired.peer.came("A")] == [("1", "Y")] * 2
    order_id, m = new(wired)
    wired.heard(fill(wired, m, 10, 10, "E1"))
    assert wired.order(order_id).filled_quantity == 10
    assert FixSession.objects.get().epoch == 3


def test_the_broker_begins_its_numbers_anew_in_the_middle_of_a_session(wired: Wired) -> None:
    new(wired)
    wired.peer.next_out = 1
    wired.peer.tell("A", (98, 0), (108, 30), (141, "Y"))
    wired.peer.next_in = 1
    wired.pump(lambda: wired.peer.logons == 2)
    answer = wired.peer.came("A")[-1]
    assert (answer[34], answer[141]) == ("1", "Y")


def test_a_sequence_reset_moves_forward_only(wired: Wired) -> None:
    wired.peer.tell("4", (123, "N"), (36, 20), keep=False)
    wired.pump(lambda: wired.stream.session.next_in == 20)
    wired.peer.next_out = 20
    wired.peer.tell("4", (123, "N"), (36, 5), number=20, keep=False)
    wired.pump(lambda: bool(wired.peer.came("3")))
    assert (wired.peer.came("3")[0][371], wired.stream.session.next_in) == ("36", 20)


@pytest.mark.parametrize("spoil", ["checksum", "length", "noise", "half", "NUL"])
def test_what_is_garbled_never_came(wired: Wired, spoil: str) -> None:
    order_id, m = new(wired)
    peer = wired.peer
    number = peer.next_out
    link, peer.link = peer.link, None
    fill(wired, m, 10, 10, "E1")
    peer.link = link
    raw = peer.bytes_of("8", number, peer.store[number][1:])
    spoiled = {
        "checksum": raw[:-4] + (b"000\x01" if raw[-4:-1] != b"000" else b"001\x01"),
        "length": raw.replace(b"\x019=", b"\x019=9", 1),
        "noise": b"\r\nnothing of the kind\x01",
        "half": raw[: len(raw) // 2],
        "NUL": raw.replace(b"58=", b"58=\x00") if b"58=" in raw else raw[:-7] + b"\x0010=000\x01",
    }[spoil]
    peer.write(spoiled)
    wired.heard(fill(wired, m, 10, 20, "E2"))
    assert wired.order(order_id).filled_quantity == 20
    assert Execution.objects.count() == 2
    assert RawMessage.objects.filter(error__startswith="garbled").exists()
    assert peer.came("2")


@pytest.mark.parametrize(
    ("fields", "tag"),
    [
        ({32: None}, "32"),
        ({32: "ten"}, "32"),
        ({31: "NaN"}, "31"),
        ({14: "1e5"}, "14"),
        ({38: "-1"}, "38"),
        ({31: "99." + "1" * 11}, "31"),
        ({17: None}, "17"),
        ({17: "x" * 65}, "17"),
        ({150: "z"}, "150"),
        ({39: None}, "39"),
        ({11: None, 37: "NONE"}, "11"),
    ],
)
def test_what_can_not_be_read_is_kept_refused_and_stops_nothing(wired: Wired, fields: dict[int, Any], tag: str) -> None:
    order_id, m = new(wired)
    wired.peer.report("F", "1", m, *({32: 10, 31: "99", 17: "E1"} | fields).items(), filled=10, leaves=90)
    wired.heard(fill(wired, m, 20, 20, "E2"))
    assert wired.order(order_id).filled_quantity == 20
    [refused] = wired.peer.came("3")
    assert (refused[371], refused[372]) == (tag, "8")
    assert RawMessage.objects.exclude(error="").count() == 1


def test_a_message_of_a_kind_that_is_not_taken_is_refused_as_such(wired: Wired) -> None:
    wired.heard(wired.peer.tell("B", (148, "news")))
    [refused] = wired.peer.came("j")
    assert (refused[372], refused[380]) == ("B", "3")


@pytest.mark.parametrize(("kind", "extra"), [("3", (373, "1")), ("j", (380, "2"))])
def test_a_refused_message_was_never_acted_upon(wired: Wired, kind: str, extra: tuple[int, str]) -> None:
    order_id, m = wired.place("buy 100 AAPL limit 99.00")
    wired.heard(wired.peer.tell(kind, (45, m[34]), (372, "D"), extra, (58, "not like this")))
    order = wired.order(order_id)
    assert (order.status, order.reason) == ("rejected", "broker_rejected")
    assert "not like this" in order.reason_detail


def test_a_refused_cancel_leaves_the_order_as_it_is(wired: Wired) -> None:
    from orders import operations as desk

    order_id, _ = new(wired)
    desk.cancel(order_id, actor=wired.desk.actor(wired.desk.alice), at=wired.desk.at)
    wired.desk.send(CODE)
    m = wired.peer.expect("F")
    assert m[38] == "100"
    wired.heard(wired.peer.tell("j", (45, m[34]), (372, "F"), (380, "4")))
    assert wired.order(order_id).status == "new"


def test_silence_is_tested_and_then_believed(wire: Callable[..., Wired]) -> None:
    wired = wire(heartbeat_seconds=1)
    wired.log_on()
    wired.peer.silent = True
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="nothing heard"):
        wired.pump(lambda: False, 10)
    assert 2 < time.monotonic() - began < 4
    assert wired.peer.came("1")
    assert wired.peer.came("0"), "we kept beating"


def test_a_test_request_is_answered(wired: Wired) -> None:
    wired.heard(wired.peer.tell("1", (112, "are you there")))
    assert wired.peer.came("0")[-1][112] == "are you there"


def test_somebody_else_is_not_listened_to(wired: Wired) -> None:
    wired.peer.us = "STRANGER"
    wired.peer.tell("0")
    with pytest.raises(BrokerUnavailable, match="CompID"):
        wired.pump(lambda: False)
    assert wired.peer.lost.wait(5)
    assert (wired.peer.came("3")[0][373], len(wired.peer.came("5"))) == ("9", 1)


def test_a_logout_is_answered_and_tells_its_reason(wired: Wired) -> None:
    wired.peer.tell("5", (58, "come back tomorrow"))
    with pytest.raises(BrokerUnavailable, match="come back tomorrow"):
        wired.pump(lambda: False)
    assert wired.peer.lost.wait(5)
    assert FixSession.objects.get().detail == "come back tomorrow"


def test_what_came_before_the_end_counts(wired: Wired) -> None:
    order_id, m = new(wired)
    with wired.peer._lock:
        fill(wired, m, 10, 10, "E1")
        wired.peer.tell("5")
    with pytest.raises(BrokerUnavailable):
        wired.pump(lambda: False)
    assert wired.order(order_id).filled_quantity == 10


def test_a_broker_that_does_not_answer_the_logon_is_left(wire: Callable[..., Wired], monkeypatch: Any) -> None:
    from brokers.adapters.fix import adapter

    monkeypatch.setattr(adapter, "LOGON_SECONDS", 0.3)
    wired = wire()
    wired.peer.answers_logon = False
    with pytest.raises(BrokerUnavailable, match="no answer"):
        wired.log_on()
    [placed] = wired.desk.place("buy 1 AAPL", broker=CODE)
    wired.desk.send(CODE)
    assert wired.peer.came("D") == []
    assert Submission.objects.get(child__order_id=placed.order_id).log[0]["outcome"] == "not_sent"


def test_outside_of_its_hours_nobody_calls(wire: Callable[..., Wired]) -> None:
    day = (datetime.now(UTC) + timedelta(days=2)).strftime("%a").lower()
    wired = wire(schedule={"start": "09:00", "end": "17:00", "timezone": "America/New_York", "days": [day]})
    with pytest.raises(BrokerClosed):
        wired.log_on()
    assert wired.peer.logons == 0


def test_the_numbers_of_another_day_are_over(wire: Callable[..., Wired]) -> None:
    wired = wire(schedule={"start": "00:00", "end": "00:00", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]})
    wired.log_on()
    new(wired)
    FixSession.objects.update(began_at=datetime.now(UTC) - timedelta(days=1))
    wired.peer.next_in = wired.peer.next_out = 1
    wired.peer.store.clear()
    again(wired)
    assert (wired.peer.came("A")[-1][34], FixSession.objects.get().epoch) == ("1", 3)


def test_a_fill_of_no_order_of_ours_is_kept_and_disowned(wired: Wired) -> None:
    stranger = Got({11: "nobody-knows", 38: "5", 1: "A1", 55: "AAPL", 54: "1"})
    wired.heard(fill(wired, stranger, 5, 5, "E9"))
    m = wired.peer.expect("Q")
    assert (m[17], m[127], m[32], m[31]) == ("E9", "D", "5", "99")
    assert ParkedReport.objects.get().waits_for == "order:nobody-knows"


def test_a_frozen_gateway_that_wakes_up_writes_nothing_more(wired: Wired) -> None:
    order_id, _ = new(wired)
    BrokerSession.objects.update(owner="another", fence=99)
    wired.gateway._hold_lease = lambda: True  # it was frozen, and knows nothing of it
    sent = len(wired.peer.log)
    [placed] = wired.desk.place("buy 1 AAPL", broker=CODE)
    wired.desk.send(CODE)
    wired.peer.tell("1", (112, "hello"))
    with pytest.raises(BrokerError):
        wired.pump(lambda: False)
    assert len(wired.peer.log) == sent
    assert Submission.objects.get(child__order_id=placed.order_id).log[0]["outcome"] == "not_sent"
    assert wired.order(order_id).status == "new"


def test_a_message_without_a_number_ends_the_session(wired: Wired) -> None:
    wired.peer.write(build("FIX.4.4", [(35, "0"), (49, "BROKER"), (56, "DESK"), (52, now())]))
    with pytest.raises(BrokerUnavailable, match="MsgSeqNum missing"):
        wired.pump(lambda: False)


def test_the_peer_of_these_tests_is_strict(wired: Wired) -> None:
    """What the desk wrote so far had the length and checksum that a codec of a few lines counts for itself."""
    assert isinstance(wired.peer, Peer)
    assert all(m.raw.startswith(b"8=FIX.4.4\x019=") for m in wired.peer.log)
