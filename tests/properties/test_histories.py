"""An order's reports in any order, any grouping and any repetition: one end, in the desk, the books and the holds."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
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
from tests.scripted import Scripted

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


WORDS = ("suspended", "stopped", "restated", "done_for_day")


@dataclass(frozen=True)
class Story:
    """What happens to an order of twenty.

    `late` are fills of the first broker that it tells after it had refused, so that a second one has the order; `words`
    what the broker says besides, each at a second of its own.
    """

    side: str
    fills: list[Fill]
    late: list[Fill]
    wanted: int | None
    end: str | None
    words: list[str]


STORIES = st.builds(
    Story,
    st.sampled_from(("buy", "sell", "sell_short")),
    st.lists(FILLS, min_size=1, max_size=4),
    st.just([]),
    st.one_of(st.none(), st.integers(12, 30)),
    st.sampled_from(ENDS),
    st.lists(st.sampled_from(WORDS), max_size=3),
)
STORIES_OF_TWO = (
    st.builds(  # never more than was asked for: what is too much is canceled, and when depends on who spoke first
        Story,
        st.sampled_from(("buy", "sell", "sell_short")),
        st.lists(FILLS, min_size=1, max_size=2),
        st.lists(FILLS, min_size=1, max_size=1),
        st.one_of(st.none(), st.integers(20, 30)),
        st.sampled_from(ENDS),
        st.just([]),
    )
)


def reports_of(broker: Scripted, sent: Any, fills: list[Fill], at: datetime, mark: str = "") -> list[Report]:
    reports = []
    for number, fill in enumerate(fills):
        name = f"E{mark}{number}"
        first = broker.report(
            "trade", sent, execution_id=name, last_quantity=Decimal(fill.quantity), last_price=Decimal(fill.price),
            executed_at=at + timedelta(seconds=fill.second),
        )  # fmt: skip
        reports.append(first)
        for turn, (quantity, price) in enumerate(fill.corrections):
            reports.append(
                replace(
                    first,
                    kind=ReportKind.CORRECT,
                    execution_id=f"C{mark}{number}-{turn}",
                    ref_execution_id=name,
                    last_quantity=Decimal(quantity),
                    last_price=Decimal(price),
                )
            )
            name = f"C{mark}{number}-{turn}"
        if fill.busted:
            reports.append(replace(first, kind=ReportKind.BUST, execution_id=f"X{mark}{number}", ref_execution_id=name))
    return reports


def own(desk: Desk) -> None:
    """Hold forty in two lots, to be sold."""
    for name, quantity, price in (("O1", "22", "90"), ("O2", "18", "110")):
        desk.place(f"buy {quantity} AAPL limit 99.00", broker="NEAR", client_order_id=name)
        desk.send()
        sent = desk.near.sent[-1]
        bought = {"last_quantity": Decimal(quantity), "last_price": Decimal(price)}
        at = desk.at - timedelta(seconds=60)
        desk.report(desk.near.report("trade", sent, execution_id=name, executed_at=at, **bought))


def end_of(desk: Desk, order_id: Any) -> dict[str, Any]:
    """Return what must not depend on the order of arrival."""
    order, children = Order.objects.get(pk=order_id), ChildOrder.objects.filter(order_id=order_id).order_by("broker_id")
    quantities = ("status", "quantity", "filled_quantity", "leaves_quantity", "filled_amount", "overfilled")
    return {
        "order": [getattr(order, n) for n in (*quantities, "fees", "limit_price")],
        "children": [[getattr(c, n) for n in quantities] for c in children],
        # ids are new each time: told by the request that bore it
        "names": [Submission.objects.get(client_order_id=c.client_order_id).kind for c in children],
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


DONE_ABOUT_IT = ("order", "children", "names", "requests", "hold")
"""What depends on when the desk learned that two brokers had the same quantity, and so on what it asked for then."""


def live(desk: Desk, batches: list[list[int]], story: Story) -> dict[str, Any]:
    """Let an order live through its reports in batches of their numbers; take all of it back, return its end."""
    before = transaction.savepoint()
    try:
        desk.near.sent.clear()
        desk.far.sent.clear()
        if story.side == "sell":
            own(desk)
        price, tif = ("99.00" if story.side == "buy" else "100.00"), "gtc" if story.words else "day"
        [placed] = desk.place(f"{story.side} 20 AAPL limit {price} {tif}", client_order_id="lived")
        desk.send()
        told = _told(desk, placed, story)
        for batch in batches:
            _tell(desk, [told[n % len(told)] for n in batch])
        _tell(desk, [r for n, r in enumerate(told) if n not in {x % len(told) for b in batches for x in b}])
        for _ in range(4):
            for broker in queries.brokers().values():
                desk_operations.apply_parked(broker.id, actor=Actor.system("gateway"), at=desk.at)
        found = end_of(desk, placed.order_id)
        if batches:
            desk.holds()
        return found
    finally:
        transaction.savepoint_rollback(before)


def _told(desk: Desk, placed: Any, story: Story) -> list[tuple[str, Report]]:
    """Ask for what the story asks for; return all that brokers say of it, by broker."""
    code, broker, sent = "NEAR", desk.near, desk.near.sent[-1]
    told: list[tuple[str, Report]] = []
    if story.late:
        desk.report(broker.report("rejected", sent))
        told += [("NEAR", r) for r in reports_of(broker, sent, story.late, desk.at, "L")]
        desk.send("FAR")
        code, broker, sent = "FAR", desk.far, desk.far.sent[-1]
    sent = replace(sent)
    desk.report(broker.report("new", sent), code=code)
    mine = [broker.report("new", sent), *reports_of(broker, sent, story.fills, desk.at)]
    mine += [
        broker.report(word, sent, executed_at=desk.at + timedelta(seconds=10 + n), order_status=_status(word))
        for n, word in enumerate(story.words)
    ]
    actor = desk.actor(desk.alice)
    if story.wanted is not None:
        terms = Terms(quantity=Decimal(story.wanted), limit_price=Decimal(98 if story.side == "buy" else 101))
        desk_operations.replace(placed.order_id, terms, actor=actor, at=desk.at)
        desk.send(code)
        at = desk.at + timedelta(seconds=30)  # after all words
        mine.append(broker.report("replaced", broker.sent[-1], executed_at=at))
    if story.end == "cancel_asked":
        desk_operations.cancel(placed.order_id, actor=actor, at=desk.at)
        desk.send(code)
        mine.append(broker.report("canceled", broker.sent[-1]))
    elif story.end:
        mine.append(broker.report(story.end, sent, executed_at=desk.at + timedelta(seconds=40)))
    return told + [(code, r) for r in mine]


def _status(word: str) -> str:
    return "new" if word == "restated" else word


def _tell(desk: Desk, told: list[tuple[str, Report]]) -> None:
    for code, group in groupby(told, key=lambda t: t[0]):
        desk.report(*[r for _, r in group], code=code)


BATCHES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), max_size=6)
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@given(story=STORIES, batches=BATCHES)
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_any_order_and_repetition_of_reports_ends_the_same(desk: Desk, story: Story, batches: list[list[int]]) -> None:
    assert live(desk, batches, story) == live(desk, [], story)


@given(story=STORIES_OF_TWO, batches=BATCHES)
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_the_books_do_with_those_of_two_brokers_too(desk: Desk, story: Story, batches: list[list[int]]) -> None:
    one, other = live(desk, batches, story), live(desk, [], story)
    for name in DONE_ABOUT_IT:
        del one[name], other[name]
    assert one == other
