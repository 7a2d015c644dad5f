"""First in, first out: which trades are still open, and what they cost.

The lots of a holding (one instrument of one account) are a fold over its live trades in the order `(executed_at, id)`.
As lots are always consumed oldest first, the fold also runs backwards: what the last trades consumed goes back to the
newest lots that lack something. So a late fill costs no more than the trades after it, however long the history.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from oms.kernel.decimals import EXACT, ZERO, money


def notional(quantity: Decimal, price: Decimal) -> Decimal:
    """Return quantity times price as the books keep money."""
    return money(EXACT.multiply(quantity, price))


@dataclass(frozen=True, slots=True)
class LiveTrade:
    """The version in force of one trade.

    `id` names the trade's first version, and with it the place in the queue and the lot: a correction keeps both.
    `version` names the row in force.
    """

    id: UUID
    version: UUID
    executed_at: datetime
    quantity: Decimal
    price: Decimal
    fees: Decimal = ZERO
    chosen: tuple[UUID, ...] = ()  # the lots it is to close first
    broker_id: int = 0

    @property
    def key(self) -> tuple[datetime, UUID]:
        """Return the trade's place in the queue."""
        return self.executed_at, self.id


@dataclass(slots=True)
class OpenLot:
    """What one trade opened, and how much of it is left: long above zero, short below.

    `closed_at` is when the trade that consumed the rest was executed. `basis` is what is left of the cost where that is not
    what is left of the quantity at the price: a pool, fees in the cost, a loss moved here. `held_since` is the day its
    holding period counts from where that is not the day of its trade.
    """

    id: UUID
    version: UUID
    opened_at: datetime
    price: Decimal
    quantity: Decimal
    remaining: Decimal
    closed_at: datetime | None = None
    basis: Decimal | None = None
    held_since: datetime | None = None

    @property
    def key(self) -> tuple[datetime, UUID]:
        """Return the lot's place in the queue."""
        return self.opened_at, self.id

    @property
    def cost(self) -> Decimal:
        """Return the cost of what is left, signed like it."""
        return notional(self.remaining, self.price) if self.basis is None else self.basis

    @property
    def consumed(self) -> Decimal:
        """Return how much was closed, unsigned."""
        return abs(self.quantity - self.remaining)


class Holding:
    """The lots of one instrument in one account, with a note of what changed.

    A part of the lots will do: of the open ones the oldest, as many as the trades to be applied can consume, and for
    a rewind those that the trades taken back opened or closed.
    """

    def __init__(self, lots: Iterable[OpenLot] = ()) -> None:
        self._lots = {lot.id: lot for lot in lots}
        self._open: deque[OpenLot] = deque()
        self.changed: dict[UUID, OpenLot] = {}
        self.dropped: set[UUID] = set()
        self._queue()

    @property
    def open_lots(self) -> list[OpenLot]:
        """Return the open lots, oldest first."""
        return list(self._open)

    def apply(self, trade: LiveTrade) -> Decimal:
        """Fold in a trade that comes after all others; return the change of the cost of what is open."""
        left, change = trade.quantity, ZERO
        while left and self._open and (self._open[0].remaining > 0) != (left > 0):
            lot = self._open[0]
            taken = lot.remaining if abs(lot.remaining) <= abs(left) else -left
            change -= lot.cost
            lot.remaining -= taken
            left += taken
            change += lot.cost
            self.changed[lot.id] = lot
            if not lot.remaining:
                lot.closed_at = trade.executed_at
                self._open.popleft()
        if left:
            change += self._append(OpenLot(trade.id, trade.version, trade.executed_at, trade.price, left, left))
        return change

    def rewind(self, trades: Sequence[LiveTrade]) -> Decimal:
        """Take back the last trades, given in any order; return the change of the cost of what is open.

        Raises `RuntimeError` when the lots were not made by these trades.
        """
        change, consumed = ZERO, ZERO
        for trade in trades:
            consumed += abs(trade.quantity)
            if lot := self._lots.pop(trade.id, None):
                consumed -= abs(lot.quantity) + lot.consumed
                change -= lot.cost
                self.changed.pop(lot.id, None)
                self.dropped.add(lot.id)
        change += self._give_back(consumed)
        self._queue()
        return change

    def _append(self, lot: OpenLot) -> Decimal:
        self._lots[lot.id] = self.changed[lot.id] = lot
        self._open.append(lot)
        self.dropped.discard(lot.id)
        return lot.cost

    def _give_back(self, quantity: Decimal) -> Decimal:
        change = ZERO
        for lot in sorted(self._lots.values(), key=lambda lot: lot.key, reverse=True):
            if not quantity:
                break
            if back := min(quantity, lot.consumed):
                change -= lot.cost
                lot.remaining += back if lot.quantity > 0 else -back
                lot.closed_at = None
                quantity -= back
                change += lot.cost
                self.changed[lot.id] = lot
        if quantity:
            raise RuntimeError(f"the lots lack {quantity} that the trades are said to have closed")
        return change

    def _queue(self) -> None:
        self._open = deque(sorted((lot for lot in self._lots.values() if lot.remaining), key=lambda lot: lot.key))
