"""One order, from the ticket to the books, and every way its reports may arrive."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import permutations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brokers import queries
from brokers.adapters.port import Outcome
from brokers.models import Broker
from oms.runtime import sql
from orders import operations as desk_operations
from orders.domain.tickets import Terms
from orders.models import ChildOrder, Execution, Order, Submission
from portfolio.models import BrokerPosition, CashBalance, Position
from risk.models import Exposure, Hold
from routing.models import RoutingDecision
from tests.conftest import Desk


def trade(desk: Desk, order: object, number: int, quantity: str, price: str, **more: object) -> object:
    return desk.near.report(
        "trade", order, execution_id=f"E{number}", last_quantity=Decimal(quantity), last_price=Decimal(price),
        executed_at=desk.at, **more,
    )  # fmt: skip


@contextmanager
def counted(into: list[int]) -> Iterator[None]:
    """Add to a list how many statements ran inside."""
    with sql.recorded() as ours, CaptureQueriesContext(connection) as theirs:
        yield
    into.append(len(ours) + len(theirs))


class TestPlace:
    def test_a_broker_whose_adapter_is_unknown_takes_nothing_and_stops_nothing(self, desk: Desk) -> None:
        Broker.objects.filter(code="FAR").update(adapter="telegraph")
        queries.forget_cache()
        [placed] = desk.place("buy 10 AAPL")
        assert desk.order(placed).status == "pending_new"
        [decision] = RoutingDecision.objects.all()
        assert {c["broker"]: c["reasons"] for c in decision.candidates}["FAR"] != []

    def test_a_market_order_is_filled_and_booked(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL")
        assert placed.created
        assert desk.send() == 1
        [sent] = desk.near.sent
        desk.report(desk.near.report("new", sent), trade(desk, sent, 1, "10", "100.01"))

        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.leaves_quantity) == ("filled", 10, 0)
        position = Position.objects.get()
        assert (position.quantity, position.cost) == (10, Decimal("1000.1"))
        assert BrokerPosition.objects.get().quantity == 10
        assert CashBalance.objects.get(currency="USD").balance == Decimal("998999.9")
        assert Hold.objects.get().open_quantity == 0
        desk.holds()

    def test_the_same_id_answers_with_the_first_reply(self, desk: Desk) -> None:
        [first] = desk.place("buy 10 AAPL", client_order_id="once")
        desk.send()
        [again] = desk.place("buy 10 AAPL", client_order_id="once")
        assert not again.created
        assert again.body == first.body
        assert Order.objects.count() == 1

    def test_the_same_id_with_another_ticket_is_a_conflict(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL", client_order_id="once")
        [other] = desk.place("buy 11 AAPL", client_order_id="once")
        assert other.problem is not None
        assert other.problem.code == "idempotency_conflict"
        assert Order.objects.count() == 1

    def test_twins_under_different_keys_are_as_strict_in_one_batch_as_in_two(self, desk: Desk) -> None:
        from orders import operations
        from orders.operations import Request
        from tests.conftest import ticket

        alice = desk.actor(desk.alice)
        asked = [Request(ticket("buy 10 AAPL", client_order_id="one"), alice, key) for key in ("K1", "K2", "K1")]
        first, other, again = operations.place(asked, actor=alice, at=desk.at)
        assert (first.created, other.problem and other.problem.code) == (True, "idempotency_conflict")
        assert (again.created, again.order_id, again.problem) == (False, first.order_id, None)
        for request, answer in zip(asked, (first, other, again), strict=True):
            [later] = operations.place([request], actor=alice, at=desk.at)
            assert (later.problem and later.problem.code) == (answer.problem and answer.problem.code)

    def test_twins_in_one_batch_make_one_order(self, desk: Desk) -> None:
        first, second = desk.place("buy 10 AAPL", "buy 10 AAPL", client_order_id="once")
        assert (first.created, second.created) == (True, False)
        assert first.body == second.body

    def test_an_account_not_granted_looks_like_none(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL", user=desk.otto)
        assert placed.problem is not None
        assert placed.problem.errors[0].code == "unknown_account"

    def test_risk_says_no_above_the_limit(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10001 AAPL")
        order = desk.order(placed)
        assert (order.status, order.reason, order.leaves_quantity) == ("denied", "quantity_limit", 0)
        assert desk.send() == 0
        desk.holds()

    def test_the_number_of_statements_does_not_grow_with_the_batch(self, desk: Desk) -> None:
        desk.place("buy 1 AAPL")
        with sql.recorded() as one:
            desk.place("buy 2 AAPL")
        with sql.recorded() as many:
            desk.place(*[f"buy {n} AAPL" for n in range(3, 53)])
        assert len(many) == len(one)

    def test_an_order_by_itself_is_asked_of_no_group(self, desk: Desk) -> None:
        with sql.recorded() as statements, CaptureQueriesContext(connection) as others:
            [placed] = desk.place("buy 10 AAPL limit 99.00")
            desk.send()
            desk.report(desk.near.report("new", desk.near.sent[0]), trade(desk, desk.near.sent[0], 1, "4", "99"))
            desk_operations.replace(
                placed.order_id, Terms(quantity=Decimal(8)), actor=desk.actor(desk.alice), at=desk.at
            )
        told = str([*statements, *others.captured_queries])
        assert "orders_order" in told
        assert "orders_ordergroup" not in told
        assert "orders_groupleg" not in told


class TestReports:
    def test_every_order_of_arrival_ends_the_same(self, desk: Desk) -> None:
        ends = set()
        for number, order in enumerate(permutations(range(4))):
            [placed] = desk.place("buy 10 AAPL", client_order_id=f"p{number}")
            desk.send()
            sent = desk.near.sent[-1]
            first = 10 * number
            reports = [
                desk.near.report("new", sent),
                trade(desk, sent, first + 1, "4", "100"),
                trade(desk, sent, first + 2, "6", "100.01"),
                trade(desk, sent, first + 3, "4", "99", ref_execution_id=f"E{first + 1}"),
            ]
            object.__setattr__(reports[3], "kind", desk.near.report("correct", sent).kind)
            for index in order:
                desk.report(reports[index], reports[index])
            from brokers import queries
            from oms.kernel.actor import Actor

            broker = queries.brokers_by_code()["NEAR"]
            for _ in range(2):
                desk_operations.apply_parked(broker.id, actor=Actor.system("test"), at=desk.at)
            row = desk.order(placed)
            ends.add((str(row.status), row.filled_quantity, row.leaves_quantity, row.filled_amount))
        assert ends == {("filled", Decimal(10), Decimal(0), Decimal("996.06"))}
        desk.holds()

    def test_a_fill_after_the_cancel_is_booked(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 100.00")
        desk.send()
        [sent] = desk.near.sent
        desk.report(desk.near.report("new", sent), desk.near.report("canceled", sent))
        assert desk.order(placed).status == "canceled"
        desk.report(trade(desk, sent, 1, "4", "100"))
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.leaves_quantity) == ("canceled", 4, 0)
        assert Position.objects.get().quantity == 4
        desk.holds()

    def test_a_bust_takes_the_fill_back(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL")
        desk.send()
        [sent] = desk.near.sent
        desk.report(trade(desk, sent, 1, "10", "100"))
        desk.report(desk.near.report("bust", sent, execution_id="X1", ref_execution_id="E1"))
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.leaves_quantity) == ("new", 0, 10)
        assert Position.objects.get().quantity == 0
        assert CashBalance.objects.get(currency="USD").balance == 1_000_000
        assert Execution.objects.count() == 2
        desk.holds()

    def test_a_report_of_an_unknown_order_is_kept(self, desk: Desk) -> None:
        from orders.models import ParkedReport

        desk.place("buy 10 AAPL")
        desk.send()
        stray = desk.near.report("new", desk.near.sent[0], client_order_id="never-heard-of", broker_order_id="B-never")
        desk.report(stray)
        assert ParkedReport.objects.get().waits_for == "order:never-heard-of"

    def test_a_refusal_goes_to_the_next_broker(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL")
        desk.near.outcome = lambda _: Outcome.REJECTED
        desk.send("NEAR")
        order = desk.order(placed)
        assert order.status == "pending_new" or order.status == "new"
        assert {c.broker.code: c.status for c in ChildOrder.objects.select_related("broker")} == {
            "NEAR": "rejected",
            "FAR": "pending_new",
        }
        desk.far.outcome = lambda _: Outcome.REJECTED
        desk.send("FAR")
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity) == ("rejected", 0)
        assert Exposure.objects.get().buying == 0
        desk.holds()

    def test_the_number_of_statements_does_not_grow_with_what_a_broker_refuses(self, desk: Desk) -> None:
        desk.near.outcome = lambda _: Outcome.REJECTED
        counts: list[int] = []
        for size in (1, 2, 20):
            desk.place(*[f"buy {n} AAPL" for n in range(1, size + 1)])
            with counted(counts):
                assert desk.send("NEAR") == size
        assert counts[1] == counts[2]
        assert ChildOrder.objects.filter(broker__code="FAR").count() == 23


class TestUnknown:
    def test_silence_is_no_verdict_and_nothing_is_sent_twice(self, desk: Desk) -> None:
        from brokers import queries

        [placed] = desk.place("buy 10 AAPL")
        desk.near.outcome, desk.near.silent_takes = (lambda _: Outcome.UNKNOWN), True
        desk.send()
        order = desk.order(placed)
        assert (order.status, order.unknown) == ("pending_new", True)
        Submission.objects.update(due_at=desk.at)
        broker = queries.brokers_by_code()["NEAR"]
        desk_operations.resolve(broker, clock=lambda: desk.later(1))
        order = desk.order(placed)
        assert (order.status, order.unknown) == ("new", False)
        assert len(desk.near.sent) == 1
        desk.holds()

    def test_absence_takes_two_answers_and_the_lease(self, desk: Desk) -> None:
        from brokers import queries

        [placed] = desk.place("buy 10 AAPL")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.send()
        broker = queries.brokers_by_code()["NEAR"]
        for seconds in (1, 1, 20):
            Submission.objects.filter(state="unknown").update(due_at=desk.at)
            desk_operations.resolve(broker, clock=lambda s=seconds: desk.later(s))
        states = dict(Submission.objects.values_list("broker__code", "state"))
        assert states["NEAR"] == "absent"
        assert len(desk.near.sent) == 1
        assert desk.order(placed).unknown is False
        assert states.get("FAR") == "prepared"


class TestChange:
    def test_a_cancel_before_sending_ends_the_order_at_once(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL")
        desk_operations.cancel(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        assert desk.order(placed).status == "canceled"
        assert desk.send() == 0
        desk.holds()

    def test_a_cancel_is_sent_once_and_ends_the_order(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.send()
        desk.report(desk.near.report("new", desk.near.sent[0]))
        for _ in range(2):
            desk_operations.cancel(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        assert desk.order(placed).status == "pending_cancel"
        assert desk.send() == 1
        desk.report(desk.near.report("canceled", desk.near.sent[1]))
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity) == ("canceled", 0)
        desk.holds()

    @pytest.mark.parametrize(("quantity", "status"), [("20", "partially_filled"), ("4", "filled")])
    def test_a_replace_meets_what_is_filled(self, desk: Desk, quantity: str, status: str) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.send()
        sent = desk.near.sent[0]
        desk.report(desk.near.report("new", sent), trade(desk, sent, 1, "4", "99"))
        desk_operations.replace(
            placed.order_id, Terms(quantity=Decimal(quantity)), actor=desk.actor(desk.alice), at=desk.at
        )
        assert desk.order(placed).status == "pending_replace"
        desk.send()
        desk.report(desk.near.report("replaced", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.quantity, order.filled_quantity) == (status, Decimal(quantity), 4)
        desk.holds()
