"""An order's place in its group, taken when it is placed: found, made, or refused."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.kernel.errors import Conflict, Invalid
from oms.kernel.ids import uuid7
from oms.kernel.reasons import Reason
from oms.runtime import rows, sql
from orders.domain.groups import FOLLOWS, IN_SET, LEGS_MAX, Kind, Policy, Role
from orders.domain.tickets import Ticket
from orders.models import GroupLeg, Order, OrderGroup
from orders.states import CLOSED, OrdStatus

EXIT_LASTS = {"gtc": "gtc", "gtd": "gtd"}
"""Exits last as long as their entry where that lasts; else they are for the day."""


@dataclass(frozen=True, slots=True)
class Seat:
    """An order's place: in which group, as what, and behind which parent."""

    group: OrderGroup
    role: Role
    parent: UUID | None = None

    @property
    def waits(self) -> bool:
        """Tell whether it waits for its parent's fills."""
        return self.role in FOLLOWS

    @property
    def oco(self) -> UUID | None:
        """Return the set in which one cancels the others."""
        return self.group.id if self.role in IN_SET else None

    def told(self) -> dict[str, str]:
        """Return what an order tells of its group."""
        return {
            "kind": self.group.kind,
            "id": self.group.key,
            "role": self.role.value,
            "partial_fills": self.group.partial_fills,
        }


@dataclass(slots=True)
class _Member:
    order_id: UUID
    role: Role
    instrument_id: int
    quantity: Decimal
    filled: Decimal = Decimal(0)
    status: str = OrdStatus.PENDING_NEW
    reason: str = ""


@dataclass(slots=True)
class Seats:
    """The groups that a batch of tickets names. The caller holds their accounts locked."""

    at: datetime
    known: dict[tuple[int, str], tuple[OrderGroup, list[_Member]]] = field(default_factory=dict)
    made: list[OrderGroup] = field(default_factory=list)

    def load(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Read the groups of these accounts and names, with their orders."""
        keys = sorted(set(wanted))
        found = sql.run(
            """
            SELECT g.account_id, g.key, l.order_id, l.role, o.instrument_id, l.quantity, o.filled_quantity, o.status, o.reason, g.id
            FROM orders_ordergroup g JOIN unnest(%s::bigint[], %s::varchar[]) u(account, key) ON g.account_id = u.account AND g.key = u.key
            JOIN orders_groupleg l ON l.group_id = g.id JOIN orders_order o ON o.id = l.order_id ORDER BY l.order_id
            """,
            [[account for account, _ in keys], [key for _, key in keys]],
        ).fetchall()
        groups = {g.id: g for g in rows.load(OrderGroup, "WHERE t.id = ANY(%s)", [sql.uuids({r[-1] for r in found})])}
        for account_id, key, order_id, role, *facts, pk in found:
            _, members = self.known.setdefault((account_id, key), (groups[pk], []))
            members.append(_Member(order_id, Role(role), *facts))

    def take(self, ticket: Ticket, account_id: int, instrument_id: int, order_id: UUID) -> Seat:
        """Return an order's place in the group that its ticket names, or in a new one.

        Raises `Invalid` for a ticket that doesn't fit into the group, `Conflict` (group_closed) for one that comes too late.
        """
        if ticket.group is None:  # exits make a group of their own
            kind = Kind.BRACKET if ticket.take_profit and ticket.stop_loss else Kind.OTO
            return Seat(self._make(kind, str(order_id), ticket, account_id), Role.PARENT)
        kind, key = Kind(ticket.group.kind), (account_id, ticket.group.id)
        mine = _Member(order_id, Role.LEG, instrument_id, ticket.quantity)
        if key not in self.known:
            group = self._make(kind, ticket.group.id, ticket, account_id)
            mine.role = Role.LEG if kind is Kind.OCO else Role.PARENT
            self.known[key] = group, [mine]
            return Seat(group, mine.role)
        group, members = self.known[key]
        if group.kind != kind:
            raise Invalid("group_kind", f"This group is of kind {group.kind}; choose another id.", field="group.kind")
        if len(members) >= LEGS_MAX:
            raise Invalid("group_full", f"A group has at most {LEGS_MAX} orders.", field="group.id")
        parent = self._join_oco(mine, members) if kind is Kind.OCO else self._join_oto(mine, members, ticket, group)
        members.append(mine)
        return Seat(group, mine.role, parent)

    def _make(self, kind: Kind, key: str, ticket: Ticket, account_id: int) -> OrderGroup:
        policy = ticket.partial_fills or Policy.PRO_RATA.value
        group = rows.make(
            OrderGroup, id=uuid7(), account_id=account_id, kind=kind.value, key=key, partial_fills=policy, created_at=self.at
        )  # fmt: skip
        self.made.append(group)
        return group

    @staticmethod
    def _join_oco(mine: _Member, members: list[_Member]) -> None:
        first = members[0]
        if first.instrument_id != mine.instrument_id:
            raise Invalid("group_symbol", "The legs of an oco are of one symbol.", field="symbol")
        if first.quantity != mine.quantity:
            raise Invalid("group_quantity", "The legs of an oco have the same quantity.", field="quantity")
        begun = any(m.filled > 0 or m.status == OrdStatus.FILLED for m in members)
        if begun or any(m.reason == Reason.CANCEL_REQUESTED for m in members):
            raise Conflict("group_closed", "A leg of this group was filled or canceled already; choose another id.")

    @staticmethod
    def _join_oto(mine: _Member, members: list[_Member], ticket: Ticket, group: OrderGroup) -> UUID:
        parent = next(m for m in members if m.role is Role.PARENT)
        if ticket.partial_fills and ticket.partial_fills != group.partial_fills:
            detail = f"The group's first order said {group.partial_fills}; leave it out, or say the same."
            raise Invalid("group_policy", detail, field="partial_fills")
        if parent.status in CLOSED and parent.filled <= 0:
            raise Conflict("group_closed", "The order that this one would wait for ended unfilled; choose another id.")
        mine.role = Role.CHILD
        return parent.order_id


def leg_of(order: Order, seat: Seat) -> GroupLeg:
    """Return the row that keeps an order's place."""
    return rows.make(GroupLeg, order_id=order.id, group_id=seat.group.id, role=seat.role.value, quantity=order.quantity)


def exits_of(ticket: Ticket) -> list[tuple[Role, Ticket]]:
    """Return the tickets of the exits that a ticket asks for: they close what it opens."""
    side = "sell" if ticket.side == "buy" else "buy"
    lasts = EXIT_LASTS.get(ticket.time_in_force, "day")
    common: dict[str, Any] = {
        "account": ticket.account, "symbol": ticket.symbol, "side": side, "quantity": ticket.quantity, "time_in_force": lasts,
        "expire_at": ticket.expire_at if lasts == "gtd" else None, "broker": ticket.broker, "strategy": ticket.strategy,
        "note": ticket.note,
    }  # fmt: skip
    found = []
    if ticket.take_profit is not None:
        found.append((Role.TAKE_PROFIT, Ticket(**common, order_type="limit", limit_price=ticket.take_profit)))
    if (stop := ticket.stop_loss) is not None:
        kind = "stop" if stop.limit_price is None else "stop_limit"
        protecting = Ticket(**common, order_type=kind, stop_price=stop.stop_price, limit_price=stop.limit_price)
        found.append((Role.STOP_LOSS, protecting))
    return found
