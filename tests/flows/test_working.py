"""Large orders are worked in slices: planned, claimed, judged, routed, filled, given back, paused, changed, ended."""

from dataclasses import replace as altered
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from brokers import adapters, queries
from brokers.adapters.port import Outcome
from brokers.operations import record_volumes, sample_bars
from oms.kernel.errors import Conflict, InvalidFields
from oms.runtime import sql
from orders import operations as desk_operations
from orders.domain.tickets import parse_ticket
from orders.models import Algo, AlgoSlice, ChildOrder, Submission
from orders.operations import working as work
from orders.operations.halting import halt
from orders.queries import events_of, order_out, slices_of
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Hold, Limit
from tests.conftest import Desk, ticket
from tests.flows.test_hard_reports import cancel, lose_track, replace, trade, undo

STEADY = {"vary_size": "0", "vary_time": "0"}


def worked(desk: Desk, text: str = "buy 60 AAPL", name: str = "twap", minutes: int = 6, **algo: Any) -> Any:
    """Place an order worked for so many minutes in slices of a minute, unless told otherwise."""
    told = {"name": name, **algo}
    if name in ("twap", "vwap", "is"):
        told = {"end_at": in_minutes(desk, minutes), "slices": minutes} | STEADY | told
    more = {
        name: told.pop(name)
        for name in ("display_quantity", "broker", "self_trade_prevention", "take_profit")
        if name in told
    }
    [placed] = desk.place(text, algo=told, **more)
    assert placed.problem is None, placed.problem
    return placed


def step(desk: Desk, seconds: float = 60, quote: tuple[str, str] = ("99.99", "100.01")) -> list[Any]:
    """Let time pass with a fresh market, work, send, and return what the near broker got."""
    desk.later(seconds)
    desk.quote("AAPL", *quote)
    return now(desk)


def now(desk: Desk) -> list[Any]:
    before = len(desk.near.sent)
    desk_operations.work(owner="test", at=desk.at)
    send(desk)
    return desk.near.sent[before:]


def send(desk: Desk) -> None:
    """Send what is due, by the test's clock, which runs ahead."""
    past = datetime.now(UTC) - timedelta(seconds=5)
    Submission.objects.filter(state="prepared").update(due_at=past, created_at=past, judged_at=datetime.now(UTC))
    desk.send()


def fill(desk: Desk, message: Any, quantity: Any = None) -> None:
    quantity = message.quantity if quantity is None else Decimal(quantity)
    desk.report(trade(desk, message, f"E-{message.client_order_id}-{quantity}", str(quantity)))


def in_minutes(desk: Desk, minutes: int) -> str:
    return (desk.at + timedelta(minutes=minutes)).isoformat()


def held(placed: Any) -> Decimal:
    return Hold.objects.get(pk=placed.order_id).open_quantity


def algo(desk: Desk, placed: Any) -> Any:
    return order_out(desk.order(placed), queries_names())["algo"]


def queries_names() -> Any:
    from orders.queries import Names

    return Names()


