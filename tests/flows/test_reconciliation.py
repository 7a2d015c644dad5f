"""What a broker says against what we have: breaks that stay, age and go, and how a second person corrects them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import NewOrder, OrderState, Report
from orders import operations as desk_operations
from orders.models import Execution, Order
from orders.operations import manual, resolving
from orders.operations.reconciling import reconcile
from portfolio.models import Break, BrokerCash, BrokerPosition, Position, Reconciliation
from risk.models import Halt
from tests.conftest import Desk
from tests.flows.test_working import step, worked


class Recon:
    """A desk whose near broker has filled an order, and answers truthfully until told otherwise."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.near = desk, desk.near
        self.at = datetime.now(UTC) - timedelta(minutes=10)

    def fill(self, text: str, name: str, price: str = "100", *, told: bool = True) -> Report:
        """Have the broker fill an order, and tell the desk unless it is to be missed."""
        self.desk.place(text)
        self.desk.send()
        sent = self.near.sent[-1]
        assert isinstance(sent, NewOrder)
        report = self.near.report(
            "trade", sent, execution_id=name, last_quantity=sent.quantity, last_price=Decimal(price), account="A1",
            executed_at=self.at, cumulative_quantity=sent.quantity,
        )  # fmt: skip
        self.near.fills.append(report)
        if told:
            self.desk.report(report)
        return report

    def says(self) -> None:
        """Let the broker's positions and cash be what its fills make of them."""
        held: dict[str, Decimal] = {}
        owned = Decimal(0)
        undone = {r.ref_execution_id for r in self.near.fills}
        for r in self.near.fills:
            if r.kind == "bust" or r.execution_id in undone:
                continue
            assert r.last_quantity is not None
            assert r.last_price is not None
            signed = r.last_quantity if r.side == "buy" else -r.last_quantity
            held[r.symbol] = held.get(r.symbol, Decimal(0)) + signed
            owned -= signed * r.last_price
        self.near.held = [("A1", s, q) for s, q in held.items()]
        self.near.owned = [("A1", "USD", owned)]

    def run(self, seconds: float = 30, **more: Any) -> Reconciliation:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return reconcile("NEAR", actor=self.desk.actor(self.desk.oona), clock=lambda: at, **more)

    def open(self, **more: Any) -> list[Break]:
        return list(Break.objects.exclude(state="closed").filter(**more).order_by("kind", "subject"))

    def resolve(self, row: Break, action: str, **more: Any) -> None:
        at = datetime.now(UTC)
        resolving.propose(row.pk, action, reason="looked", actor=self.desk.actor(self.desk.oona), at=at, **more)
        manual.decide(row.pk, "approve", reason="agreed", actor=self.desk.actor(self.desk.omar), at=at)


pytestmark = pytest.mark.django_db


@pytest.fixture
def house(desk: Desk) -> Recon:
    return Recon(desk)


