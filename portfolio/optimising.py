"""The optimiser as a rebalance uses it: from assets and options to weights to aim for."""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from oms.kernel.decimals import EXACT, ZERO
from oms.kernel.errors import Refused
from portfolio.domain.optimising import NotSolved, available, optimise
from portfolio.domain.options import Options
from portfolio.domain.rebalancing import PLACES, Asset, Weigh
from portfolio.domain.tracking import FactorModel

__all__ = ["available", "weigher"]

PROBE = Decimal("0.001")
"""The part of equity whose trade tells what trading a name costs."""
EQUAL_VARIANCE = 0.04
"""A year's, of every name, where no risk model covers them: 20 % a year."""


def weigher(assets: Mapping[int, Asset], options: Options, model: FactorModel | None) -> Weigh:
    """Return the function that chooses the weights to aim for. It raises `Refused` (not_solved) where there are none."""

    def weigh(held: Mapping[int, Decimal], wanted: Mapping[int, Decimal], equity: Decimal) -> dict[int, Decimal]:
        names = sorted(wanted)
        if not names:
            return {}
        factors = len(model.covariance) if model else 1
        loadings = [model.loadings[i] for i in names] if model else [[0.0]] * len(names)
        try:
            found = optimise(
                np.array([float(held[i]) for i in names]),
                np.array([float(wanted[i]) for i in names]),
                np.array([_cost(assets[i], equity) for i in names]),
                np.array(loadings, dtype=np.float64).reshape(len(names), factors),
                model.covariance if model else [[0.0]],
                np.array([model.specific[i] if model else EQUAL_VARIANCE for i in names]),
                aversion=float(options.aversion),
                may_short=options.rules.may_short,
                turnover_cap=None if options.rules.turnover_cap is None else float(options.rules.turnover_cap),
                weight_cap=None if options.weight_cap is None else float(options.weight_cap),
            )
        except NotSolved as error:
            raise Refused("not_solved", f"The optimiser found no weights: {error}.") from error
        return {i: Decimal(float(w)).quantize(PLACES, context=EXACT) for i, w in zip(names, found, strict=True)}

    return weigh


def _cost(asset: Asset, equity: Decimal) -> float:
    """Return what trading takes, as a part of what is traded: half the spread and fees, of a trade of a common size."""
    price = asset.price
    if not price:
        return 0.0
    lots = max(EXACT.divide_int(equity * PROBE, price * asset.instrument.lot_size), Decimal(1))
    quantity = lots * asset.instrument.lot_size
    return float(max(asset.cost("buy", quantity), ZERO) / (quantity * price))