class TestTheSchedule:
    def test_a_twap_is_filled_slice_by_slice_under_one_hold(self, desk: Desk) -> None:
        placed = worked(desk)
        order = desk.order(placed)
        assert (order.status, ChildOrder.objects.count(), held(placed)) == ("new", 0, 60)
        for n in range(6):
            [message] = step(desk, 0 if n == 0 else 60)
            assert message.quantity == 10
            assert held(placed) == 60 - 10 * n
            fill(desk, message)
            order = desk.order(placed)
            assert order.filled_quantity == 10 * (n + 1)
            assert order.status == ("filled" if n == 5 else "partially_filled")
            desk.holds()
        assert step(desk) == []
        assert (Algo.objects.get().state, held(placed)) == ("over", 0)
        assert algo(desk, placed) | {"slices_sent": 6, "slices_left": 0, "state": "over"} == algo(desk, placed)
        kinds = [e["kind"] for e in events_of(placed.order_id)]
        assert kinds.count("order.slice_sent") == 6
        assert all(e["slice"]["checks"] for e in events_of(placed.order_id) if e["kind"] == "order.slice_sent")

    def test_terms_and_seed_are_told_with_every_default(self, desk: Desk) -> None:
        [placed] = desk.place("buy 600 AAPL", algo={"name": "is", "urgency": "high"})
        told = algo(desk, placed)
        assert told["urgency"] == "0.8"
        assert told["slices"] == 60
        assert (told["catch_up"], told["at_end"], told["vary_size"], told["vary_time"]) == (
            "spread", "complete", "0.2", "0.2",
        )  # fmt: skip
        assert isinstance(told["seed"], int)
        assert AlgoSlice.objects.first().planned_quantity > AlgoSlice.objects.last().planned_quantity * 5
        assert sum(s.planned_quantity for s in AlgoSlice.objects.all()) == 600
        [again] = desk.place("buy 600 AAPL", algo={"name": "is", "urgency": "high", "seed": told["seed"]})
        sizes = [[s["planned_quantity"] for s in slices_of(p.order_id)] for p in (placed, again)]
        assert sizes[0] == sizes[1]

    def test_a_vwap_follows_the_bars_of_the_days_before(self, desk: Desk) -> None:
        desk.at = desk.at.replace(second=0, microsecond=0) + timedelta(minutes=1)
        desk.quote("AAPL", "99.99", "100.01")
        plain = worked(desk, "buy 400 AAPL", "vwap", minutes=4)
        assert [s["planned_quantity"] for s in slices_of(plain.order_id)] == ["137", "63", "62", "138"], "a U"
        for day in range(1, 7):
            for minute, volume in enumerate((500, 100, 100, 300)):
                at = desk.at - timedelta(days=day) + timedelta(minutes=minute)
                record_volumes({"AAPL": Decimal(volume)}, at=at)
        placed = worked(desk, "buy 400 AAPL", "vwap", minutes=4)
        assert [s["planned_quantity"] for s in slices_of(placed.order_id)] == ["200", "40", "40", "120"]

    def test_a_slice_is_judged_by_the_limits_of_then_and_gives_its_quantity_back(self, desk: Desk) -> None:
        placed = worked(desk)
        limit = Limit.objects.get(kind="order_notional")
        Limit.objects.filter(pk=limit.pk).update(value=Decimal(900))
        assert step(desk, 0) == []
        [row] = AlgoSlice.objects.filter(state="denied")
        assert "900" in row.detail
        assert (desk.order(placed).status, held(placed)) == ("new", 60)
        Limit.objects.filter(pk=limit.pk).update(value=Decimal(5_000_000))
        [message] = step(desk)
        assert message.quantity == 12, "what came back is spread over the slices left"
        desk.holds()

    def test_an_order_without_an_algo_asks_nothing_more(self, desk: Desk) -> None:
        desk.place("buy 1 AAPL")
        with sql.recorded() as statements:
            desk.place("buy 2 AAPL")
            desk.send()
            desk.report(trade(desk, desk.near.sent[-1], "E1", "2"))
        assert not [s for s in statements if "algo" in s.lower()]


