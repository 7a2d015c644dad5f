"""Giving one order to several brokers at the least cost: convex costs at the margin, fees with a floor by trying who takes part."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from oms.kernel.decimals import ZERO, floor_to

LOTS_APART = 64
"""What the leveling leaves over is given out lot by lot only up to so many: an order's time must not depend on its size."""


@dataclass(frozen=True, slots=True)
class Taker:
    """A broker that may take a part: what it charges for a quantity in all, and what that moves its market by, in currency.

    `rate` per unit (fees and learned costs), `floor` at least charged if it takes anything, `impact` so that a quantity costs
    `impact * quantity ** 1.5` (the square-root law). `lot` is what its quantities are multiples of.
    """

    rate: Decimal
    floor: Decimal
    impact: Decimal
    lot: Decimal

    def cost(self, quantity: Decimal) -> Decimal:
        """Return what a quantity costs there."""
        if quantity <= 0:
            return ZERO
        return max(self.floor, self.rate * quantity) + self.impact * quantity * quantity.sqrt()


def split(takers: Sequence[Taker], quantity: Decimal, *, lot: Decimal, parts_max: int = 3) -> list[Decimal]:
    """Return what each broker gets, exact to lots: the cheapest way found to give all of `quantity` to at most `parts_max`.

    For each set of brokers the quantities go where the next part costs least (water filling by bisection on the marginal cost, then
    lot by lot); the floors of fees are what makes sets differ. `lot` is the coarsest lot among the brokers.
    """
    best: tuple[Decimal, list[Decimal]] | None = None
    for count in range(1, min(parts_max, len(takers)) + 1):
        for chosen in combinations(range(len(takers)), count):
            found = _fill([takers[i] for i in chosen], quantity, lot)
            if found is None:
                continue
            cost = sum((takers[i].cost(q) for i, q in zip(chosen, found, strict=True)), ZERO)
            if best is None or cost < best[0]:
                whole = [ZERO] * len(takers)
                for i, q in zip(chosen, found, strict=True):
                    whole[i] = q
                best = cost, whole
    return best[1] if best else []


def _fill(takers: Sequence[Taker], quantity: Decimal, lot: Decimal) -> list[Decimal] | None:
    """Divide among all of these, each with a lot at least, or None where there are too few lots."""
    if quantity < lot * len(takers):
        return None
    if len(takers) == 1:
        return [quantity]
    shares = _level(takers, float(quantity))
    found = [max(floor_to(Decimal(repr(s)), lot), lot) for s in shares]
    _even_out(takers, found, quantity, lot)
    return found


def _level(takers: Sequence[Taker], quantity: float) -> list[float]:
    """Return the quantities at which all marginal costs are equal: rate + 1.5 * impact * root of the quantity."""
    terms = [(float(t.rate), 1.5 * float(t.impact)) for t in takers]
    if all(k <= 0 for _, k in terms):
        cheapest = min(range(len(terms)), key=lambda i: terms[i][0])
        return [quantity if i == cheapest else 0.0 for i in range(len(terms))]

    def taken(level: float) -> list[float]:
        return [
            ((level - r) / k) ** 2 if k > 0 and level > r else (quantity if k <= 0 and level > r else 0.0)
            for r, k in terms
        ]

    low, high = min(r for r, _ in terms), max(r + k * quantity**0.5 for r, k in terms) + 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(taken(middle)) < quantity else (low, middle)
    return taken(high)


def _even_out(takers: Sequence[Taker], found: list[Decimal], quantity: Decimal, lot: Decimal) -> None:
    """Bring the quantities to the sum, then move single lots as long as that is cheaper."""

    def change(i: int, by: Decimal) -> Decimal:
        return takers[i].cost(found[i] + by) - takers[i].cost(found[i])

    everyone = range(len(takers))
    while (left := quantity - sum(found, ZERO)) != 0:
        step = left if abs(left) > lot * LOTS_APART else min(abs(left), lot).copy_sign(left)
        takes = [i for i in everyone if found[i] + step >= lot] or [max(everyone, key=found.__getitem__)]
        best = min(takes, key=lambda i: change(i, step))
        found[best] = max(found[best] + step, lot)
    for _ in range(4 * len(takers)):
        moves: list[tuple[Decimal, int, int]] = [
            (change(a, -lot) + change(b, lot), a, b) for a in everyone for b in everyone if a != b and found[a] > lot
        ]
        if not moves or min(moves)[0] >= 0:
            return
        _, source, target = min(moves)
        found[source] -= lot
        found[target] += lot
