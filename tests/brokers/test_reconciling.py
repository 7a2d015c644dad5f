"""Reconciliation with a broker in a process of its own, over its wire, whatever it says."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from oms.journal.models import Event
from orders import operations as desk_operations
from orders.models import Execution, Order, Submission
from orders.operations.reconciling import reconcile
from portfolio import operations as portfolio
from portfolio.models import Break, BrokerPosition, Reconciliation
from tests.brokers.venue import Venue
from tests.conftest import Desk

pytestmark = pytest.mark.django_db


class Wire:
    """MAIN trades at a broker behind a socket; nobody listens to its stream."""

    def __init__(self, desk: Desk, venue: Venue) -> None:
        self.desk, self.venue, self.ahead = desk, venue, 30
        settings = venue.settings | {"accounts": {"MAIN": "ACC"}, "listings": ["AAPL"]}
        portfolio.add_broker(
            code="SIM", adapter="simulated", settings=settings, actor=desk.actor(desk.oona), at=desk.at
        )

    def trade(self, *texts: str) -> list[Order]:
        placed = self.desk.place(*texts, broker="SIM")
        self.desk.send("SIM")
        return [self.desk.order(p) for p in placed]

    def run(self, **more: Any) -> Reconciliation:
        self.ahead += 30
        at = datetime.now(UTC) + timedelta(seconds=self.ahead)
        return reconcile("SIM", actor=self.desk.actor(self.desk.oona), clock=lambda: at, **more)

    def held(self) -> Decimal:
        row = BrokerPosition.objects.filter(broker__code="SIM").first()
        return row.quantity if row else Decimal(0)


def now(order: Order) -> Order:
    """Return an order as it stands now."""
    return Order.objects.get(pk=order.pk)


@pytest.fixture
def wire(desk: Desk, venue: Venue) -> Wire:
    return Wire(desk, venue)


def test_what_the_stream_never_told_is_adopted_and_then_nothing_differs(wire: Wire) -> None:
    [bought, rests] = wire.trade("buy 5 AAPL", "buy 3 AAPL limit 90")
    assert wire.held() == 0
    run = wire.run()
    assert (run.state, run.adopted, run.opened) == ("done", 1, 0)
    assert (wire.held(), now(bought).status, now(rests).leaves_quantity) == (5, "filled", 3)
    assert {name: s["theirs"] for name, s in run.sections.items()} == {"fill": 1, "position": 1, "cash": 1, "order": 1}
    wire.desk.holds()


def test_c05_lists_that_lie_fail_the_run_and_change_nothing(wire: Wire) -> None:
    wire.trade(*[f"buy {n} AAPL" for n in range(1, 9)])
    assert wire.run().state == "done"
    for lie, failure in (
        ({"empty_lists": True}, "answer_empty"),
        ({"shrink": 0.9}, "answer_shrunken"),
        ({"stale_seconds": 3600.0}, "answer_empty"),
    ):
        wire.venue.lies(**lie)
        run = wire.run()
        assert (run.state, run.failure) == ("failed", failure), lie
        wire.venue.lies(empty_lists=False, shrink=0.0, stale_seconds=0.0)
    assert not Break.objects.exists()
    assert wire.held() == 36
    assert wire.run().state == "done"


def test_c07_a_nightly_outage_carries_the_unknown_over_and_settles_it_on_return(
    desk: Desk, start_venue: Callable[..., Venue]
) -> None:
    wire = Wire(desk, start_venue())
    wire.trade("buy 5 AAPL")
    wire.run()
    wire.venue.lies(drop_reply=1.0)
    [asked] = wire.trade("buy 2 AAPL")
    assert now(asked).unknown
    wire.venue.process.kill()
    run = wire.run()
    assert (run.state, run.failure, wire.held()) == ("failed", "unavailable", 5)
    assert now(asked).unknown
    wire.venue.process.start()
    from brokers import adapters, queries

    adapters.forget()
    Submission.objects.filter(state="unknown").update(due_at=desk.at)
    later = datetime.now(UTC) + timedelta(minutes=1)
    desk_operations.resolve(queries.brokers_by_code()["SIM"], clock=lambda: later)
    assert not now(asked).unknown
    run = wire.run()
    assert (run.state, run.opened, wire.held()) == ("done", 0, 7)
    desk.holds()


def test_c08_a_history_that_is_revised_hours_later_is_appended_and_rewrites_nothing(wire: Wire) -> None:
    [order] = wire.trade("buy 5 AAPL limit 90")
    name = order.children.get().client_order_id
    wire.venue.admin("cancel_order", arguments={"client_order_id": name})
    wire.run()
    assert now(order).status == "canceled"
    told = list(Event.objects.order_by("id").values_list("hash", flat=True))
    wire.venue.admin("fill", arguments={"client_order_id": name, "quantity": "5", "price": "90"})
    run = wire.run()
    assert (run.adopted, now(order).status, wire.held()) == (1, "filled", 5)
    assert list(Event.objects.order_by("id").values_list("hash", flat=True))[: len(told)] == told
    assert Execution.objects.count() == 1
    wire.desk.holds()


def test_c09_a_wrong_position_at_the_broker_persists_as_one_break(wire: Wire) -> None:
    wire.trade("buy 5 AAPL")
    wire.venue.lies(wrong_positions={"AAPL": "2"})
    for _ in range(3):
        wire.run()
    row = Break.objects.get()
    assert (row.kind, row.ours, row.theirs, row.runs) == ("position", 5, 7, 3)
    assert Event.objects.filter(kind="halt.engaged", body__contains="run after run").exists()
    assert wire.held() == 5
    wire.venue.lies(wrong_positions={})
    wire.run()
    row.refresh_from_db()
    assert (row.state, row.closed_as) == ("closed", "gone")