class TestRefusals:
    def test_a_refused_slice_goes_to_another_broker_with_the_next(self, desk: Desk) -> None:
        placed = worked(desk)
        desk.near.outcome = lambda _: Outcome.REJECTED
        assert len(step(desk, 0)) == 1
        order = desk.order(placed)
        assert (order.status, order.reason, held(placed)) == ("new", "", 60)
        assert step(desk) == []
        desk.send("FAR")
        assert [m.quantity for m in desk.far.sent] == [12]
        desk.holds()

    def test_too_many_in_a_row_pause_it(self, desk: Desk) -> None:
        placed = worked(desk, minutes=10)
        for broker in (desk.near, desk.far):
            broker.outcome = lambda _: Outcome.REJECTED
        for n in range(6):
            step(desk, 60 if n else 0)
            desk.send("FAR")
        assert Algo.objects.get().state == "paused"
        assert desk.order(placed).status == "suspended"
        assert "5 slices in a row" in algo(desk, placed)["why"]
        for broker in (desk.near, desk.far):
            broker.outcome = lambda _: Outcome.ACCEPTED
        desk_operations.resume(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        assert desk.order(placed).status == "new"
        assert len(step(desk) + desk.far.sent) >= 1
        desk.holds()

    def test_an_unknown_slice_counts_as_working_until_its_absence_is_proven(self, desk: Desk) -> None:
        placed = worked(desk, broker="NEAR")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        step(desk, 0)
        assert (desk.order(placed).unknown, held(placed)) == (True, 60)
        desk.near.outcome = lambda _: Outcome.ACCEPTED
        [message] = step(desk)
        assert message.quantity == 10, "nothing of the unknown one is asked for again"
        lose_track(desk, placed)
        assert not desk.order(placed).unknown
        [message] = step(desk)
        assert message.quantity == 12
        desk.holds()


class TestHaltsAndCancels:
    def test_under_a_halt_slices_wait_and_what_was_missed_is_made_up_for(self, desk: Desk) -> None:
        placed = worked(desk)
        engaged, _ = halt(
            Scope("account", "MAIN"),
            mode="halt",
            cancel_open=False,
            reason="test",
            actor=desk.actor(desk.rita),
            at=desk.at,
        )
        assert step(desk, 0) == []
        assert step(desk) == []
        assert [e["kind"] for e in events_of(placed.order_id)].count("order.slice_waits") == 1, "it says so once"
        risk.release_halt(engaged.id, reason="over", actor=desk.actor(desk.oona), at=desk.at)
        [message] = step(desk)
        assert message.quantity == 15, "60 over the four slices left"

    def test_reduce_only_stops_what_opens(self, desk: Desk) -> None:
        worked(desk)
        halt(Scope("all"), mode="reduce_only", reason="test", actor=desk.actor(desk.rita), at=desk.at)
        assert step(desk, 0) == []

    def test_a_cancel_ends_the_slices_that_work_and_plans_no_more(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50")
        [message] = step(desk, 0)
        fill(desk, message, 4)
        cancel(desk, placed)
        assert (desk.order(placed).status, held(placed)) == ("pending_cancel", 56)
        assert step(desk)[0].orig_client_order_id == message.client_order_id
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.reason, order.filled_quantity, held(placed)) == (
            "canceled", "cancel_requested", 4, 0,
        )  # fmt: skip
        assert not AlgoSlice.objects.filter(state__in=["planned", "claimed"]).exists()
        fill(desk, message, 2)  # it was on its way
        assert desk.order(placed).filled_quantity == 6
        assert step(desk) == []
        desk.holds()

    def test_a_cancel_between_slices_takes_effect_at_once(self, desk: Desk) -> None:
        placed = worked(desk)
        fill(desk, step(desk, 0)[0])
        assert desk_operations.cancel_matching([desk.account.pk], actor=desk.actor(desk.alice), at=desk.at) == 1
        assert (desk.order(placed).status, held(placed)) == ("canceled", 0)
        desk.holds()

    def test_a_halt_that_cancels_stops_what_has_not_begun(self, desk: Desk) -> None:
        placed = worked(desk)
        halt(Scope("symbol", "AAPL"), mode="halt", reason="test", actor=desk.actor(desk.rita), at=desk.at)
        assert (desk.order(placed).status, Algo.objects.get().state) == ("canceled", "over")
        assert step(desk, 0) == []
        desk.holds()


class TestPause:
    def test_a_pause_cancels_what_works_and_a_resume_goes_on(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50")
        [message] = step(desk, 0)
        fill(desk, message, 4)
        desk_operations.pause(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        assert desk.order(placed).status == "partially_filled", "a slice's cancel is none of the order"
        send(desk)
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.leaves_quantity, held(placed)) == ("suspended", 56, 56)
        assert step(desk) == []
        desk_operations.pause(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        desk.holds()
        desk_operations.resume(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
        [message] = now(desk)
        assert message.quantity == 11, "56 over five"
        assert [e["kind"] for e in events_of(placed.order_id)].count("order.paused") == 1
        desk.holds()

    def test_working_slices_may_be_left(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50")
        step(desk, 0)
        desk_operations.pause(placed.order_id, actor=desk.actor(desk.alice), at=desk.at, cancel_working=False)
        assert (desk.order(placed).status, step(desk)) == ("new", [])

    def test_what_is_not_worked_or_over_can_not_be_paused(self, desk: Desk) -> None:
        def pause(placed: Any) -> str:
            with pytest.raises(Conflict) as refused:
                desk_operations.pause(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
            return refused.value.code

        [whole] = desk.place("buy 1 AAPL")
        assert pause(whole) == "not_worked"
        placed = worked(desk)
        cancel(desk, placed)
        assert pause(placed) == "order_closed"

    def test_a_paused_order_ends_with_its_time_unless_it_is_to_be_completed(self, desk: Desk) -> None:
        placed, other = worked(desk, at_end="cancel"), worked(desk)
        for p in (placed, other):
            desk_operations.pause(p.order_id, actor=desk.actor(desk.alice), at=desk.at)
        assert step(desk, 361) == []
        assert (desk.order(placed).status, desk.order(placed).reason) == ("expired", "algo_ended")
        assert desk.order(other).status == "suspended"
        desk_operations.resume(other.order_id, actor=desk.actor(desk.alice), at=desk.at)
        [message] = now(desk)
        assert message.quantity == 60
        desk.holds()


class TestReplace:
    def test_a_larger_quantity_is_spread_over_what_is_left(self, desk: Desk) -> None:
        placed = worked(desk)
        fill(desk, step(desk, 0)[0])
        replace(desk, placed, quantity=Decimal(110))
        order = desk.order(placed)
        assert (order.quantity, order.status, held(placed)) == (110, "partially_filled", 100)
        assert [step(desk)[0].quantity for _ in range(2)] == [20, 20]
        desk.holds()

    def test_another_limit_waits_until_no_slice_works_under_the_old(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50")
        [message] = step(desk, 0)
        replace(desk, placed, limit_price=Decimal("101.00"), quantity=Decimal(50))
        order = desk.order(placed)
        assert (order.status, order.limit_price, held(placed)) == ("pending_replace", Decimal("100.50"), 60)
        assert [type(m).__name__ for m in step(desk)] == ["CancelOrder"], "nothing new is sent meanwhile"
        fill(desk, message, 3)
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.limit_price, order.quantity) == ("partially_filled", Decimal("101.00"), 50)
        assert held(placed) == 47
        [message] = step(desk)
        assert (message.limit_price, message.quantity) == (Decimal("101.00"), 11), "47 over the four left"
        desk.holds()

    def test_below_what_is_filled_by_then_it_is_done(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50")
        [message] = step(desk, 0)
        replace(desk, placed, quantity=Decimal(5))
        send(desk)
        fill(desk, message)
        desk.report(desk.near.report("cancel_rejected", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.quantity, order.filled_quantity, held(placed)) == ("filled", 10, 10, 0)
        desk.holds()

    def test_what_is_closed_stays_closed(self, desk: Desk) -> None:
        placed = worked(desk, minutes=1)
        fill(desk, step(desk, 0)[0])
        assert desk.order(placed).status == "filled"
        with pytest.raises(Conflict) as refused:
            replace(desk, placed, quantity=Decimal(100))
        assert refused.value.code == "order_closed"


class TestLateFacts:
    def test_a_bust_gives_back_what_it_undoes(self, desk: Desk) -> None:
        placed = worked(desk)
        [first] = step(desk, 0)
        fill(desk, first)
        desk.report(undo(desk, first, "bust", "B1", f"E-{first.client_order_id}-10"))
        desk.report(desk.near.report("canceled", first))
        assert (desk.order(placed).filled_quantity, held(placed)) == (0, 60)
        assert step(desk)[0].quantity == 12
        desk.holds()

    def test_a_late_fill_makes_the_next_slices_smaller(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50", catch_up="at_once")
        [message] = step(desk, 0)
        desk.report(desk.near.report("canceled", message))
        fill(desk, message, 7)
        assert desk.order(placed).filled_quantity == 7
        assert step(desk)[0].quantity == 13
        desk.holds()

    @pytest.mark.parametrize("order", list(permutations(["fill", "reject", "unsolicited"])))
    def test_in_any_order_of_outcomes_the_whole_is_done_exactly(self, desk: Desk, order: Any) -> None:
        placed = worked(desk, "buy 31 AAPL limit 100.50", minutes=3, broker="NEAR")
        for n, outcome in enumerate(order):
            desk.near.outcome = lambda _, o=outcome: Outcome.REJECTED if o == "reject" else Outcome.ACCEPTED
            messages = step(desk, 60 if n else 0)
            if outcome == "fill":
                for m in messages:
                    fill(desk, m)
            elif outcome == "unsolicited":
                for m in messages:
                    fill(desk, m, 1)
                    desk.report(desk.near.report("canceled", m))
        desk.near.outcome = lambda _: Outcome.ACCEPTED
        for _ in range(8):
            for m in step(desk, 5):
                fill(desk, m)
        order_now = desk.order(placed)
        assert (order_now.status, order_now.filled_quantity) == ("filled", 31)
        desk.holds()


class TestTheMarketAround:
    def test_a_dividend_lowers_the_limit_of_what_is_left(self, desk: Desk) -> None:
        from orders.operations import restating
        from tests.integration.test_corporate_actions import announced

        placed = worked(desk, "buy 60 AAPL limit 100.50 gtc")
        [first] = step(desk, 0)
        fill(desk, first, 4)
        action = announced(desk, cash="0.50", ex_date=str(desk.at.date()))
        restating.restate(action, actor=desk.actor(desk.oona), at=desk.at)
        send(desk)
        assert desk.order(placed).status == "pending_replace"
        assert step(desk, 60, ("99.50", "99.52")) == [], "nothing new before the old slice is gone"
        desk.report(desk.near.report("canceled", desk.near.sent[-1]))
        order = desk.order(placed)
        assert (order.status, order.limit_price, held(placed)) == ("partially_filled", Decimal("100.00"), 56)
        [second] = step(desk, 1, ("99.50", "99.52"))
        assert (second.quantity, second.limit_price) == (11, Decimal("100.00")), "56 over the five left"
        desk.holds()

    def test_exits_follow_the_fills_of_a_worked_entry(self, desk: Desk) -> None:
        placed = worked(desk, "buy 20 AAPL limit 100.50", minutes=2, take_profit={"limit_price": "120.00"})
        [first] = step(desk, 0)
        assert first.quantity == 10
        fill(desk, first)
        desk_operations.follow_groups(at=max(desk.at, datetime.now(UTC)))
        send(desk)
        exit_ = desk.near.sent[-1]
        assert (exit_.side, exit_.quantity, exit_.limit_price) == ("sell", 10, Decimal("120.00"))
        desk.report(desk.near.report("new", exit_))
        [second] = step(desk)
        fill(desk, second)
        assert desk.order(placed).status == "filled"
        desk_operations.follow_groups(at=max(desk.at, datetime.now(UTC)))
        send(desk)
        assert desk.near.sent[-1].quantity == 20, "the exit grows with the entry"
        desk.report(desk.near.report("replaced", desk.near.sent[-1]))
        desk.holds()

    @pytest.mark.parametrize(("mode", "goes"), [("cancel_newest", False), ("cancel_oldest", True)])
    def test_a_slice_never_trades_with_an_order_of_its_own_account(self, desk: Desk, mode: str, goes: bool) -> None:
        desk.place("buy 100 AAPL")
        send(desk)
        fill(desk, desk.near.sent[-1])
        [resting] = desk.place("sell 5 AAPL limit 100.01")
        send(desk)
        desk.report(desk.near.report("new", desk.near.sent[-1]))
        placed = worked(desk, self_trade_prevention=mode)
        assert desk.order(placed).status == "new", "nothing of it is in the market yet"
        sent = step(desk, 0)
        if not goes:
            assert sent == []
            assert AlgoSlice.objects.get(number=1).state == "denied"
            assert desk.order(resting).status == "new"
            return
        assert [type(m).__name__ for m in sent] == ["CancelOrder"], "the slice waits until it is gone"
        desk.report(desk.near.report("canceled", sent[0]))
        assert step(desk, 2)[0].quantity == 10
        desk.holds()


class TestTheEnd:
    def test_a_limit_is_never_passed_and_the_rest_is_canceled_at_the_end(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.00")
        assert step(desk, 0) == []
        assert AlgoSlice.objects.get(number=1).detail == "the market is beyond the limit price"
        [message] = step(desk, 60, ("99.50", "99.52"))
        assert (message.quantity, message.limit_price) == (12, Decimal("100.00"))
        fill(desk, message)
        for _ in range(5):
            step(desk, 60, ("109.00", "109.02"))
        order = desk.order(placed)
        assert (order.status, order.reason, order.filled_quantity, held(placed)) == ("expired", "algo_ended", 12, 0)
        desk.holds()

    def test_what_works_at_the_end_is_canceled_first(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50", minutes=1)
        [message] = step(desk, 0)
        [asked] = step(desk, 61)
        assert asked.orig_client_order_id == message.client_order_id
        assert desk.order(placed).status == "pending_cancel"
        desk.report(desk.near.report("canceled", asked))
        assert desk.order(placed).status == "expired"
        desk.holds()

    def test_or_all_that_is_left_is_asked_for_at_once(self, desk: Desk) -> None:
        placed = worked(desk, catch_up="never")
        for n in range(4):
            fill(desk, step(desk, 60 if n else 0)[0])
        [message] = step(desk, 300)
        assert message.quantity == 20
        fill(desk, message)
        assert desk.order(placed).status == "filled"
        assert "order.algo_completing" in [e["kind"] for e in events_of(placed.order_id)]
        desk.holds()

    def test_the_day_ends_it_whatever_was_planned(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL limit 100.50", "iceberg", display_quantity="10")
        [message] = step(desk, 0)
        assert message.quantity <= 10
        step(desk, 24 * 3600 + 1)
        desk.report(desk.near.report("expired", message))
        assert (desk.order(placed).status, held(placed)) == ("expired", 0)
        desk.holds()


class TestVolumeAndIcebergs:
    def test_a_pov_takes_its_share_of_what_is_traded(self, desk: Desk) -> None:
        placed = worked(desk, "buy 60 AAPL", "pov", participation="0.1", vary_time="0")
        record_volumes({"AAPL": Decimal(5_000)}, at=desk.at)
        assert step(desk, 0) == [], "what was traded before it is not counted"
        record_volumes({"AAPL": Decimal(205)}, at=desk.at)
        [message] = step(desk, 5)
        assert message.quantity == 20
        assert step(desk, 5) == [], "what works is a part of its share"
        record_volumes({"AAPL": Decimal(100)}, at=desk.at)
        [second] = step(desk, 5)
        assert second.quantity == 10
        fill(desk, message)
        fill(desk, second)
        record_volumes({"AAPL": Decimal(100_000)}, at=desk.at)
        [third] = step(desk, 5)
        assert third.quantity == 30
        fill(desk, third)
        assert desk.order(placed).status == "filled"
        desk.holds()

    def test_a_share_binds_a_schedule_too(self, desk: Desk) -> None:
        worked(desk, participation="0.1", catch_up="at_once")
        assert step(desk, 0) == []
        record_volumes({"AAPL": Decimal(150)}, at=desk.at)
        assert step(desk)[0].quantity == 15

    def test_an_iceberg_shows_one_part_after_the_other(self, desk: Desk) -> None:
        placed = worked(desk, "buy 25 AAPL limit 99.00", "iceberg", display_quantity="10", vary_size="0")
        [first] = step(desk, 0)
        assert (first.quantity, first.limit_price, first.display_quantity) == (10, Decimal("99.00"), None)
        assert step(desk, 1) == []
        fill(desk, first)
        [second] = step(desk, 1)
        fill(desk, second)
        [third] = step(desk, 1)
        assert (second.quantity, third.quantity) == (10, 5)
        fill(desk, third)
        assert (desk.order(placed).status, AlgoSlice.objects.count()) == ("filled", 3)
        desk.holds()

    def test_what_no_broker_shows_in_part_the_desk_does(self, desk: Desk) -> None:
        [placed] = desk.place("buy 25 AAPL limit 99.00", display_quantity="10")
        assert algo(desk, placed)["name"] == "iceberg"
        assert step(desk, 0)[0].quantity <= 10
        for broker in (desk.near, desk.far):
            broker.capabilities = altered(broker.capabilities, display_quantity=True)
        adapters._abilities.clear()
        [placed] = desk.place("buy 25 AAPL limit 98.00", display_quantity="10")
        assert algo(desk, placed) is None
        send(desk)
        assert (desk.near.sent[-1].quantity, desk.near.sent[-1].display_quantity) == (25, 10)
        desk.holds()

    def test_parts_may_be_told_by_their_number(self, desk: Desk) -> None:
        placed = worked(desk, "buy 25 AAPL limit 99.00", "iceberg", slices=3, vary_size="0")
        assert step(desk, 0)[0].quantity == 9
        assert desk.order(placed).instruction("display_quantity") == "9"


class TestWorkers:
    def test_two_claim_different_slices_and_a_lost_one_is_taken_over(self, desk: Desk) -> None:
        first, second = worked(desk), worked(desk)
        claimed = work.claim(owner="one", at=desk.at)
        assert {o for _, o, _ in claimed} == {first.order_id, second.order_id}
        assert work.claim(owner="two", at=desk.at) == []
        assert now(desk) == []
        step(desk, work.LEASE_SECONDS + 1)
        assert ChildOrder.objects.count() == 2
        fences = {s: f for s, _, f in claimed}
        assert work.release([first.order_id, second.order_id], fences, at=desk.at) == 0, "it lost its claim"
        assert ChildOrder.objects.count() == 2
        desk.holds()

    def test_after_a_long_sleep_one_slice_stands_for_all_that_were_missed(self, desk: Desk) -> None:
        worked(desk, catch_up="at_once")
        [message] = step(desk, 185)
        assert message.quantity == 40
        assert AlgoSlice.objects.filter(state="skipped").count() == 3
        desk.holds()

    def test_the_database_lets_no_slice_ask_for_more_than_is_left(self, desk: Desk) -> None:
        placed = worked(desk)
        step(desk, 0)
        child = ChildOrder.objects.get()
        with pytest.raises(IntegrityError, match="children_within_order"), transaction.atomic():
            ChildOrder.objects.create(
                id=placed.order_id, order_id=placed.order_id, broker_id=child.broker_id, broker_account_id=child.broker_account_id,
                client_order_id="x", quantity=51, leaves_quantity=51, time_in_force="day", created_at=desk.at, updated_at=desk.at,
            )  # fmt: skip

    def test_numbers_are_unique(self, desk: Desk) -> None:
        placed = worked(desk)
        with pytest.raises(IntegrityError, match="slice_number_unique"), transaction.atomic():
            AlgoSlice.objects.create(
                id=placed.order_id, order_id=placed.order_id, number=1, due_at=desk.at, planned_quantity=1
            )


class TestHeld:
    def test_what_another_person_lets_pass_is_planned_then(self, desk: Desk) -> None:
        from orders.operations import manual

        Limit.objects.filter(kind="order_quantity").update(value=Decimal(50), soft=True)
        Limit.objects.filter(kind="order_quantity").update(value=Decimal(50))
        hard = Limit.objects.get(kind="order_quantity")
        hard.pk, hard.soft, hard.value = None, False, Decimal(10_000)
        from oms.kernel.ids import uuid7

        hard.pk = uuid7()
        hard.save(force_insert=True)
        placed = worked(desk)
        assert (desk.order(placed).status, Algo.objects.get().state) == ("held", "waiting")
        assert step(desk, 0) == []
        desk.holds()
        manual.decide(placed.order_id, "approve", reason="fine", actor=desk.actor(desk.rita), at=desk.at)
        assert (desk.order(placed).status, Algo.objects.get().state, held(placed)) == ("new", "working", 60)
        assert step(desk, 0)[0].quantity == 10
        desk.holds()


@pytest.mark.parametrize(
    ("algo", "more", "field", "code"),
    [
        ({"name": "magic"}, {}, "algo.name", "not_a_choice"),
        ("twap", {}, "algo", "not_an_object"),
        ({"name": "twap", "speed": 1}, {}, "algo.speed", "unknown_field"),
        ({"name": "twap", "urgency": "1"}, {}, "algo.urgency", "not_allowed"),
        ({"name": "is", "urgency": "1.1"}, {}, "algo.urgency", "out_of_range"),
        ({"name": "is", "urgency": ["low"]}, {}, "algo.urgency", "not_a_decimal_string"),
        ({"name": "pov", "participation": "0"}, {}, "algo.participation", "out_of_range"),
        ({"name": "pov", "participation": 0}, {}, "algo.participation", "not_a_decimal_string"),
        ({"name": "twap", "slices": 0}, {}, "algo.slices", "out_of_range"),
        ({"name": "twap", "slices": "5"}, {}, "algo.slices", "not_an_integer"),
        ({"name": "twap", "end_at": "2020-01-01T00:00:00Z"}, {}, "algo.end_at", "out_of_range"),
        ({"name": "twap", "end_at": "soon"}, {}, "algo.end_at", "not_a_time"),
        ({"name": "twap", "catch_up": "maybe"}, {}, "algo.catch_up", "not_a_choice"),
        ({"name": "twap", "at_end": ["cancel"]}, {}, "algo.at_end", "not_a_choice"),
        ({"name": "twap", "seed": 2**60}, {}, "algo.seed", "out_of_range"),
        ({"name": "twap"}, {"time_in_force": "ioc"}, "algo.name", "not_allowed"),
        ({"name": "twap"}, {"order_type": "stop", "stop_price": "9"}, "algo.name", "not_allowed"),
        ({"name": "twap"}, {"min_quantity": "1"}, "min_quantity", "not_allowed"),
        ({"name": "twap"}, {"group": {"kind": "oco", "id": "x"}}, "group", "not_allowed"),
        ({"name": "twap"}, {"order_type": "limit", "limit_price": "9", "display_quantity": "1"}, "display_quantity", "not_allowed"),
        ({"name": "iceberg"}, {}, "algo.name", "not_allowed"),
        ({"name": "iceberg"}, {"order_type": "limit", "limit_price": "9"}, "display_quantity", "required"),
    ],
)  # fmt: skip
def test_what_can_not_be_worked_is_refused(algo: Any, more: dict[str, str], field: str, code: str) -> None:
    raw = {"account": "MAIN", "symbol": "AAPL", "side": "buy", "quantity": "10", "order_type": "market", "algo": algo}
    with pytest.raises(InvalidFields) as refused:
        parse_ticket(raw | more, at=datetime.now(UTC))
    assert (field, code) in [(e.field, e.code) for e in refused.value.errors]


def test_times_that_leave_no_room_are_refused_and_use_up_no_id(desk: Desk) -> None:
    end = (desk.at + timedelta(hours=30)).isoformat()
    [late] = desk.place("buy 10 AAPL", client_order_id="mine", algo={"name": "twap", "end_at": end})
    assert [(e.field, e.code) for e in late.problem.errors] == [("algo.end_at", "out_of_range")]
    end = (desk.at + timedelta(seconds=10)).isoformat()
    [dense] = desk.place("buy 10 AAPL", client_order_id="mine", algo={"name": "twap", "end_at": end, "slices": 100})
    assert [(e.field, e.code) for e in dense.problem.errors] == [("algo.slices", "out_of_range")]
    [placed] = desk.place("buy 10 AAPL", client_order_id="mine", algo={"name": "twap"})
    assert placed.created


def test_what_is_denied_was_never_worked(desk: Desk) -> None:
    [denied] = desk.place("buy 20000 AAPL", algo={"name": "twap"})
    assert (desk.order(denied).status, algo(desk, denied)["state"], Algo.objects.count()) == ("denied", "over", 0)
    desk.holds()


def test_a_repeat_with_other_terms_is_a_conflict(desk: Desk) -> None:
    asked = {"client_order_id": "mine", "algo": {"name": "twap"}}
    [first] = desk.place("buy 10 AAPL", **asked)
    [again] = desk.place("buy 10 AAPL", **asked)
    assert (again.created, again.body) == (False, first.body)
    [other] = desk.place("buy 10 AAPL", client_order_id="mine", algo={"name": "is"})
    assert other.problem.code == "idempotency_conflict"


def test_a_preview_tells_the_schedule_and_stores_nothing(desk: Desk) -> None:
    asked = desk_operations.Request(
        ticket("buy 60 AAPL", algo={"name": "twap", "slices": 4} | STEADY), desk.actor(desk.alice)
    )
    told = desk_operations.preview(asked, at=desk.at)
    assert [s["planned_quantity"] for s in told["slices"]] == ["15"] * 4
    assert told["algo"]["name"] == "twap"
    assert [c["broker"] for c in told["routing"]["candidates"]] == ["NEAR", "FAR"]
    assert (Algo.objects.count(), AlgoSlice.objects.count()) == (0, 0)


def test_bars_hold_the_minute_and_what_was_traded(desk: Desk) -> None:
    from brokers.models import Bar

    desk.at = desk.at.replace(second=10, microsecond=0) + timedelta(minutes=1)
    desk.quote("AAPL", "99.99", "100.01")
    for bid, ask in (("99.99", "100.01"), ("100.99", "101.01"), ("98.99", "99.01")):
        desk.at += timedelta(seconds=1)
        desk.quote("AAPL", bid, ask)
        sample_bars(at=desk.at)
        record_volumes({"AAPL": Decimal(5)}, at=desk.at)
    bar = Bar.objects.get(instrument__symbol="AAPL")
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (100, 101, 99, 99, 15)
    assert queries.volume_now(bar.instrument_id, desk.at) == (bar.at, 15)
    sample_bars(at=desk.at + timedelta(minutes=2))
    assert Bar.objects.filter(instrument_id=bar.instrument_id).count() == 1, "an old quote tells nothing"
