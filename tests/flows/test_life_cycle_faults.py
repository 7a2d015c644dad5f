"""An order's life when fills, cancels, replaces, busts and corrections come twice, late, early or against each other.

The ids are those of the catalogue of failures in docs/faults.md.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from brokers.adapters.port import FeeItem, Report, ReportKind
from brokers.adapters.simulated.stream import SimulatedStream
from brokers.simulation.wire import Message
from oms import monitoring
from oms.kernel.actor import Actor
from orders import operations
from orders.models import Execution, ParkedReport, Submission
from orders.operations import manual, resolving
from orders.operations.reconciling import reconcile
from portfolio import settlement
from portfolio.models import Break, CashBalance, LedgerTransaction, Position, Settlement
from risk.models import Halt
from tests.conftest import Desk
from tests.flows.floor import Floor
from tests.properties.test_histories import Fill, Story, live

Open = Callable[..., Floor]
OPS = Actor.system("test")


def working(floor: Floor, text: str = "buy 10 AAPL limit 99.00", **more: Any) -> tuple[Any, Any]:
    """Place an order that rests at NEAR; return the answer and the venue's order."""
    [placed] = floor.place(text, **more)
    floor.turn(1)
    return placed, floor.at_venue()[-1]


def filled(floor: Floor, order: Any, quantity: str, price: str = "99") -> str:
    """Let the venue trade a part of an order; return the execution's id."""
    floor.near.fill(order, Decimal(quantity), Decimal(price), floor.at)
    return str(next(reversed(floor.near.book.executions)))


def position() -> Decimal:
    found = Position.objects.filter(instrument__symbol="AAPL").first()
    return found.quantity if found else Decimal(0)


def tell(floor: Floor, placed: Any, kind: str, **more: Any) -> int:
    """Let NEAR report something of an order that its venue would not."""
    child = floor.children(placed)["NEAR"]
    fields: dict[str, Any] = {
        "kind": ReportKind(kind), "client_order_id": child.client_order_id, "broker_order_id": child.broker_order_id,
        "account": "A1", "symbol": "AAPL", "side": child.order.side, "order_status": kind, "order_quantity": child.quantity,
        "cumulative_quantity": Decimal(0), "leaves_quantity": Decimal(0), "executed_at": floor.at,
    }  # fmt: skip
    near = floor.world.broker("NEAR")
    return operations.apply(near.id, [Report(**fields | more)], actor=Actor.system("gateway"), at=floor.at)


class TestTwiceEarlyLate:
    def test_b01_an_execution_told_again_and_again_counts_once(self, open_floor: Open) -> None:
        """Twice in a frame, again after a reconnect from the beginning, and in the answer to a question."""
        floor = open_floor()
        floor.near.lies.duplicate_reports = 1.0
        placed, order = working(floor)
        filled(floor, order, "4")
        floor.turn(1)
        for _ in range(3):
            near = floor.world.broker("NEAR")
            frames = floor.near.journal
            floor.gateways["NEAR"].stream = None
            reports = [r for f in near_frames(floor, len(frames)) for r in f]
            operations.apply(near.id, reports, actor=Actor.system("gateway"), at=floor.at)
        Submission.objects.filter(kind="new").update(state="unknown", due_at=floor.at)
        floor.turn(3)
        assert (floor.order(placed).filled_quantity, Execution.objects.count(), position()) == (4, 1, 4)
        floor.agrees()

    def test_b02_a_fill_before_its_acknowledgement(self, floor: Floor) -> None:
        """Applied at once; the acknowledgement that comes later moves no quantity."""
        floor.near.lies.reorder_reports = 1.0
        [placed] = floor.place("buy 10 AAPL")
        floor.turn(2)
        assert (floor.order(placed).status, position()) == ("filled", 10)
        tell(floor, placed, "new", order_status="new")
        assert floor.order(placed).status == "filled"
        floor.agrees()

    def test_b03_a_fill_after_the_cancel_was_confirmed(self, open_floor: Open) -> None:
        """It counts: the order stays canceled, what is filled grows, position and cash move."""
        floor = open_floor()
        floor.near.lies.late_fill_after_cancel, floor.near.lies.late_fill_seconds = 1.0, 2.0
        placed, _ = working(floor)
        floor.cancel(placed)
        floor.turn(1)
        assert (floor.order(placed).status, floor.held(placed)) == ("canceled", 0)
        floor.turn(4)
        order = floor.order(placed)
        # what completes an order makes it filled, by precedence, whatever was said before
        assert (order.status, order.filled_quantity, order.leaves_quantity, position()) == ("filled", 10, 0, 10)
        assert CashBalance.objects.get(currency="USD").balance == 1_000_000 - 990
        floor.agrees()

    def test_b11_reports_in_any_order_end_the_same(self, desk: Desk) -> None:
        """A tenth of all 720 orders of six reports; the rest, and repetitions, are drawn in tests/properties."""
        story = Story("buy", [Fill(4, 99, 0, ((5, 98),), False), Fill(3, 100, 1, (), True)], [], None, "canceled", [])
        first = live(desk, [], story)
        for order in list(permutations(range(6)))[3::30]:
            assert live(desk, [[n] for n in order], story) == first, order

    def test_b13_one_execution_id_from_two_brokers_is_two_executions(self, floor: Floor) -> None:
        placed = floor.place("buy 10 AAPL", broker="NEAR") + floor.place("buy 7 AAPL", broker="FAR")
        floor.turn(2)
        ids = Execution.objects.values_list("broker_execution_id", flat=True)
        assert (len(ids), len(set(ids))) == (2, 1)
        assert [floor.order(p).filled_quantity for p in placed] == [10, 7]
        floor.agrees()


