"""Plays the races of an order's life against the desk: requests go through its operations, reports through `apply`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from brokers.adapters.port import Message, NewOrder, Report, ReportKind
from orders import operations as desk_operations
from orders.domain.status import PRECEDENCE
from orders.domain.tickets import Terms
from orders.models import ChildOrder, ParkedReport, Submission
from orders.states import OrdStatus
from tests.conftest import Desk

ENDS = ("canceled", "expired", "rejected", "calculated")
CASES = Path(__file__).parents[1] / "data" / "order_states.txt"


@dataclass(frozen=True)
class Row:
    """One thing that happens: a request of the desk, a report of the broker, or nothing that either sees."""

    time: str
    way: str  # in (from the desk), out (from the broker), none
    kind: str
    id: str = ""
    orig: str = ""
    status: str = ""
    quantity: Decimal | None = None
    filled: Decimal | None = None
    leaves: Decimal | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    alternative: bool = False


def paths(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield each way it may go: the main one, and one for each alternative, which ends with it."""
    yield [r for r in rows if not r.alternative]
    for number, row in enumerate(rows):
        if row.alternative:
            yield [*(r for r in rows[:number] if not r.alternative), row]


def read_cases(path: Path = CASES) -> dict[str, list[Row]]:
    """Return the cases of a file by their titles."""
    cases: dict[str, list[Row]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            cases[line[3:]] = rows = []
        elif line and not line.startswith("#"):
            rows.append(_row(line))
    return cases


def _row(line: str) -> Row:
    words = line.split()
    alternative = words[-1] == "!"
    time, way, *words = words[:-1] if alternative else words
    if way == "-":
        return Row(time, "none", "")
    more = dict(w.split("=", 1) for w in words if "=" in w and w != "=")
    plain = [w for w in words if "=" not in w]
    if way == ">":
        kind, names, *rest = plain
        identifier, _, orig = names.partition("/")
        return Row(time, "in", kind, identifier, orig, quantity=Decimal(rest[0]) if rest else None, more=more)
    names, kind, status, *rest = plain
    identifier, _, orig = names.partition("/")
    numbers = [Decimal(n) for n in rest] or [None, None, None]
    return Row(time, "out", kind, identifier, orig, status, *numbers, more=more, alternative=alternative)


class Play:
    """One order at one broker, led through rows; after each report the desk must show what the row says."""

    broker = "NEAR"

    def __init__(self, desk: Desk, start: datetime | None = None) -> None:
        self.desk = desk
        self.start = start or desk.at
        self.sent: dict[str, Any] = {}
        self.waiting: dict[str, str] = {}  # requests without an answer: id → kind
        self.order_id: Any = None
        self.filled = Decimal(0)
        self.steps = 0

    def run(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.steps += 1
            if row.way == "in" and (self.order_id or row.kind == "new"):
                self._ask(row)
            elif row.way == "out" and self.order_id:
                self._tell(row)
                self._check(row)
            elif row.way == "out":
                self._tell_of_nobody(row)

    def child(self) -> ChildOrder:
        """Return the broker order as it is stored."""
        return ChildOrder.objects.get(order_id=self.order_id)

    def _ask(self, row: Row) -> None:
        desk = self.desk
        actor = desk.actor(desk.alice)
        if row.kind == "new":
            tif = row.more.get("tif", "day")
            [placed] = desk.place(f"buy {row.quantity} AAPL limit 99.00 {tif}", broker=self.broker)
            assert placed.problem is None, placed.problem
            self.order_id = placed.order_id
            self.filled = Decimal(0)
        elif row.kind == "cancel":
            desk_operations.cancel(self.order_id, actor=actor, at=desk.at)
        elif row.kind == "replace":
            price = Decimal(row.more["price"]) if "price" in row.more else None
            quantity = None if row.quantity == self.child().quantity else row.quantity
            desk_operations.replace(self.order_id, Terms(quantity, price), actor=actor, at=desk.at)
        Submission.objects.filter(state="prepared").update(due_at=desk.at - timedelta(seconds=60))
        self.sent[row.id] = self._sent(row)
        if row.kind != "new":
            self.waiting[row.id] = row.kind

    def _sent(self, row: Row) -> Any:
        """Return what reached the broker of a request, which must follow the one that the row says."""
        self.desk.send()
        message = self.desk.near.sent[-1]
        if row.kind != "new":
            assert getattr(message, "orig_client_order_id", "") == self.sent[row.orig].client_order_id
        return message

    def _tell(self, row: Row) -> None:
        kind = row.kind
        if kind == "cancel_rejected" and self.waiting.get(row.id) == "replace":
            kind = "replace_rejected"
        now = self.filled if row.filled is None else row.filled
        day, _, _ = row.time.partition(",") if "," in row.time else ("1", "", "")
        about = self.sent.get(row.id) or replace(next(iter(self.sent.values())), client_order_id=row.id)
        more: dict[str, Any] = {
            "orig_client_order_id": self._name(row.orig) if row.orig else None,
            "order_status": row.status,
            "executed_at": self.start + timedelta(days=int(day) - 1, seconds=self.steps),
            "reason": row.more.get("reason", ""),
            "cumulative_quantity": now,
            "leaves_quantity": row.leaves or Decimal(0),
        }
        if row.quantity is not None:
            more["order_quantity"] = row.quantity
        if "price" in row.more and kind in ("restated", "replaced"):
            more["limit_price"] = Decimal(row.more["price"])
        if kind in ("trade", "bust", "correct", "stopped"):
            last = Decimal(row.more["last"]) if "last" in row.more else abs(now - self.filled)
            more |= {"last_quantity": last, "last_price": Decimal(row.more.get("price", "99"))}
            more |= {"execution_id": row.more.get("exec", f"S{self.steps}"), "ref_execution_id": row.more.get("ref")}
        self.filled = now
        self.desk.report(self._report(kind, about, more))
        if row.id in self.waiting and kind not in ("pending_cancel", "pending_replace"):
            del self.waiting[row.id]
        if kind in ENDS:
            self.waiting.clear()

    def _tell_of_nobody(self, row: Row) -> None:
        """Report on an order that the desk does not have: it waits for one, and nothing else comes of it."""
        stray = Report(
            kind=ReportKind(row.kind), client_order_id=row.id, orig_client_order_id=row.orig, account="A1", symbol="AAPL",
            side="buy", order_status=row.status, order_quantity=Decimal(0), cumulative_quantity=Decimal(0),
            leaves_quantity=Decimal(0),
        )  # fmt: skip
        assert self.desk.report(stray) == 0
        assert ParkedReport.objects.get().waits_for == f"order:{row.id}"
        assert not ChildOrder.objects.exists()

    def _report(self, kind: str, about: Message, more: dict[str, Any]) -> Report:
        told = self.desk.near.report(kind, about, **more)
        first = next(m for m in self.sent.values() if isinstance(m, NewOrder))
        return replace(told, broker_order_id=f"B-{first.client_order_id[-8:]}")

    def _name(self, name: str) -> str:
        known = self.sent.get(name)
        return known.client_order_id if known else name

    def _check(self, row: Row) -> None:
        """Compare what the desk shows with what the row says."""
        if row.kind == "status" and row.status == "rejected":
            return  # what the broker doesn't know changes nothing: the next row shows it
        child = self.child()
        order = child.order
        holding = {OrdStatus(row.status), *(OrdStatus(f"pending_{k}") for k in self.waiting.values())}
        expected = next(s for s in PRECEDENCE if s in holding)
        assert child.status == expected, row
        if row.quantity is not None:
            assert (child.quantity, child.filled_quantity, child.leaves_quantity) == (
                row.quantity, row.filled, row.leaves,
            ), row  # fmt: skip
            assert (order.quantity, order.filled_quantity) == (row.quantity, row.filled), row
        done = expected == OrdStatus.DONE_FOR_DAY and child.filled_quantity >= child.quantity
        assert order.status == (OrdStatus.FILLED if done else expected), row
        if "price" in row.more and row.kind in ("restated", "replaced"):
            assert order.limit_price == Decimal(row.more["price"]), row


def roomy(desk: Desk) -> None:
    """Give the account money and limits for the orders of ten thousand that the published races speak of."""
    from oms.kernel.actor import Actor
    from portfolio import operations as portfolio
    from risk.models import Limit

    Limit.objects.filter(kind="order_quantity").update(value=100_000)
    portfolio.transfer(
        account="MAIN", kind="deposit", currency="USD", amount=Decimal(100_000_000), to="", reason="room", key="room",
        actor=Actor.system("test"), at=desk.at,
    )  # fmt: skip


__all__ = ["CASES", "Play", "Row", "paths", "read_cases", "roomy"]
