"""Every lie a venue can tell, seen through the adapter: what it claims stays unproven, what is true is found."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import BrokerUnavailable, CancelOrder, NewOrder, Outcome
from tests.brokers.venue import Venue, frames_until, kinds, long_ago, read_to_the_end, reports_of, soon

Start = Callable[..., Venue]


def cancel(order: NewOrder, client_order_id: str) -> CancelOrder:
    return CancelOrder(
        client_order_id=client_order_id,
        orig_client_order_id=order.client_order_id,
        account=order.account,
        symbol=order.symbol,
        side=order.side,
    )


def test_a_dropped_reply_is_unknown_and_a_look_up_finds_the_order(venue: Venue) -> None:
    venue.lies(drop_reply=1.0)
    broker, order = venue.client(), venue.order("buy 5 AAPL")
    (answer,) = broker.send([order], deadline=soon())
    (lookup,) = broker.look_up([order.client_order_id], since=long_ago())

    assert answer.outcome is Outcome.UNKNOWN
    assert lookup.found is not None
    assert lookup.found.status == "filled"
    assert kinds(list(lookup.reports)) == ["new", "trade"]


def test_an_error_code_for_an_accepted_order_never_looks_like_proof(venue: Venue) -> None:
    venue.lies(error_though_accepted=1.0)
    broker = venue.client()
    orders = [venue.order("buy 1 AAPL limit 90") for _ in range(60)]
    answers = broker.send(orders, deadline=soon())

    assert {a.outcome for a in answers} == {Outcome.UNKNOWN}
    assert {a.reason.split()[-1] for a in answers if a.reason.startswith("code")} <= {"400", "429", "500"}
    assert len(venue.book()["orders"]) == len(orders)


def test_a_lying_venue_still_tells_the_truth_in_the_codes_documented_as_proof(venue: Venue) -> None:
    venue.lies(error_though_accepted=0.5)
    broker = venue.client()
    orders = [venue.order("buy 1 AAPL limit 90") for _ in range(100)]
    wrong = [venue.order("buy 1 NOPE") for _ in range(20)]
    answers = {a.client_order_id: a for a in broker.send([*orders, *wrong], deadline=soon())}
    taken = {o["client_order_id"] for o in venue.book()["orders"] if o["status"] != "rejected"}

    for identifier, answer in answers.items():
        if answer.outcome is Outcome.ACCEPTED:
            assert identifier in taken
        if answer.outcome in (Outcome.REJECTED, Outcome.NOT_SENT):
            assert identifier not in taken
    assert {Outcome.ACCEPTED, Outcome.UNKNOWN} <= {a.outcome for a in answers.values()}


def test_a_hidden_order_shows_after_its_delay(venue: Venue) -> None:
    venue.lies(hide_orders=1.0, hide_seconds=0.6)
    broker, order = venue.client(), venue.order("buy 5 AAPL limit 90")
    broker.send([order], deadline=soon())
    (hidden,) = broker.look_up([order.client_order_id], since=long_ago())
    listed = broker.open_orders()
    time.sleep(0.7)
    (shown,) = broker.look_up([order.client_order_id], since=long_ago())

    assert hidden.found is None
    assert listed == []
    assert shown.found is not None
    assert [o.client_order_id for o in broker.open_orders()] == [order.client_order_id]


def test_duplicated_reports_carry_the_same_execution_id(venue: Venue) -> None:
    venue.lies(duplicate_reports=1.0)
    broker = venue.client()
    stream = broker.stream(0)
    broker.send([venue.order("buy 5 AAPL")], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: kinds(rs).count("trade") >= 2))

    trades = [r for r in reports if r.kind == "trade"]
    assert len({r.execution_id for r in trades}) == 1
    assert len(venue.book()["executions"]) == 1


def test_reordered_reports_tell_of_a_fill_before_its_order(venue: Venue) -> None:
    venue.lies(reorder_reports=1.0)
    broker = venue.client()
    stream = broker.stream(0)
    broker.send([venue.order("buy 5 AAPL")], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: {"new", "trade"} <= set(kinds(rs))))
    assert kinds(reports) == ["trade", "new"]


def test_a_gap_is_asked_for_again_and_nothing_is_missed(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    venue.lies(gap=0.5)
    for _ in range(20):
        broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    frames = frames_until(stream, lambda rs: kinds(rs).count("trade") == 20, seconds=10)

    numbers = [f.sequence for f in frames]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(f.error is None for f in frames)


def test_a_gap_at_the_very_end_is_found_by_the_heartbeat(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    venue.lies(gap=1.0)
    broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    frames = frames_until(stream, lambda rs: "trade" in kinds(rs))
    assert [f.sequence for f in frames] == list(range(1, len(frames) + 1))


def test_a_frame_cut_short_is_kept_and_read_again_whole(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    venue.lies(corrupt=1.0)
    broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    frames = frames_until(stream, lambda rs: "trade" in kinds(rs))

    assert any(f.error and f.raw for f in frames)
    good = [f.sequence for f in frames if f.error is None]
    assert good == list(range(1, len(good) + 1))


def test_nonsense_in_the_stream_is_kept_raw_and_stops_nothing(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    venue.lies(garbage=1.0)
    for _ in range(3):
        broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    frames = frames_until(stream, lambda rs: kinds(rs).count("trade") == 3)

    nonsense = [f for f in frames if f.error]
    assert nonsense
    assert all(f.raw and not f.reports for f in nonsense)


def test_a_fill_arrives_after_the_cancel_and_counts(venue: Venue) -> None:
    venue.lies(late_fill_after_cancel=1.0, late_fill_seconds=0.1)
    broker, order = venue.client(), venue.order("buy 5 AAPL limit 99.00")
    stream = broker.stream(0)
    broker.send([order], deadline=soon())
    broker.send([cancel(order, "c1")], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))
    late = reports[-1]

    assert kinds(reports) == ["new", "canceled", "trade"]
    assert late.order_status == "canceled"
    assert late.cumulative_quantity == late.last_quantity > 0
    assert late.leaves_quantity == 0
    assert broker.positions() == [("ACC", "AAPL", late.last_quantity)]


def test_an_overfill_is_reported_as_it_happened(venue: Venue) -> None:
    venue.lies(overfill=1.0)
    broker, order = venue.client(), venue.order("buy 5 AAPL")
    stream = broker.stream(0)
    broker.send([order], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: any(r.cumulative_quantity > 5 for r in rs)))

    assert (reports[-1].cumulative_quantity, reports[-1].leaves_quantity) == (6, 0)
    assert broker.positions() == [("ACC", "AAPL", Decimal(6))]


def test_a_bust_names_its_execution_and_undoes_it(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    broker.send([venue.order("buy 5 AAPL")], deadline=soon())
    trade = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))[-1]
    venue.admin("bust", arguments={"execution_id": trade.execution_id})
    bust = next(r for r in reports_of(frames_until(stream, lambda rs: "bust" in kinds(rs))) if r.kind == "bust")

    assert bust.ref_execution_id == trade.execution_id
    assert bust.execution_id not in (None, trade.execution_id)
    assert bust.cumulative_quantity == 0
    assert broker.positions() == []
    assert venue.book()["executions"] == []
    assert broker.open_orders() == []  # what a bust leaves of a closed order does not go on trading


def test_a_chain_of_corrections_ends_in_one_living_execution(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    broker.send([venue.order("buy 5 AAPL")], deadline=soon())
    last = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))[-1]
    for price in ("99.00", "98.50"):
        venue.admin("correct", arguments={"execution_id": last.execution_id, "price": price})
        correct = reports_of(frames_until(stream, lambda rs: "correct" in kinds(rs)))[-1]
        assert correct.ref_execution_id == last.execution_id
        assert (correct.last_price, correct.last_quantity) == (Decimal(price), 5)
        last = correct
    (alive,) = venue.book()["executions"]

    assert alive["execution_id"] == last.execution_id
    assert ("ACC", "USD", Decimal("-492.50")) in broker.cash()
    assert kinds(broker.executions_since(long_ago())) == ["trade", "correct", "correct"]


def test_random_busts_come_by_themselves(venue: Venue) -> None:
    venue.lies(bust=1.0, bust_seconds=0.1)
    broker = venue.client()
    stream = broker.stream(0)
    broker.send([venue.order("buy 5 AAPL")], deadline=soon())
    assert "bust" in kinds(reports_of(frames_until(stream, lambda rs: "bust" in kinds(rs))))


def test_the_broker_reports_orders_that_the_desk_never_sent(venue: Venue) -> None:
    broker = venue.client()
    stream = broker.stream(0)
    message = {
        "kind": "new", "client_order_id": "by-hand", "account": "ACC", "symbol": "AAPL", "side": "buy", "quantity": "7",
        "order_type": "market", "time_in_force": "day",
    }  # fmt: skip
    venue.admin("manual_order", messages=[message])
    trade = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))[-1]
    assert (trade.account, trade.last_quantity) == ("ACC", 7)


def test_the_broker_cancels_on_its_own(venue: Venue) -> None:
    broker, order = venue.client(), venue.order("buy 5 AAPL limit 90")
    stream = broker.stream(0)
    broker.send([order], deadline=soon())
    venue.admin("cancel_order", arguments={"client_order_id": order.client_order_id})
    canceled = reports_of(frames_until(stream, lambda rs: "canceled" in kinds(rs)))[-1]
    assert (canceled.client_order_id, canceled.orig_client_order_id) == (order.client_order_id, None)


def test_silence_is_unknown_for_what_was_written_and_fails_every_question(venue: Venue) -> None:
    broker = venue.client()
    assert broker.open_orders() == []
    venue.lies(silence=True)
    started = time.monotonic()
    (answer,) = broker.send([venue.order("buy 5 AAPL")], deadline=soon(0.5))

    assert answer.outcome is Outcome.UNKNOWN
    assert time.monotonic() - started < 2
    assert venue.book()["orders"] == []


def test_a_silent_stream_is_called_dead(venue: Venue) -> None:
    stream = venue.client().stream(0)
    venue.lies(silence=True)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        read_to_the_end(stream)
    assert 4 < time.monotonic() - started < 8


def test_empty_lists_are_only_empty_lists(venue: Venue) -> None:
    broker, order = venue.client(), venue.order("buy 5 AAPL limit 90")
    broker.send([order, venue.order("buy 1 AAPL")], deadline=soon())
    venue.lies(empty_lists=True)

    assert broker.open_orders() == []
    assert broker.positions() == []
    assert len(venue.book()["orders"]) == 2
    venue.lies(empty_lists=False)
    assert len(broker.open_orders()) == 1


def test_a_venue_that_is_down_refuses_connections_and_comes_back(venue: Venue) -> None:
    broker = venue.client()
    venue.admin("down", arguments={"for_seconds": 1.0})
    time.sleep(0.2)
    (answer,) = broker.send([venue.order("buy 1 AAPL")], deadline=soon(0.5))
    assert answer.outcome is Outcome.NOT_SENT
    outcome: Any = None
    until = time.monotonic() + 5
    while outcome is not Outcome.ACCEPTED and time.monotonic() < until:
        time.sleep(0.1)
        (answer,) = broker.send([venue.order("buy 1 AAPL")], deadline=soon())
        outcome = answer.outcome
    assert outcome is Outcome.ACCEPTED


def test_a_rate_above_the_limit_is_refused_with_proof_and_cancels_still_pass(start_venue: Start) -> None:
    venue = start_venue(orders_per_second=10)
    broker = venue.client()
    orders = [venue.order("buy 1 AAPL limit 90") for _ in range(30)]
    answers = broker.send(orders, deadline=soon())
    refused = [a for a in answers if a.outcome is Outcome.NOT_SENT]
    (canceled,) = broker.send([cancel(orders[0], "c1")], deadline=soon())

    assert 15 <= len(refused) <= 21
    assert all(a.retry_after_seconds is not None and a.retry_after_seconds > 0 for a in refused)
    assert len(venue.book()["orders"]) == len(orders) - len(refused)
    assert canceled.outcome is Outcome.ACCEPTED


def test_a_request_that_arrives_after_its_time_is_not_acted_on(venue: Venue) -> None:
    """A sender frozen between its check and its write does no harm where the broker knows when to stop."""
    broker, order = venue.client(), venue.order("buy 5 AAPL")
    connection = broker._connected(soon())
    late = broker._request(
        "submit",
        messages=[
            {
                "kind": "new",
                "client_order_id": order.client_order_id,
                "account": "ACC",
                "symbol": "AAPL",
                "side": "buy",
                "quantity": "5",
                "order_type": "market",
                "time_in_force": "day",
            }
        ],
        expires_at=(datetime.now(UTC) - timedelta(seconds=1)).timestamp(),
    )
    connection.write(late, soon())
    assert b'"accepted":false' in connection.read_line(soon())
    assert venue.book()["orders"] == []


@pytest.mark.parametrize(
    ("dedupe", "text", "pause", "orders"),
    [
        ("forever", "buy 1 AAPL", 0.6, 1),
        ("window", "buy 1 AAPL", 0.0, 1),
        ("window", "buy 1 AAPL", 0.6, 2),
        ("open_only", "buy 1 AAPL limit 90", 0.0, 1),
        ("open_only", "buy 1 AAPL", 0.0, 2),
        ("none", "buy 1 AAPL limit 90", 0.0, 2),
    ],
)
def test_each_kind_of_deduplication_does_what_it_declares(
    start_venue: Start, dedupe: str, text: str, pause: float, orders: int
) -> None:
    venue = start_venue(dedupe=dedupe, dedupe_window_seconds=0.5)
    broker, order = venue.client(), venue.order(text)
    broker.send([order], deadline=soon())
    time.sleep(pause)
    broker.send([order], deadline=soon())
    assert len(venue.book()["orders"]) == orders
    assert broker.capabilities.dedupe == dedupe


def test_latency_delays_answers_and_fills_but_not_each_other(start_venue: Start) -> None:
    venue = start_venue(latency_ms={"ack": [100, 0], "fill": [150, 0]})
    broker = venue.client()
    stream = broker.stream(0)
    started = time.monotonic()
    answers = broker.send([venue.order("buy 1 AAPL") for _ in range(50)], deadline=soon())
    acked = time.monotonic() - started
    frames_until(stream, lambda rs: kinds(rs).count("trade") == 50)
    filled = time.monotonic() - started

    assert {a.outcome for a in answers} == {Outcome.ACCEPTED}
    assert 0.1 <= acked < 0.4
    assert 0.15 <= filled < 0.9


def test_quality_knobs_make_a_broker_that_rejects_and_fills_in_parts(start_venue: Start) -> None:
    venue = start_venue(reject_rate=0.3, partial_fill_rate=0.5, price_improvement_bps=2.0)
    broker = venue.client()
    stream = broker.stream(0)
    answers = broker.send([venue.order("buy 10 AAPL") for _ in range(200)], deadline=soon())
    taken = sum(a.outcome is Outcome.ACCEPTED for a in answers)
    reports = reports_of(
        frames_until(stream, lambda rs: sum(r.kind == "trade" and r.order_status == "filled" for r in rs) == taken)
    )
    trades = [r for r in reports if r.kind == "trade"]

    assert 100 < taken < 180
    assert len(trades) > taken * 1.2
    assert all(Decimal("100.00") <= t.last_price <= Decimal("100.02") for t in trades)
    assert len({t.last_price for t in trades}) > 1
    assert sum(t.last_quantity for t in trades) == 10 * taken
