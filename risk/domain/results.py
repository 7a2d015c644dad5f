"""What an account has won or lost, valued at the mid: today and altogether, in its base currency."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from brokers.domain.reference import QuoteRef
from oms.kernel.decimals import ZERO


@dataclass(frozen=True, slots=True)
class Result:
    """One position's part: what is held at which cost, what was realised, and what was traded today (signed).

    `cost` and `day_amount` are signed like the quantities; amounts are in the instrument's currency.
    """

    instrument_id: int
    quantity: Decimal
    cost: Decimal
    realized: Decimal
    fees: Decimal
    day_quantity: Decimal
    day_amount: Decimal


@dataclass(frozen=True, slots=True)
class Profit:
    """Profit of the day since its open, and since the account exists, after fees; None where a price or rate is missing."""

    day: Decimal | None
    total: Decimal | None


def profit_of(
    results: Iterable[Result],
    quotes: Mapping[int, QuoteRef],
    to_base: Callable[[Decimal, int], Decimal | None],
) -> Profit:
    """Sum the parts; `to_base` turns an amount in an instrument's currency (its id) into the base currency."""
    day: Decimal | None = ZERO
    total: Decimal | None = ZERO
    for part in results:
        quote = quotes.get(part.instrument_id)
        today, ever = _of_day(part, quote), _of_all(part, quote)
        day = _add(day, None if today is None else to_base(today, part.instrument_id))
        total = _add(total, None if ever is None else to_base(ever, part.instrument_id))
    return Profit(day, total)


def _of_day(part: Result, quote: QuoteRef | None) -> Decimal | None:
    before = part.quantity - part.day_quantity
    if quote is None:
        return -part.day_amount if before == 0 and part.quantity == 0 else None
    return before * (quote.mid - quote.day_open) + part.day_quantity * quote.mid - part.day_amount


def _of_all(part: Result, quote: QuoteRef | None) -> Decimal | None:
    if part.quantity == 0:
        return part.realized - part.fees
    return None if quote is None else part.realized - part.fees + part.quantity * quote.mid - part.cost


def _add(sum_: Decimal | None, more: Decimal | None) -> Decimal | None:
    return None if sum_ is None or more is None else sum_ + more
