"""When trades settle: the market's cycle on the day of the trade, counted over days on which banks pay as well.

The facts here are the markets' own, dated; who edits an instrument's `settlement_days` sets what has no market here.
"""

from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from brokers.domain.calendars import SATURDAY, Calendar, settle_date

Closed = Callable[[date], bool]

_UNITED_STATES = ((date.min, 5), (date(1995, 6, 7), 3), (date(2017, 9, 5), 2), (date(2024, 5, 28), 1))
_EUROPE = ((date.min, 3), (date(2014, 10, 6), 2), (date(2027, 10, 11), 1))
CYCLES: dict[str, tuple[tuple[date, int], ...]] = {
    **dict.fromkeys(("XNYS", "XNAS", "XASE", "ARCX", "BATS"), _UNITED_STATES),
    **dict.fromkeys(
        ("XLON", "XPAR", "XAMS", "XBRU", "XLIS", "XDUB", "XETR", "XFRA", "XMIL", "XMAD", "XSWX", "XSTO", "XCSE", "XHEL", "XOSL",
         "XWBO"), _EUROPE,
    ),
    "XTSE": ((date.min, 3), (date(2017, 9, 5), 2), (date(2024, 5, 27), 1)),
    "XMEX": ((date.min, 3), (date(2017, 9, 5), 2), (date(2024, 5, 27), 1)),
    "XTKS": ((date.min, 3), (date(2019, 7, 16), 2)),
    "XASX": ((date.min, 3), (date(2016, 3, 7), 2)),
    "XHKG": ((date.min, 2),),
}  # fmt: skip
"""Business days from trade to settlement by exchange and by the first trade date they hold for: shares."""

CURRENCY_CALENDARS = {
    "GBP": "XLON", "JPY": "XTKS", "CHF": "XSWX", "CAD": "XTSE", "AUD": "XASX", "SEK": "XSTO", "NOK": "XOSL", "DKK": "XCSE",
    "HKD": "XHKG", "SGD": "XSES", "MXN": "XMEX", "PLN": "XWAR", "CZK": "XPRA", "HUF": "XBUD", "ZAR": "XJSE", "NZD": "XNZE",
    "KRW": "XKRX", "INR": "XBOM", "CNY": "XSHG", "TRY": "XIST", "BRL": "BVMF",
}  # fmt: skip
"""The exchange whose sessions stand for a currency's banking days. USD and EUR have rules of their own."""


def cycle(exchange: str, asset_class: str, trade_date: date, otherwise: int) -> int:
    """Return how many business days after its date a trade settles; `otherwise` for what has no cycle here."""
    steps = CYCLES.get(exchange) if asset_class == "equity" else None
    return otherwise if steps is None else steps[bisect_right([s for s, _ in steps], trade_date) - 1][1]


def settles_on(executed_at: datetime, *, exchange: str, asset_class: str, days: int, calendar: Calendar | None) -> date:
    """Return when a trade on an exchange settles."""
    trade_date = executed_at.astimezone(UTC).date()
    closed = us_bank_holiday if exchange in CYCLES and CYCLES[exchange] is _UNITED_STATES else None
    return settle_date(executed_at, cycle(exchange, asset_class, trade_date, days), calendar, closed)


def value_date(
    executed_at: datetime, days: int, currencies: tuple[str, str], closed: Callable[[str, date], bool]
) -> date:
    """Return when an exchange of two currencies settles.

    Days count on which banks of both pay, those of the dollar left out of the count; the last is one on which banks of
    both and of the dollar pay.
    """
    day, counted = executed_at.astimezone(UTC).date(), [c for c in currencies if c != "USD"]
    while days > 0:
        day += timedelta(days=1)
        if not any(closed(c, day) for c in counted) and day.weekday() < SATURDAY:
            days -= 1
    while day.weekday() >= SATURDAY or any(closed(c, day) for c in {*currencies, "USD"}):
        day += timedelta(days=1)
    return day


def us_bank_holiday(day: date) -> bool:
    """Tell whether the Federal Reserve keeps a holiday; one on a Saturday is not kept, one on a Sunday on the Monday."""
    if day.weekday() >= SATURDAY:
        return False
    fixed = {(1, 1), (7, 4), (11, 11), (12, 25)} | ({(6, 19)} if day.year >= 2022 else set())
    before = day - timedelta(days=1)
    if (day.month, day.day) in fixed or (day.weekday() == 0 and (before.month, before.day) in fixed):
        return True
    week, last = (day.day - 1) // 7 + 1, (day + timedelta(days=7)).month != day.month
    if day.weekday() == 3:
        return day.month == 11 and week == 4
    nth = {(1, 3): 1986, (2, 3): 1971, (9, 1): 1971, (10, 2): 1971}
    return day.weekday() == 0 and (nth.get((day.month, week), day.year + 1) <= day.year or (day.month == 5 and last))


def euro_bank_holiday(day: date) -> bool:
    """Tell whether the euro's payment system keeps a holiday."""
    if (day.month, day.day) in {(1, 1), (5, 1), (12, 25), (12, 26)}:
        return True
    return day - easter(day.year) in (timedelta(days=-2), timedelta(days=1))


def easter(year: int) -> date:
    """Return the Sunday of Easter by the Gregorian calendar."""
    golden, century = year % 19, year // 100
    moon = (century - century // 4 - (8 * century + 13) // 25 + 19 * golden + 15) % 30
    moon -= moon // 28 * (1 - moon // 28 * (29 // (moon + 1)) * ((21 - golden) // 11))
    weekday = (year + year // 4 + moon + 2 - century + century // 4) % 7
    offset = moon - weekday
    month = 3 + (offset + 40) // 44
    return date(year, month, offset + 28 - 31 * (month // 4))
