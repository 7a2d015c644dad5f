"""When how much of a large order is asked for: pure functions, the same for the same seed.

Quantities are whole lots and sum to the order's exactly: what rounding leaves goes to the last slice. Nothing here ever
answers with more than what remains.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

from oms.kernel.decimals import EXACT, ZERO, floor_to, total
from orders.domain.algos import SCHEDULED, AlgoTerms

ONE = Decimal(1)
KAPPA_MOST = Decimal(6)
"""Almgren and Chriss's kappa times the horizon at the highest urgency: half of the order is done in an eighth of the time.
In the middle it is 3, as in the example that they published."""
Share = Callable[[Decimal], Decimal]
"""What share of the work should be done by a fraction of the time, from 0 to 1; it never falls."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of an order: from when on how much of it is asked for."""

    number: int
    due_at: datetime
    quantity: Decimal


class Draws:
    """Fractions from 0 to below 1, exact, out of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - so that it can be played again, not a secret

    def next(self) -> Decimal:
        """Return the next fraction."""
        return EXACT.divide(Decimal(self._random.getrandbits(53)), Decimal(1 << 53))


# ---------------------------------------------------------------- shapes


def evenly(fraction: Decimal) -> Decimal:
    """Return the share of a twap: the fraction of the time."""
    return fraction


def u_shaped(fraction: Decimal) -> Decimal:
    """Return the share of a day's volume traded by a fraction of the session: four times as busy at both ends as in the middle.

    >>> u_shaped(Decimal("0.5")), u_shaped(Decimal("0.25"))
    (Decimal('0.5'), Decimal('0.34375'))
    """
    swing = 2 * fraction - 1
    return (2 * fraction + swing * swing * swing + 1) / 4


def between(whole: Share, first: Decimal, last: Decimal) -> Share:
    """Return a shape cut to the part from `first` to `last` of it, and stretched over the order's own time."""
    base, width = whole(first), whole(last) - whole(first)
    if width <= 0:
        return evenly
    return lambda fraction: EXACT.divide(whole(first + (last - first) * fraction) - base, width)


def by_volumes(volumes: Sequence[Decimal]) -> Share:
    """Return the shape of volumes traded in equal parts of the time, each traded evenly; they sum to more than nothing."""
    upto = [ZERO]
    for volume in volumes:
        upto.append(upto[-1] + volume)

    def share(fraction: Decimal) -> Decimal:
        place = fraction * len(volumes)
        part = min(int(place), len(volumes) - 1)
        return EXACT.divide(upto[part] + volumes[part] * (place - part), upto[-1])

    return share


def front_loaded(kappa: Decimal) -> Share:
    """Return Almgren and Chriss's optimal trajectory: by a fraction x of the time, 1 - sinh(kappa (1 - x)) / sinh(kappa) is done.

    `kappa` is theirs times the horizon, without a unit; at zero the trajectory is a straight line.
    """
    if kappa == 0:
        return evenly
    whole = _sinh(kappa)
    return lambda fraction: 1 - EXACT.divide(_sinh(kappa * (1 - fraction)), whole)


def _sinh(value: Decimal) -> Decimal:
    return EXACT.divide(EXACT.exp(value) - EXACT.exp(-value), Decimal(2))


def kappa_of(urgency: Decimal) -> Decimal:
    """Return how strongly an urgency from 0 to 1 bends the trajectory."""
    return urgency * KAPPA_MOST


# ---------------------------------------------------------------- planning


