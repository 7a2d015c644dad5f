"""How fast something goes: a leaky bucket, which forgets nothing sooner than its rate allows."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from oms.kernel.decimals import ZERO

PaceKey = tuple[int, str, str, str]
"""(account id, kind of limit, kind of scope, key of scope)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a bucket held at a time."""

    level: Decimal
    at: datetime

    def level_at(self, at: datetime, rate: Decimal) -> Decimal:
        """Return what is left in it when `rate` a second runs out."""
        passed = max(ZERO, seconds_between(self.at, at))
        return max(ZERO, self.level - passed * rate)


def seconds_between(earlier: datetime, later: datetime) -> Decimal:
    """Return the seconds from one time to another, exactly; below zero when they stand the other way round."""
    delta = later - earlier
    return Decimal(delta.days * 86_400 + delta.seconds) + Decimal(delta.microseconds) / 1_000_000
