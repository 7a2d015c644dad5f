"""The states of a settlement and what each may become; one amount is settled once."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal

from oms.kernel.decimals import EXACT, ZERO, money
from oms.kernel.errors import Conflict, Invalid

PENDING, PARTIAL, FAILED, SETTLED, CANCELED = "pending", "partial", "failed", "settled", "canceled"
STATES = (PENDING, PARTIAL, FAILED, SETTLED, CANCELED)
OPEN = (PENDING, PARTIAL, FAILED)
"""What is still to come or to go."""
MARKS = (PARTIAL, FAILED, SETTLED)
"""What a person may tell of a settlement; `canceled` follows from a bust or a correction alone."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a settlement is: its state, and how much of quantity and cash has moved (signed like the whole)."""

    state: str
    quantity: Decimal
    amount: Decimal


def mark(now: Progress, *, whole: Decimal, amount: Decimal, state: str, quantity: Decimal | None) -> Progress:
    """Return how far a settlement is after a person told its state; `quantity` is all that was delivered, unsigned.

    Raises `Conflict` when nothing is open any more, `Invalid` for a quantity that doesn't fit.
    """
    if now.state not in OPEN:
        raise Conflict("settlement_closed", f"This settlement is {now.state}; nothing of it is open.")
    if (quantity is not None) != (state == PARTIAL):
        raise Invalid("not_allowed", "Tell the quantity delivered with `partial`, and only there.", field="quantity")
    if state == SETTLED:
        return Progress(SETTLED, whole, amount)
    if state == FAILED:
        return Progress(FAILED, now.quantity, now.amount)
    if quantity is None or not abs(now.quantity) < quantity < abs(whole):
        raise Invalid("out_of_range", "More than was delivered before, and less than all of it.", field="quantity")
    share = money(EXACT.divide(EXACT.multiply(amount, quantity), abs(whole)))
    return Progress(PARTIAL, quantity if whole > ZERO else -quantity, share)


def settled_until(at: datetime, hour: time, zone: tzinfo) -> date:
    """Return the last day whose deliveries have been made by a time, where they are made at an hour of the market's day."""
    here = at.astimezone(zone)
    return here.date() if here.time() >= hour else here.date() - timedelta(days=1)
