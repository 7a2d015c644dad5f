"""Who gets what an issuer distributes: by the day of the trade, and who owes it to whom where delivery is late."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

LARGE = Decimal("0.25")
"""A distribution of this part of what a unit is worth, or more, trades with due bills: ex comes after it is paid."""
DUE_BILL, RETURN_CLAIM = "due_bill", "return_claim"
Business = Callable[[date], bool]


def ex_date(record: date, pay: date | None, days: int, part: Decimal | None, business: Business) -> date:
    """Return the first day on which a buyer doesn't get it; `days` is the market's cycle, `part` of the unit's worth.

    A purchase on the day before settles on the record date. A large distribution goes ex on the business day after it
    is paid. Raises `ValueError` for a large one whose pay date is not told.
    """
    if part is not None and part >= LARGE:
        if pay is None:
            raise ValueError("a large distribution goes ex after its pay date, which is not told")
        return _step(pay, 1, business)
    day = record
    for _ in range(max(days - 1, 0)):
        day = _step(day, -1, business)
    return day


def is_entitled(*, bought: date | None, sold: date | None, ex: date) -> bool:
    """Tell whether who bought and sold on these days gets it: who held when the ex date began."""
    return (bought is None or bought < ex) and (sold is None or sold >= ex)


def claim(*, traded: date, settles: date, ex: date, record: date) -> str:
    """Return what a trade owes because the register of the record date shows another holder than the trade date does.

    `due_bill`: the seller, still registered, passes it on to the buyer. `return_claim`: the buyer, registered already,
    gives it back to the seller. Empty: nothing.
    """
    if traded < ex and settles > record:
        return DUE_BILL
    if traded >= ex and settles <= record:
        return RETURN_CLAIM
    return ""


def _step(day: date, step: int, business: Business) -> date:
    day += timedelta(days=step)
    while not business(day):
        day += timedelta(days=step)
    return day
