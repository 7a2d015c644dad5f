"""An order's reports in any order, any grouping and any repetition: one end, in the desk, the books and the holds."""

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers import queries
from brokers.adapters.port import Report, ReportKind
from oms.kernel.actor import Actor
from oms.runtime import sql
from orders import operations as desk_operations
from orders.domain.tickets import Terms
from orders.models import ChildOrder, Execution, Order, Submission
from portfolio.models import CashBalance, Lot, Position
from risk.models import Hold
from tests.conftest import Desk

ENDS = (None, "canceled", "expired", "done_for_day", "cancel_asked")


@dataclass(frozen=True)
class Fill:
    """One fill and what became of it: corrections in turn, then perhaps a bust."""

    quantity: int
    price: int
    second: int
    corrections: tuple[tuple[int, int], ...]
    busted: bool


FILLS = st.builds(
    Fill,
    st.integers(1, 6),
    st.integers(95, 105),
    st.integers(0, 2),  # few moments, so that fills share them
    st.lists(st.tuples(st.integers(0, 6), st.integers(95, 105)), max_size=2).map(tuple),
    st.booleans(),
)


def reports_of(desk: Desk, sent: Any, fills: list[Fill]) -> list[Report]:
    reports = []
    for number, fill in enumerate(fills):
        at = desk.at + timedelta(seconds=fill.second)
        name = f"E{number}"
        first = desk.near.report(
            "trade", sent, execution_id=name, last_quantity=Decimal(fill.quantity), last_price=Decimal(fill.price),
            executed_at=at,
        )  # fmt: skip
        reports.append(first)
        for turn, (quantity, price) in enumerate(fill.corrections):
            reports.append(
                replace(
                    first,
                    kind=ReportKind.CORRECT,
                    execution_id=f"C{number}-{turn}",
                    ref_execution_id=name,
                    last_quantity=Decimal(quantity),
                    last_price=Decimal(price),
                )
            )
            name = f"C{number}-{turn}"
        if fill.busted:
            reports.append(replace(first, kind=ReportKind.BUST, execution_id=f"X{number}", ref_execution_id=name))
    return reports


def end_of(desk: Desk, order_id: Any) -> dict[str, Any]:
    """Return what must not depend on the order of arrival."""
    order, child = Order.objects.get(pk=order_id), ChildOrder.objects.get(order_id=order_id)
    quantities = ("status", "quantity", "filled_quantity", "leaves_quantity", "filled_amount", "overfilled")
    return {
        "order": [getattr(order, n) for n in (*quantities, "fees", "limit_price")],
        "child": [getattr(child, n) for n in (*quantities, "client_order_id")],
        "requests": sorted((s.kind, s.resolved_at is None) for s in Submission.objects.all()),
        "executions": sorted(Execution.objects.values_list("broker_execution_id", "kind", "quantity", "price")),
        "ids": sorted(Execution.objects.filter(kind="trade").values_list("id", flat=True)),
        "lots": list(
            Lot.objects.order_by("opened_at", "id").values_list("opened_at", "price", "quantity", "remaining")
        ),
        "positions": list(Position.objects.values_list("quantity", "cost", "realized", "fees")),
        "cash": list(CashBalance.objects.order_by("currency").values_list("currency", "balance")),
        "ledger": sql.run(
            "SELECT code, currency, sum(amount), sum(quantity) FROM portfolio_ledgerentry GROUP BY 1, 2 "
            "HAVING sum(amount) <> 0 ORDER BY 1, 2"
        ).fetchall(),
        "hold": Hold.objects.get(pk=order_id).open_quantity,
        "told": sorted(
            sql.run(
                "SELECT kind, body::jsonb->'data'->>'broker_execution_id' FROM journal_event WHERE frame = 'execution'"
            ).fetchall()
        ),
    }


def live(
    desk: Desk, batches: list[list[int]], fills: list[Fill], wanted: int | None, end: str | None
) -> dict[str, Any]:
    """Let an order live through its reports in batches of their numbers; take all of it back, return its end."""
    near = queries.brokers_by_code()["NEAR"]
    gateway = Actor.system("gateway")
    before = transaction.savepoint()
    try:
        desk.near.sent.clear()
        [placed] = desk.place("buy 20 AAPL limit 99.00", client_order_id="lived", broker="NEAR")
        desk.send()
        sent = replace(desk.near.sent[0])
        desk.report(desk.near.report("new", sent))
        reports = [desk.near.report("new", sent), *reports_of(desk, sent, fills)]
        if wanted is not None:
            desk_operations.replace(
                placed.order_id, Terms(quantity=Decimal(wanted), limit_price=Decimal(98)), actor=desk.actor(desk.alice),
                at=desk.at,
            )  # fmt: skip
            desk.send()
            reports.append(desk.near.report("replaced", desk.near.sent[-1]))
        if end == "cancel_asked":
            desk_operations.cancel(placed.order_id, actor=desk.actor(desk.alice), at=desk.at)
            desk.send()
            reports.append(desk.near.report("canceled", desk.near.sent[-1]))
        elif end:
            reports.append(desk.near.report(end, sent))
        for batch in batches:
            desk.report(*[reports[n % len(reports)] for n in batch])
        desk.report(*[r for n, r in enumerate(reports) if n not in {x % len(reports) for b in batches for x in b}])
        for _ in range(4):
            desk_operations.apply_parked(near.id, actor=gateway, at=desk.at)
        found = end_of(desk, placed.order_id)
        if batches:
            desk.holds()
        # ids are new each time: told by the request that bore it
        found["child"][-1] = Submission.objects.get(client_order_id=found["child"][-1]).kind
        return found
    finally:
        transaction.savepoint_rollback(before)


@given(
    fills=st.lists(FILLS, min_size=1, max_size=4),
    wanted=st.one_of(st.none(), st.integers(12, 30)),
    end=st.sampled_from(ENDS),
    batches=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), max_size=6),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_order_and_repetition_of_reports_ends_the_same(
    desk: Desk, fills: list[Fill], wanted: int | None, end: str | None, batches: list[list[int]]
) -> None:
    assert live(desk, batches, fills, wanted, end) == live(desk, [], fills, wanted, end)
