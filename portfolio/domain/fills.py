"""A fill as the books receive it."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution, bust or correction. Quantity is signed (buys above zero); a correction holds the new totals.

    `fees` are those in the instrument's currency; `other_fees` what it adds in others, over the version that it replaces.
    """

    source_id: UUID
    kind: str  # trade, bust, correct
    ref_source_id: UUID | None  # the execution undone or corrected
    account_id: int
    broker_id: int
    instrument_id: int
    quantity: Decimal
    price: Decimal
    fees: Decimal
    currency: str
    executed_at: datetime
    settle_date: date
    strategy_id: int | None = None
    other_fees: tuple[tuple[str, Decimal], ...] = ()
    chosen: tuple[UUID, ...] = ()  # the lots its order is to close first


def received(quantity: Decimal, taken: Decimal) -> Decimal:
    """Return what is left of a fill (signed) of which a fee took units, unsigned."""
    return quantity - taken
