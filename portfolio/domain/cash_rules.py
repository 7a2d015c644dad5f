"""What a cash account may not do with money that has not arrived: good-faith violations and free-riding (Regulation T).

A purchase is paid from settled cash first, then from the proceeds of sales that have not settled, the oldest first. Selling
what was paid from such proceeds before they settle is a good-faith violation. Selling what nothing there could pay for,
before it was paid for, is free-riding. Securities leave in the order they came.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from oms.kernel.decimals import EXACT, ZERO, money

GOOD_FAITH, FREE_RIDING = "good_faith", "free_riding"
MEANING = {
    GOOD_FAITH: "Sold before the sale that paid for it had settled.",
    FREE_RIDING: "Sold before it was paid for: neither settled cash nor proceeds covered the purchase.",
}
MOST = {GOOD_FAITH: 3, FREE_RIDING: 1}
"""With so many within a year, brokers restrict an account to settled cash for `RESTRICTED`."""
YEAR = timedelta(days=365)
RESTRICTED = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Flow:
    """Cash that moved for a holding, or for none (a transfer): `amount` in above zero, there on `settles_on`."""

    id: UUID
    at: datetime
    amount: Decimal
    settles_on: date
    instrument_id: int | None = None
    quantity: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Violation:
    """A sale that came too early: which one, of what purchase, for how much of the money, and until when it had to wait."""

    kind: str
    sale: UUID
    purchase: UUID
    instrument_id: int
    on: date
    amount: Decimal
    wait_until: date | None  # None: until it is paid for


@dataclass(slots=True)
class _Part:
    """A part of a purchase with what has paid for it: `free_on` is when that had settled, None for nothing at all."""

    purchase: UUID
    quantity: Decimal
    cost: Decimal
    free_on: date | None


@dataclass(slots=True)
class _Coming:
    """What is left of the proceeds of a sale, and when they settle."""

    amount: Decimal
    due: date


@dataclass(slots=True)
class Ledger:
    """Cash and securities of one currency of an account, flow by flow."""

    settled: Decimal = ZERO
    coming: deque[_Coming] = field(default_factory=deque)  # oldest first
    owed: Decimal = ZERO
    held: dict[int, deque[_Part]] = field(default_factory=lambda: defaultdict(deque))
    found: list[Violation] = field(default_factory=list)

    def run(self, flows: Iterable[Flow]) -> list[Violation]:
        """Take flows in the order of their times; return what was violated."""
        for flow in flows:
            self._arrive(flow.at.date())
            if flow.instrument_id is None:
                self._receive(flow.amount, flow.settles_on, flow.at.date())
            elif flow.quantity > ZERO:
                self._buy(flow)
            else:
                self._sell(flow)
        return self.found

    def locked(self, instrument_id: int, quantity: Decimal, today: date) -> list[_Part]:
        """Return the parts of a sale of so many now that would come too early."""
        self._arrive(today)
        parts, left = [], quantity
        for part in self.held[instrument_id]:
            if left <= ZERO:
                break
            taken = min(part.quantity, left)
            left -= taken
            if part.free_on is None or part.free_on > today:
                parts.append(_Part(part.purchase, taken, money(_share(part.cost, taken, part.quantity)), part.free_on))
        return parts

    def _arrive(self, today: date) -> None:
        """Count as settled what has arrived until today."""
        self.settled += sum((c.amount for c in self.coming if c.due <= today), ZERO)
        self.coming = deque(c for c in self.coming if c.due > today)
        if self.owed and self.settled > ZERO:
            paid = min(self.owed, self.settled)
            self.owed -= paid
            self.settled -= paid
            self._pay(paid, today)

    def _pay(self, amount: Decimal, today: date) -> None:
        """Let money pay for what was bought without any, oldest first."""
        for parts in self.held.values():
            for part in parts:
                if part.free_on is None and amount > ZERO:
                    amount -= min(amount, part.cost)
                    part.free_on = today

    def _receive(self, amount: Decimal, due: date, today: date) -> None:
        if amount >= ZERO and due > today:
            self.coming.append(_Coming(amount, due))
        else:
            self.settled += amount
            self._arrive(today)

    def _buy(self, flow: Flow) -> None:
        cost = left = -flow.amount
        paid = min(max(self.settled, ZERO), left)
        self.settled -= paid
        left -= paid
        parts: list[tuple[Decimal, date | None]] = [(paid, flow.at.date())] if paid > ZERO or not cost else []
        for entry in self.coming:
            if left <= ZERO:
                break
            used = min(entry.amount, left)
            entry.amount -= used
            left -= used
            if used:
                parts.append((used, entry.due))
        if left > ZERO:
            self.owed += left
            parts.append((left, None))
        done = ZERO
        for n, (share, free_on) in enumerate(parts):
            last = n == len(parts) - 1
            quantity = flow.quantity - done if last else _share(flow.quantity, share, cost)
            done += quantity
            self.held[flow.instrument_id or 0].append(_Part(flow.id, quantity, share, free_on))

    def _sell(self, flow: Flow) -> None:
        today, left = flow.at.date(), -flow.quantity
        instrument_id = flow.instrument_id or 0
        self.found += [
            Violation(
                GOOD_FAITH if part.free_on else FREE_RIDING,
                flow.id,
                part.purchase,
                instrument_id,
                today,
                part.cost,
                part.free_on,
            )
            for part in self.locked(instrument_id, left, today)
        ]
        parts = self.held[instrument_id]
        while left > ZERO and parts:
            first = parts[0]
            taken = min(first.quantity, left)
            left -= taken
            if taken == first.quantity:
                parts.popleft()
            else:
                first.cost -= money(_share(first.cost, taken, first.quantity))
                first.quantity -= taken
        self._receive(flow.amount, flow.settles_on, today)


def _share(whole: Decimal, part: Decimal, of: Decimal) -> Decimal:
    return EXACT.divide(EXACT.multiply(whole, part), of) if of else ZERO


def restricted_until(violations: Sequence[Violation], today: date) -> date | None:
    """Return until when brokers would restrict the account to settled cash, None if they wouldn't.

    >>> v = [Violation(FREE_RIDING, UUID(int=0), UUID(int=0), 1, date(2026, 1, 5), Decimal(1), None)]
    >>> restricted_until(v, date(2026, 2, 1)), restricted_until(v, date(2026, 6, 1))
    (datetime.date(2026, 4, 5), None)
    """
    ends = []
    for kind, most in MOST.items():
        days = sorted({(v.sale, v.on) for v in violations if v.kind == kind}, key=lambda d: d[1])
        for n, (_, day) in enumerate(days):
            if n + 1 >= most and day - days[n + 1 - most][1] <= YEAR:
                ends.append(day + RESTRICTED)
    last = max(ends, default=None)
    return last if last is not None and last > today else None
