"""Orders that depend on each other: how much of each may work, given what was filled of the others.

- **oco**: two or more legs; one cancels the others. A fill of one takes as many units off each of the others.
- **oto**: a parent and its children; one triggers the others. How much a child may work for follows the parent's fills.
- **bracket**: an entry with exits, a take profit and a stop loss: children of the entry, and legs of one oco.

All of it is a function of what stands, so that whatever order fills, busts, corrections and cancels come in, the same quantities
follow. Exits never work for more than their entry has filled: they protect a position, and must not open one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum
from uuid import UUID

from oms.kernel.decimals import EXACT, ZERO


class Kind(StrEnum):
    """How the orders of a group depend on each other."""

    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


class Role(StrEnum):
    """What an order is in its group."""

    PARENT = "parent"
    CHILD = "child"
    TAKE_PROFIT = "take_profit"
    STOP_LOSS = "stop_loss"
    LEG = "leg"
    FLATTEN = "flatten"  # proposed to a person, to undo what was filled beyond what the group may


class Policy(StrEnum):
    """When children begin, and with how much, while their parent is filled in parts."""

    PRO_RATA = "pro_rata"  # as large a part of a child as is filled of its parent
    FIRST_FILL = "first_fill"  # whole, once anything of the parent is filled
    FULL_FILL = "full_fill"  # whole, once all of the parent is filled


EXITS = frozenset({Role.TAKE_PROFIT, Role.STOP_LOSS})
IN_SET = EXITS | {Role.LEG}
"""Those of which one cancels the others."""
FOLLOWS = EXITS | {Role.CHILD}
"""Those that wait for a parent."""
LEGS_MAX = 10
"""How many orders one oco or oto may have."""


@dataclass(frozen=True, slots=True)
class Parent:
    """What the children of a group wait for."""

    quantity: Decimal
    filled: Decimal
    is_open: bool


@dataclass(frozen=True, slots=True)
class Leg:
    """One order of a group that follows others. `asked` is the whole quantity; `given_up` tells that a person ended it."""

    id: UUID
    role: Role
    asked: Decimal
    filled: Decimal
    given_up: bool = False


def allowed(leg: Leg, policy: Policy, parent: Parent | None, lot: Decimal) -> Decimal:
    """Return how many units the fills of its parent allow a leg in all; an exit is allowed what its entry has filled.

    An entry that ended before it was complete is protected as far as it got; a child that waits for all of its parent then
    waits for good.
    """
    if parent is None:
        return leg.asked
    if parent.filled <= 0:
        return ZERO
    complete = parent.filled >= parent.quantity
    if leg.role in EXITS:
        return ZERO if policy is Policy.FULL_FILL and parent.is_open and not complete else parent.filled
    if complete or policy is Policy.FIRST_FILL:
        return leg.asked
    if policy is Policy.FULL_FILL:
        return ZERO
    part = EXACT.divide(EXACT.multiply(leg.asked, parent.filled), parent.quantity)
    return EXACT.divide(part, lot).to_integral_value(ROUND_FLOOR) * lot


def wanted(legs: Sequence[Leg], policy: Policy, parent: Parent | None, lot: Decimal) -> Mapping[UUID, Decimal]:
    """Return what each leg shall ask for in all, what it has filled included.

    Of a set in which one cancels the others, each is allowed what the others have left; one leg of an oco that a person ended
    ends the others, while exits stay: they protect a position.
    """
    done = sum((x.filled for x in legs if x.role in IN_SET), ZERO)
    ended = any(x.given_up for x in legs if x.role is Role.LEG)
    found = {}
    for leg in legs:
        most = allowed(leg, policy, parent, lot)
        if leg.role in IN_SET:
            most = ZERO if ended else most - (done - leg.filled)
        found[leg.id] = max(most, leg.filled)
    return found


def excess(legs: Sequence[Leg], parent: Parent | None) -> Decimal:
    """Return how much more was filled of a set than one cancels the others for: both legs at once, or an entry undone later."""
    together = [x for x in legs if x.role in IN_SET]
    if not together:
        return ZERO
    most = max(x.asked for x in together) if parent is None else parent.filled
    return max(sum((x.filled for x in together), ZERO) - most, ZERO)