def near_frames(floor: Floor, count: int) -> Any:
    """Return the reports of every frame that NEAR ever made, as its stream gives them."""
    floor.world.lines["NEAR"].open(0)
    stream = SimulatedStream(floor.world.lines["NEAR"], 0)
    frames = stream.receive(0)
    assert len(frames) == count
    return [f.reports for f in frames]


class TestRaces:
    def test_b04_a_cancel_that_is_too_late(self, floor: Floor) -> None:
        """Filled wins; the refusal of the cancel is recorded."""
        placed, order = working(floor)
        floor.cancel(placed)
        filled(floor, order, "10")
        floor.turn(2)
        assert (floor.order(placed).status, floor.held(placed)) == ("filled", 0)
        assert [(s.state, s.detail) for s in floor.submissions(kind="cancel")] == [("rejected", "too_late")]
        floor.agrees()

    @pytest.mark.parametrize(
        ("wanted", "quantity", "status"), [("20", 20, "partially_filled"), ("6", 6, "filled"), ("4", 6, "filled")]
    )
    def test_b05_a_replace_that_meets_a_fill(self, floor: Floor, wanted: str, quantity: int, status: str) -> None:
        """To more than was filled meanwhile, to as much, to less: what is left never goes below nothing (D10 to D12)."""
        placed, order = working(floor)
        floor.replace(placed, quantity=Decimal(wanted))
        filled(floor, order, "6")
        floor.turn(2)
        found = floor.order(placed)
        assert (found.status, found.quantity, found.filled_quantity) == (status, quantity, 6)
        assert (found.leaves_quantity, floor.held(placed)) == (quantity - 6, quantity - 6)
        floor.agrees()

    def test_b06_two_replaces_whose_answers_come_the_wrong_way_round(self, floor: Floor) -> None:
        """The last one asked for stands; until both are decided the most that may be filled is held."""
        placed, _ = working(floor)
        floor.near.lies.reorder_reports = 1.0
        floor.replace(placed, quantity=Decimal(30))
        floor.send()
        floor.replace(placed, quantity=Decimal(15))
        assert floor.held(placed) == 30
        floor.send()
        assert floor.held(placed) == 30
        floor.turn(2)
        order = floor.order(placed)
        assert (order.status, order.quantity, floor.held(placed)) == ("new", 15, 15)
        assert floor.at_venue()[0].quantity == 15
        floor.agrees()

    def test_b15_a_cancel_while_nobody_knows_whether_the_order_arrived(self, open_floor: Open) -> None:
        """It is not over before that is known: pending until the broker shows it, and takes the cancel."""
        floor = open_floor(dedupe="none")
        floor.near.lies.drop_reply, floor.near.lies.hide_orders, floor.near.lies.hide_seconds = 1.0, 1.0, 8.0
        quiet = [floor.gateways["NEAR"]]
        [placed] = floor.place("buy 10 AAPL limit 90")
        floor.send()
        floor.near.lies.drop_reply = 0.0
        floor.near.lies.silence = True
        floor.cancel(placed)
        for _ in range(5):
            floor.turn(1, without=quiet)
            order = floor.order(placed)
            assert (order.status, order.unknown, floor.held(placed)) == ("pending_cancel", True, 10)
        floor.near.lies.silence = False
        floor.turn(30)
        order = floor.order(placed)
        assert (order.status, order.unknown, floor.held(placed)) == ("canceled", False, 0)
        assert (len(floor.at_venue()), floor.at_venue("FAR")) == (1, [])
        floor.agrees()


