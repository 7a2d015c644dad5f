"""First in, first out: which lots a trade closes, and what that realises."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from oms.kernel.decimals import ZERO, money


@dataclass(frozen=True, slots=True)
class Traded:
    """A trade as the fold sees it: signed quantity, and the key that orders it among the others."""

    id: UUID
    at: datetime
    quantity: Decimal
    price: Decimal

    @property
    def key(self) -> tuple[datetime, UUID]:
        """Return what trades are sorted by: time, then id, so that any order of arrival folds the same."""
        return (self.at, self.id)


@dataclass(slots=True)
class OpenLot:
    """What is left of an opening trade; signed like the trade."""

    trade: Traded
    opened: Decimal
    remaining: Decimal


@dataclass(slots=True)
class Holding:
    """The lots of one instrument in one account, oldest first, and what closing others has realised.

    `origin` is the lot that opened the present holding out of nothing, by the first trade or by one through zero:
    nothing before it can change what follows.
    """

    lots: deque[OpenLot] = field(default_factory=deque)
    realized: Decimal = ZERO
    origin: OpenLot | None = None
    closed: list[OpenLot] = field(default_factory=list)

    @property
    def quantity(self) -> Decimal:
        """Return the signed quantity held."""
        return sum((lot.remaining for lot in self.lots), ZERO)

    def take(self, trade: Traded) -> Decimal:
        """Fold one trade in; return the gain it realised (a loss below zero)."""
        left = trade.quantity
        gain = ZERO
        while left and self.lots and (self.lots[0].remaining > 0) != (left > 0):
            lot = self.lots[0]
            size = min(abs(left), abs(lot.remaining))
            sign = 1 if lot.remaining > 0 else -1
            gain += sign * size * (trade.price - lot.trade.price)
            lot.remaining -= sign * size
            left += sign * size
            if lot.remaining == 0:
                self.closed.append(self.lots.popleft())
        if left:
            opened = OpenLot(trade, left, left)
            if not self.lots:
                self.origin = OpenLot(trade, left, left)
            self.lots.append(opened)
        elif not self.lots:
            self.origin = None
        gain = money(gain)
        self.realized += gain
        return gain


def fold(trades: Iterable[Traded], start: Holding | None = None) -> Holding:
    """Return the holding that trades lead to, in the order of their keys, from nothing or from a start."""
    holding = start or Holding()
    for trade in sorted(trades, key=lambda t: t.key):
        holding.take(trade)
    return holding
