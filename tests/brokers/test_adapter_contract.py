"""What the desk relies on of any broker. Each adapter passes this suite against a real counterparty."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters import build
from brokers.adapters.port import BrokerUnavailable, CancelOrder, NewOrder, Outcome, ReplaceOrder
from tests.brokers.venue import Venue, frames_until, kinds, long_ago, read_to_the_end, reports_of, soon


@pytest.fixture(params=["simulated"])
def broker(request: pytest.FixtureRequest, venue: Venue) -> Iterator[Any]:
    """Return an adapter whose counterparty's AAPL stands at 100.00 / 100.02."""
    adapter = build(request.param, venue.settings)
    yield adapter
    adapter.close()


@pytest.fixture
def stream(broker: Any) -> Iterator[Any]:
    """Return the broker's stream from its beginning."""
    stream = broker.stream(0)
    yield stream
    stream.close()


def cancel(order: NewOrder, client_order_id: str) -> CancelOrder:
    return CancelOrder(
        client_order_id=client_order_id,
        orig_client_order_id=order.client_order_id,
        account=order.account,
        symbol=order.symbol,
        side=order.side,
    )


def replace(order: NewOrder, client_order_id: str, **terms: Any) -> ReplaceOrder:
    fields = {n: getattr(order, n) for n in ReplaceOrder.__slots__ if hasattr(order, n)} | terms
    return ReplaceOrder(**fields | {"client_order_id": client_order_id, "orig_client_order_id": order.client_order_id})


def test_a_market_order_is_taken_and_filled_inside_the_quote(broker: Any, stream: Any, venue: Venue) -> None:
    order = venue.order("buy 10 AAPL")
    (answer,) = broker.send([order], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))

    assert answer.outcome is Outcome.ACCEPTED
    assert answer.broker_order_id
    assert answer.rtt_ms is not None
    new, trade = reports
    assert (new.kind, new.order_status, new.leaves_quantity) == ("new", "new", Decimal(10))
    assert (trade.kind, trade.order_status, trade.last_quantity) == ("trade", "filled", Decimal(10))
    assert Decimal("100.00") <= trade.last_price <= Decimal("100.02")
    assert trade.client_order_id == order.client_order_id
    assert trade.broker_order_id == answer.broker_order_id
    assert trade.execution_id
    assert trade.executed_at is not None
    assert abs(datetime.now(UTC) - trade.executed_at) < timedelta(seconds=5)


def test_answers_stand_in_the_order_of_the_messages_each_judged_alone(broker: Any, venue: Venue) -> None:
    orders = [
        venue.order("buy 1 AAPL"),
        venue.order("buy 1 NOPE"),
        venue.order("buy 1.5 AAPL"),
        venue.order("sell 1 AAPL"),
    ]
    answers = broker.send(orders, deadline=soon())

    assert [a.client_order_id for a in answers] == [o.client_order_id for o in orders]
    assert [a.outcome for a in answers] == [Outcome.ACCEPTED, Outcome.REJECTED, Outcome.REJECTED, Outcome.ACCEPTED]
    assert answers[1].reason
    assert answers[2].reason


@pytest.mark.parametrize(
    "text", ["buy 1 AAPL limit 99.995", "buy 0.5 AAPL", "buy 1 NOPE", "buy 0 AAPL", "buy 1 AAPL limit 0"]
)
def test_what_can_not_trade_is_provably_rejected_and_reported(
    broker: Any, stream: Any, venue: Venue, text: str
) -> None:
    (answer,) = broker.send([venue.order(text)], deadline=soon())
    (report,) = reports_of(frames_until(stream, bool))

    assert answer.outcome is Outcome.REJECTED
    assert report.kind == "rejected"
    assert report.leaves_quantity == 0
    assert broker.open_orders() == []


