"""Replaces and cancels as a trader means them: what is held meanwhile, what overlaps, what a broker can not do."""

from dataclasses import replace as altered
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers import queries
from brokers.adapters.port import CancelOrder, NewOrder, ReplaceOrder
from brokers.models import Broker
from oms.kernel.errors import Conflict, Invalid
from orders import operations as desk_operations
from orders.models import ChildOrder, Submission
from orders.operations.changing import cancel_batch
from orders.states import SubmissionState
from risk.models import Hold
from tests.conftest import Desk
from tests.flows.test_hard_reports import cancel, replace, trade, working
from tests.flows.test_order_path import counted


def hold(placed: Any) -> tuple[Decimal, Decimal]:
    row = Hold.objects.get(pk=placed.order_id)
    return row.open_quantity, row.unit_amount


def can(desk: Desk, **abilities: bool) -> None:
    from brokers import adapters

    desk.near.capabilities = altered(desk.near.capabilities, **abilities)
    adapters._abilities.clear()


def due(desk: Desk) -> None:
    Submission.objects.filter(state="prepared").update(due_at=desk.at - timedelta(seconds=60))


class TestHeldPrice:
    def test_it_comes_down_when_the_lower_price_is_taken(self, desk: Desk) -> None:
        placed, _ = working(desk, "buy 10 AAPL limit 99.00")
        replace(desk, placed, limit_price=Decimal("90.00"))
        assert hold(placed) == (10, Decimal("99"))
        desk.send()
        desk.report(desk.near.report("replaced", desk.near.sent[-1]))
        assert hold(placed) == (10, Decimal("90"))
        assert Hold.objects.get().own_amount is None
        desk.holds()

    def test_it_comes_back_when_the_higher_price_is_refused(self, desk: Desk) -> None:
        placed, _ = working(desk, "buy 10 AAPL limit 90.00")
        replace(desk, placed, limit_price=Decimal("99.00"))
        assert hold(placed) == (10, Decimal("99"))
        desk.send()
        desk.report(desk.near.report("replace_rejected", desk.near.sent[-1]))
        assert hold(placed) == (10, Decimal("90"))
        desk.holds()

    def test_of_two_asked_for_the_worst_is_held_until_both_are_decided(self, desk: Desk) -> None:
        placed, _ = working(desk, "buy 10 AAPL limit 90.00")
        replace(desk, placed, limit_price=Decimal("99.00"), quantity=Decimal(12))
        desk.send()
        high = desk.near.sent[-1]
        replace(desk, placed, limit_price=Decimal("95.00"))
        desk.send()
        low = desk.near.sent[-1]
        assert (low.orig_client_order_id, low.quantity) == (high.client_order_id, 12)
        assert hold(placed) == (12, Decimal("99"))
        desk.report(desk.near.report("replaced", high))
        assert hold(placed) == (12, Decimal("99"))
        desk.report(desk.near.report("replaced", low))
        assert hold(placed) == (12, Decimal("95"))
        desk.holds()


class TestOverlap:
    def test_a_replace_that_was_not_sent_gives_way_to_the_next(self, desk: Desk) -> None:
        placed, sent = working(desk)
        replace(desk, placed, quantity=Decimal(20))
        replace(desk, placed, limit_price=Decimal("98.00"))
        assert desk.send() == 1
        message = desk.near.sent[-1]
        assert (message.orig_client_order_id, message.quantity, message.limit_price) == (
            sent.client_order_id, 20, Decimal("98.00"),
        )  # fmt: skip
        desk.report(desk.near.report("replaced", message))
        order = desk.order(placed)
        assert (order.status, order.quantity, order.limit_price, hold(placed)[0]) == ("new", 20, 98, 20)
        desk.holds()

    def test_where_the_broker_takes_one_request_at_a_time_the_others_are_refused(self, desk: Desk) -> None:
        can(desk, overlapping_requests=False)
        placed, _ = working(desk)
        replace(desk, placed, quantity=Decimal(20))
        desk.send()
        for ask in (lambda: replace(desk, placed, quantity=Decimal(30)), lambda: cancel(desk, placed)):
            with pytest.raises(Conflict) as refused:
                ask()
            assert refused.value.code == "change_pending"

    def test_a_halt_s_cancel_that_met_a_replace_is_sent_again(self, desk: Desk) -> None:
        can(desk, overlapping_requests=False)
        placed, _ = working(desk)
        replace(desk, placed, quantity=Decimal(20))
        desk.send()
        change = desk.near.sent[-1]
        assert desk_operations.cancel_matching([desk.account.id], actor=desk.actor(desk.rita), at=desk.at) == 1
        desk.send()
        desk.report(desk.near.report("cancel_rejected", desk.near.sent[-1]))
        assert desk.order(placed).status == "pending_cancel"
        desk.report(desk.near.report("replaced", change))
        due(desk)
        desk.send()
        again = desk.near.sent[-1]
        assert isinstance(again, CancelOrder)
        desk.report(desk.near.report("canceled", again))
        assert (desk.order(placed).status, hold(placed)[0]) == ("canceled", 0)
        desk.holds()

    def test_the_number_of_statements_does_not_grow_with_what_is_canceled(self, desk: Desk) -> None:
        counts: list[int] = []
        for size in (1, 2, 20):
            placed = desk.place(*[f"buy {n} AAPL limit 90.00" for n in range(1, size + 1)])
            desk.send()
            desk.report(*(desk.near.report("new", m) for m in desk.near.sent[-size:]))
            with counted(counts):
                cancel_batch([p.order_id for p in placed], actor=desk.actor(desk.alice), at=desk.at, reason="")
        assert counts[1] == counts[2]
        assert {s.message["account"] for s in Submission.objects.filter(kind="cancel")} == {desk.near.sent[0].account}

    def test_a_second_cancel_makes_no_new_request(self, desk: Desk) -> None:
        placed, _ = working(desk)
        cancel(desk, placed)
        cancel(desk, placed)
        assert Submission.objects.filter(kind="cancel").count() == 1


