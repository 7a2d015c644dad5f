"""When a session may be open: a daily window in the broker's own time zone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LOOK_AHEAD_DAYS = 8


@dataclass(frozen=True, slots=True)
class Schedule:
    """From `start` to `end` (past midnight where it is not later) on the days that it starts on."""

    start: time
    end: time
    zone: ZoneInfo
    days: frozenset[int]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Schedule":
        """Return the schedule of settings: start, end, timezone?, days?; raises `ValueError`."""
        if unknown := set(told) - {"start", "end", "timezone", "days"}:
            raise ValueError(f"schedule: no setting named {', '.join(sorted(unknown))}")
        zone = told.get("timezone", "UTC")
        try:
            start, end = (time.fromisoformat(str(told[n])) for n in ("start", "end"))
        except KeyError as error:
            raise ValueError(f"schedule: {error} is missing") from None
        except ValueError:
            raise ValueError("schedule: start and end are times like 08:00 or 17:30:00") from None
        if start.tzinfo or end.tzinfo:
            raise ValueError("schedule: start and end are in its timezone; leave offsets out")
        try:
            kept = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise ValueError(f"schedule: no time zone named {zone!r}; one like America/New_York") from None
        wanted = told.get("days", DAYS[:5])
        if not isinstance(wanted, list | tuple) or not wanted or not set(wanted) <= set(DAYS):
            raise ValueError(f"schedule: days is a list of {', '.join(DAYS)}")
        return cls(start, end, kept, frozenset(DAYS.index(d) for d in wanted))

    def began_at(self, at: datetime) -> datetime | None:
        """Return when the window began that is open at a time, None outside of any."""
        return next((begin for begin, end in self._windows(at) if begin <= at < end), None)

    def opens_at(self, at: datetime) -> datetime:
        """Return when the next window begins."""
        return next(begin for begin, _ in self._windows(at) if begin > at)

    def _windows(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        today = at.astimezone(self.zone).date()
        for day in (today + timedelta(days=n) for n in range(-1, LOOK_AHEAD_DAYS + 1)):
            if day.weekday() in self.days:
                begin = self._moment(day, self.start)
                end = self._moment(day if self.end > self.start else day + timedelta(days=1), self.end)
                yield begin, end

    def _moment(self, day: date, at: time) -> datetime:
        return datetime.combine(day, at, self.zone).astimezone(UTC)
