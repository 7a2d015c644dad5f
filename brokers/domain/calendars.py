"""When an exchange trades, out of its sessions as they were loaded."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Calendar:
    """Sessions by day, ascending: the days, and when each opens and closes (UTC)."""

    days: Sequence[date]
    opens: Sequence[datetime]
    closes: Sequence[datetime]

    def is_open(self, at: datetime) -> bool:
        """Tell whether the exchange trades at a time; outside of the range loaded nobody knows, so it counts as closed."""
        index = bisect_right(self.opens, at) - 1
        return index >= 0 and at < self.closes[index]

    def end_of_session(self, at: datetime) -> datetime | None:
        """Return when the session that a time lies in closes, None while the exchange is closed."""
        index = bisect_right(self.opens, at) - 1
        return self.closes[index] if index >= 0 and at < self.closes[index] else None

    def after(self, day: date, sessions: int) -> date | None:
        """Return the day of the n-th session after a day, None where the range loaded doesn't reach so far."""
        if not self.days or day < self.days[0]:
            return None
        index = bisect_right(self.days, day) + sessions - 1
        return self.days[index] if index < len(self.days) else None


def settle_date(executed_at: datetime, days: int, calendar: Calendar | None = None) -> date:
    """Return when a trade settles: so many sessions of its exchange after its UTC date, or weekdays where no calendar
    is kept or loaded that far."""
    day = executed_at.astimezone(UTC).date()
    if days > 0 and calendar is not None and (found := calendar.after(day, days)) is not None:
        return found
    while days > 0:
        day += timedelta(days=1)
        if day.weekday() < SATURDAY:
            days -= 1
    return day
