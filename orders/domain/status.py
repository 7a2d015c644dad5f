"""Which status is shown when several hold: FIX's precedence, as functions of the facts."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from orders.states import CLOSED, OrdStatus, is_over

PRECEDENCE = (
    OrdStatus.PENDING_CANCEL,
    OrdStatus.PENDING_REPLACE,
    OrdStatus.DONE_FOR_DAY,
    OrdStatus.CALCULATED,
    OrdStatus.FILLED,
    OrdStatus.STOPPED,
    OrdStatus.SUSPENDED,
    OrdStatus.CANCELED,
    OrdStatus.EXPIRED,
    OrdStatus.PARTIALLY_FILLED,
    OrdStatus.NEW,
    OrdStatus.REJECTED,
    OrdStatus.PENDING_NEW,
)
"""FIX 5.0 SP2 volume 4, appendix D: where several hold, the first of these is shown."""


@dataclass(frozen=True, slots=True)
class ChildFacts:
    """What is known of one broker order, whatever order it was learned in."""

    quantity: Decimal
    filled: Decimal
    acknowledged: bool
    ended_as: str  # how the broker closed it: canceled, expired, rejected, done_for_day, calculated, or empty
    cancel_pending: bool
    replace_pending: bool
    standing: str = ""  # suspended, stopped, done_for_day of an order that lasts, or empty


def child_status(facts: ChildFacts) -> OrdStatus:
    """Return the status of a broker order by precedence."""
    complete = facts.filled >= facts.quantity
    holds = set()
    if facts.cancel_pending and not (facts.ended_as and not complete):
        holds.add(OrdStatus.PENDING_CANCEL)
    if facts.replace_pending and not facts.ended_as:
        holds.add(OrdStatus.PENDING_REPLACE)
    if complete:
        holds.add(OrdStatus.FILLED)
    if facts.ended_as == OrdStatus.REJECTED and facts.filled > 0:
        holds.add(OrdStatus.CANCELED)  # refused after all, but not before some of it was done
    elif facts.ended_as:
        holds.add(OrdStatus(facts.ended_as))
    elif facts.filled > 0:
        holds.add(OrdStatus.PARTIALLY_FILLED)
    elif facts.acknowledged:
        holds.add(OrdStatus.NEW)
    else:
        holds.add(OrdStatus.PENDING_NEW)
    if facts.standing and not facts.ended_as:
        holds.add(OrdStatus(facts.standing))
    return next(s for s in PRECEDENCE if s in holds)


def leaves(status: OrdStatus, quantity: Decimal, filled: Decimal, time_in_force: str) -> Decimal:
    """Return what may still be filled: nothing once it is over."""
    return Decimal(0) if is_over(status, time_in_force) else max(quantity - filled, Decimal(0))


_END_RANK = (
    "",
    OrdStatus.DONE_FOR_DAY,
    OrdStatus.REJECTED,
    OrdStatus.EXPIRED,
    OrdStatus.CANCELED,
    OrdStatus.CALCULATED,
)


def stronger_end(first: str, second: str) -> str:
    """Return which of two ends stands, in whatever order they were told: the day's end gives way to any other."""
    return max(first, second, key=_END_RANK.index)


def worked_status(
    quantity: Decimal, filled: Decimal, children: Iterable[OrdStatus], *, works: bool, ended_as: str, paused: bool
) -> OrdStatus:
    """Return the status of an order that is worked in slices.

    While the work goes on it is open, whatever became of the slices so far, and a slice that is canceled is no cancel of the
    order; `ended_as` is what it becomes once the work is over and nothing of it `works` at a broker.
    """
    if filled >= quantity:
        return OrdStatus.FILLED
    if ended_as and not works:
        return OrdStatus(ended_as)
    if ended_as and OrdStatus.PENDING_CANCEL in children:
        return OrdStatus.PENDING_CANCEL
    if paused and not works:
        return OrdStatus.SUSPENDED
    return OrdStatus.PARTIALLY_FILLED if filled > 0 else OrdStatus.NEW


_AT_REST = frozenset({OrdStatus.DONE_FOR_DAY, OrdStatus.SUSPENDED})


def order_status(quantity: Decimal, filled: Decimal, children: Iterable[OrdStatus]) -> OrdStatus:
    """Return the status of a desk order over its broker orders.

    A pending request at one child shows; with a refusal behind it and another broker before it, it is new; it is
    rejected only if nothing filled and every child was rejected; with all children closed short of the quantity it
    ended as the last of them by precedence.
    """
    states = list(children)
    for pending in (OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE):
        if pending in states:
            return pending
    if set(states) == {OrdStatus.CALCULATED}:
        return OrdStatus.CALCULATED
    if filled >= quantity:
        return OrdStatus.FILLED
    working = {s for s in states if s not in CLOSED}
    if working:
        shown = working - _AT_REST or working  # while a part of it works, it works
        if filled > 0:
            shown = shown | {OrdStatus.PARTIALLY_FILLED}
        elif len(working) < len(set(states)):
            shown = shown | {OrdStatus.NEW}
        return next(s for s in PRECEDENCE if s in shown)
    if filled == 0 and all(s == OrdStatus.REJECTED for s in states):
        return OrdStatus.REJECTED
    return OrdStatus.EXPIRED if OrdStatus.EXPIRED in states else OrdStatus.CANCELED
