"""Sending and not knowing: what a worker, a line or a broker may do to a request, at real venues, on a clock of its own.

The ids are those of the catalogue of failures in docs/faults.md.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from brokers.simulation import inprocess, wire
from oms.journal.models import Event
from orders.models import Order, Submission
from orders.operations import sending
from risk.models import Limit
from tests.flows.floor import Floor

Open = Callable[..., Floor]
LEASE = sending.LEASE_SECONDS
PROOF = LEASE + sending.CALL_SECONDS_MAX


class TestDeath:
    @pytest.mark.parametrize("dedupe", ["none", "forever"])
    def test_a01_a_worker_dies_after_the_broker_took_the_order(self, open_floor: Open, dedupe: str) -> None:
        """One order at the broker, found by its client id and adopted within 10 s of the lease; held throughout."""
        floor = open_floor(dedupe=dedupe)
        [placed] = floor.place("buy 10 AAPL limit 90")
        assert not floor.send(crash_at="after_send:1")
        assert [s.state for s in floor.submissions()] == ["sent"]
        for _ in range(int(LEASE)):
            floor.turn(1, without=[floor.gateways["NEAR"]])
            assert floor.held(placed) == 10
        floor.turn(3, without=[floor.gateways["NEAR"]])
        assert (floor.order(placed).status, floor.order(placed).unknown) == ("new", False)
        floor.turn(5)
        assert len(floor.at_venue()) == 1
        assert [(s.state, s.attempts) for s in floor.submissions()] == [("accepted", 1)]
        floor.agrees()

    @pytest.mark.parametrize(("point", "sends"), [("before_commit:1", 1), ("after_commit:1", 0), ("after_claim:1", 0)])
    def test_a02_a_worker_dies_before_the_write(self, open_floor: Open, point: str, sends: int) -> None:
        """Uncommitted, it is sent by the next worker; committed, it is proven absent and goes elsewhere. Never twice."""
        floor = open_floor(dedupe="none")
        [placed] = floor.place("buy 10 AAPL limit 90")
        assert not floor.send(crash_at=point)
        floor.turn(PROOF + 10)
        assert len(floor.at_venue("NEAR")) == sends
        assert len(floor.at_venue("FAR")) == 1 - sends
        assert floor.order(placed).status == "new"
        floor.agrees()


class TestSilence:
    @pytest.mark.parametrize("dedupe", ["none", "open_only", "window", "forever"])
    def test_a03_the_reply_is_lost_and_the_order_is_there(self, open_floor: Open, dedupe: str) -> None:
        floor = open_floor(dedupe=dedupe)
        floor.near.lies.drop_reply = 1.0
        [placed] = floor.place("buy 10 AAPL limit 90")
        floor.send()
        order = floor.order(placed)
        assert (order.status, order.unknown) == ("pending_new", True)
        floor.turn(2, without=[floor.gateways["NEAR"]])
        order = floor.order(placed)
        assert (order.status, order.unknown) == ("new", False)
        assert [s.attempts for s in floor.submissions()] == [1]
        assert len(floor.at_venue()) == 1
        floor.turn(2)
        floor.agrees()

    @pytest.mark.parametrize(("dedupe", "near", "far"), [("forever", 1, 0), ("none", 0, 1)])
    def test_a04_the_request_never_arrived(self, open_floor: Open, dedupe: str, near: int, far: int) -> None:
        """Proven absent, it goes again under the same id where the broker can't take it twice, else to the next broker."""
        floor = open_floor(dedupe=dedupe)
        floor.near.lies.silence = True
        [placed] = floor.place("buy 10 AAPL limit 90")
        floor.send()
        floor.near.lies.silence = False
        [first] = floor.submissions()
        floor.turn(PROOF - 3)
        assert floor.order(placed).unknown
        assert len(floor.submissions()) == 1
        floor.turn(10)
        assert (len(floor.at_venue("NEAR")), len(floor.at_venue("FAR"))) == (near, far)
        if near:
            assert floor.at_venue()[0].client_order_id == first.client_order_id
        assert floor.order(placed).status == "new"
        floor.agrees()

    def test_a05_codes_that_lie_are_no_verdict(self, floor: Floor) -> None:
        """The broker answers 400, 429 or 500 and has the order all the same."""
        floor.near.lies.error_though_accepted = 1.0
        placed = floor.place(*["buy 1 AAPL limit 90"] * 20)
        floor.send()
        assert {o.status for o in map(floor.order, placed)} == {"pending_new"}
        assert {o.unknown for o in map(floor.order, placed)} == {True}
        floor.turn(3)
        assert {o.status for o in map(floor.order, placed)} == {"new"}
        assert len(floor.at_venue()) == 20
        assert floor.at_venue("FAR") == []
        floor.agrees()

    def test_a06_an_order_shows_a_minute_after_it_was_proven_absent(self, open_floor: Open) -> None:
        """Longer than the broker documents: it is resurrected, held for again, told loudly, and canceled."""
        floor = open_floor(dedupe="none")
        floor.near.lies.hide_orders, floor.near.lies.hide_seconds, floor.near.lies.drop_reply = 1.0, 60.0, 1.0
        [placed] = floor.place("buy 10 AAPL limit 90", broker="NEAR")
        floor.send()
        floor.near.lies.drop_reply = 0.0
        floor.turn(PROOF + 5, without=[floor.gateways["NEAR"]])
        assert (floor.order(placed).status, floor.held(placed)) == ("rejected", 0)
        floor.turn(40, every=5, without=[floor.gateways["NEAR"]])
        floor.world.run(floor.gateways["NEAR"])
        order = floor.order(placed)
        assert (order.status, order.leaves_quantity, floor.held(placed)) == ("pending_cancel", 10, 10)
        assert Event.objects.filter(object_id=str(order.id), kind="order.resurrected").count() == 1
        floor.turn(3)
        assert (floor.order(placed).status, floor.held(placed)) == ("canceled", 0)
        floor.agrees()

    def test_a09_a_broker_that_takes_ids_twice_gets_none_twice(self, open_floor: Open) -> None:
        floor = open_floor(dedupe="none", visibility_delay_seconds=5.0)
        floor.near.lies.drop_reply, floor.near.lies.hide_orders, floor.near.lies.hide_seconds = 1.0, 1.0, 5.0
        [placed] = floor.place("buy 10 AAPL limit 90")
        floor.send()
        floor.turn(PROOF + 10, without=[floor.gateways["NEAR"]])
        assert (len(floor.at_venue("NEAR")), floor.at_venue("FAR")) == (1, [])
        assert floor.order(placed).status == "new"
        floor.turn(2)
        floor.agrees()

    @pytest.mark.parametrize(("dedupe", "text"), [("window", "buy 10 AAPL limit 90"), ("open_only", "buy 10 AAPL")])
    def test_a10_an_outage_longer_than_the_broker_remembers_ids(self, open_floor: Open, dedupe: str, text: str) -> None:
        """Eleven minutes, with ids kept for ten, or only while the order is open: nobody sends the id again."""
        floor = open_floor(dedupe=dedupe, dedupe_window_seconds=600.0)
        floor.near.lies.drop_reply = 1.0
        floor.place(text)
        floor.send()
        floor.near.lies.drop_reply = 0.0
        floor.world.lines["NEAR"].down = True
        floor.turn(660, every=20)
        assert [(s.state, s.attempts) for s in floor.submissions()] == [("unknown", 1)]
        floor.world.lines["NEAR"].down = False
        floor.turn(60, every=5)
        assert len(floor.at_venue()) == 1
        assert [(s.state, s.attempts) for s in floor.submissions()] == [("accepted", 1)]
        floor.agrees()

    def test_a11_nothing_goes_elsewhere_while_one_broker_is_silent(self, open_floor: Open) -> None:
        """What may be at one broker is held there: the other gets its turn after the proof, and at most the rest."""
        floor = open_floor(dedupe="none")
        floor.near.lies.silence = True
        [placed] = floor.place("buy 10 AAPL limit 90")
        floor.send()
        floor.turn(PROOF + 60, every=2)  # nobody answers: no proof either
        assert list(floor.children(placed)) == ["NEAR"]
        assert (floor.held(placed), floor.order(placed).unknown) == (10, True)
        floor.near.lies.silence = False
        floor.turn(40, every=2)
        assert floor.at_venue("NEAR") == []
        assert [o.quantity for o in floor.at_venue("FAR")] == [10]
        assert floor.held(placed) == 10
        floor.agrees()


