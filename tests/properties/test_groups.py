"""Groups under anything that may happen to them, in any order: quantities follow, nothing is held that can't be filled."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders import operations as desk_operations
from orders.domain.groups import EXITS, IN_SET, Leg, Parent, Policy, Role, excess, wanted
from orders.models import Execution, GroupLeg, Order, OrderGroup
from orders.states import CLOSED, OrdStatus
from risk.models import Exposure, Hold
from tests.conftest import Desk
from tests.flows.test_groups import BRACKET, OCO, Group
from tests.flows.test_hard_reports import trade, undo

POLICIES = st.sampled_from([p.value for p in Policy])
WHAT = ("fill", "fill", "fill", "bust", "cancel", "look")
"""What happens next; at a look the desk brings its groups in line, and the brokers answer."""
STEPS = st.lists(
    st.tuples(st.sampled_from(WHAT), st.sampled_from([1, 2, 0, 4, 5, 3]), st.integers(1, 7)), min_size=4, max_size=9
)
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


class Played(Group):
    """A group to which things happen while the desk has not looked yet."""

    def play(self, kind: str, number: int, quantity: int) -> None:
        members = [
            p.order for p in GroupLeg.objects.exclude(role=Role.FLATTEN).select_related("order").order_by("order_id")
        ]
        if kind == "look":
            self.turn()
        elif kind == "bust":
            undone = set(Execution.objects.exclude(ref=None).values_list("ref_id", flat=True))
            live = [
                e
                for e in Execution.objects.filter(kind="trade", order__in=members).order_by("id")
                if e.id not in undone
            ]
            if live:
                bust = live[number % len(live)]
                name = f"{bust.broker_execution_id}-bust"
                self.desk.report(undo(self.desk, self.name(bust.order), "bust", name, bust.broker_execution_id))
        else:
            order = members[number % len(members)]
            if kind == "cancel" and order.status not in CLOSED:
                desk_operations.cancel(order.id, actor=self.desk.actor(self.desk.alice), at=datetime.now(UTC))
            elif kind == "fill" and (child := order.children.order_by("-id").first()) is not None:
                most = min(
                    Decimal(quantity), child.leaves_quantity
                )  # what the broker has of it, whatever the desk wants by now
                if most > 0 and child.submissions.filter(kind="new", state="accepted").exists():
                    self.fills += 1
                    self.desk.report(trade(self.desk, self.name(order), f"E{self.fills}", str(most), "100"))

    def settle(self) -> None:
        for _ in range(6):
            OrderGroup.objects.exclude(due_at=None).update(due_at=self.desk.at)
            self.turn()


def check(group: Played, oco: bool) -> None:
    """Compare what stands with what the rules want of it, worked out from the facts alone."""
    rows = {p.order_id: (Role(p.role), p.quantity, p.order) for p in GroupLeg.objects.select_related("order")}
    parent = next((o for role, _, o in rows.values() if role is Role.PARENT), None)
    facts = None if parent is None else Parent(parent.quantity, parent.filled_quantity, parent.status not in CLOSED)
    legs = [
        Leg(i, r, parent.quantity if parent and r in EXITS else q, o.filled_quantity, o.reason == "cancel_requested")
        for i, (r, q, o) in rows.items() if r in IN_SET
    ]  # fmt: skip
    want = wanted(legs, Policy(group.row.partial_fills), facts, Decimal(1))
    filled, most = sum(x.filled for x in legs), parent.filled_quantity if parent else Decimal(10)
    for leg in legs:
        order = rows[leg.id][2]
        working = order.leaves_quantity if order.status not in CLOSED | {OrdStatus.HELD} else 0
        assert working in (0, want[leg.id] - leg.filled), (order, order.status, want)
        assert working + filled <= max(most, filled), "never more than is there to protect"
        ended = leg.given_up or order.reason == "sibling_canceled" or any(x.given_up for x in legs if oco)
        if want[leg.id] > leg.filled and not ended and not (oco and order.status in CLOSED):
            assert working > 0, (order, order.status, order.reason, "it should work")
    assert group.row.excess == excess(legs, facts)
    held = {h.id: h.open_quantity for h in Hold.objects.filter(open_quantity__gt=0)}
    assert held == {
        o.id: o.leaves_quantity
        for o in Order.objects.exclude(status__in=[*CLOSED, OrdStatus.HELD])
        if o.leaves_quantity
    }
    exposed = sum((e.selling for e in Exposure.objects.all()), Decimal(0))
    assert exposed == max((held.get(x.id, Decimal(0)) for x in legs), default=0), "the worst of both, not their sum"
    group.desk.holds()


@contextmanager
def taken_back() -> Iterator[None]:
    """What happens inside is undone at its end: operations take no transaction around theirs but the test's own."""
    before = transaction.savepoint()
    try:
        yield
    finally:
        transaction.savepoint_rollback(before)


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(steps=STEPS, policy=POLICIES, begun=st.sampled_from([0, 4, 10]))
def test_exits_never_work_for_more_than_their_entry_filled_and_nothing_leaks(
    desk: Desk, steps: Any, policy: str, begun: int
) -> None:
    with taken_back():
        group = Played(desk, {"side": "buy", "quantity": "10", "partial_fills": policy} | BRACKET)
        first = [("fill", 0, begun), ("look", 0, 0)] if begun else []  # so that there is something to protect, mostly
        for step in (*first, *steps):
            group.play(*step)
        group.settle()
        check(group, oco=False)


@settings(max_examples=10, deadline=None, suppress_health_check=SLOW)
@given(steps=STEPS)
def test_a_fill_of_one_leg_takes_as_much_off_the_other(desk: Desk, steps: Any) -> None:
    with taken_back():
        desk.place("buy 10 AAPL")
        desk.send()
        desk.report(trade(desk, desk.near.sent[-1], "OWN", "10", "100"))
        group = Played(desk, *(leg | {"quantity": "10"} for leg in OCO))
        for step in steps:
            group.play(*step)
        group.settle()
        check(group, oco=True)


# fmt: off
LEGS = st.lists(st.tuples(st.sampled_from([Role.CHILD, Role.TAKE_PROFIT, Role.STOP_LOSS]), st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=5)
# fmt: on


@given(rows=LEGS, policy=st.sampled_from(list(Policy)), filled=st.integers(0, 60), is_open=st.booleans())
def test_what_is_wanted_never_passes_what_the_parent_allows(
    rows: Any, policy: Policy, filled: int, is_open: bool
) -> None:
    from uuid import UUID

    parent = Parent(Decimal(50), Decimal(filled), is_open)
    legs = [Leg(UUID(int=n), role, Decimal(asked), Decimal(done)) for n, (role, asked, done) in enumerate(rows)]
    want = wanted(legs, policy, parent, Decimal(1))
    for leg in legs:
        assert want[leg.id] >= leg.filled, "what is done is done"
        if leg.role in EXITS:
            assert (
                want[leg.id] == leg.filled
                or want[leg.id] - leg.filled + sum(x.filled for x in legs if x.role in EXITS) <= filled
            )
        elif policy is not Policy.FIRST_FILL:
            assert want[leg.id] <= max(leg.asked * min(filled, 50) / 50, leg.filled)
