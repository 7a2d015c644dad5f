"""Day trades, counted, and by which dated rule they bind.

FINRA's Rule 4210 bound whoever made four day trades in five business days, and more than 6 % of his trades, to 25,000 of
equity. Its amendment (SR-FINRA-2025-017) puts intraday margin in its place from 2026-06-04 on, for each broker when it
moves over, for all from 2027-10-20 on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from oms.kernel.decimals import ZERO

REPEALED_FROM = date(2026, 6, 4)
REPEALED_FOR_ALL = date(2027, 10, 20)
PATTERN_DAY_TRADES = 4
PATTERN_SHARE = Decimal("0.06")
PATTERN_EQUITY = Decimal(25_000)
WINDOW_DAYS = 5
"""Business days that day trades are counted over, today with them."""
CLOSING_SOON = timedelta(minutes=10)
"""So long before the close a position counts as one that stays overnight."""
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Tally:
    """Day trades of one instrument in one day, and what was opened in it and is still open (signed)."""

    day_trades: int = 0
    opened: Decimal = ZERO


def tally(carried: Decimal, fills: Iterable[Decimal]) -> Tally:
    """Count the day trades of signed fills in their order, over a position carried into the day.

    A day trade is a close of what the day opened; further closes count again only after another opening. What the day
    opened is closed first: a sale before any purchase of the day is one of what was held overnight.
    """
    day_trades, opened, armed = 0, ZERO, False
    for fill in fills:
        rest = fill
        if opened * rest < 0:
            closing = _towards_zero(opened, rest)
            opened, rest = opened + closing, rest - closing
            day_trades, armed = day_trades + armed, False
        if carried * rest < 0:
            closing = _towards_zero(carried, rest)
            carried, rest = carried + closing, rest - closing
        if rest:
            opened, armed = opened + rest, True
    return Tally(day_trades, opened)


def _towards_zero(position: Decimal, fill: Decimal) -> Decimal:
    """Return the part of a fill that an opposite position takes up."""
    size = min(abs(position), abs(fill))
    return size if fill > 0 else -size


def pattern_rule_holds(on: date, migrated_on: date | None) -> bool:
    """Tell whether the pattern-day-trader rule still binds an account on a day."""
    if on < REPEALED_FROM:
        return True
    return on < REPEALED_FOR_ALL and (migrated_on is None or on < migrated_on)


def is_pattern(day_trades: int, trades: int) -> bool:
    """Tell whether so many day trades among so many trades of five business days make a pattern day trader."""
    return day_trades >= PATTERN_DAY_TRADES and share_of(day_trades, trades) > PATTERN_SHARE


def share_of(day_trades: int, trades: int) -> Decimal:
    """Return the day trades as a fraction of all trades."""
    return Decimal(day_trades) / trades if trades else ZERO


def window_begins(on: date) -> date:
    """Return the first of the five business days that end on a day; weekdays, as holidays only lengthen the window."""
    day, left = on, WINDOW_DAYS - 1
    while left:
        day -= timedelta(days=1)
        left -= day.weekday() < SATURDAY
    return day
