"""What a venue knows: orders, executions, positions, cash. All of it is a fold over the reports it made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from brokers.simulation.knobs import Instrument
from brokers.simulation.wire import Report

ZERO = Decimal(0)
CLOSED = frozenset({"filled", "canceled", "rejected", "expired"})


@dataclass(slots=True, eq=False)
class Order:
    """One order at the venue; `priority` is its place in time."""

    broker_order_id: str
    client_order_id: str
    account: str
    symbol: str
    side: str
    order_type: str
    time_in_force: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    expire_at: datetime | None
    quantity: Decimal
    cumulative: Decimal
    leaves: Decimal
    status: str
    created_at: datetime
    priority: int
    triggered: bool = False
    reason: str = ""
    link: str | None = None
    amount: Decimal = ZERO  # sum of quantity × price
    frames: list[int] = field(default_factory=list)  # numbers of the frames that tell of it

    @property
    def buys(self) -> bool:
        """Tell whether this side takes the ask."""
        return self.side == "buy"

    @property
    def open(self) -> bool:
        """Tell whether it may still trade."""
        return self.status not in CLOSED

    @property
    def waits_for_trigger(self) -> bool:
        """Tell whether its stop price has not been touched yet."""
        return self.stop_price is not None and not self.triggered

    def limit(self) -> Decimal | None:
        """Return the worst price it takes; None is any."""
        return self.limit_price if self.order_type in ("limit", "stop_limit") else None


@dataclass(slots=True, eq=False)
class Execution:
    """A trade as it stands now: busted ones are not alive, a correction is alive in place of its original."""

    execution_id: str
    order: Order
    quantity: Decimal
    price: Decimal
    fees: Decimal
    executed_at: datetime
    frame: int
    alive: bool = True


class Book:
    """The state of a venue. `apply` is the only way to change it, live and at replay."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self.instruments = instruments
        self.orders: dict[str, Order] = {}
        self.by_client_id: dict[str, Order] = {}
        self.open: dict[str, Order] = {}
        self.linked: dict[tuple[str, str], list[Order]] = defaultdict(list)  # by account and link
        self.executions: dict[str, Execution] = {}
        self.positions: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self.cash: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self.born: datetime | None = None  # when the first order came in: no other life of this venue shares it
        self.priorities = 0
        self.last_execution = 0
        self.changed: list[tuple[str, int]] = []  # (execution id, frame), bust and correct included, in time order

    def next_priority(self) -> int:
        """Return the next place in time."""
        self.priorities += 1
        return self.priorities

    def siblings(self, order: Order) -> list[Order]:
        """Return the open orders linked with one, that one left out."""
        linked = self.linked.get((order.account, order.link), ()) if order.link is not None else ()
        return [o for o in linked if o is not order and o.open]

    def apply(self, report: Report, frame: int) -> Order:
        """Fold one report in and return its order."""
        order = self.orders.get(report.broker_order_id)
        if order is None:
            self.born = self.born or report.executed_at
            order = self._enter(report)
        elif report.kind == "replaced":
            self._replace(order, report)
        elif report.kind == "triggered":
            order.triggered = True
        self.by_client_id.setdefault(report.client_order_id, order)  # a cancel's own id leads to its order
        order.quantity = report.order_quantity
        order.cumulative = report.cumulative_quantity
        order.leaves = report.leaves_quantity
        order.status = report.order_status
        if not order.frames or order.frames[-1] != frame:
            order.frames.append(frame)
        if report.execution_id is not None:
            self._execute(order, report, frame)
        if order.status in CLOSED:
            self.open.pop(order.broker_order_id, None)
        else:
            self.open[order.broker_order_id] = order
        return order

    def _enter(self, report: Report) -> Order:
        order = Order(
            report.broker_order_id,
            report.client_order_id,
            report.account,
            report.symbol,
            report.side,
            report.order_type,
            report.time_in_force,
            report.limit_price,
            report.stop_price,
            report.expire_at,
            report.order_quantity,
            ZERO,
            report.order_quantity,
            report.order_status,
            report.executed_at,
            self.next_priority(),
            reason=report.text if report.kind == "rejected" else "",
            link=report.link,
        )
        if order.link is not None:
            self.linked[order.account, order.link].append(order)
        self.orders[order.broker_order_id] = order
        self.by_client_id[order.client_order_id] = order
        return order

    def _replace(self, order: Order, report: Report) -> None:
        """Take new terms; less at the same price keeps the place in time, anything else goes to the back."""
        same_price = (order.limit_price, order.stop_price) == (report.limit_price, report.stop_price)
        if not (same_price and report.order_quantity <= order.quantity):
            order.priority = self.next_priority()
        order.client_order_id = report.client_order_id
        order.order_type, order.time_in_force = report.order_type, report.time_in_force
        order.limit_price, order.stop_price = report.limit_price, report.stop_price
        order.expire_at = report.expire_at
        self.by_client_id[order.client_order_id] = order

    def _execute(self, order: Order, report: Report, frame: int) -> None:
        fees = sum((f.amount for f in report.fees or ()), ZERO)
        if report.kind != "trade":
            undone = self.executions[report.ref_execution_id or ""]
            undone.alive = False
            self._book(order, -undone.quantity, undone.price, -undone.fees)
        quantity, price = report.last_quantity or ZERO, report.last_price or ZERO
        execution = Execution(
            report.execution_id or "", order, quantity, price, fees, report.executed_at, frame, report.kind != "bust"
        )
        self.executions[execution.execution_id] = execution
        self.changed.append((execution.execution_id, frame))
        self.last_execution += 1
        if execution.alive:
            self._book(order, quantity, price, fees)

    def _book(self, order: Order, quantity: Decimal, price: Decimal, fees: Decimal) -> None:
        signed = quantity if order.buys else -quantity
        currency = self.instruments[order.symbol].currency
        order.amount += quantity * price
        self.positions[order.account, order.symbol] += signed
        self.cash[order.account, currency] -= signed * price + fees
