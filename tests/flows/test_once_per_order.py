"""What counts once for an order: its fees, why it ended, and the numbers that a change was let through by."""

from decimal import Decimal
from typing import Any

import pytest

from brokers import queries
from brokers.models import Broker, FeeSchedule
from orders import operations as desk_operations
from orders.domain.tickets import Terms
from orders.models import Execution, Order
from orders.queries import events_of
from tests.conftest import Desk


def fill(desk: Desk, number: int, quantity: str, price: str = "100", kind: str = "trade", **more: Any) -> Any:
    return desk.near.report(
        kind, desk.near.sent[0], execution_id=f"E{number}", last_quantity=Decimal(quantity), last_price=Decimal(price),
        executed_at=desk.at, **more,
    )  # fmt: skip


class TestFees:
    @pytest.fixture(autouse=True)
    def schedule(self, desk: Desk) -> None:
        FeeSchedule.objects.create(
            broker=Broker.objects.get(code="NEAR"),
            asset_class="equity",
            effective_from="2020-01-01",
            items=[
                {"kind": "commission", "basis": "per_share", "rate": "0.01", "min": "0.35"},
                {"kind": "ticket", "basis": "per_order", "rate": "1"},
            ],
        )
        queries.forget_cache()

    @pytest.mark.parametrize("parts", [("100",), ("10", "90"), ("25", "25", "50")])
    def test_many_fills_are_charged_as_one(self, desk: Desk, parts: tuple[str, ...]) -> None:
        [placed] = desk.place("buy 100 AAPL", broker="NEAR")
        desk.send()
        for number, part in enumerate(parts):
            desk.report(fill(desk, number, part))
        assert desk.order(placed).fees == 2
        assert sum(e.fees for e in Execution.objects.all()) == 2
        assert Execution.objects.order_by("received_at", "id").first().fees >= Decimal("1.25")
        desk.holds()

    def test_a_correction_is_charged_what_the_order_is_worth_then(self, desk: Desk) -> None:
        [placed] = desk.place("buy 100 AAPL", broker="NEAR")
        desk.send()
        desk.report(fill(desk, 1, "50"), fill(desk, 2, "50"))
        desk.report(fill(desk, 3, "10", kind="correct", ref_execution_id="E2"))
        assert desk.order(placed).fees == Decimal("1.6")  # 60 units
        desk.report(fill(desk, 4, "0", kind="bust", ref_execution_id="E3"))
        assert desk.order(placed).fees == Decimal("1.5")
        desk.holds()


class TestReasons:
    def working(self, desk: Desk, text: str = "buy 10 AAPL limit 99") -> Any:
        [placed] = desk.place(text)
        desk.send()
        desk.report(desk.near.report("new", desk.near.sent[0]))
        return placed

    def test_an_end_that_nobody_asked_for_is_unsolicited(self, desk: Desk) -> None:
        placed = self.working(desk)
        desk.report(desk.near.report("canceled", desk.near.sent[0], text="the dealer went home"))
        order = desk.order(placed)
        assert (order.status, order.reason, order.reason_detail) == (
            "canceled", "unsolicited", "the dealer went home",
        )  # fmt: skip

    def test_an_end_that_was_asked_for_is_not(self, desk: Desk) -> None:
        placed = self.working(desk)
        desk_operations.cancel(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        desk.send()
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        assert desk.order(placed).reason == "cancel_requested"

    def test_the_rest_of_an_immediate_order_ends_by_its_own_terms(self, desk: Desk) -> None:
        placed = self.working(desk, "buy 10 AAPL limit 99 ioc")
        desk.report(desk.near.report("canceled", desk.near.sent[0]))
        assert (desk.order(placed).status, desk.order(placed).reason) == ("canceled", "")

    def test_a_late_fill_overtakes_the_reason(self, desk: Desk) -> None:
        placed = self.working(desk)
        desk.report(desk.near.report("canceled", desk.near.sent[0]))
        desk.report(fill(desk, 1, "10", "99"))
        assert (desk.order(placed).status, desk.order(placed).reason) == ("filled", "")


def test_the_event_of_a_replace_keeps_the_numbers_it_was_judged_by(desk: Desk) -> None:
    [placed] = desk.place("buy 10 AAPL limit 99")
    desk.send()
    desk.report(desk.near.report("new", desk.near.sent[0]))
    desk_operations.replace(placed.order_id, Terms(quantity=Decimal(20)), actor=desk.actor(desk.alice), at=desk.at)
    event = next(e for e in events_of(placed.order_id) if e["kind"] == "order.replace_requested")
    quantity = next(c for c in event["checks"] if c["check"] == "order_quantity")
    assert (quantity["passed"], quantity["numbers"]["quantity"]) == (True, "20")
    assert Order.objects.get().quantity == 10
    desk.holds()
