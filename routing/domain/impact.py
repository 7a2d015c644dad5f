"""What a trade is expected to move the market by."""

import math
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise


def square_root(
    *, quantity: float, daily_volume: float, spread_bps: float, daily_volatility_bps: float, a: float, b: float
) -> float:
    """Return the expected cost in basis points: a share `a` of the spread, and `b` times the day's volatility times the root of
    the order's share of the day's volume (the square-root law)."""
    return a * spread_bps + b * daily_volatility_bps * math.sqrt(quantity / daily_volume)


def volume_share(
    *, price: Decimal, quantity: Decimal, volume: Decimal, price_impact: Decimal, volume_limit: Decimal
) -> Decimal:
    """Return the slippage per unit of a trade in a bar: the impact times the square of its share of the volume, which counts
    up to a limit. The whole limit where nothing was traded in the bar."""
    share = min(quantity / volume, volume_limit) if volume else volume_limit
    return price_impact * share * share * price


@dataclass(frozen=True, slots=True)
class Trajectory:
    """How a large order is best sold or bought over time, what that is expected to cost, and how uncertain it is.

    Almgren and Chriss, Optimal execution of portfolio transactions (2000), with linear impact. `trades` are the quantities of
    each period, `half_life` the periods' time in which the rest falls to 1/e; None without risk aversion.
    """

    trades: list[float]
    expected_cost: float
    variance: float
    utility: float
    half_life: float | None


def almgren_chriss(
    *,
    shares: float,
    horizon: float,
    periods: int,
    volatility: float,
    epsilon: float,
    eta: float,
    gamma: float,
    risk_aversion: float,
) -> Trajectory:
    """Return the trajectory of least cost plus `risk_aversion` times its variance.

    `horizon` in days, `volatility` in currency a day per share, `epsilon` the fixed cost a share (half the spread), `eta` the
    temporary impact (currency a share, per share a day), `gamma` the permanent one (currency a share, per share).
    """
    tau = horizon / periods
    eta_adjusted = eta - gamma * tau / 2
    squared = risk_aversion * volatility**2 / eta_adjusted
    kappa = math.acosh(squared * tau**2 / 2 + 1) / tau
    if kappa:
        rest = [
            shares * math.sinh(kappa * (horizon - k * tau)) / math.sinh(kappa * horizon) for k in range(periods + 1)
        ]
    else:
        rest = [shares * (1 - k / periods) for k in range(periods + 1)]
    trades = [before - after for before, after in pairwise(rest)]
    cost = gamma * shares**2 / 2 + epsilon * sum(map(abs, trades)) + eta_adjusted / tau * sum(n * n for n in trades)
    variance = volatility**2 * tau * sum(x * x for x in rest[1:])
    return Trajectory(trades, cost, variance, cost + risk_aversion * variance, 1 / kappa if kappa else None)
