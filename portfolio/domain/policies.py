"""By what rules an account matches its trades, and from which day on."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

FIFO, LIFO, HIFO, SPECIFIC, AVERAGE, SECTION_104 = "fifo", "lifo", "hifo", "specific", "average", "section_104"
METHODS = (FIFO, LIFO, HIFO, SPECIFIC, AVERAGE, SECTION_104)
EXPENSED, IN_COST = "expensed", "in_cost"
COMMISSIONS = (EXPENSED, IN_COST)
POOLED = frozenset({AVERAGE, SECTION_104})
"""Methods that know one pool and no lots to choose from."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for trades executed on a UTC day or later.

    `commissions`: fees are an expense of their own, or part of what a lot cost and of what a sale brought. `wash_sales`:
    a loss whose shares were bought again within 30 days either way is not taken but added to the new lot's cost.
    """

    since: date = date.min
    method: str = FIFO
    commissions: str = EXPENSED
    wash_sales: bool = False

    @property
    def looks_around(self) -> bool:
        """Tell whether what a trade matches depends on trades of the days after it, so that lots alone don't tell."""
        return self.method == SECTION_104 or self.wash_sales


PLAIN = Policy()


class Policies:
    """An account's rules over time."""

    def __init__(self, policies: Sequence[Policy] = ()) -> None:
        self._all = sorted(policies, key=lambda p: p.since)
        self._days = [p.since for p in self._all]

    def at(self, moment: datetime) -> Policy:
        """Return the rules for a trade executed then; plain first in, first out where none were set."""
        index = bisect_right(self._days, moment.astimezone(UTC).date()) - 1
        return self._all[index] if index >= 0 else PLAIN
