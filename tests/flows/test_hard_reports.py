"""Reports that come late, twice, out of order, or against what was held for proven."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from brokers import queries
from brokers.adapters.port import NewOrder, Outcome
from brokers.models import Broker, BrokerSession
from oms.kernel.actor import Actor
from orders import operations as desk_operations
from orders.domain.tickets import Terms
from orders.models import ChildOrder, Execution, ParkedReport, Submission
from orders.operations import sending
from portfolio.models import Position
from risk.models import Halt, Hold
from risk.operations import release_halt
from tests.conftest import Desk


def trade(desk: Desk, order: Any, name: str, quantity: str, price: str = "100", **more: Any) -> Any:
    return desk.near.report(
        "trade", order, execution_id=name, last_quantity=Decimal(quantity), last_price=Decimal(price),
        executed_at=desk.at, **more,
    )  # fmt: skip


def undo(desk: Desk, order: Any, kind: str, name: str, ref: str, **more: Any) -> Any:
    return desk.near.report(kind, order, execution_id=name, ref_execution_id=ref, executed_at=desk.at, **more)


def working(desk: Desk, text: str = "buy 10 AAPL limit 99.00", **more: Any) -> tuple[Any, Any]:
    """Place an order and let the broker acknowledge it; return the answer and what was sent."""
    [placed] = desk.place(text, **more)
    desk.send()
    sent = desk.near.sent[-1]
    desk.report(desk.near.report("new", sent))
    return placed, sent


def cancel(desk: Desk, placed: Any) -> None:
    desk_operations.cancel(placed.order_id, actor=desk.actor(desk.alice), at=datetime.now(UTC))


def replace(desk: Desk, placed: Any, **terms: Any) -> None:
    desk_operations.replace(placed.order_id, Terms(**terms), actor=desk.actor(desk.alice), at=desk.at)


def lose_track(desk: Desk, placed: Any) -> None:
    """Let the broker stay silent until the absence of what was sent last is proven."""
    near = queries.brokers_by_code()["NEAR"]
    for seconds in (1, 1, 20):
        Submission.objects.filter(state="unknown").update(due_at=desk.at)
        desk_operations.resolve(near, clock=lambda s=seconds: desk.later(s))


def held(placed: Any) -> Decimal:
    return Hold.objects.get(pk=placed.order_id).open_quantity


class TestResurrection:
    def test_an_order_held_for_absent_shows_up_after_all(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00", broker="NEAR")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.send()
        lose_track(desk, placed)
        assert desk.order(placed).status == "rejected"
        sent = desk.near.sent[0]
        desk.report(desk.near.report("new", sent))
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, held(placed)) == ("pending_cancel", 10, 10)
        assert Submission.objects.filter(kind="cancel").count() == 1
        desk.near.outcome = lambda _: Outcome.ACCEPTED
        desk.send()
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        assert (desk.order(placed).status, held(placed)) == ("canceled", 0)
        desk.holds()

    def test_both_brokers_work_it_then_and_the_hold_covers_both(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.send()
        lose_track(desk, placed)
        earlier = desk.at - timedelta(seconds=60)
        Submission.objects.filter(state="prepared").update(due_at=earlier, created_at=earlier)
        desk.send("FAR")
        assert len(desk.far.sent) == 1
        desk.report(desk.far.report("new", desk.far.sent[0]), code="FAR")
        desk.report(desk.near.report("new", desk.near.sent[0]))
        assert held(placed) == 20
        desk.holds()
        # the one that was lost is filled in whole: what works elsewhere is too much, and must end
        desk.near.outcome = lambda _: Outcome.REJECTED
        desk.report(trade(desk, desk.near.sent[0], "E1", "10"))
        desk.send()  # too late to cancel that one
        far = ChildOrder.objects.get(broker__code="FAR")
        assert Submission.objects.filter(child=far, kind="cancel").count() == 1
        assert held(placed) == 10
        desk.holds()
        desk.far.outcome = lambda _: Outcome.ACCEPTED
        desk.send("FAR")
        desk.report(desk.far.report("canceled", desk.far.sent[-1]), code="FAR")
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, held(placed)) == ("filled", 10, 0)
        desk.holds()

    def test_a_report_overtakes_the_proof_of_absence(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.send()
        near = queries.brokers_by_code()["NEAR"]
        rows = list(Submission.objects.filter(state="unknown"))
        desk.report(desk.near.report("new", desk.near.sent[0]))  # arrives between the look-up and its verdict
        sending._declare_absent(near, rows, desk.near.capabilities, desk.at)
        assert desk.order(placed).status == "new"
        assert ChildOrder.objects.count() == 1
        desk.holds()

    def test_a_late_answer_of_a_lost_sender_ends_nothing(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        near = queries.brokers_by_code()["NEAR"]
        Submission.objects.update(attempts=sending.ATTEMPTS_MAX - 1)
        claimed = sending.claim(near, owner="slow", limit=10, at=desk.at)
        desk.report(desk.near.report("new", desk.near.report and claimed[0].message))
        answers = [sending.Answer(client_order_id=claimed[0].client_order_id, outcome=Outcome.NOT_SENT)]
        sending.record(near, claimed, answers, took_ms=1.0, at=desk.at)
        assert desk.order(placed).status == "new"
        assert ChildOrder.objects.count() == 1
        desk.holds()

    def test_what_was_not_sent_but_arrived_is_not_sent_again(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.NOT_SENT
        desk.send()
        assert Submission.objects.get().state == "prepared"
        desk.report(desk.near.report("new", desk.near.sent[0]))
        Submission.objects.update(due_at=desk.at - timedelta(seconds=60))
        assert desk.send() == 0
        assert desk.order(placed).status == "new"
        desk.holds()


class TestFilledAfterARefusal:
    """A broker refuses, the next one has the whole order, and then the first one tells of a fill after all."""

    def refused(self, desk: Desk, *, sent: bool = True) -> tuple[Any, Any]:
        placed, near = working(desk)
        desk.report(desk.near.report("rejected", near))
        if sent:
            desk.send("FAR")
            desk.report(desk.far.report("new", desk.far.sent[-1]), code="FAR")
        return placed, near

    def test_the_next_broker_works_only_what_is_lacking_then(self, desk: Desk) -> None:
        placed, near = self.refused(desk)
        desk.report(trade(desk, near, "E1", "4"))
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.leaves_quantity) == ("pending_replace", 4, 6)
        assert desk.send("FAR") == 1
        desk.report(desk.far.report("canceled", desk.far.sent[-1]), code="FAR")
        desk.send("FAR")
        assert (desk.far.sent[-1].quantity, ChildOrder.objects.count()) == (6, 3)
        last = desk.far.sent[-1]
        desk.report(desk.far.report("new", last), code="FAR")
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, held(placed)) == ("partially_filled", 6, 6)
        desk.holds()
        desk.report(
            desk.far.report("trade", last, execution_id="F1", last_quantity=Decimal(6), last_price=Decimal(99), executed_at=desk.at),
            code="FAR",
        )  # fmt: skip
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.overfilled) == ("filled", 10, False)
        desk.holds()

    def test_what_was_not_sent_yet_goes_out_for_less(self, desk: Desk) -> None:
        placed, near = self.refused(desk, sent=False)
        desk.report(trade(desk, near, "E1", "4"))
        desk.send("FAR")
        assert [m.quantity for m in desk.far.sent] == [6]
        assert (desk.order(placed).leaves_quantity, held(placed)) == (6, 6)
        desk.holds()

    def test_a_cancel_asked_for_meanwhile_is_the_end_of_it(self, desk: Desk) -> None:
        placed, near = self.refused(desk)
        desk.report(trade(desk, near, "E1", "4"))
        cancel(desk, placed)
        desk.send("FAR")
        desk.report(desk.far.report("canceled", desk.far.sent[-1]), code="FAR")
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, held(placed)) == ("canceled", 4, 0)
        assert desk.send("FAR") == 0
        desk.holds()


class TestSplit:
    def test_a_unit_is_held_at_its_new_worth(self, desk: Desk) -> None:
        placed, sent = working(desk, "buy 10 AAPL limit 99.00 gtc")
        before = Hold.objects.get(pk=placed.order_id).unit_amount
        restated = {"order_quantity": Decimal(20), "limit_price": Decimal("49.50"), "reason": "corporate_action"}
        desk.report(desk.near.report("restated", sent, executed_at=desk.at, order_status="new", **restated))
        hold = Hold.objects.get(pk=placed.order_id)
        assert (hold.open_quantity, hold.unit_amount) == (20, before / 2)
        desk.holds()


class TestAskedToStop:
    def test_a_refusal_after_a_cancel_goes_to_nobody_else(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.send()
        cancel(desk, placed)
        desk.report(desk.near.report("rejected", desk.near.sent[0]))
        assert ChildOrder.objects.count() == 1
        order = desk.order(placed)
        assert order.leaves_quantity == 0
        assert held(placed) == 0
        desk.holds()

    def test_a_cancel_that_overtook_its_order_is_asked_again(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda m: Outcome.UNKNOWN if isinstance(m, NewOrder) else Outcome.REJECTED
        desk.send()
        cancel(desk, placed)
        desk.send()  # the broker has not seen the order yet, and refuses
        assert desk.order(placed).status == "pending_cancel"
        desk.report(desk.near.report("new", desk.near.sent[0]))
        assert desk.order(placed).status == "pending_cancel"
        Submission.objects.filter(state="prepared").update(due_at=desk.at - timedelta(seconds=60))
        desk.near.outcome = lambda _: Outcome.ACCEPTED
        assert desk.send() == 1
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        assert (desk.order(placed).status, held(placed)) == ("canceled", 0)
        desk.holds()

    def test_a_cancel_of_an_order_that_never_arrived_ends_it_when_that_is_proven(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda m: Outcome.UNKNOWN if isinstance(m, NewOrder) else Outcome.REJECTED
        desk.send()
        cancel(desk, placed)
        desk.send()
        lose_track(desk, placed)
        assert (desk.order(placed).status, held(placed), ChildOrder.objects.count()) == ("canceled", 0, 1)
        desk.holds()

    def test_a_cancel_withdraws_what_waits_to_be_tried_again(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.NOT_SENT
        desk.send()
        cancel(desk, placed)
        assert (desk.order(placed).status, held(placed)) == ("canceled", 0)
        Submission.objects.update(due_at=desk.at - timedelta(seconds=60))
        assert desk.send() == 0
        desk.holds()

    def test_an_end_answers_a_request_that_was_not_sent_yet(self, desk: Desk) -> None:
        placed, sent = working(desk)
        replace(desk, placed, quantity=Decimal(20))
        cancel_time = desk.near.report("expired", sent)
        desk.report(cancel_time)
        assert (desk.order(placed).status, held(placed)) == ("expired", 0)
        assert desk.send() == 0
        desk.holds()

    def test_an_end_answers_a_cancel_that_was_not_sent_yet(self, desk: Desk) -> None:
        placed, sent = working(desk)
        cancel(desk, placed)
        desk.report(desk.near.report("canceled", sent))
        assert (desk.order(placed).status, held(placed)) == ("canceled", 0)
        assert desk.send() == 0
        desk.holds()


class TestUndone:
    def test_a_second_undoing_of_one_execution_stops_nothing(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"))
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        desk.report(undo(desk, sent, "bust", "X2", "E1"))
        desk.report(trade(desk, sent, "E2", "3"))
        assert desk.order(placed).filled_quantity == 3
        desk.holds()

    def test_a_bust_that_names_the_first_version_undoes_the_correction(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"))
        desk.report(undo(desk, sent, "correct", "C1", "E1", last_quantity=Decimal(5), last_price=Decimal(100)))
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        assert desk.order(placed).filled_quantity == 0
        desk.holds()

    def test_a_correction_that_comes_after_the_bust_is_a_fact_that_brings_nothing_back(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"))
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        more = {"last_quantity": Decimal(5), "last_price": Decimal(101)}
        desk.report(undo(desk, sent, "correct", "C1", "E1", **more))
        desk.report(undo(desk, sent, "correct", "C2", "C1", **more), undo(desk, sent, "bust", "X2", "C2"))
        order = desk.order(placed)
        assert (order.filled_quantity, order.filled_amount, order.fees) == (0, 0, 0)
        rows = Execution.objects.order_by("id").values_list("broker_execution_id", "kind", "quantity")
        assert list(rows) == [("E1", "trade", 4), ("X1", "bust", 4), ("C1", "correct", 0), ("C2", "correct", 0)]
        desk.report(trade(desk, sent, "E2", "3"))
        assert desk.order(placed).filled_quantity == 3
        desk.holds()

    def test_a_correction_to_nothing_takes_all_of_it_back(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"))
        desk.report(undo(desk, sent, "correct", "C1", "E1", last_quantity=Decimal(0), last_price=Decimal(100)))
        assert desk.order(placed).filled_quantity == 0
        desk.holds()

    def test_a_bust_of_a_refused_order_s_last_fill(self, desk: Desk) -> None:
        placed, sent = working(desk, broker="NEAR")
        desk.report(trade(desk, sent, "E1", "10"), desk.near.report("rejected", sent))
        assert desk.order(placed).status == "filled"
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        assert (desk.order(placed).status, held(placed)) == ("rejected", 0)
        desk.holds()


class TestParked:
    def test_a_report_of_nobody_waits_in_one_row(self, desk: Desk) -> None:
        _, sent = working(desk)
        desk.report(desk.near.report("new", sent, client_order_id="never-heard-of", broker_order_id="B-never"))
        near = queries.brokers_by_code()["NEAR"]
        for _ in range(5):
            desk_operations.apply_parked(near.id, actor=Actor.system("test"), at=desk.later(10))
        assert ParkedReport.objects.count() == 1

    def test_a_report_that_names_only_the_broker_s_id_finds_its_order(self, desk: Desk) -> None:
        placed, sent = working(desk)
        fill = trade(desk, sent, "E1", "4", client_order_id="")
        assert desk.report(fill) == 1
        assert desk.order(placed).filled_quantity == 4
        desk.holds()

    def test_a_report_of_another_symbol_side_or_account_is_set_aside(self, desk: Desk) -> None:
        placed, sent = working(desk)
        for other in ({"symbol": "MSFT"}, {"side": "sell"}, {"account": "A9"}):
            assert desk.report(trade(desk, sent, "E1", "4", **other)) == 0
        assert desk.order(placed).filled_quantity == 0
        waits = ParkedReport.objects.order_by("id").values_list("waits_for", flat=True)
        assert [w.split()[1] for w in waits] == ["symbol", "side", "account"]
        assert all(w.startswith("mending:another") for w in waits)
        # as it should have been told
        assert desk.report(trade(desk, sent, "E1", "4")) == 1

    def test_one_that_fits_is_applied_behind_many_that_wait(self, desk: Desk) -> None:
        placed, sent = working(desk)
        strays = [
            desk.near.report("new", sent, client_order_id=f"stray-{n}", broker_order_id="B-stray") for n in range(600)
        ]
        desk.report(*strays)
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        desk.report(trade(desk, sent, "E1", "4"))
        near = queries.brokers_by_code()["NEAR"]
        for _ in range(3):
            desk_operations.apply_parked(near.id, actor=Actor.system("test"), at=desk.later(60))
        assert desk.order(placed).filled_quantity == 0
        assert Execution.objects.count() == 2
        desk.holds()

    def test_one_that_can_not_be_applied_stops_none_of_the_others(self, desk: Desk) -> None:
        BrokerSession.objects.create(broker=Broker.objects.get(code="NEAR"), cursor=6)
        first, one = working(desk)
        second, two = working(desk, "buy 10 MSFT limit 199.00")
        desk.report(trade(desk, one, "E1", "4"))
        wrong = undo(desk, two, "bust", "X1", "E1")  # undoes another order's execution
        near = queries.brokers_by_code()["NEAR"]
        reports = [trade(desk, one, "E2", "3"), wrong, trade(desk, two, "E3", "2", "199")]
        gateway = Actor.system("gateway")
        assert desk_operations.apply(near.id, reports, actor=gateway, at=desk.at, cursor=7) == 2
        assert (desk.order(first).filled_quantity, desk.order(second).filled_quantity) == (7, 2)
        assert BrokerSession.objects.get().cursor == 7
        aside = ParkedReport.objects.get()
        assert aside.waits_for.startswith("mending:")
        assert aside.report["execution_id"] == "X1"
        # tried again when asked to, and still in nobody's way
        assert desk_operations.apply_parked(near.id, actor=gateway, at=desk.at, mended=True) == 0
        assert ParkedReport.objects.filter(applied_at=None).count() == 1

    def test_two_fills_of_one_moment_are_matched_alike_whoever_came_first(self, desk: Desk) -> None:
        gains = set()
        for turn in (1, -1):
            before = transaction.savepoint()
            _, sent = working(desk)
            desk.report(*[trade(desk, sent, "E1", "5", "100"), trade(desk, sent, "E2", "5", "90")][::turn])
            _, sent = working(desk, "sell 5 AAPL limit 100.00")
            desk.report(trade(desk, sent, "E3", "5", "100"))
            gains.add(Position.objects.get().realized)
            transaction.savepoint_rollback(before)
        assert len(gains) == 1


class TestOverfill:
    def test_it_stops_the_account_from_opening_more_until_a_person_has_looked(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "12"))
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, order.overfilled) == ("filled", 12, True)
        halt = Halt.objects.get()
        assert (halt.scope_kind, halt.scope_key, halt.mode) == ("account", "MAIN", "reduce_only")
        opening, reducing = desk.place("buy 1 AAPL limit 99.00", "sell 2 AAPL limit 100.00")
        assert (desk.order(opening).reason, desk.order(reducing).status) == ("halted", "pending_new")
        desk.report(trade(desk, sent, "E2", "1"))
        assert Halt.objects.count() == 1, "it is stopped once"
        release_halt(halt.id, reason="the broker owns it", actor=desk.actor(desk.rita), at=desk.at)
        [again] = desk.place("buy 1 AAPL limit 99.00")
        assert desk.order(again).status == "pending_new"
        desk.holds()


class TestReplace:
    def test_an_absent_replace_leaves_the_order_as_it_was(self, desk: Desk) -> None:
        placed, _ = working(desk)
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        replace(desk, placed, quantity=Decimal(20))
        desk.send()
        assert held(placed) == 20
        lose_track(desk, placed)
        order = desk.order(placed)
        assert (order.status, order.quantity, order.unknown, held(placed)) == ("new", 10, False, 10)
        desk.holds()

    def test_a_bust_while_a_replace_is_pending_is_held(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"))
        replace(desk, placed, quantity=Decimal(12))
        desk.send()
        assert held(placed) == 8
        desk.report(undo(desk, sent, "bust", "X1", "E1"))
        assert held(placed) == 12
        desk.holds()

    def test_the_word_replaced_may_come_after_the_end(self, desk: Desk) -> None:
        placed, sent = working(desk)
        replace(desk, placed, quantity=Decimal(20))
        desk.send()
        replaced = desk.near.report("replaced", desk.near.sent[-1])
        desk.report(desk.near.report("canceled", sent))
        desk.report(replaced)
        order = desk.order(placed)
        assert (order.status, order.quantity, order.leaves_quantity, held(placed)) == ("canceled", 20, 0, 0)
        desk.holds()


class TestTimes:
    def test_a_day_order_done_for_the_day_holds_nothing(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "4"), desk.near.report("done_for_day", sent))
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, held(placed)) == ("done_for_day", 0, 0)
        desk.holds()

    def test_an_end_stands_whatever_is_said_of_the_day(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(desk.near.report("canceled", sent))
        desk.report(desk.near.report("done_for_day", sent))
        assert desk.order(placed).status == "canceled"
        desk.holds()

    def test_an_order_whose_time_ended_before_it_was_sent_expires(self, desk: Desk) -> None:
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        [placed] = desk.place("buy 10 AAPL limit 99.00 gtd", expire_at=until)
        Submission.objects.update(valid_until=datetime.now(UTC) - timedelta(seconds=1))
        desk_operations.resolve(queries.brokers_by_code()["NEAR"], clock=desk.clock)
        order = desk.order(placed)
        assert (order.status, ChildOrder.objects.count(), held(placed)) == ("expired", 1, 0)
        desk.holds()

    def test_an_acknowledged_order_that_is_then_refused_goes_to_the_next_broker(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(desk.near.report("rejected", sent))
        assert desk.order(placed).status == "new"
        assert {c.broker.code for c in ChildOrder.objects.all()} == {"NEAR", "FAR"}
        desk.holds()