def plan(terms: AlgoTerms, quantity: Decimal, lot: Decimal, share: Share) -> list[Slice]:
    """Return the slices that are known from the start, by number.

    Of a schedule all of them, each in an interval of its own, moved later in it and made larger or smaller by chance; those
    too small for a lot are left out. Of the others the first, which is due at the start.
    """
    assert terms.start_at is not None  # noqa: S101 - settled terms have one
    if terms.name not in SCHEDULED or terms.end_at is None:
        return [Slice(1, terms.start_at, quantity)]
    count, draws = terms.slices or 1, Draws(terms.seed or 0)
    edges = [EXACT.divide(Decimal(i), Decimal(count)) for i in range(count + 1)]
    vary_time, vary_size = terms.vary_time or ZERO, terms.vary_size or ZERO
    length = terms.end_at - terms.start_at
    dues = [terms.start_at + length * float(e + vary_time * draws.next() / count) for e in edges[:-1]]
    worth = [share(b) - share(a) for a, b in pairwise(edges)]
    weights = [w * (1 + vary_size * (2 * draws.next() - 1)) for w in worth]
    sized = [(due, part) for due, part in zip(dues, split(quantity, weights, lot), strict=True) if part > 0]
    return [Slice(number, due, part) for number, (due, part) in enumerate(sized, start=1)]


def split(quantity: Decimal, weights: Sequence[Decimal], lot: Decimal) -> list[Decimal]:
    """Split a quantity by weights into whole lots; the last part takes what rounding leaves.

    >>> [str(q) for q in split(Decimal(10), [Decimal(1)] * 3, Decimal(1))]
    ['3', '3', '4']
    """
    whole, so_far, given = total(weights), ZERO, ZERO
    parts = []
    for weight in weights[:-1]:
        so_far += weight
        upto = floor_to(EXACT.divide(EXACT.multiply(quantity, so_far), whole), lot) if whole > 0 else ZERO
        parts.append(max(min(upto, quantity) - given, ZERO))
        given += parts[-1]
    return [*parts, quantity - given]


def rescaled(planned: Sequence[Decimal], remaining: Decimal, lot: Decimal) -> list[Decimal]:
    """Return planned quantities in proportion for another remainder."""
    return split(remaining, planned if total(planned) > 0 else [ONE] * len(planned), lot) if planned else []


# ---------------------------------------------------------------- as it goes


def due_now(
    remaining: Decimal, planned: Decimal, later: Sequence[Decimal], *, catch_up: str | None, lot: Decimal
) -> Decimal:
    """Return what a slice asks for: what was planned for it, and what earlier slices left, by the policy.

    `remaining` is what is neither filled nor working; `later` is what was planned for the slices after this one.

    >>> due_now(Decimal(100), Decimal(20), [Decimal(20)] * 2, catch_up="spread", lot=Decimal(1))
    Decimal('33')
    """
    if remaining <= 0:
        return ZERO
    if catch_up == "never":
        return min(planned, remaining)
    if not later:
        return remaining
    behind = remaining - planned - total(later)
    if catch_up == "spread" and behind > 0:
        behind = floor_to(EXACT.divide(behind, Decimal(len(later) + 1)), lot)
    return min(max(planned + behind, ZERO), remaining)


def within_volume(
    quantity: Decimal, *, participation: Decimal, observed: Decimal, done: Decimal, lot: Decimal
) -> Decimal:
    """Return what a share of the volume observed since the start allows now, of no more than the quantity.

    `done` is what is filled or working already.
    """
    allowed = floor_to(max(EXACT.multiply(participation, observed) - done, ZERO), lot)
    return min(quantity, allowed)


def shown(remaining: Decimal, display: Decimal, *, vary: Decimal, draw: Decimal, lot: Decimal) -> Decimal:
    """Return the next part of an iceberg that is shown: the display quantity, less by chance, at least a lot."""
    part = floor_to(display * (1 - vary * draw), lot)
    return min(remaining, max(part, min(lot, display)))


def display_of(quantity: Decimal, slices: int, lot: Decimal) -> Decimal:
    """Return what an iceberg of so many parts shows at a time, in whole lots.

    >>> display_of(Decimal(100), 3, Decimal(1))
    Decimal('34')
    """
    lots = EXACT.divide(EXACT.divide(quantity, lot), Decimal(slices)).to_integral_value()
    part = lots * lot
    return part if part * slices >= quantity else part + lot


def on_the_good_side(side: str, limit: Decimal | None, *, bid: Decimal, ask: Decimal) -> bool:
    """Tell whether the market would trade inside the limit: what is beyond it is not asked for."""
    if limit is None:
        return True
    return ask <= limit if side == "buy" else bid >= limit