def test_an_order_rests_until_the_market_comes_and_fills_at_its_limit_or_better(
    broker: Any, stream: Any, venue: Venue
) -> None:
    order = venue.order("buy 5 AAPL limit 99.50")
    broker.send([order], deadline=soon())
    frames_until(stream, lambda rs: kinds(rs) == ["new"])
    (resting,) = broker.open_orders()
    venue.quote("AAPL", "99.40", "99.45", "100", "100")
    (trade,) = reports_of(frames_until(stream, bool))

    assert (resting.client_order_id, resting.status, resting.leaves_quantity) == (
        order.client_order_id,
        "new",
        Decimal(5),
    )
    assert (resting.limit_price, resting.order_type, resting.time_in_force) == (Decimal("99.50"), "limit", "day")
    assert Decimal("99.40") <= trade.last_price <= Decimal("99.45")
    assert broker.open_orders() == []


def test_a_cancel_ends_an_order_and_names_both_ids(broker: Any, stream: Any, venue: Venue) -> None:
    order = venue.order("buy 5 AAPL limit 90")
    broker.send([order], deadline=soon())
    (answer,) = broker.send([cancel(order, "c1")], deadline=soon())
    canceled = reports_of(frames_until(stream, lambda rs: "canceled" in kinds(rs)))[-1]

    assert answer.outcome is Outcome.ACCEPTED
    assert (canceled.client_order_id, canceled.orig_client_order_id) == ("c1", order.client_order_id)
    assert (canceled.order_status, canceled.leaves_quantity) == ("canceled", 0)


def test_a_cancel_that_comes_too_late_or_names_nothing_is_rejected_with_proof(
    broker: Any, stream: Any, venue: Venue
) -> None:
    order = venue.order("buy 5 AAPL")
    broker.send([order], deadline=soon())
    frames_until(stream, lambda rs: "trade" in kinds(rs))
    late, lost = broker.send([cancel(order, "c1"), cancel(venue.order("buy 1 AAPL"), "c2")], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: len(rs) >= 1))

    assert (late.outcome, lost.outcome) == (Outcome.REJECTED, Outcome.REJECTED)
    assert reports[0].kind == "cancel_rejected"
    assert reports[0].client_order_id == "c1"
    assert reports[0].orig_client_order_id == order.client_order_id
    assert reports[0].order_status == "filled"


def test_a_replace_changes_the_terms_and_the_name(broker: Any, stream: Any, venue: Venue) -> None:
    order = venue.order("buy 5 AAPL limit 90 gtc")
    broker.send([order], deadline=soon())
    (answer,) = broker.send([replace(order, "r1", quantity=Decimal(8), limit_price=Decimal("91.00"))], deadline=soon())
    replaced = reports_of(frames_until(stream, lambda rs: "replaced" in kinds(rs)))[-1]
    (state,) = broker.open_orders()

    assert answer.outcome is Outcome.ACCEPTED
    assert (replaced.client_order_id, replaced.orig_client_order_id) == ("r1", order.client_order_id)
    assert (replaced.order_quantity, replaced.leaves_quantity) == (Decimal(8), Decimal(8))
    assert (state.client_order_id, state.limit_price, state.quantity) == ("r1", Decimal("91.00"), Decimal(8))
    again = broker.send([cancel(order, "c1")], deadline=soon())  # the old name still leads to the order, or is refused
    assert again[0].outcome in (Outcome.ACCEPTED, Outcome.REJECTED)


@pytest.mark.parametrize(
    ("quantity", "status", "leaves"), [("10", "partially_filled", "6"), ("4", "filled", "0"), ("2", "filled", "0")]
)
def test_a_replace_around_what_is_filled_follows_the_fix_matrices(
    start_venue: Callable[..., Venue], quantity: str, status: str, leaves: str
) -> None:
    """D11-D13: a quantity above what is filled works on; at or below it the order ends filled, at what is filled."""
    venue = start_venue(depth=1.0)
    venue.quote("AAPL", "100.00", "100.02", "4", "4")
    broker, order = venue.client(), venue.order("buy 20 AAPL limit 100.02")
    stream = broker.stream(0)
    broker.send([order], deadline=soon())
    frames_until(stream, lambda rs: "trade" in kinds(rs))
    broker.send([replace(order, "r1", quantity=Decimal(quantity))], deadline=soon())
    replaced = next(
        r for r in reports_of(frames_until(stream, lambda rs: "replaced" in kinds(rs))) if r.kind == "replaced"
    )

    assert (replaced.order_status, replaced.leaves_quantity) == (status, Decimal(leaves))
    assert replaced.cumulative_quantity == 4
    assert replaced.order_quantity == max(Decimal(quantity), Decimal(4))