class TestUndone:
    @pytest.mark.parametrize("end", ["settled", "canceled"])
    def test_b07_a_trade_is_busted_after_it_settled_or_its_order_was_canceled(self, floor: Floor, end: str) -> None:
        """A reversing transaction; position, cash and settlement come back, the original stays."""
        placed, order = working(floor)
        name = filled(floor, order, "4")
        floor.turn(1)
        if end == "settled":
            floor.world.wait(3 * 86_400)
            assert settlement.settle(floor.at.date(), actor=OPS, at=floor.at) == {"MAIN": 1}
        else:
            floor.cancel(placed)
            floor.turn(1)
            assert floor.order(placed).status == "canceled"
        before = LedgerTransaction.objects.count()
        assert floor.near.bust(name, floor.at)
        floor.turn(1)
        assert floor.order(placed).filled_quantity == 0
        assert (position(), CashBalance.objects.get(currency="USD").balance) == (0, 1_000_000)
        assert LedgerTransaction.objects.count() == before + 1
        assert Execution.objects.count() == 2
        assert set(Settlement.objects.values_list("state", flat=True)) == {"canceled"}
        floor.agrees()

    @pytest.mark.parametrize("seed", range(6))
    def test_b08_chains_of_corrections_and_busts(self, floor: Floor, seed: int) -> None:
        """Up to five deep, of several trades at once, told in any grouping: one version of each is in force."""
        rng = random.Random(seed)
        placed, order = working(floor, "buy 40 AAPL limit 99.00")
        chains = [[filled(floor, order, str(rng.randint(1, 9)))] for _ in range(3)]
        for _ in range(rng.randint(3, 12)):
            chain = rng.choice(chains)
            if len(chain) > 5 or not floor.near.book.executions[chain[-1]].alive:
                continue
            if rng.random() < 0.25:
                floor.near.bust(chain[-1], floor.at)
            else:
                quantity = Decimal(rng.randint(1, 9)) if rng.random() < 0.5 else None
                floor.near.correct(chain[-1], quantity, Decimal(rng.randint(95, 99)), floor.at)
                chain.append(next(reversed(floor.near.book.executions)))
            if rng.random() < 0.4:
                floor.turn(1)
        floor.near.lies.reorder_reports = 0.5
        floor.turn(3)
        alive = [e for e in floor.near.book.executions.values() if e.alive]
        assert floor.order(placed).filled_quantity == sum((e.quantity for e in alive), Decimal(0)) == position()
        floor.agrees()

    def test_b09_a_broker_fills_more_than_was_asked(self, open_floor: Open) -> None:
        """Recorded as it is, told, and the account opens nothing more until a person has looked."""
        floor = open_floor()
        floor.near.lies.overfill = 1.0
        [placed] = floor.place("buy 10 AAPL")
        floor.turn(2)
        order = floor.order(placed)
        assert (order.overfilled, order.filled_quantity, position()) == (True, 11, 11)
        halt = Halt.objects.get(released_at=None)
        assert (halt.scope_key, halt.mode) == ("MAIN", "reduce_only")
        floor.market("AAPL", "99.99", "100.01")
        more, less = floor.place("buy 1 AAPL", "sell 1 AAPL")
        assert (floor.order(more).reason, floor.order(less).status) == ("halted", "pending_new")
        assert "overfilled_order" in {e["kind"] for e in monitoring.exceptions(at=floor.at)}
        floor.turn(2)
        floor.agrees()


