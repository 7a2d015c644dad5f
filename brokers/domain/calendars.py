"""When an exchange trades, out of its sessions as they were loaded."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
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

    def start_of_session(self, at: datetime) -> datetime | None:
        """Return when the session that a time lies in opened, None while the exchange is closed."""
        index = bisect_right(self.opens, at) - 1
        return self.opens[index] if index >= 0 and at < self.closes[index] else None

    def next_open(self, at: datetime) -> datetime | None:
        """Return the next opening after a time, None beyond the range loaded."""
        index = bisect_right(self.opens, at)
        return self.opens[index] if index < len(self.opens) else None

    def next_close(self, at: datetime) -> datetime | None:
        """Return the next close after a time, None beyond the range loaded."""
        index = bisect_right(self.closes, at)
        return self.closes[index] if index < len(self.closes) else None

    def trades_on(self, day: date) -> bool | None:
        """Tell whether the exchange trades on a day, None where that was not loaded."""
        if not self.days or not self.days[0] <= day <= self.days[-1]:
            return None
        return self.days[bisect_right(self.days, day) - 1] == day


def settle_date(
    executed_at: datetime,
    days: int,
    calendar: Calendar | None = None,
    closed: Callable[[date], bool] | None = None,
) -> date:
    """Return when a trade settles: so many business days after its UTC date.

    Those are the sessions of its exchange, or weekdays where no calendar is kept or loaded that far, but for days on
    which banks are `closed`: there is trading on some of them, and nothing settles.
    """
    day = executed_at.astimezone(UTC).date()
    while days > 0:
        day += timedelta(days=1)
        trades = calendar.trades_on(day) if calendar else None
        if (day.weekday() < SATURDAY if trades is None else trades) and not (closed and closed(day)):
            days -= 1
    return day
