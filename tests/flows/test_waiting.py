"""What waited before it could be sent: behind a halt, a backoff, a broker switched off. It is judged by the market of now."""

import threading
from dataclasses import replace as altered
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from brokers import queries
from brokers.adapters.port import Answer, CancelOrder, Lookup, Outcome
from brokers.models import Broker
from oms.runtime import sql
from orders import operations as desk_operations
from orders.domain.waiting import DAY, IMMEDIATE, valid_until
from orders.models import ChildOrder, Submission
from orders.operations import halting, judging, placing, sending
from orders.tasks import due_work
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Halt, Hold, Limit
from tests.conftest import Desk
from tests.flows.test_hard_reports import cancel, replace, working


def wait(desk: Desk, seconds: float = 120) -> None:
    """Let what is prepared have waited, and the market be quoted again."""
    earlier = datetime.now(UTC) - timedelta(seconds=seconds)
    Submission.objects.filter(state="prepared").update(due_at=earlier, judged_at=earlier)


def switch_off(desk: Desk) -> Any:
    Broker.objects.filter(code="NEAR").update(enabled=False)
    queries.forget_cache()
    return queries.brokers_by_code()["NEAR"]


class TestJudgedAgain:
    def test_what_still_passes_is_sent(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        wait(desk)
        assert desk.send() == 1
        assert desk.order(placed).status == "pending_new"
        desk.holds()

    def test_a_price_that_is_now_too_far_through_the_market_is_not_sent(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 105.00")
        wait(desk)
        desk.quote("AAPL", "79.99", "80.01")
        assert desk.send() == 0
        order = desk.order(placed)
        assert (order.status, order.reason, order.leaves_quantity) == ("canceled", "price_collar", 0)
        assert Hold.objects.get().open_quantity == 0
        assert ChildOrder.objects.count() == 1, "what risk refuses goes to no other broker"
        desk.holds()

    def test_without_a_fresh_quote_it_waits_on(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        wait(desk)
        sql.run("UPDATE brokers_quote SET at = at - interval '10 minutes'")
        assert desk.send() == 0
        assert desk.order(placed).status == "pending_new"
        assert Submission.objects.get().due_at > datetime.now(UTC) - timedelta(seconds=5)
        sql.run("UPDATE brokers_quote SET at = now()")
        Submission.objects.update(due_at=datetime.now(UTC) - timedelta(seconds=1))
        assert desk.send() == 1

    def test_a_limit_lowered_meanwhile_binds_and_each_is_judged_without_its_own_hold(self, desk: Desk) -> None:
        first, second = desk.place("buy 600 AAPL limit 99.00", "buy 500 AAPL limit 99.00")
        wait(desk)
        Limit.objects.filter(kind="position").update(value=Decimal(700))
        assert desk.send() == 1
        states = {desk.order(first).status, desk.order(second).status}
        assert states == {"pending_new", "canceled"}
        desk.holds()

    def test_a_replace_refused_now_leaves_its_order(self, desk: Desk) -> None:
        placed, _ = working(desk)
        replace(desk, placed, quantity=Decimal(500))
        wait(desk)
        Limit.objects.filter(kind="order_quantity").update(value=Decimal(100))
        assert desk.send() == 0
        order = desk.order(placed)
        assert (order.status, order.quantity, Hold.objects.get().open_quantity) == ("new", 10, 10)
        assert Submission.objects.get(kind="replace").state == "not_sent"
        desk.holds()

    def test_a_dearer_market_is_held_at_its_price(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL")
        before = Hold.objects.get().unit_amount
        wait(desk)
        desk.quote("AAPL", "104.99", "105.01")
        assert desk.send() == 1
        assert Hold.objects.get().unit_amount > before
        desk.holds()

    def test_under_a_halt_nothing_is_judged_or_ended(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        risk.engage_halt(Scope("account", "MAIN"), reason="test", actor=desk.actor(desk.rita), at=desk.at)
        wait(desk)
        assert desk.send() == 0
        assert desk.order(placed).status == "pending_new"

    def test_a_cancel_is_never_judged(self, desk: Desk) -> None:
        placed, _ = working(desk)
        cancel(desk, placed)
        wait(desk)
        sql.run("UPDATE brokers_quote SET at = at - interval '10 minutes'")
        assert desk.send() == 1


class TestValid:
    @pytest.mark.parametrize(
        ("order_type", "tif", "lasts"),
        [("market", "day", IMMEDIATE), ("limit", "ioc", IMMEDIATE), ("limit", "fok", IMMEDIATE), ("limit", "day", DAY)],
    )
    def test_every_order_but_a_lasting_one_has_an_end_of_waiting(self, order_type: str, tif: str, lasts: Any) -> None:
        at = datetime(2026, 11, 25, 15, tzinfo=UTC)
        assert valid_until(order_type, tif, None, decided_at=at, closes_at=None) == at + lasts
        assert valid_until("limit", "gtc", None, decided_at=at, closes_at=None) is None
        close = at + timedelta(hours=1)
        assert valid_until("limit", "day", None, decided_at=at, closes_at=close) == close

    def test_a_market_order_that_waited_too_long_is_not_sent(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL")
        assert Submission.objects.get().valid_until == desk.at + IMMEDIATE
        Submission.objects.update(valid_until=desk.at - timedelta(seconds=1))
        assert desk.send() == 0
        desk_operations.resolve(queries.brokers_by_code()["NEAR"], clock=desk.clock)
        order = desk.order(placed)
        assert (order.status, order.reason) == ("expired", "too_late")
        desk.holds()

    def test_it_is_found_among_what_is_due_and_not_among_all_that_was_ever_sent(self, desk: Desk) -> None:
        near = queries.brokers_by_code()["NEAR"]
        with sql.recorded() as statements:
            sending._too_late(near, desk.at)
        [statement] = statements
        sql.run("SET LOCAL enable_seqscan = off")
        plan = sql.run(f"EXPLAIN {statement}", [near.id, desk.at, 1]).fetchall()
        assert "submission_due" in str(plan)


class TestSwitchedOff:
    def test_a_broker_switched_off_gets_cancels_and_nothing_else(self, desk: Desk) -> None:
        placed, _ = working(desk)
        desk.place("buy 5 AAPL limit 98.00")
        near = switch_off(desk)
        cancel(desk, placed)
        Submission.objects.filter(state="prepared").update(due_at=desk.at - timedelta(seconds=5))
        assert ("NEAR", True, False) in due_work()
        assert desk.send() == 1
        assert isinstance(desk.near.sent[-1], CancelOrder)
        assert not near.enabled

    def test_it_is_asked_about_what_stayed_unanswered(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.near.silent_takes = True
        desk.send()
        near = switch_off(desk)
        Submission.objects.update(due_at=desk.at - timedelta(seconds=5))
        assert ("NEAR", False, True) in due_work()
        assert desk_operations.resolve(near, clock=desk.clock) == 1
        assert desk.order(placed).status == "new"


class TestShown:
    def unknown(self, desk: Desk, monkeypatch: pytest.MonkeyPatch, status: str) -> Any:
        [placed] = desk.place("buy 10 AAPL limit 99.00", broker="NEAR")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        desk.near.silent_takes = True
        desk.send()
        whole = desk.near.look_up

        def bare(ids: Any, *, since: datetime) -> list[Lookup]:
            return [
                altered(x, reports=(), found=altered(x.found, status=status) if x.found else None)
                for x in whole(ids, since=since)
            ]

        monkeypatch.setattr(desk.near, "look_up", bare)
        Submission.objects.update(due_at=desk.at - timedelta(seconds=5))
        assert desk_operations.resolve(queries.brokers_by_code()["NEAR"], clock=desk.clock) == 1
        return placed

    @pytest.mark.parametrize(("status", "leaves"), [("new", 10), ("canceled", 0), ("rejected", 0), ("expired", 0)])
    def test_an_order_shown_without_its_history_is_settled(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, status: str, leaves: int
    ) -> None:
        placed = self.unknown(desk, monkeypatch, status)
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, order.unknown) == (status, leaves, False)
        assert ChildOrder.objects.get().broker_order_id
        desk.holds()

    def test_a_late_acceptance_of_what_was_given_up_for_lost_brings_it_back(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 99.00", broker="NEAR")
        near = queries.brokers_by_code()["NEAR"]
        claimed = sending.claim(near, owner="slow", limit=10, at=desk.at)
        sending._give_up(near, [claimed[0].id], "sent", "absent", at=desk.at)
        assert desk.order(placed).status == "rejected"
        taken = Answer(client_order_id=claimed[0].client_order_id, outcome=Outcome.ACCEPTED, broker_order_id="B1")
        sending.record(near, claimed, [taken], took_ms=1, at=desk.at)
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, Hold.objects.get().open_quantity) == ("pending_cancel", 10, 10)
        desk.holds()


def test_an_order_placed_while_a_halt_engages_is_canceled_with_the_others(
    live_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order was judged before the halt stood, and commits after it: the list of what is open waits for it."""
    judged, go_on, whole = threading.Event(), threading.Event(), placing._write

    def slow_write(*parts: Any) -> None:
        judged.set()
        assert go_on.wait(20)
        whole(*parts)

    monkeypatch.setattr(placing, "_write", slow_write)
    found: dict[str, Any] = {}

    def run(name: str, act: Any) -> threading.Thread:
        def body() -> None:
            try:
                found[name] = act()
            finally:
                connection.close()

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    place = run("placed", lambda: live_desk.place("buy 10 AAPL limit 99.00"))
    assert judged.wait(20)
    scope, rita = Scope("account", "MAIN"), live_desk.actor(live_desk.rita)
    stop = run("halted", lambda: halting.halt(scope, mode="halt", reason="test", actor=rita, at=live_desk.at))
    until = datetime.now(UTC) + timedelta(seconds=20)
    while not Halt.objects.exists() and datetime.now(UTC) < until:
        stop.join(0.05)
    go_on.set()
    place.join(20)
    stop.join(20)
    assert found["halted"][1] == 1
    assert live_desk.order(found["placed"][0]).status == "canceled"


def test_the_threshold_is_the_age_a_quote_may_have() -> None:
    assert judging.JUDGED_SECONDS >= 60