def test_a_filled_order_takes_a_larger_quantity_and_works_on(broker: Any, stream: Any, venue: Venue) -> None:
    """D9: C.1.c of the order state change matrices."""
    order = venue.order("buy 5 AAPL limit 100.02")
    broker.send([order], deadline=soon())
    frames_until(stream, lambda rs: "trade" in kinds(rs))
    (answer,) = broker.send([replace(order, "r1", quantity=Decimal(7))], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))

    assert answer.outcome is Outcome.ACCEPTED
    assert (reports[0].kind, reports[0].order_status, reports[0].leaves_quantity) == ("replaced", "partially_filled", 2)
    assert (reports[-1].order_status, reports[-1].cumulative_quantity) == ("filled", 7)


def test_a_filled_order_refuses_a_replace_that_is_not_larger(broker: Any, stream: Any, venue: Venue) -> None:
    """D10: C.2.a, too late to replace."""
    order = venue.order("buy 5 AAPL limit 100.02")
    broker.send([order], deadline=soon())
    frames_until(stream, lambda rs: "trade" in kinds(rs))
    (answer,) = broker.send([replace(order, "r1", limit_price=Decimal("99.00"))], deadline=soon())
    reports = reports_of(frames_until(stream, bool))

    assert answer.outcome is Outcome.REJECTED
    assert (reports[0].kind, reports[0].order_status) == ("replace_rejected", "filled")


def test_immediate_orders_never_rest(start_venue: Callable[..., Venue]) -> None:
    venue = start_venue(depth=1.0)
    venue.quote("AAPL", "100.00", "100.02", "4", "4")
    broker = venue.client()
    stream = broker.stream(0)
    fok, ioc = venue.order("buy 10 AAPL limit 100.02 fok"), venue.order("buy 10 AAPL limit 100.02 ioc")
    broker.send([fok, ioc], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: kinds(rs).count("canceled") == 2))
    by_order = {o.client_order_id: [r for r in reports if r.client_order_id == o.client_order_id] for o in (fok, ioc)}

    assert kinds(by_order[fok.client_order_id]) == ["new", "canceled"]
    assert kinds(by_order[ioc.client_order_id]) == ["new", "trade", "canceled"]
    assert by_order[ioc.client_order_id][1].last_quantity == 4
    assert broker.open_orders() == []


def test_a_stop_sleeps_until_the_market_touches_it(broker: Any, stream: Any, venue: Venue) -> None:
    broker.send(
        [venue.order("buy 5 AAPL stop 101.00"), venue.order("sell 5 AAPL stop_limit 99.00 98.90")], deadline=soon()
    )
    assert kinds(reports_of(frames_until(stream, lambda rs: len(rs) == 2))) == ["new", "new"]
    venue.quote("AAPL", "100.98", "101.00", "100", "100")
    bought = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))
    venue.quote("AAPL", "98.00", "98.10", "100", "100")
    sold = reports_of(frames_until(stream, lambda rs: "triggered" in kinds(rs)))

    assert kinds(bought) == ["triggered", "trade"]
    assert bought[1].side == "buy"
    assert kinds(sold) == ["triggered"]  # the market fell through the limit: the order rests above it
    assert [o.leaves_quantity for o in broker.open_orders()] == [5]


def test_a_gtd_order_expires_at_its_time(broker: Any, stream: Any, venue: Venue) -> None:
    at = datetime.now(UTC) + timedelta(seconds=0.4)
    broker.send([venue.order(f"buy 5 AAPL limit 90 gtd {at.isoformat()}")], deadline=soon())
    expired = reports_of(frames_until(stream, lambda rs: "expired" in kinds(rs)))[-1]

    assert (expired.order_status, expired.leaves_quantity) == ("expired", 0)
    assert expired.executed_at >= at - timedelta(milliseconds=1)


