"""Orders that depend on each other: brackets, one cancels the other, one triggers the other."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import CancelOrder, NewOrder, ReplaceOrder
from oms import monitoring
from oms.kernel.errors import Conflict, Invalid, InvalidFields
from orders import operations as desk_operations
from orders.domain.tickets import Terms, parse_ticket
from orders.models import GroupLeg, Order, OrderGroup, Trigger
from orders.queries import events_of, group_of
from portfolio.models import Position
from risk.models import Approval, Exposure, Hold
from tests.conftest import Desk
from tests.flows.test_hard_reports import trade, undo

BRACKET = {
    "order_type": "limit",
    "limit_price": "100",
    "take_profit": {"limit_price": "110"},
    "stop_loss": {"stop_price": "90"},
}


class Group:
    """A group under test: its orders by role, what the broker was sent of each, and a report of anything."""

    def __init__(self, desk: Desk, *raws: dict[str, Any]) -> None:
        self.desk, self.fills = desk, 0
        tickets = [parse_ticket({"account": "MAIN", "symbol": "AAPL"} | raw, at=desk.at) for raw in raws]
        self.answers = desk_operations.place(tickets, actor=desk.actor(desk.alice), at=desk.at)
        self.turn()

    @property
    def row(self) -> OrderGroup:
        return OrderGroup.objects.get()

    def roles(self, role: str) -> list[Order]:
        return [p.order for p in GroupLeg.objects.filter(role=role).select_related("order").order_by("order_id")]

    def order(self, role: str) -> Order:
        [found] = self.roles(role)
        return found

    def turn(self) -> None:
        """Let the desk look at its groups and send what follows, and the broker acknowledge it, until nothing moves."""
        for _ in range(8):
            desk_operations.follow_groups(at=max(self.desk.at, datetime.now(UTC)))
            before = len(self.desk.near.sent)
            self.desk.send()
            new = self.desk.near.sent[before:]
            if not new:
                return
            for message in new:
                self.answer(message)

    def answer(self, message: Any) -> None:
        near = self.desk.near
        if isinstance(message, NewOrder):
            self.desk.report(near.report("new", message))
        elif isinstance(message, ReplaceOrder):
            self.desk.report(near.report("replaced", message, order_status="replaced", executed_at=datetime.now(UTC)))
        elif isinstance(message, CancelOrder):
            self.desk.report(near.report("canceled", message))

    def name(self, order: Order) -> NewOrder:
        """Return what the broker knows the order by now."""
        child = order.children.order_by("-id").first()
        near = self.desk.near
        return next(m for m in reversed(near.sent) if m.client_order_id == child.client_order_id)

    def fill(self, order: Order, quantity: str, price: str = "100") -> str:
        self.fills += 1
        self.desk.report(trade(self.desk, self.name(order), f"E{self.fills}", quantity, price))
        self.turn()
        return f"E{self.fills}"

    def bust(self, order: Order, ref: str) -> None:
        self.desk.report(undo(self.desk, self.name(order), "bust", f"{ref}-bust", ref))
        self.turn()

    def cancel(self, order: Order) -> None:
        desk_operations.cancel(order.id, actor=self.desk.actor(self.desk.alice), at=datetime.now(UTC))
        self.turn()

    def shape(self) -> dict[str, tuple[str, int, int]]:
        return {
            p.role: (str(p.order.status), int(p.order.quantity), int(p.order.filled_quantity))
            for p in GroupLeg.objects.select_related("order")
        }


def bracket(desk: Desk, quantity: str = "100", **more: Any) -> Group:
    return Group(desk, {"side": "buy", "quantity": quantity} | BRACKET | more)


def held() -> Any:
    return {h.id: h.open_quantity for h in Hold.objects.filter(open_quantity__gt=0)}


class TestBracket:
    def test_exits_wait_for_the_entry_and_then_work_for_what_it_filled(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.order("parent")
        assert group.shape() == {
            "parent": ("new", 100, 0),
            "take_profit": ("held", 100, 0),
            "stop_loss": ("held", 100, 0),
        }
        assert {o.parent_id for r in ("take_profit", "stop_loss") for o in group.roles(r)} == {entry.id}
        group.fill(entry, "40")
        assert group.shape() == {
            "parent": ("partially_filled", 100, 40), "take_profit": ("new", 40, 0), "stop_loss": ("new", 40, 0),
        }  # fmt: skip
        assert Exposure.objects.get().selling == 40, "one of the two sells what is held, not both"
        group.fill(entry, "60")
        assert group.shape() == {
            "parent": ("filled", 100, 100),
            "take_profit": ("new", 100, 0),
            "stop_loss": ("new", 100, 0),
        }
        profit, loss = group.order("take_profit"), group.order("stop_loss")
        assert (profit.side, profit.order_type, profit.limit_price) == ("sell", "limit", 110)
        assert (loss.side, loss.order_type, loss.stop_price) == ("sell", "stop", 90)
        group.fill(profit, "30", "110")
        assert group.shape()["stop_loss"] == ("new", 70, 0)
        group.fill(profit, "70", "110")
        assert group.shape() == {
            "parent": ("filled", 100, 100),
            "take_profit": ("filled", 100, 100),
            "stop_loss": ("canceled", 70, 0),
        }
        assert group.order("stop_loss").reason == "sibling_filled"
        assert held() == {}
        assert Position.objects.get().quantity == 0
        assert group_of(entry)["state"] == "done"
        desk.holds()

    def test_on_full_fill_nothing_works_before_all_is_filled(self, desk: Desk) -> None:
        group = bracket(desk, partial_fills="full_fill")
        entry = group.order("parent")
        group.fill(entry, "40")
        assert {s for role, (s, *_) in group.shape().items() if role != "parent"} == {"held"}
        group.fill(entry, "60")
        assert group.shape()["stop_loss"] == ("new", 100, 0)
        desk.holds()

    def test_an_entry_that_ends_early_is_protected_as_far_as_it_got(self, desk: Desk) -> None:
        group = bracket(desk, partial_fills="full_fill")
        entry = group.order("parent")
        group.fill(entry, "40")
        group.cancel(entry)
        assert group.shape() == {
            "parent": ("canceled", 100, 40),
            "take_profit": ("new", 40, 0),
            "stop_loss": ("new", 40, 0),
        }
        desk.holds()

    def test_an_entry_that_ends_unfilled_ends_its_exits(self, desk: Desk) -> None:
        group = bracket(desk)
        group.cancel(group.order("parent"))
        assert {s for s, *_ in group.shape().values()} == {"canceled"}
        assert group.order("take_profit").reason == "parent_ended"
        assert len(desk.near.sent) == 2, "the entry and its cancel"
        desk.holds()

    def test_a_fill_that_comes_after_the_cancel_is_protected_all_the_same(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.order("parent")
        message = group.name(entry)
        group.cancel(entry)
        desk.report(trade(desk, message, "LATE", "25"))
        group.turn()
        assert group.shape() == {
            "parent": ("canceled", 100, 25),
            "take_profit": ("new", 25, 0),
            "stop_loss": ("new", 25, 0),
        }
        desk.holds()

    def test_exits_that_are_done_begin_again_with_what_the_entry_fills_later(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.order("parent")
        group.fill(entry, "40")
        group.fill(group.order("take_profit"), "40", "110")
        assert group.shape()["take_profit"] == ("filled", 40, 40)
        assert group.shape()["stop_loss"] == ("held", 100, 0), "more may come of the entry"
        assert held() == {entry.id: 60}
        desk.holds()
        group.fill(entry, "60")
        assert group.shape()["take_profit"] == ("partially_filled", 100, 40)
        assert group.shape()["stop_loss"] == ("new", 60, 0)
        group.fill(group.order("stop_loss"), "60", "90")
        assert group.shape()["take_profit"] == ("canceled", 100, 40)
        assert Position.objects.get().quantity == 0
        assert held() == {}
        desk.holds()

    def test_exits_follow_busts_and_corrections_of_the_entry(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.order("parent")
        first = group.fill(entry, "40")
        group.fill(entry, "60")
        group.bust(entry, first)
        assert group.shape()["take_profit"] == ("new", 60, 0)
        assert group.shape()["stop_loss"] == ("new", 60, 0)
        desk.report(
            undo(
                desk, group.name(entry), "correct", "E2-less", "E2", last_quantity=Decimal(50), last_price=Decimal(100)
            )
        )
        group.turn()
        assert group.shape()["stop_loss"] == ("new", 50, 0)
        desk.holds()

    def test_a_person_who_cancels_one_exit_keeps_the_other(self, desk: Desk) -> None:
        group = bracket(desk)
        group.fill(group.order("parent"), "100")
        group.cancel(group.order("take_profit"))
        assert group.shape()["take_profit"][0] == "canceled"
        assert group.shape()["stop_loss"] == ("new", 100, 0)
        assert group_of(group.order("parent"))["state"] == "working"
        desk.holds()

    def test_a_short_entry_is_bought_back(self, desk: Desk) -> None:
        raw = {
            "side": "sell_short",
            "take_profit": {"limit_price": "90"},
            "stop_loss": {"stop_price": "110", "limit_price": "111"},
        }
        group = bracket(desk, **raw)
        group.fill(group.order("parent"), "100")
        loss = group.order("stop_loss")
        assert (loss.side, loss.order_type, loss.stop_price, loss.limit_price, loss.status) == (
            "buy",
            "stop_limit",
            110,
            111,
            "new",
        )
        group.fill(loss, "100", "110")
        assert group.shape()["take_profit"][0] == "canceled"
        desk.holds()

    def test_the_whole_group_can_be_canceled(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.order("parent")
        group.fill(entry, "40")
        assert desk_operations.cancel_group(entry.id, actor=desk.actor(desk.alice), at=datetime.now(UTC)) == 3
        group.turn()
        assert {s for s, *_ in group.shape().values()} == {"canceled"}
        assert held() == {}
        with pytest.raises(Conflict, match="order_closed"):
            desk_operations.cancel_group(entry.id, actor=desk.actor(desk.alice), at=datetime.now(UTC))
        desk.holds()

    def test_prices_of_exits_are_replaced_their_quantities_follow(self, desk: Desk) -> None:
        group = bracket(desk)
        entry, loss = group.order("parent"), group.order("stop_loss")
        actor = desk.actor(desk.alice)
        desk_operations.replace(loss.id, Terms(stop_price=Decimal(92)), actor=actor, at=datetime.now(UTC))
        desk_operations.replace(entry.id, Terms(quantity=Decimal(120)), actor=actor, at=datetime.now(UTC))
        group.turn()
        assert group.shape()["stop_loss"] == ("held", 120, 0)
        group.fill(entry, "120")
        assert group.name(loss).stop_price == 92
        desk_operations.replace(loss.id, Terms(stop_price=Decimal(93)), actor=actor, at=datetime.now(UTC))
        group.turn()
        assert (group.order("stop_loss").stop_price, group.order("stop_loss").quantity) == (93, 120)
        with pytest.raises(Invalid, match="follows_group"):
            desk_operations.replace(loss.id, Terms(quantity=Decimal(5)), actor=actor, at=datetime.now(UTC))
        desk.holds()

    def test_one_that_risk_refuses_has_no_exits(self, desk: Desk) -> None:
        group = bracket(desk, quantity="20000")
        [order] = Order.objects.all()
        assert (order.status, order.reason) == ("denied", "quantity_limit")
        assert not OrderGroup.objects.exists()
        assert '"take_profit":{"limit_price":"110"}' in group.answers[0].body
        desk.holds()

    def test_a_repeat_makes_nothing_twice(self, desk: Desk) -> None:
        raw = {"side": "buy", "quantity": "100", "client_order_id": "B-1"} | BRACKET
        first, again = Group(desk, raw).answers, Group(desk, raw).answers
        assert (first[0].body, first[0].order_id, again[0].created) == (again[0].body, again[0].order_id, False)
        assert Order.objects.count() == 3
        other = Group(desk, raw | {"stop_loss": {"stop_price": "89"}}).answers
        assert other[0].problem.code == "idempotency_conflict"

    @pytest.mark.parametrize(
        ("raw", "code", "field"),
        [
            ({"take_profit": {"limit_price": "90"}}, "wrong_side", "take_profit"),
            ({"stop_loss": {"stop_price": "101"}}, "wrong_side", "stop_loss"),
            ({"stop_loss": {"limit_price": "89"}}, "required", "stop_loss.stop_price"),
            ({"stop_loss": "90"}, "not_an_object", "stop_loss"),
            ({"take_profit": {"limit_price": "110", "stop": 1}}, "unknown_field", "take_profit.stop"),
            ({"take_profit": {"limit_price": "-1"}}, "not_positive", "take_profit.limit_price"),
            ({"group": {"kind": "oco", "id": "X"}}, "not_allowed", "group"),
            ({"partial_fills": "half"}, "not_a_choice", "partial_fills"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, desk: Desk, raw: dict[str, Any], code: str, field: str) -> None:
        with pytest.raises(InvalidFields) as caught:
            bracket(desk, **raw)
        assert (code, field) in [(e.code, e.field) for e in caught.value.errors]
        assert not Order.objects.exists()

    def test_prices_off_the_grid_are_refused(self, desk: Desk) -> None:
        [answer] = bracket(desk, stop_loss={"stop_price": "90.001"}).answers
        assert [(e.code, e.field) for e in answer.problem.errors] == [("off_tick", "stop_loss.stop_price")]


class TestWhenThingsGoWrong:
    def test_b14_target_and_stop_both_fill_and_a_person_is_asked_to_flatten(
        self, desk: Desk, django_user_model: Any
    ) -> None:
        """B14: a race that nobody can prevent: it is seen, told, and what would undo it is proposed to a person."""
        group = bracket(desk)
        entry = group.order("parent")
        group.fill(entry, "100")
        profit, loss = group.order("take_profit"), group.order("stop_loss")
        desk.report(
            trade(desk, group.name(profit), "X1", "100", "110"), trade(desk, group.name(loss), "X2", "100", "90")
        )
        group.turn()
        assert Position.objects.get().quantity == -100
        assert group.row.excess == 100
        proposal = group.order("flatten")
        assert (proposal.side, proposal.quantity, proposal.status, proposal.reason) == (
            "buy",
            100,
            "held",
            "group_excess",
        )
        assert [e["kind"] for e in events_of(group.row.id)] == ["group.alert"]
        assert group_of(entry)["state"] == "attention"
        desk.holds()
        sent = len(desk.near.sent)
        group.turn()
        assert len(desk.near.sent) == sent, "nothing is sent before a person says so"
        from orders.operations import manual

        manual.decide(proposal.id, "approve", reason="yes", actor=desk.actor(desk.rita), at=datetime.now(UTC))
        group.turn()
        assert "order_group" in {e["kind"] for e in monitoring.exceptions(at=desk.at)}
        group.fill(group.order("flatten"), "100")
        assert Position.objects.get().quantity == 0
        assert group_of(entry)["state"] == "done"
        assert "order_group" not in {e["kind"] for e in monitoring.exceptions(at=desk.at)}
        desk.holds()

    def test_part_of_the_excess_undone_by_a_bust_makes_another_proposal(self, desk: Desk) -> None:
        group = bracket(desk)
        first = group.fill(group.order("parent"), "60")
        group.fill(group.order("parent"), "40")
        group.fill(group.order("take_profit"), "100", "110")
        group.bust(group.order("parent"), first)
        assert [int(o.quantity) for o in group.roles("flatten")] == [60]
        desk.report(
            undo(
                desk,
                group.name(group.order("take_profit")),
                "correct",
                "C1",
                "E3",
                last_quantity=Decimal(70),
                last_price=Decimal(110),
            )
        )
        group.turn()
        assert [(o.status, int(o.quantity)) for o in group.roles("flatten")] == [("canceled", 60), ("held", 30)]
        assert Approval.objects.filter(status="pending").count() == 1
        desk.report(
            undo(
                desk,
                group.name(group.order("take_profit")),
                "correct",
                "C2",
                "C1",
                last_quantity=Decimal(40),
                last_price=Decimal(110),
            )
        )
        group.turn()
        assert group.row.excess == 0
        assert {o.status for o in group.roles("flatten")} == {"canceled"}
        desk.holds()

    def test_under_a_halt_exits_wait_and_begin_when_it_is_over(self, desk: Desk) -> None:
        from risk import operations as risk
        from risk.domain.scopes import Scope

        group = bracket(desk)
        entry = group.name(group.order("parent"))
        halt = risk.engage_halt(Scope("account", "MAIN"), reason="test", actor=desk.actor(desk.rita), at=desk.at)
        desk.report(trade(desk, entry, "E1", "100"))
        group.turn()
        assert {s for role, (s, *_) in group.shape().items() if role != "parent"} == {"held"}
        assert "waits" in group.row.problem
        desk.holds()
        risk.release_halt(halt.id, reason="over", actor=desk.actor(desk.oona), at=desk.at)
        OrderGroup.objects.update(due_at=desk.at)  # a second later
        group.turn()
        assert group.shape()["stop_loss"] == ("new", 100, 0)
        assert group.row.problem == ""
        desk.holds()

    def test_a_refused_exit_is_told_and_the_other_stays(self, desk: Desk) -> None:
        group = bracket(desk)
        group.fill(group.order("parent"), "100")
        loss = group.order("stop_loss")
        desk.report(desk.near.report("rejected", group.name(loss), text="no stops today"))
        desk.send("FAR")
        desk.report(desk.far.report("rejected", desk.far.sent[-1], text="nor here"), code="FAR")
        group.turn()
        assert group.shape()["take_profit"] == ("new", 100, 0)
        assert group.shape()["stop_loss"][0] == "rejected"
        assert "stop loss is rejected" in group.row.problem
        assert "group.alert" in [e["kind"] for e in events_of(group.row.id)]
        desk.holds()

    def test_a_broker_without_replaces_is_asked_to_cancel_and_gets_the_rest_anew(self, desk: Desk) -> None:
        from dataclasses import replace

        from brokers import adapters

        desk.near.capabilities = replace(desk.near.capabilities, replace=False)
        adapters._abilities.clear()
        group = bracket(desk)
        group.fill(group.order("parent"), "100")
        group.fill(group.order("take_profit"), "30", "110")
        assert group.shape()["stop_loss"] == ("new", 70, 0)
        assert [type(m).__name__ for m in desk.near.sent[-2:]] == ["CancelOrder", "NewOrder"]
        assert group.name(group.order("stop_loss")).quantity == 70
        desk.holds()

    def test_a_refused_resize_becomes_a_cancel_and_a_new_order(self, desk: Desk) -> None:
        group = bracket(desk)
        group.fill(group.order("parent"), "100")
        desk.report(trade(desk, group.name(group.order("take_profit")), "T1", "30", "110"))
        desk_operations.follow_groups(at=datetime.now(UTC))
        desk.send()
        desk.report(desk.near.report("replace_rejected", desk.near.sent[-1], text="no"))
        group.turn()
        assert group.shape()["stop_loss"] == ("new", 70, 0)
        desk.holds()

    def test_an_exit_that_was_not_sent_yet_goes_out_as_it_should_be(self, desk: Desk) -> None:
        group = bracket(desk)
        entry = group.name(group.order("parent"))
        desk.report(trade(desk, entry, "E1", "40"))
        desk_operations.follow_groups(at=datetime.now(UTC))
        desk.report(trade(desk, entry, "E2", "60"))
        group.turn()
        assert [int(m.quantity) for m in desk.near.sent[1:]] == [100, 100]
        desk.holds()

    def test_an_exit_that_the_desk_watches_follows_too(self, desk: Desk) -> None:
        from dataclasses import replace

        from brokers import adapters

        for broker in (desk.near, desk.far):
            broker.capabilities = replace(broker.capabilities, order_types=frozenset({"market", "limit"}))
        adapters._abilities.clear()
        group = bracket(desk)
        entry = group.order("parent")
        group.fill(entry, "40")
        loss = group.order("stop_loss")
        assert (loss.status, loss.quantity, loss.children.count()) == ("new", 40, 0)
        assert Trigger.objects.get().price == 90
        group.fill(entry, "60")
        group.fill(group.order("take_profit"), "30", "110")
        assert group.shape()["stop_loss"] == ("new", 70, 0)
        desk.holds()
        desk.at = datetime.now(UTC)
        desk.quote("AAPL", "89.00", "89.02")
        assert desk_operations.watch(at=desk.at) == 1
        group.turn()
        assert group.name(loss).quantity == 70
        group.fill(loss, "70", "89")
        assert group.shape()["take_profit"] == ("canceled", 100, 30)
        assert held() == {}
        desk.holds()


OCO = [
    {
        "side": "sell",
        "quantity": "100",
        "order_type": "limit",
        "limit_price": "110",
        "group": {"kind": "oco", "id": "G"},
    },
    {"side": "sell", "quantity": "100", "order_type": "stop", "stop_price": "90", "group": {"kind": "oco", "id": "G"}},
]


@pytest.fixture
def owning(desk: Desk) -> Desk:
    """The desk with 100 AAPL."""
    desk.place("buy 100 AAPL")
    desk.send()
    desk.report(trade(desk, desk.near.sent[-1], "OWN", "100", "100"))
    return desk


class TestOneCancelsTheOther:
    def test_both_legs_are_let_through_on_one_position_and_a_fill_of_one_reduces_the_other(self, owning: Desk) -> None:
        group = Group(owning, *OCO)
        high, low = group.roles("leg")
        assert [o.status for o in (high, low)] == ["new", "new"]
        assert Exposure.objects.get().selling == 100
        owning.holds()
        group.fill(high, "30", "110")
        high, low = group.roles("leg")
        assert [(o.status, int(o.leaves_quantity)) for o in (high, low)] == [("partially_filled", 70), ("new", 70)]
        group.fill(low, "70", "90")
        high, low = group.roles("leg")
        assert [(o.status, int(o.filled_quantity)) for o in (high, low)] == [("canceled", 30), ("filled", 70)]
        assert high.reason == "sibling_filled"
        assert held() == {}
        owning.holds()

    def test_a_third_sale_of_the_same_units_is_refused(self, owning: Desk) -> None:
        Group(owning, *OCO)
        [placed] = owning.place("sell 1 AAPL")
        assert owning.order(placed).reason == "short_not_allowed"

    def test_canceling_one_cancels_the_other(self, owning: Desk) -> None:
        group = Group(owning, *OCO)
        group.cancel(group.roles("leg")[0])
        assert [(o.status, o.reason) for o in group.roles("leg")] == [
            ("canceled", "cancel_requested"), ("canceled", "sibling_canceled"),
        ]  # fmt: skip
        owning.holds()

    def test_a_leg_posted_later_joins_and_one_that_comes_too_late_is_refused(self, owning: Desk) -> None:
        group = Group(owning, OCO[0])
        assert Group(owning, OCO[1]).answers[0].problem is None
        group.fill(group.roles("leg")[0], "1", "110")
        late = Group(owning, OCO[1] | {"stop_price": "80"}).answers[0].problem
        assert isinstance(late, Conflict)
        assert late.code == "group_closed"
        owning.holds()

    @pytest.mark.parametrize(
        ("other", "code"),
        [
            ({"quantity": "50"}, "group_quantity"),
            ({"symbol": "MSFT"}, "group_symbol"),
            ({"group": {"kind": "oto", "id": "G"}}, "group_kind"),
        ],
    )
    def test_legs_that_do_not_fit_are_refused(self, owning: Desk, other: dict[str, Any], code: str) -> None:
        assert Group(owning, OCO[0], OCO[1] | other).answers[1].problem.code == code

    def test_legs_on_both_sides_that_both_fill_are_told_without_a_proposal(self, desk: Desk) -> None:
        legs = [
            {"side": "buy", "quantity": "10", "order_type": "stop", "stop_price": "105", "group": {"kind": "oco", "id": "G"}},
            {"side": "sell_short", "quantity": "10", "order_type": "stop", "stop_price": "95", "group": {"kind": "oco", "id": "G"}},
        ]  # fmt: skip
        group = Group(desk, *legs)
        up, down = group.roles("leg")
        desk.report(trade(desk, group.name(up), "U", "10", "105"), trade(desk, group.name(down), "D", "10", "95"))
        group.turn()
        assert group.row.excess == 10
        assert "both sides" in group.row.problem
        assert group.roles("flatten") == []
        desk.holds()


def oto(desk: Desk, policy: str, *children: dict[str, Any]) -> Group:
    seat = {"group": {"kind": "oto", "id": "T"}}
    first = {
        "side": "buy",
        "quantity": "100",
        "order_type": "limit",
        "limit_price": "100",
        "partial_fills": policy,
    } | seat
    hedge = {"symbol": "MSFT", "side": "buy", "quantity": "50", "order_type": "limit", "limit_price": "200"} | seat
    return Group(desk, first, *(hedge | c for c in children or ({},)))


class TestOneTriggersTheOther:
    @pytest.mark.parametrize(
        ("policy", "after_30", "after_100"), [("pro_rata", 15, 50), ("first_fill", 50, 50), ("full_fill", None, 50)]
    )
    def test_a_child_follows_by_the_policy(self, desk: Desk, policy: str, after_30: int | None, after_100: int) -> None:
        group = oto(desk, policy)
        assert group.shape()["child"] == ("held", 50, 0)
        assert len(desk.near.sent) == 1
        group.fill(group.order("parent"), "30")
        assert group.shape()["child"] == (("held", 50, 0) if after_30 is None else ("new", after_30, 0))
        group.fill(group.order("parent"), "70")
        assert group.shape()["child"] == ("new", after_100, 0)
        desk.holds()

    def test_children_of_a_refused_parent_end_with_it(self, desk: Desk) -> None:
        seat = {"group": {"kind": "oto", "id": "T"}}
        group = Group(
            desk,
            {"side": "buy", "quantity": "20000", "order_type": "market"} | seat,
            {"side": "sell", "quantity": "5", "order_type": "market"} | seat,
        )
        assert group.shape() == {"parent": ("denied", 20000, 0), "child": ("canceled", 5, 0)}
        assert group.order("child").reason == "parent_ended"
        desk.holds()

    def test_what_risk_refuses_when_its_time_comes_is_denied(self, desk: Desk) -> None:
        group = oto(desk, "pro_rata", {"side": "sell", "symbol": "MSFT"})
        group.fill(group.order("parent"), "100")
        assert group.order("child").reason == "short_not_allowed"
        assert group.shape()["child"][0] == "denied"
        desk.holds()

    def test_a_child_posted_after_the_fill_begins_at_once(self, desk: Desk) -> None:
        group = oto(desk, "pro_rata")
        group.fill(group.order("parent"), "100")
        Group(
            desk,
            {
                "side": "sell",
                "quantity": "100",
                "order_type": "limit",
                "limit_price": "120",
                "group": {"kind": "oto", "id": "T"},
            },
        )
        assert [o.status for o in group.roles("child")] == ["new", "new"]
        desk.holds()

    def test_a_waiting_child_can_be_canceled_by_itself(self, desk: Desk) -> None:
        group = oto(desk, "pro_rata", {}, {})
        first, _ = group.roles("child")
        group.cancel(first)
        group.fill(group.order("parent"), "100")
        assert [o.status for o in group.roles("child")] == ["canceled", "new"]
        desk.holds()


def test_cancel_all_ends_what_waits_and_what_works(desk: Desk) -> None:
    group = bracket(desk)
    group.fill(group.order("parent"), "40")
    asked = desk_operations.cancel_matching([desk.account.pk], actor=desk.actor(desk.alice), at=datetime.now(UTC))
    group.turn()
    assert asked == 3
    assert {s for s, *_ in group.shape().values()} == {"canceled"}
    assert held() == {}
    desk.holds()


def test_a_liquidation_ends_the_group_and_nothing_of_it_begins_again(desk: Desk) -> None:
    from orders.operations import liquidating
    from risk.domain.scopes import Scope

    group = bracket(desk)
    entry = group.name(group.order("parent"))
    group.fill(group.order("parent"), "40")
    desk.at = datetime.now(UTC)
    liquidating.begin(Scope("account", "MAIN"), reason="test", actor=desk.actor(desk.rita), at=desk.at)
    desk.report(trade(desk, entry, "LATE", "10"))  # on its way as the cancel went out
    group.turn()
    assert {s for s, *_ in group.shape().values()} == {"canceled"}
    liquidating.advance_all(at=datetime.now(UTC))
    desk.send()
    flat = desk.near.sent[-1]
    assert (flat.side, flat.quantity) == ("sell", 50)
    desk.report(trade(desk, flat, "FLAT", "50", "100"))
    group.turn()
    assert Position.objects.get().quantity == 0
    assert {s for s, *_ in group.shape().values()} == {"canceled"}
    assert held() == {}
    desk.holds()


def test_an_order_tells_its_group(desk: Desk) -> None:
    group = bracket(desk)
    body = group.answers[0].body
    told = {"kind": "bracket", "id": str(group.answers[0].order_id), "role": "parent", "partial_fills": "pro_rata"}
    assert json.loads(body)["group"] == told
    assert group_of(group.order("stop_loss")) == group_of(group.order("parent"))
    assert [o["role"] for o in group_of(group.order("parent"))["orders"]] == ["parent", "take_profit", "stop_loss"]
