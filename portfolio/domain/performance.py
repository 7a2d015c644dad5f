"""How well an account did: time-weighted, money-weighted, and how far it fell.

Time-weighted, flows don't matter: growth is chained between the moments at which the worth is known, one of them just before
each flow. Where it was not known then, the flow is weighted by its place between the moments around it (modified Dietz).
Money-weighted, they do: the yearly rate at which all flows and the end are worth nothing together (XIRR).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from math import exp, isfinite, log1p

from oms.kernel.decimals import EXACT, ZERO

ONE = Decimal(1)
YEAR_SECONDS = 365 * 86_400
PLACES = Decimal("0.0000000001")
STEPS = 400
REACH = 16.0
"""How far to look for a rate, in logarithms: from losing all but a ten-millionth a year to growing as many times over."""


@dataclass(frozen=True, slots=True)
class Known:
    """The worth of an account at a moment, flows until then included."""

    at: datetime
    equity: Decimal


@dataclass(frozen=True, slots=True)
class Flow:
    """Cash from outside (above zero) or to it, and the worth just before, None where it was not known."""

    at: datetime
    amount: Decimal
    equity_before: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """Where the curve stands: worth, growth of one unit since the beginning, and how far that is below its highest."""

    at: datetime
    equity: Decimal
    index: Decimal
    drawdown: Decimal


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall of growth: as a part of the peak, from when to when, and when it was made good, if it was."""

    depth: Decimal
    peak_at: datetime
    trough_at: datetime
    recovered_at: datetime | None


def growth(start: Known, flows: Sequence[Flow], end: Known) -> Decimal | None:
    """Return what one unit became between two moments, flows left out of it; None where nothing was at work.

    Flows lie after the start and up to the end, in order of time.
    """
    index, base, since, dietz = ONE, start.equity, start.at, list[Flow]()
    for flow in flows:
        if flow.equity_before is None:
            dietz.append(flow)
            continue
        factor = _dietz(base, since, dietz, Known(flow.at, flow.equity_before))
        index = index if factor is None else EXACT.multiply(index, factor)
        base, since, dietz = flow.equity_before + flow.amount, flow.at, []
    factor = _dietz(base, since, dietz, end)
    if factor is None and base <= 0 and not flows:
        return None
    return index if factor is None else EXACT.multiply(index, factor)


def _dietz(base: Decimal, since: datetime, flows: Sequence[Flow], end: Known) -> Decimal | None:
    """Return the growth of a span in which flows came whose moment's worth is not known; None where nothing was at work."""
    total = sum((f.amount for f in flows), ZERO)
    span = Decimal(str((end.at - since).total_seconds()))
    weighted = base
    for flow in flows:
        left = Decimal(str((end.at - flow.at).total_seconds()))
        weighted += flow.amount * (EXACT.divide(left, span) if span else ZERO)
    if weighted <= 0:
        return None
    return max(ONE + EXACT.divide(end.equity - base - total, weighted), ZERO)


def curve(known: Sequence[Known], flows: Iterable[Flow]) -> list[Point]:
    """Return the curve through the moments at which the worth is known, in order of time; empty without any.

    A span in which nothing was at work neither grows nor falls.
    """
    points: list[Point] = []
    left = sorted(flows, key=lambda f: f.at)
    index = highest = ONE
    for i, moment in enumerate(known):
        if i:
            between = [f for f in left if known[i - 1].at < f.at <= moment.at]
            index = EXACT.multiply(index, growth(known[i - 1], between, moment) or ONE)
        highest = max(highest, index)
        points.append(Point(moment.at, moment.equity, index, EXACT.divide(index, highest) - ONE))
    return points


def deepest(points: Sequence[Point]) -> Drawdown | None:
    """Return the deepest drawdown of a curve, None where it never fell."""
    if not points:
        return None
    trough = min(range(len(points)), key=lambda i: points[i].drawdown)
    if points[trough].drawdown >= 0:
        return None
    peak = max(range(trough + 1), key=lambda i: (points[i].index, i))
    back = next((p.at for p in points[trough + 1 :] if p.index >= points[peak].index), None)
    return Drawdown(-points[trough].drawdown, points[peak].at, points[trough].at, back)


def annual(index: Decimal, start: datetime, end: datetime) -> Decimal | None:
    """Return growth as a yearly rate; None over less than a year, where it would say more than is known."""
    years = (end - start).total_seconds() / YEAR_SECONDS
    if years < 1 or index <= 0:
        return None
    return _decimal(float(index) ** (1 / years) - 1)


def money_weighted(flows: Sequence[tuple[datetime, Decimal]]) -> Decimal | None:
    """Return the yearly rate at which flows are worth nothing together: what was put in below zero, what came back or is
    there at the end above it. None where there is no such rate: flows of one sign, or all at one moment.

    Of several rates the one nearest to nothing is returned; it is found between signs, never by a slope, so that no start
    and no shape of flows can lead it astray.
    """
    if not flows or not (any(a > 0 for _, a in flows) and any(a < 0 for _, a in flows)):
        return None
    first = min(at for at, _ in flows)
    years = [(float(a), (at - first).total_seconds() / YEAR_SECONDS) for at, a in flows]
    longest = max(t for _, t in years)
    if longest <= 0:
        return None
    reach = REACH / min(longest, 1.0)  # over less than a year the same growth is a far larger rate

    def worth(rate: float) -> float:
        """Return what the flows are worth together, at a rate in logarithms a year, at the end if that is safer."""
        shift = longest if rate < 0 else 0.0
        return sum(a * exp(-rate * (t - shift)) for a, t in years)

    grid = [reach * (i / STEPS) ** 2 for i in range(STEPS + 1)]
    found: float | None = None
    for side in (1.0, -1.0):
        for low, high in pairwise(grid):
            a, b = side * low, side * high
            if worth(a) == 0:
                root: float | None = a
            elif worth(a) * worth(b) < 0:
                root = _between(worth, a, b)
            else:
                continue
            if root is not None and (found is None or abs(root) < abs(found)):
                found = root
            break
    if found is None or not isfinite(found) or found > 700:
        return None
    return _decimal(exp(found) - 1)


def _between(worth: Callable[[float], float], a: float, b: float) -> float:
    """Return where a function crosses zero between two places of opposite sign, halving what lies between."""
    sign = worth(a) > 0
    for _ in range(200):
        middle = (a + b) / 2
        if (worth(middle) > 0) == sign:
            a = middle
        else:
            b = middle
    return (a + b) / 2


def rate_over(rate: Decimal, start: datetime, end: datetime) -> Decimal:
    """Return what a yearly rate comes to over a time."""
    years = (end - start).total_seconds() / YEAR_SECONDS
    return _decimal(exp(log1p(float(rate)) * years) - 1) if rate > -1 else -ONE


def _decimal(value: float) -> Decimal:
    return Decimal(value).quantize(PLACES, context=EXACT)
