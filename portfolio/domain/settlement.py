"""When a trade settles."""

from datetime import date, datetime, timedelta

SATURDAY = 5


def settle_date(executed_at: datetime, days: int) -> date:
    """Return the trade's UTC date plus that many weekdays; holidays are not known here yet."""
    day = executed_at.date()
    while days > 0:
        day += timedelta(days=1)
        if day.weekday() < SATURDAY:
            days -= 1
    return day
