"""How far a portfolio may stray from its targets in a year, by a factor model of returns. Statistics: floats, never booked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt

from oms.kernel.decimals import EXACT, ZERO

PLACES = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class FactorModel:
    """A year's covariance of the factors, and by instrument its loadings on them and the variance that is its own."""

    covariance: Sequence[Sequence[float]]
    loadings: Mapping[int, Sequence[float]]
    specific: Mapping[int, float]

    def knows(self, instruments: Sequence[int]) -> bool:
        """Tell whether every one of these is in the model."""
        return all(i in self.specific for i in instruments)


def tracking_error(model: FactorModel, held: Mapping[int, Decimal], wanted: Mapping[int, Decimal]) -> Decimal | None:
    """Return the standard deviation of a year's return against the targets, as a part of equity; None where an instrument
    that differs from its target is not in the model."""
    active = {i: float(held.get(i, ZERO) - wanted.get(i, ZERO)) for i in held.keys() | wanted.keys()}
    active = {i: a for i, a in active.items() if a}
    if not model.knows(list(active)):
        return None
    factors = range(len(model.covariance))
    exposure = [sum(a * model.loadings[i][k] for i, a in active.items()) for k in factors]
    common = sum(exposure[j] * model.covariance[j][k] * exposure[k] for j in factors for k in factors)
    own = sum(a * a * model.specific[i] for i, a in active.items())
    return Decimal(sqrt(max(common + own, 0.0))).quantize(PLACES, context=EXACT)


def judge(covariance: object, loadings: Sequence[object]) -> None:
    """Raise `ValueError` unless a covariance is square, symmetric and has no negative variance, and all loadings fit it."""
    rows = covariance if isinstance(covariance, list) else []
    size = len(rows)
    if not size or any(not isinstance(r, list) or len(r) != size for r in rows):
        raise ValueError("the covariance is a square of numbers")
    if any(not isinstance(x, int | float) or x != x or abs(x) > 1e6 for r in rows for x in r):
        raise ValueError("the covariance holds finite numbers")
    if any(abs(rows[i][j] - rows[j][i]) > 1e-9 for i in range(size) for j in range(i)) or any(
        rows[i][i] < 0 for i in range(size)
    ):
        raise ValueError("a covariance is symmetric, with variances of zero or more")
    for one in loadings:
        if not isinstance(one, list) or len(one) != size or any(not isinstance(x, int | float) or x != x for x in one):
            raise ValueError("an instrument has one loading for each factor")