class TestBatches:
    def test_a12_each_message_of_a_batch_is_judged_by_itself(
        self, floor: Floor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half of the results are missing in an answer that is otherwise good: those alone are unknown."""
        reply = inprocess.reply

        def half(venue: Any, request: wire.Request, at: Any, **more: Any) -> Any:
            told = reply(venue, request, at, **more)
            if "answers" in told:
                told["answers"] = told["answers"][::2]
            return told

        monkeypatch.setattr(inprocess, "reply", half)
        placed = floor.place(*["buy 1 AAPL limit 90"] * 10)
        floor.send()
        assert sorted(s.state for s in floor.submissions()) == ["accepted"] * 5 + ["unknown"] * 5
        floor.turn(3)
        assert {o.status for o in map(floor.order, placed)} == {"new"}
        assert len(floor.at_venue()) == 10
        floor.agrees()

    def test_a13_a_storm_of_refusals_for_the_rate_starves_nobody(self, open_floor: Open) -> None:
        """The broker takes two messages a second for half a minute, and says so; cancels pass all the while."""
        floor = open_floor()
        placed = floor.place(*["buy 1 AAPL limit 90"] * 4)
        floor.turn(3)
        floor.near.bucket = type(floor.near.bucket)(0.2)
        more = floor.place(*["buy 1 AAPL limit 91"] * 6)
        floor.turn(2)
        floor.cancel(placed[0])
        floor.turn(2)
        assert floor.order(placed[0]).status == "canceled"
        floor.turn(26)
        floor.near.bucket = type(floor.near.bucket)(None)
        floor.turn(35)
        assert {o.status for o in map(floor.order, more)} == {"new"}
        tries = Submission.objects.filter(kind="new").values_list("attempts", flat=True)
        assert max(tries) <= sending.ATTEMPTS_MAX
        assert len(floor.at_venue("NEAR")) + len(floor.at_venue("FAR")) == 10
        floor.agrees()

    def test_a19_after_a_long_outage_there_is_no_storm_and_nothing_late(self, open_floor: Open) -> None:
        """Five minutes away: tries are bounded, what had its time goes no more, a market order not at all."""
        floor = open_floor()
        for line in floor.world.lines.values():
            line.down = True
        [until, market, lasting] = floor.place(
            "buy 1 AAPL limit 90 gtd", expire_at=(floor.at + timedelta(seconds=60)).isoformat()
        ) + floor.place("buy 1 AAPL", "buy 1 AAPL limit 90 gtc")
        floor.turn(300, every=5)
        for line in floor.world.lines.values():
            line.down = False
        floor.turn(60, every=2)
        sends = Submission.objects.filter(kind="new").values_list("attempts", flat=True)
        assert sum(sends) <= 3 * sending.ATTEMPTS_MAX * 2  # two brokers each
        assert all(
            s.sent_at is None or s.valid_until is None or s.sent_at < s.valid_until for s in Submission.objects.all()
        )
        assert floor.order(until).status in ("expired", "rejected")
        assert {o.client_order_id for o in floor.at_venue() + floor.at_venue("FAR")} <= {
            s.client_order_id for s in floor.submissions(child__order_id__in=[lasting.order_id, market.order_id])
        }
        floor.agrees()


class TestKeys:
    def test_a14_a_repeat_gets_the_first_answer_to_the_byte(self, floor: Floor) -> None:
        """A hundred times, before and after it was filled, and when the first caller died without an answer."""
        first = floor.place("buy 10 AAPL", client_order_id="once")[0]
        floor.turn(2)
        assert floor.order(first).status == "filled"
        answers = {floor.place("buy 10 AAPL", client_order_id="once")[0].body for _ in range(100)}
        assert answers == {first.body}
        assert Order.objects.count() == 1
        floor.agrees()

    def test_a15_a_key_with_another_body_changes_nothing(self, floor: Floor) -> None:
        floor.place("buy 10 AAPL limit 90", client_order_id="once")
        before = Order.objects.count(), Submission.objects.count(), Event.objects.count()
        for other in (
            "buy 11 AAPL limit 90",
            "sell_short 10 AAPL limit 90",
            "buy 10 AAPL limit 91",
            "buy 10 MSFT limit 90",
        ):
            [answer] = floor.place(other, client_order_id="once")
            assert answer.problem is not None
            assert answer.problem.code == "idempotency_conflict"
        assert (Order.objects.count(), Submission.objects.count(), Event.objects.count()) == before

    def test_a17_a_key_of_last_month_still_names_its_order(self, floor: Floor) -> None:
        first = floor.place("buy 10 AAPL", client_order_id="once")[0]
        floor.turn(2)
        floor.world.wait(31 * 86_400)
        floor.market("AAPL", "99.99", "100.01")
        [again] = floor.place("buy 10 AAPL", client_order_id="once")
        assert (again.order_id, again.created, again.body) == (first.order_id, False, first.body)
        floor.turn(2)
        assert len(floor.at_venue()) == 1

    def test_a18_the_same_order_under_another_key_is_suspect(self, floor: Floor) -> None:
        Limit.objects.create(
            id="00000000-0000-7000-8000-00000000a018", scope_kind="firm", kind="duplicate_window", value=2, status="active",
            effective_from=floor.at - timedelta(days=1), reason="test", created_at=floor.at,
        )  # fmt: skip
        one, twin = floor.place("buy 10 AAPL", client_order_id="a") + floor.place("buy 10 AAPL", client_order_id="b")
        assert (floor.order(one).status, floor.order(twin).reason) == ("pending_new", "duplicate_suspect")
        floor.turn(3)
        floor.market("AAPL", "99.99", "100.01")
        [later] = floor.place("buy 10 AAPL", client_order_id="c")
        assert floor.order(later).status == "pending_new"