def test_the_same_id_twice_makes_one_order_and_proves_the_first(broker: Any, venue: Venue) -> None:
    order = venue.order("buy 5 AAPL")
    (first,) = broker.send([order], deadline=soon())
    (second,) = broker.send([order], deadline=soon())

    assert second.outcome is Outcome.ACCEPTED
    assert second.broker_order_id == first.broker_order_id
    assert len(venue.book()["orders"]) == 1


def test_a_look_up_tells_open_closed_rejected_and_requests_with_all_reports(
    broker: Any, stream: Any, venue: Venue
) -> None:
    filled, resting, wrong = venue.order("buy 5 AAPL"), venue.order("buy 5 AAPL limit 90"), venue.order("buy 1 NOPE")
    broker.send([filled, resting, wrong], deadline=soon())
    frames_until(stream, lambda rs: "trade" in kinds(rs))
    broker.send([cancel(resting, "c1")], deadline=soon())
    ids = [filled.client_order_id, resting.client_order_id, wrong.client_order_id, "c1", "never-sent"]
    found = broker.look_up(ids, since=long_ago())

    assert [x.client_order_id for x in found] == ids
    assert [x.found.status if x.found else None for x in found] == ["filled", "canceled", "rejected", "canceled", None]
    assert kinds(list(found[0].reports)) == ["new", "trade"]
    assert kinds(list(found[1].reports)) == ["new", "canceled"]
    assert found[4].reports == ()


def test_absence_is_authoritative_when_the_whole_period_was_looked_at(broker: Any) -> None:
    (lookup,) = broker.look_up(["never-sent"], since=datetime.now(UTC) - timedelta(seconds=1))
    assert lookup.found is None
    assert lookup.authoritative


def test_looked_up_reports_are_the_streamed_ones(broker: Any, stream: Any, venue: Venue) -> None:
    order = venue.order("buy 5 AAPL")
    broker.send([order], deadline=soon())
    streamed = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))
    (lookup,) = broker.look_up([order.client_order_id], since=long_ago())
    assert list(lookup.reports) == streamed


def test_executions_positions_and_cash_agree(start_venue: Callable[..., Venue]) -> None:
    fees = {"equity": [{"kind": "commission", "basis": "per_share", "rate": "0.01"}]}
    venue = start_venue(fees=fees)
    broker = venue.client()
    stream = broker.stream(0)
    before = datetime.now(UTC) - timedelta(seconds=1)
    broker.send(
        [venue.order("buy 10 AAPL"), venue.order("sell 4 AAPL"), venue.order("sell 2 AAPL", account="B")],
        deadline=soon(),
    )
    frames_until(stream, lambda rs: kinds(rs).count("trade") == 3)
    executions = broker.executions_since(before)
    held = sum(e.last_quantity * (1 if e.side == "buy" else -1) for e in executions if e.account == "ACC")
    paid = sum(
        (-1 if e.side == "buy" else 1) * e.last_quantity * e.last_price - sum(f.amount for f in e.fees)
        for e in executions
        if e.account == "ACC"
    )

    assert [e.kind for e in executions] == ["trade"] * 3
    assert sorted(broker.positions()) == [("ACC", "AAPL", held), ("B", "AAPL", Decimal(-2))]
    assert held == 6
    assert ("ACC", "USD", paid) in broker.cash()
    assert [f.amount for f in executions[0].fees] == [Decimal("0.10")]
    assert broker.executions_since(datetime.now(UTC) + timedelta(seconds=60)) == []