class TestByItself:
    def test_b10_what_a_broker_ends_by_itself_is_let_go(self, open_floor: Open) -> None:
        """Canceled unasked, expired with its day, done for the day: nothing stays held; restated: what may come is."""
        floor = open_floor(day_ends_at="21:00")
        floor.world.wait((floor.at.replace(hour=12, minute=0) + timedelta(days=1) - floor.at).total_seconds())
        floor.market("AAPL", "99.99", "100.01")
        unasked, order = working(floor)
        expired, _ = working(floor, "buy 3 AAPL limit 98")
        done, _ = working(floor, "buy 5 AAPL limit 98")
        restated, _ = working(floor, "buy 8 AAPL limit 98 gtc")
        tell(floor, done, "done_for_day")
        tell(floor, restated, "restated", order_quantity=Decimal(6), order_status="new")
        assert floor.order(unasked).status == "new"
        floor.near.cancel_by_hand(order, floor.at)
        floor.turn(1)
        assert (floor.order(unasked).status, floor.order(unasked).reason) == ("canceled", "unsolicited")
        assert (floor.order(done).status, floor.held(done), floor.held(restated)) == ("done_for_day", 0, 6)
        floor.world.wait(10 * 3600)
        floor.turn(1)
        assert floor.order(expired).status == "expired"
        assert [floor.held(p) for p in (unasked, expired, done)] == [0, 0, 0]
        floor.desk.holds()

    def test_b12_an_execution_of_an_order_that_nobody_here_sent(self, floor: Floor) -> None:
        """It is kept, and stands among the exceptions within 5 s; the next run shows it as a break, from which it is adopted."""
        by_hand = Message(
            kind="new", client_order_id="by-hand", account="A1", symbol="AAPL", side="buy", quantity=Decimal(7),
            order_type="market", time_in_force="day",
        )  # fmt: skip
        floor.near.enter_by_hand(by_hand, floor.at)
        floor.turn(3)
        kinds = [p.report["kind"] for p in ParkedReport.objects.order_by("id")]
        assert kinds == ["new", "trade"]
        told = [e for e in monitoring.exceptions(at=floor.at) if e["kind"] == "parked_report"]
        assert len(told) == 2
        assert position() == 0
        floor.world.wait(600)
        run = reconcile("NEAR", actor=OPS, clock=floor.world.clock)
        assert run.state == run.State.DONE
        [missing] = Break.objects.filter(kind="missing_fill")
        actors = [floor.desk.actor(p) for p in (floor.desk.oona, floor.desk.omar)]
        approval = resolving.propose(missing.id, "adopt", reason="a dealer's", actor=actors[0], at=floor.at)
        manual.decide(approval.object_id, "approve", reason="called them", actor=actors[1], at=floor.at)
        assert position() == 7
        assert Execution.objects.get().order.origin == "external"
        floor.desk.holds()

    @pytest.mark.parametrize(
        ("price", "quantity", "fees", "cash"),
        [
            ("0", "10", "0", "0"),
            ("-37.63", "10", "0", "376.30"),
            ("99", "0", "0", "0"),
            ("99", "10", "-0.25", "-989.75"),
        ],
    )
    def test_b17_odd_but_legal_numbers_are_booked(
        self, floor: Floor, price: str, quantity: str, fees: str, cash: str
    ) -> None:
        """A price of nothing, a price below nothing, a quantity of nothing, a rebate."""
        placed, _ = working(floor)
        item = FeeItem("rebate", Decimal(fees), "USD")
        more = {"last_quantity": Decimal(quantity), "last_price": Decimal(price), "fees": (item,), "execution_id": "E1"}
        assert tell(floor, placed, "trade", **more) == 1
        assert CashBalance.objects.get(currency="USD").balance == 1_000_000 + Decimal(cash)
        assert position() == Decimal(quantity)
        floor.desk.holds()

    def test_b17_what_no_trade_can_be_is_set_aside(self, floor: Floor) -> None:
        """Less than nothing was traded, or more than any column holds: a person looks at it, nothing is booked."""
        placed, _ = working(floor)
        for name, quantity in (("E1", "-5"), ("E2", "1e30")):
            assert (
                tell(floor, placed, "trade", execution_id=name, last_quantity=Decimal(quantity), last_price=Decimal(99))
                == 0
            )
        assert ParkedReport.objects.filter(waits_for__startswith="mending:").count() == 2
        assert floor.order(placed).filled_quantity == 0


def test_the_floor_sends_what_the_desk_means(floor: Floor) -> None:
    """The rig itself: one order goes to the cheaper venue and fills at its market."""
    [placed] = floor.place("buy 10 AAPL")
    floor.turn(1)
    assert floor.order(placed).status == "filled"
    assert [o.quantity for o in floor.at_venue("NEAR")] == [10]
    floor.agrees()