class TestFilled:
    def filled(self, desk: Desk) -> tuple[Any, Any]:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "10", "99"))
        return placed, sent

    def test_it_may_grow_but_not_change_its_price_alone(self, desk: Desk) -> None:
        placed, _ = self.filled(desk)
        with pytest.raises(Conflict) as refused:
            replace(desk, placed, limit_price=Decimal("98.00"))
        assert refused.value.code == "order_closed"
        replace(desk, placed, quantity=Decimal(15))
        assert hold(placed) == (5, Decimal("99"))
        desk.send()
        desk.report(desk.near.report("replaced", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, hold(placed)[0]) == ("partially_filled", 5, 5)
        desk.holds()

    def test_a_broker_that_does_not_reopen_is_not_asked(self, desk: Desk) -> None:
        can(desk, replace_filled=False)
        placed, _ = self.filled(desk)
        with pytest.raises(Conflict) as refused:
            replace(desk, placed, quantity=Decimal(15))
        assert refused.value.code == "order_closed"

    def test_e02_the_version_must_be_the_one_seen(self, desk: Desk) -> None:
        placed, _ = working(desk)
        with pytest.raises(Conflict) as refused:
            replace(desk, placed, quantity=Decimal(15), expected_version=1)
        assert refused.value.code == "version_conflict"

    def test_less_than_filled_is_no_replace(self, desk: Desk) -> None:
        placed, sent = working(desk)
        desk.report(trade(desk, sent, "E1", "6", "99"))
        with pytest.raises(Invalid) as refused:
            replace(desk, placed, quantity=Decimal(5))
        assert refused.value.code == "below_filled"


class TestCancelAndNew:
    @pytest.fixture(autouse=True)
    def no_replaces(self, desk: Desk) -> None:
        can(desk, replace=False)

    def allow(self, desk: Desk) -> None:
        broker = Broker.objects.get(code="NEAR")
        broker.settings = {**broker.settings, "cancel_and_new": True}
        broker.save()
        queries.forget_cache()

    def test_without_the_policy_it_is_refused(self, desk: Desk) -> None:
        placed, _ = working(desk)
        with pytest.raises(Conflict) as refused:
            replace(desk, placed, quantity=Decimal(15))
        assert refused.value.code == "not_replaceable"

    def test_the_rest_is_asked_for_anew_once_the_cancel_is_confirmed(self, desk: Desk) -> None:
        self.allow(desk)
        placed, sent = working(desk)
        replace(desk, placed, quantity=Decimal(15), limit_price=Decimal("98.00"))
        order = desk.order(placed)
        assert (order.status, hold(placed)) == ("pending_replace", (15, Decimal("99")))
        assert desk.send() == 1
        assert not any(isinstance(m, ReplaceOrder) for m in desk.near.sent)
        # it fills on while the cancel is under way: what is asked for anew is less by that
        desk.report(trade(desk, sent, "E1", "4", "99"))
        due(desk)
        assert desk.send() == 0, "never both at once"
        assert hold(placed)[0] == 11
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.quantity, order.leaves_quantity) == ("partially_filled", 15, 11)
        assert hold(placed) == (11, Decimal("98"))
        due(desk)
        desk.send()
        new = desk.near.sent[-1]
        assert isinstance(new, NewOrder)
        assert (new.quantity, new.limit_price) == (11, Decimal("98.00"))
        desk.report(desk.near.report("new", new), trade(desk, new, "E2", "11", "98"))
        order = desk.order(placed)
        assert (order.status, order.filled_quantity, hold(placed)[0]) == ("filled", 15, 0)
        desk.holds()

    def test_filled_before_the_cancel_it_stays_as_it_was(self, desk: Desk) -> None:
        self.allow(desk)
        placed, sent = working(desk)
        replace(desk, placed, quantity=Decimal(15))
        desk.send()
        request = desk.near.sent[-1]
        desk.report(trade(desk, sent, "E1", "10", "99"))
        desk.report(desk.near.report("cancel_rejected", request))
        order = desk.order(placed)
        assert (order.status, order.quantity, hold(placed)[0]) == ("filled", 10, 0)
        assert ChildOrder.objects.count() == 1
        desk.holds()

    def test_a_cancel_of_the_order_takes_the_wish_back(self, desk: Desk) -> None:
        self.allow(desk)
        placed, _ = working(desk)
        replace(desk, placed, quantity=Decimal(15))
        desk.send()
        request = desk.near.sent[-1]
        cancel(desk, placed)
        assert desk.order(placed).status == "pending_cancel"
        desk.report(desk.near.report("canceled", request))
        assert (desk.order(placed).status, hold(placed)[0], ChildOrder.objects.count()) == ("canceled", 0, 1)
        assert not Submission.objects.filter(state=SubmissionState.PREPARED).exists()
        desk.holds()
