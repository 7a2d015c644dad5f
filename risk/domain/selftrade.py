"""Orders of one account that would trade with each other, and what becomes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from oms.kernel.decimals import ZERO
from risk.domain.rules import CANCEL_BOTH, CANCEL_NEWEST, CANCEL_OLDEST


@dataclass(frozen=True, slots=True)
class Resting:
    """An order that may be filled at any moment: units left, and its limit price, None at the market."""

    order_id: UUID
    account_id: int
    instrument_id: int
    side: str
    quantity: Decimal
    limit_price: Decimal | None

    @property
    def is_buy(self) -> bool:
        """Tell its direction."""
        return self.side == "buy"


@dataclass(frozen=True, slots=True)
class Prevented:
    """What is left of a new order, which resting ones must be gone first, and what is left of one that goes on smaller."""

    quantity: Decimal
    cancels: tuple[UUID, ...] = ()
    reduced: tuple[UUID, Decimal] | None = None


def mode_of(instruction: str, of_the_account: str) -> str:
    """Return the mode in force: the new order's own, else its account's; what rests has no say."""
    return instruction or of_the_account


def would_meet(side: str, limit_price: Decimal | None, resting: Sequence[Resting]) -> list[Resting]:
    """Return the resting orders that a new one could trade with: its other side, at prices that cross; best first."""
    is_buy = side == "buy"
    found = [r for r in resting if r.is_buy != is_buy and r.quantity > 0 and _crosses(is_buy, limit_price, r)]
    return sorted(found, key=lambda r: (_distance(r), r.order_id))


def _crosses(is_buy: bool, limit_price: Decimal | None, resting: Resting) -> bool:
    if limit_price is None or resting.limit_price is None:
        return True
    return limit_price >= resting.limit_price if is_buy else limit_price <= resting.limit_price


def _distance(resting: Resting) -> Decimal:
    if resting.limit_price is None:
        return Decimal("-Infinity")
    return -resting.limit_price if resting.is_buy else resting.limit_price


def prevent(mode: str, quantity: Decimal, met: Sequence[Resting]) -> Prevented:
    """Return what becomes of a new order of a quantity and of those it would meet.

    `decrement` takes the smaller quantity off both: the smaller one is canceled, the larger one goes on with the rest.
    """
    everyone = tuple(r.order_id for r in met)
    if not met:
        return Prevented(quantity)
    if mode == CANCEL_NEWEST:
        return Prevented(ZERO)
    if mode == CANCEL_OLDEST:
        return Prevented(quantity, everyone)
    if mode == CANCEL_BOTH:
        return Prevented(ZERO, everyone)
    left = quantity
    gone: list[UUID] = []
    for resting in met:
        if resting.quantity > left:
            return Prevented(ZERO, tuple(gone), (resting.order_id, resting.quantity - left) if left else None)
        left -= resting.quantity
        gone.append(resting.order_id)
    return Prevented(left, tuple(gone))
