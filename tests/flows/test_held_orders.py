"""Orders over a soft limit: held, let pass by another person, turned down, lapsed, canceled."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from oms.kernel.errors import DomainError
from oms.kernel.ids import uuid7
from orders import operations
from orders.api.manual import Approvals
from orders.models import ChildOrder, Submission
from orders.operations import manual
from risk.models import Approval, Hold, Limit, RiskCheck
from risk.queries import replay_verdicts
from tests.conftest import Desk, ticket
from tests.integration.test_risk_api import call


@pytest.fixture
def rolf(desk: Desk, django_user_model: Any) -> Any:
    """A second risk officer."""
    user = django_user_model.objects.create_user("rolf")
    user.groups.add(*desk.rita.groups.all())
    return user


def limit(desk: Desk, kind: str = "order_quantity", value: str = "10", *, soft: bool = True) -> None:
    Limit.objects.create(
        id=uuid7(), scope_kind="account", scope_key="MAIN", kind=kind, value=value, soft=soft, status="active",
        effective_from=desk.at - timedelta(days=1), reason="test", created_at=desk.at,
    )  # fmt: skip


def decide(desk: Desk, user: Any, placed: Any, decision: str = "approve", **more: str) -> Any:
    return manual.decide(placed.order_id, decision, reason="looked at it", actor=desk.actor(user), at=desk.at, **more)


@pytest.fixture
def held(desk: Desk) -> Any:
    """An order for 11 where 10 is the soft limit."""
    limit(desk)
    [placed] = desk.place("buy 11 AAPL limit 100")
    return placed


def test_an_order_over_a_soft_limit_is_held_and_nothing_of_it_is_sent_or_reserved(desk: Desk, held: Any) -> None:
    order = desk.order(held)
    assert (order.status, order.reason, order.leaves_quantity) == ("held", "quantity_limit", 11)
    assert "account MAIN" in order.reason_detail
    assert '"status":"held"' in held.body
    assert desk.send() == 0
    assert not ChildOrder.objects.exists()
    assert not Hold.objects.exists()
    asked = Approval.objects.get()
    assert (asked.object_id, asked.maker, asked.content["quantity"]) == (order.id, desk.alice, "11")
    assert asked.content["reason"]["code"] == "quantity_limit"
    desk.holds()


def test_one_let_pass_by_another_person_is_judged_again_and_goes_out(desk: Desk, held: Any) -> None:
    decide(desk, desk.rita, held)
    order = desk.order(held)
    assert (order.status, order.reason) == ("pending_new", "")
    assert Hold.objects.get().open_quantity == 11
    assert RiskCheck.objects.get(again_of=order.id).approved
    assert desk.send() == 1
    [sent] = desk.near.sent
    fill = {"execution_id": "E1", "last_quantity": sent.quantity, "last_price": 100, "executed_at": desk.at}
    desk.report(desk.near.report("new", sent), desk.near.report("trade", sent, **fill))
    assert desk.order(held).status == "filled"
    assert replay_verdicts() == (2, [])
    desk.holds()


def test_what_changed_meanwhile_denies_a_released_order(desk: Desk, held: Any) -> None:
    limit(desk, "position", "5", soft=False)
    decide(desk, desk.rita, held)
    order = desk.order(held)
    assert (order.status, order.reason, order.leaves_quantity) == ("denied", "position_limit", 0)
    assert desk.send() == 0
    desk.holds()


def test_one_turned_down_is_denied(desk: Desk, held: Any) -> None:
    decide(desk, desk.rita, held, "refuse")
    order = desk.order(held)
    assert (order.status, order.reason, order.reason_detail) == ("denied", "approval_refused", "looked at it")
    desk.holds()


def test_nobody_lets_the_own_order_pass(desk: Desk, held: Any) -> None:
    with pytest.raises(DomainError, match="approver_is_maker"):
        decide(desk, desk.alice, held)
    assert desk.order(held).status == "held"


def test_a_decision_is_bound_to_what_was_shown(desk: Desk, held: Any) -> None:
    with pytest.raises(DomainError, match="content_changed"):
        decide(desk, desk.rita, held, seen="0" * 64)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orders_order SET quantity = 12, leaves_quantity = 12")
    with pytest.raises(DomainError, match="content_changed"):
        decide(desk, desk.rita, held)
    assert desk.order(held).status == "held"


def test_one_that_nobody_decided_on_is_denied_after_a_day(desk: Desk, held: Any) -> None:
    assert operations.lapse_held(at=desk.later(86_399)) == 0
    assert operations.lapse_held(at=desk.later(1)) == 1
    order = desk.order(held)
    assert (order.status, order.reason) == ("denied", "approval_expired")
    assert Approval.objects.get().status == "expired"
    assert operations.lapse_held(at=desk.at) == 0
    desk.holds()


def test_a_canceled_one_is_canceled_at_once_and_waits_for_nobody(desk: Desk, held: Any) -> None:
    order = operations.cancel(held.order_id, actor=desk.actor(desk.alice), at=desk.at)
    assert (order.status, order.leaves_quantity) == ("canceled", 0)
    assert Approval.objects.get().status == "expired"
    with pytest.raises(DomainError, match="not_held"):
        decide(desk, desk.rita, held)
    desk.holds()


def test_a_hard_limit_is_stronger_and_an_order_within_both_passes(desk: Desk) -> None:
    limit(desk)
    statuses = [
        desk.order(p).status
        for p in desk.place("buy 10001 AAPL", "buy 10 AAPL", "buy 11 AAPL limit 90", "buy 11 MSFT limit 90")
    ]
    assert statuses == ["denied", "pending_new", "held", "held"]


def test_a_repeat_answers_with_the_held_order(desk: Desk) -> None:
    limit(desk)
    wanted = ticket("buy 11 AAPL limit 100", client_order_id="once")
    first, second = (operations.place([wanted], actor=desk.actor(desk.alice), at=desk.at)[0] for _ in range(2))
    assert (first.order_id, first.body) == (second.order_id, second.body)
    assert Approval.objects.count() == 1


def test_a_preview_says_that_it_would_be_held_and_stores_nothing(desk: Desk) -> None:
    limit(desk)
    request = operations.Request(ticket("buy 11 AAPL limit 100"), desk.actor(desk.alice))
    told = operations.preview(request, at=desk.at)
    assert (told["approved"], told["held"], told["reason"]["code"]) == (False, True, "quantity_limit")
    assert not Approval.objects.exists()


def test_a_replace_over_a_soft_limit_is_refused(desk: Desk) -> None:
    from orders.domain.tickets import Terms

    [placed] = desk.place("buy 10 AAPL limit 90")
    desk.send()
    [sent] = desk.near.sent
    desk.report(desk.near.report("new", sent))
    limit(desk)
    with pytest.raises(DomainError, match="quantity_limit"):
        operations.replace(
            placed.order_id, Terms(quantity=ticket("buy 11 AAPL").quantity), actor=desk.actor(desk.alice), at=desk.at
        )
    assert desk.order(placed).quantity == 10


def test_a_held_order_is_not_replaced(desk: Desk, held: Any) -> None:
    from orders.domain.tickets import Terms

    with pytest.raises(DomainError, match="not_replaceable"):
        operations.replace(
            held.order_id,
            Terms(limit_price=ticket("buy 1 AAPL limit 90").limit_price),
            actor=desk.actor(desk.alice),
            at=desk.at,
        )


def test_one_that_the_desk_watches_for_waits_for_its_price_after_it_was_let_pass(desk: Desk) -> None:
    limit(desk)
    trail = {"order_type": "trailing_stop", "trail_amount": "1"}
    [placed] = desk.place("buy 11 AAPL", **trail)
    assert desk.order(placed).status == "held"
    desk.quote("AAPL", "101.99", "102.01")
    assert operations.watch(at=desk.at) == 0
    decide(desk, desk.rita, placed)
    assert desk.order(placed).status == "new"
    assert operations.watch(at=desk.at) == 1
    assert desk.send() == 1
    desk.holds()


def test_over_rest_only_risk_decides_and_sees_what_waits(desk: Desk, held: Any, rolf: Any) -> None:
    decision = {"object": str(held.order_id), "decision": "approve", "reason": "fine"}
    for user in (desk.alice, desk.oona):
        assert call(Approvals, "post", user, decision)[0] == 403
    _, waiting = call(Approvals, "get", rolf, query="?status=pending&object_kind=order")
    [row] = waiting["results"]
    assert (row["object"], row["action"], row["maker"]) == (str(held.order_id), "release", "alice")
    status, decided = call(Approvals, "post", rolf, decision | {"content_hash": row["content_hash"]})
    assert (status, decided["status"], decided["approver"]) == (200, "approved", "rolf")
    assert call(Approvals, "post", desk.rita, decision)[0] == 409


@pytest.mark.django_db(transaction=True)
def test_two_who_decide_at_once_send_it_once(live_desk: Desk, django_user_model: Any) -> None:
    desk = live_desk
    rolf = django_user_model.objects.create_user("rolf")
    limit(desk)
    [placed] = desk.place("buy 11 AAPL limit 100")

    def approve(user: Any) -> str:
        try:
            decide(desk, user, placed)
            return "approved"
        except DomainError as error:
            return error.code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(approve, (desk.rita, rolf)))
    assert answers == ["approved", "not_held"]
    assert Submission.objects.count() == 1
    desk.holds()


def test_the_admin_lets_pass_and_turns_down(desk: Desk, rolf: Any) -> None:
    from django.contrib import admin

    from orders.models import Order
    from tests.integration.test_risk_api import TestAdmin

    limit(desk)
    good, bad = desk.place("buy 11 AAPL limit 100", "buy 12 AAPL limit 100")
    page, request = admin.site._registry[Order], TestAdmin().request(rolf)
    page.let_pass(TestAdmin().request(desk.alice), Order.objects.filter(pk=good.order_id))
    assert desk.order(good).status == "held"
    page.let_pass(request, Order.objects.filter(pk=good.order_id))
    page.turn_down(request, Order.objects.filter(pk=bad.order_id))
    assert [desk.order(p).status for p in (good, bad)] == ["pending_new", "denied"]
