"""Weights that give tracking error against cost: a convex problem in factor form, for Clarabel. Needs the extra `optimiser`.

Least: aversion × variance against the targets + cost of trading, both a part of equity. Floats: what comes out are aims, which
are then rounded to lots and judged like any other.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
SCALE = 1e3
"""Variances of good portfolios are tiny; a solver's tolerance is not."""


class NotSolved(Exception):
    """No weights meet all constraints, or none were found."""


def available() -> bool:
    """Tell whether the extra is installed."""
    return find_spec("cvxpy") is not None


def optimise(
    held: Vector,
    wanted: Vector,
    costs: Vector,
    loadings: NDArray[np.float64],
    covariance: Sequence[Sequence[float]] | NDArray[np.float64],
    specific: Vector,
    *,
    aversion: float,
    may_short: bool = False,
    turnover_cap: float | None = None,
    weight_cap: float | None = None,
) -> Vector:
    """Return weights between those held and those wanted. `loadings` has a row for each name and a column for each factor,
    `costs` what trading a unit of weight takes. A name above the cap on weights need not be sold down to it, but isn't bought.

    Raises `NotSolved`.
    """
    cvxpy: Any = import_module("cvxpy")  # takes seconds, and is only there where the extra is

    bought = cvxpy.Variable(len(held), nonneg=True)
    sold = cvxpy.Variable(len(held), nonneg=True)
    weights = held + bought - sold
    exposure = cvxpy.Variable(loadings.shape[1])
    root = _root(np.asarray(covariance, dtype=np.float64))
    active = weights - wanted
    variance = cvxpy.sum_squares(root @ exposure) + cvxpy.sum_squares(cvxpy.multiply(np.sqrt(specific), active))
    constraints = [exposure == loadings.T @ active, cvxpy.sum(weights) <= max(float(wanted.sum()), float(held.sum()))]
    if not may_short:
        constraints.append(weights >= np.minimum(held, 0.0))
    if turnover_cap is not None:
        constraints.append(cvxpy.sum(bought) + cvxpy.sum(sold) <= turnover_cap)
    if weight_cap is not None:
        constraints.append(weights <= np.maximum(held, weight_cap))
    cost = costs @ (bought + sold)
    problem = cvxpy.Problem(cvxpy.Minimize(SCALE * (aversion * variance + cost)), constraints)
    try:
        problem.solve(solver=cvxpy.CLARABEL)
    except cvxpy.SolverError as error:
        raise NotSolved("the solver gave up") from error
    if problem.status != cvxpy.OPTIMAL:
        raise NotSolved(f"the solver says {problem.status}")
    found: Vector = np.asarray(held + bought.value - sold.value)
    return found


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with R'R = covariance, also of one that is not of full rank."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))).T)
