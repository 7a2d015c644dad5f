"""A broker that does what a test tells it: the adapter port is the one place where tests stand in for the world."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.adapters.port import (
    Answer,
    BrokerUnavailable,
    CancelOrder,
    Capabilities,
    Dedupe,
    Lookup,
    Message,
    NewOrder,
    OrderState,
    Outcome,
    Report,
    ReportKind,
)

BOOKS: dict[str, "Scripted"] = {}
"""Scripted brokers by the name in their settings; the whole process sees the same one."""


class Scripted:
    """Keeps what it was sent, answers as told, and knows the orders it was told to have taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.capabilities = Capabilities(
            dedupe=Dedupe.NONE,
            query_by_client_id=True,
            query_includes_closed=True,
            batch_max=100,
            replace=True,
            replace_filled=True,
            overlapping_requests=True,
            cancel_by_client_id=True,
            short=True,
        )
        self.sent: list[Message] = []
        self.outcome: Callable[[Message], Outcome] = lambda _: Outcome.ACCEPTED
        self.taken: dict[str, NewOrder] = {}
        self.reachable = True
        self.readable = False  # what it sent before
        self.silent_takes = False  # takes the order even where the answer says otherwise
        self.fills: list[Report] = []
        self.working: list[OrderState] = []
        self.held: list[tuple[str, str, Decimal]] = []
        self.owned: list[tuple[str, str, Decimal]] = []

    def send(self, messages: Sequence[Message], *, deadline: float) -> list[Answer]:
        answers = []
        for message in messages:
            self.sent.append(message)
            outcome = self.outcome(message)
            if isinstance(message, NewOrder) and (outcome is Outcome.ACCEPTED or self.silent_takes):
                self.taken[message.client_order_id] = message
            broker_id = f"B-{message.client_order_id[-8:]}" if outcome is Outcome.ACCEPTED else None
            answers.append(
                Answer(
                    client_order_id=message.client_order_id,
                    outcome=outcome,
                    broker_order_id=broker_id,
                    reason="as told",
                )
            )
        return answers

    def look_up(self, client_order_ids: Sequence[str], *, since: datetime) -> list[Lookup]:
        if not self.reachable:
            raise BrokerUnavailable("told to be away")
        return [self._lookup(i) for i in client_order_ids]

    def _lookup(self, client_order_id: str) -> Lookup:
        order = self.taken.get(client_order_id)
        if order is None:
            return Lookup(client_order_id=client_order_id, found=None, authoritative=True)
        state = OrderState(
            client_order_id=client_order_id,
            broker_order_id=f"B-{client_order_id[-8:]}",
            account=order.account,
            symbol=order.symbol,
            side=order.side,
            status="new",
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            quantity=order.quantity,
            cumulative_quantity=Decimal(0),
            leaves_quantity=order.quantity,
        )
        return Lookup(
            client_order_id=client_order_id,
            found=state,
            authoritative=True,
            reports=(self.report("new", order),),
        )

    def executions_since(self, since: datetime) -> list[Report]:
        if not self.reachable:
            raise BrokerUnavailable("told to be away")
        return [r for r in self.fills if r.executed_at is None or r.executed_at >= since]

    def open_orders(self) -> list[OrderState]:
        return list(self.working)

    def positions(self) -> list[tuple[str, str, Decimal]]:
        return list(self.held)

    def cash(self) -> list[tuple[str, str, Decimal]]:
        return list(self.owned)

    def report(self, kind: str, order: Message, **more: Any) -> Report:
        """Return a report about a message this broker was sent."""
        original = order.orig_client_order_id if not isinstance(order, NewOrder) else None
        fields: dict[str, Any] = {
            "kind": ReportKind(kind),
            "client_order_id": order.client_order_id,
            "orig_client_order_id": original,
            "broker_order_id": f"B-{(original or order.client_order_id)[-8:]}",
            "account": order.account,
            "symbol": order.symbol,
            "side": order.side,
            "order_status": kind,
            "order_quantity": Decimal(0) if isinstance(order, CancelOrder) else order.quantity,
            "cumulative_quantity": Decimal(0),
            "leaves_quantity": Decimal(0),
        }
        return Report(**(fields | more))

    def read(self, raw: bytes) -> tuple[Report, ...]:
        """Read the name of an order that was sent as "it is filled", if it was told that it can read."""
        if not self.readable:
            raise ValueError("told that it can't read")
        order = next(m for m in self.sent if m.client_order_id == raw.decode())
        price, quantity = Decimal(99), order.quantity
        filled = {"last_quantity": quantity, "last_price": price, "cumulative_quantity": quantity}
        return (self.report("trade", order, execution_id="R1", **filled),)

    def close(self) -> None:
        """Nothing is held open."""


def build(settings: dict[str, Any]) -> Scripted:
    """Return the broker of that name, for the adapter registry."""
    return BOOKS.setdefault(settings["name"], Scripted(settings["name"]))
