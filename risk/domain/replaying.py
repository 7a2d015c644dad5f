"""Judging again, by the numbers that a verdict was stored with."""

from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any, NamedTuple

from oms.kernel.reasons import Reason
from risk.domain import bounds, checks, compliance, standing
from risk.domain.checks import Check

CHECKS: dict[str, type[Check]] = {
    kind.name: kind
    for module in (checks, bounds, standing, compliance)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Check) and hasattr(kind, "name")
}
"""Every check by the name it is stored under."""


class Replayed(NamedTuple):
    """The answer that stored numbers lead to."""

    approved: bool
    reason: str
    held: bool = False


def replay(stored: Sequence[dict[str, Any]]) -> Replayed:
    """Judge stored checks again: the first hard one that fails denies, else the first soft one holds the order.

    A check that failed to compute when it was made is stored as `check_failed` and denies again.
    """
    breach = ""
    for row in stored:
        if row["check"] not in CHECKS:
            return Replayed(False, Reason.CHECK_FAILED)
        reason = _from_json(CHECKS[row["check"]], row["numbers"]).judge()
        if reason is not None and not row.get("soft"):
            return Replayed(False, reason)
        breach = breach or (reason or "")
    return Replayed(not breach, breach, bool(breach))


def _from_json(kind: type[Check], numbers: dict[str, Any]) -> Check:
    exact = {f.name for f in fields(kind) if f.type in (Decimal, Decimal | None)}
    return kind(**{n: Decimal(v) if n in exact and v is not None else v for n, v in numbers.items()})