class TestAgreeing:
    def test_nothing_differs(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.fill("sell 4 AAPL", "X2", "101")
        house.says()
        run = house.run()
        assert (run.state, run.opened, run.failure) == ("done", 0, "")
        assert {k: (v["ours"], v["theirs"]) for k, v in run.sections.items()} == {
            "fill": (2, 2), "position": (1, 1), "cash": (1, 1), "order": (0, 0),
        }  # fmt: skip
        house.desk.holds()

    def test_a_missed_fill_is_adopted_as_the_report_that_it_is(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.fill("buy 5 MSFT", "X2", "200", told=False)
        house.says()
        run = house.run()
        assert (run.state, run.adopted, run.opened) == ("done", 1, 0)
        assert Order.objects.get(instrument__symbol="MSFT").status == "filled"
        assert Position.objects.get(instrument__symbol="MSFT").quantity == 5
        assert house.run(60).adopted == 0
        house.desk.holds()


class TestBreaks:
    def test_a_position_break_stays_ages_and_goes(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.says()
        house.near.held = [("A1", "AAPL", Decimal(12))]
        first = house.run(30)
        [row] = house.open()
        assert (row.kind, row.subject, row.ours, row.theirs, row.cause, row.runs) == (
            "position", "AAPL", 10, 12, "unexplained", 1,
        )  # fmt: skip
        assert row.proposal == {"action": "adjust", "quantity": "2", "price": "100"}
        house.run(60)
        again = Break.objects.get()
        assert (again.pk, again.runs, again.opened_by_id) == (row.pk, 2, first.pk)
        house.says()
        last = house.run(90)
        closed = Break.objects.get()
        assert (closed.state, closed.closed_as, closed.closed_by_id) == ("closed", "gone", last.pk)
        house.near.held = [("A1", "AAPL", Decimal(12))]
        house.run(120)
        assert Break.objects.exclude(state="closed").get().pk != row.pk
        house.desk.holds()

    def test_an_approved_adjustment_makes_the_next_run_clean_and_can_be_reversed(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.says()
        house.near.held = [("A1", "AAPL", Decimal(7))]
        house.near.owned = [("A1", "USD", Decimal("-1000.25"))]
        house.run(30)
        cash, position = house.open()
        house.resolve(position, "adjust")
        house.resolve(cash, "adjust")
        assert BrokerPosition.objects.get().quantity == 7
        assert BrokerCash.objects.get().balance == Decimal("-1000.25")
        run = house.run(60)
        assert (run.opened, run.closed) == (0, 2)
        assert set(Break.objects.values_list("closed_as", flat=True)) == {"adjust"}
        house.desk.holds()
        at, desk = datetime.now(UTC), house.desk
        for row in (cash, position):
            resolving.propose_reversal(row.pk, reason="wrong", actor=desk.actor(desk.oona), at=at)
            manual.decide(row.pk, "approve", reason="yes", actor=desk.actor(desk.omar), at=at)
        assert BrokerPosition.objects.get().quantity == 10
        assert BrokerCash.objects.get().balance == Decimal(-1000)
        house.desk.holds()

    def test_an_unknown_fill_is_busted_and_a_stray_one_adopted(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.fill("buy 3 AAPL", "X2")
        stray = house.fill("buy 1 MSFT", "X3", "200")
        [lost] = [r for r in house.near.fills if r.execution_id == "X2"]
        house.near.fills.remove(lost)
        dealer = Report(
            kind=stray.kind, client_order_id="dealer-7", account="A1", symbol="MSFT", side="sell_short", order_status="filled",
            order_quantity=Decimal(2), cumulative_quantity=Decimal(2), leaves_quantity=Decimal(0), broker_order_id="D7",
            execution_id="X9", last_quantity=Decimal(2), last_price=Decimal(201), executed_at=house.at,
        )  # fmt: skip
        house.near.fills.append(dealer)
        house.says()
        run = house.run()
        by_kind = {b.kind: b for b in house.open() if b.kind.endswith("fill")}
        assert run.adopted == 0
        assert {b.cause for b in house.open(kind="position")} == {"fills"}
        assert {b.cause for b in house.open(kind="cash")} == {"fills"}
        house.resolve(by_kind["unknown_fill"], "bust")
        house.resolve(by_kind["missing_fill"], "adopt")
        assert Order.objects.get(origin="external").status == "filled"
        assert Execution.objects.get(broker_execution_id="X9").quantity == 2
        run = house.run(60)
        assert (run.opened, run.standing, house.open()) == (0, 0, [])
        house.desk.holds()

    def test_other_terms_are_corrected_and_other_charges_posted(self, house: Recon) -> None:
        from brokers.adapters.port import FeeItem

        house.fill("buy 10 AAPL", "X1")
        house.fill("buy 10 MSFT", "X2", "200")
        told = {f: getattr(house.near.fills[0], f) for f in Report.__dataclass_fields__}
        house.near.fills[0] = Report(**told | {"last_quantity": Decimal(9), "last_price": Decimal("100.5")})
        told = {f: getattr(house.near.fills[1], f) for f in Report.__dataclass_fields__}
        house.near.fills[1] = Report(**told | {"fees": (FeeItem("commission", Decimal("1.5"), "USD"),)})
        house.says()
        house.near.owned = [("A1", "USD", house.near.owned[0][2] - Decimal("1.5"))]
        house.run()
        fills = {b.subject: b for b in house.open(kind="fill")}
        assert (fills["X1"].cause, fills["X2"].cause) == ("terms", "fees")
        assert house.open(kind="cash")[0].cause == "fills"
        house.resolve(fills["X1"], "correct")
        house.resolve(fills["X2"], "fees")
        house.run(60)
        assert [b.state for b in house.open()] == ["resolved"]  # the charge stands as it was told, and is posted
        house.desk.holds()

    def test_accepted_stays_accepted_until_it_changes(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.says()
        house.near.held = [("A1", "AAPL", Decimal(12))]
        house.run()
        house.resolve(house.open()[0], "accept")
        house.run(60)
        assert house.open()[0].state == "resolved"
        house.near.held = [("A1", "AAPL", Decimal(13))]
        house.run(90)
        assert (house.open()[0].state, house.open()[0].theirs) == ("open", 13)

    def test_orders_that_only_one_side_knows(self, house: Recon) -> None:
        desk = house.desk
        desk.place("buy 10 AAPL limit 90", "buy 5 AAPL limit 91")
        desk.send()
        kept, lost = house.near.sent
        desk.report(house.near.report("new", kept), house.near.report("new", lost))
        house.near.taken.pop(lost.client_order_id)

        def state(**more: Any) -> OrderState:
            fields = {
                "client_order_id": kept.client_order_id, "broker_order_id": f"B-{kept.client_order_id[-8:]}", "account": "A1",
                "symbol": "AAPL", "side": "buy", "status": "new", "order_type": "limit", "time_in_force": "day",
                "quantity": Decimal(10), "cumulative_quantity": Decimal(0), "leaves_quantity": Decimal(10),
            }  # fmt: skip
            return OrderState(**fields | more)

        house.near.working = [
            state(),
            state(client_order_id="d1", broker_order_id="D1", symbol="MSFT", limit_price=Decimal(150)),
        ]
        house.run()
        missing, unknown = house.open()
        assert (missing.kind, missing.subject, unknown.kind) == ("missing_order", "D1", "unknown_order")
        house.resolve(missing, "adopt")
        house.resolve(unknown, "close")
        adopted = Order.objects.get(origin="external")
        assert (adopted.status, adopted.leaves_quantity, adopted.limit_price) == ("new", 10, 150)
        desk.holds()
        house.run(60)
        assert house.open() == []
        desk_operations.cancel(adopted.pk, actor=desk.actor(desk.alice), at=datetime.now(UTC))
        desk.holds()


def test_of_an_order_in_slices_the_one_that_the_broker_lost_is_closed(house: Recon) -> None:
    desk = house.desk
    placed = worked(desk, "buy 20 AAPL", minutes=2)
    lost, kept = [*step(desk, 1), *step(desk)]
    desk.report(*(house.near.report("new", m) for m in (lost, kept)))
    house.near.taken.pop(lost.client_order_id)
    house.near.working = [
        OrderState(
            client_order_id=kept.client_order_id, broker_order_id=f"B-{kept.client_order_id[-8:]}", account="A1", symbol="AAPL",
            side="buy", status="new", order_type="limit", time_in_force="day", quantity=kept.quantity,
            cumulative_quantity=Decimal(0), leaves_quantity=kept.quantity,
        )
    ]  # fmt: skip
    reconcile("NEAR", actor=desk.actor(desk.oona), clock=lambda: desk.at + timedelta(seconds=60))
    [unknown] = house.open()
    assert (unknown.kind, unknown.detail["client_order_id"]) == ("unknown_order", lost.client_order_id)
    house.resolve(unknown, "close")
    left = {c.client_order_id: c.leaves_quantity for c in desk.order(placed).children.all()}
    assert left == {lost.client_order_id: 0, kept.client_order_id: kept.quantity}


def test_c07_an_id_that_the_broker_uses_again_is_another_fill(house: Recon) -> None:
    house.at -= timedelta(days=2)
    old = house.fill("buy 10 AAPL", "E1")
    house.at += timedelta(days=2)
    house.fill("buy 5 AAPL", "E1", told=False)
    house.near.held = [("A1", "AAPL", Decimal(15))]
    house.near.owned = [("A1", "USD", Decimal(-1500))]
    house.run()
    [row] = house.open(kind="missing_fill")
    assert (row.subject.partition("@")[0], row.theirs) == ("E1", 5)
    house.near.fills.remove(old)
    house.run(60)
    assert [b.kind for b in house.open() if b.kind.endswith("fill")] == ["missing_fill", "unknown_fill"]
    house.near.fills.insert(0, old)
    house.resolve(house.open(kind="missing_fill")[0], "adopt")
    house.run(90)
    assert (house.open(), Position.objects.get().quantity) == ([], 15)
    house.desk.holds()


class TestDistrust:
    def test_c05_an_empty_answer_is_a_failure_and_changes_nothing(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.says()
        house.near.held = [("A1", "AAPL", Decimal(12))]
        house.run()
        before = list(Break.objects.values())
        house.near.fills, house.near.held, house.near.owned = [], [], []
        run = house.run(60)
        assert (run.state, run.failure) == ("failed", "answer_empty")
        assert list(Break.objects.values()) == before
        assert BrokerPosition.objects.get().quantity == 10
        believed = house.run(90, override="the broker closed the account")
        assert (believed.state, believed.overridden_by) == ("done", "user:oona")
        assert {b.kind for b in house.open()} == {"cash", "position", "unknown_fill"}

    def test_a_stale_answer_is_a_failure(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.says()
        stale = (list(house.near.fills), list(house.near.held), list(house.near.owned))
        house.at += timedelta(minutes=1)
        house.fill("buy 5 AAPL", "X2")
        house.near.fills, house.near.held, house.near.owned = stale
        run = house.run()
        assert (run.state, run.failure) == ("failed", "answer_stale")
        assert not Break.objects.exists()

    def test_a_broker_that_is_away_is_a_failure(self, house: Recon) -> None:
        house.fill("buy 10 AAPL", "X1")
        house.near.reachable = False
        assert house.run().failure == "unavailable"


def test_c09_a_position_that_differs_three_runs_in_a_row_lets_its_account_only_reduce(house: Recon) -> None:
    house.fill("buy 10 AAPL", "X1")
    house.says()
    house.near.held = [("A1", "AAPL", Decimal(12))]
    for seconds in (30, 60):
        house.run(seconds)
    assert not Halt.objects.exists()
    house.run(90)
    halt = Halt.objects.get()
    assert (halt.mode, halt.scope_key, halt.released_at) == ("reduce_only", "MAIN", None)
    house.run(120)
    assert Halt.objects.count() == 1
    assert house.open()[0].state == "open"
    house.resolve(house.open()[0], "accept")
    assert house.open()[0].resolution["action"] == "accept"
    house.desk.holds()