def test_a_stream_resumes_behind_a_number_and_repeats_nothing(broker: Any, venue: Venue) -> None:
    first = broker.stream(0)
    broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    seen = frames_until(first, lambda rs: "trade" in kinds(rs))
    first.close()
    order = venue.order("buy 2 AAPL")
    broker.send([order], deadline=soon())
    second = broker.stream(seen[-1].sequence)
    missed = frames_until(second, lambda rs: "trade" in kinds(rs))
    second.close()

    assert {r.client_order_id for r in reports_of(missed)} == {order.client_order_id}
    numbers = [f.sequence for f in seen + missed]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_stream_without_a_number_starts_now(broker: Any, venue: Venue) -> None:
    broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    venue.book()
    stream = broker.stream(None)
    order = venue.order("buy 2 AAPL")
    broker.send([order], deadline=soon())
    reports = reports_of(frames_until(stream, lambda rs: "trade" in kinds(rs)))
    stream.close()
    assert {r.client_order_id for r in reports} == {order.client_order_id}


def test_nothing_is_written_after_the_deadline(broker: Any, venue: Venue) -> None:
    (answer,) = broker.send([venue.order("buy 1 AAPL")], deadline=time.monotonic() - 1)
    assert answer.outcome is Outcome.NOT_SENT
    assert venue.book()["orders"] == []


def test_a_broker_that_is_not_there_was_sent_nothing(start_venue: Callable[..., Venue]) -> None:
    venue = start_venue()
    broker = venue.client()
    broker.send([venue.order("buy 1 AAPL")], deadline=soon())
    venue.process.kill()
    (answer,) = broker.send([venue.order("buy 1 AAPL")], deadline=soon())

    assert answer.outcome is Outcome.NOT_SENT
    for ask in (broker.open_orders, broker.positions, broker.cash, lambda: broker.stream(0)):
        with pytest.raises(BrokerUnavailable):
            ask()


def test_a_killed_broker_comes_back_with_its_book_and_its_numbers(start_venue: Callable[..., Venue]) -> None:
    venue = start_venue()
    broker = venue.client()
    stream = broker.stream(0)
    resting = venue.order("buy 5 AAPL limit 90 gtc")
    broker.send([venue.order("buy 10 AAPL"), resting, venue.order("sell 3 AAPL limit 200 gtc")], deadline=soon())
    seen = frames_until(stream, lambda rs: "trade" in kinds(rs) and kinds(rs).count("new") == 3)
    before = venue.book()
    venue.process.kill()
    with pytest.raises(BrokerUnavailable):
        read_to_the_end(stream)
    venue.process.start()
    venue.quote("AAPL", "100.00", "100.02", "1000", "1000")
    after = venue.book()
    again = broker.stream(seen[-1].sequence)
    broker.send([cancel(resting, "c1"), venue.order("buy 1 AAPL")], deadline=soon())
    more = frames_until(again, lambda rs: {"canceled", "trade"} <= set(kinds(rs)))

    assert {k: before[k] for k in ("orders", "executions", "positions", "cash")} == {
        k: after[k] for k in ("orders", "executions", "positions", "cash")
    }
    assert more[0].sequence == seen[-1].sequence + 1
    executions = [r.execution_id for r in reports_of(seen + more) if r.execution_id]
    assert len(executions) == len(set(executions))


def test_a_thousand_orders_travel_in_one_batch(broker: Any, stream: Any, venue: Venue) -> None:
    orders = [venue.order("buy 1 AAPL") for _ in range(1_000)]
    answers = broker.send(orders, deadline=soon(10))
    frames = frames_until(stream, lambda rs: kinds(rs).count("trade") == 1_000, seconds=10)

    assert {a.outcome for a in answers} == {Outcome.ACCEPTED}
    assert len(frames) < 200, "reports that are ready together travel together"


def test_a_long_backlog_is_handed_over_in_bounded_parts(broker: Any, venue: Venue) -> None:
    for _ in range(3):
        broker.send([venue.order("buy 1 AAPL") for _ in range(1_000)], deadline=soon(10))
    stream = broker.stream(0)
    parts: list[int] = []
    while sum(parts) < 6_000:
        frames = stream.receive(2)
        assert frames
        parts.append(len(reports_of(frames)))
    stream.close()
    assert max(parts) <= 1_500
