"""Choosing one broker for an order: the cheapest, or now and then another that may turn out cheaper."""

import random
from collections.abc import Sequence

from routing.domain.learning import Drawn, likelihoods
from routing.domain.weights import Weights


def choose(
    means: Sequence[float],
    errors: Sequence[float],
    *,
    value: float,
    weights: Weights,
    seed: int,
    steady: Sequence[bool] = (),
) -> Drawn:
    """Choose among brokers by their expected costs in basis points; equal costs go to the first.

    A share of the orders is drawn (Thompson sampling): each broker's cost from its belief, the least wins. Only those take part that
    are `steady` (all, where nothing is told) and not expected to cost more than the guard rails allow, by value and in money (`value` is the
    order's). The same seed chooses the same; the propensities tell how likely each was, over all seeds.
    """
    best = min(range(len(means)), key=means.__getitem__)
    share = float(weights.explore_share)
    most = means[best] + min(
        float(weights.explore_bps), float(weights.explore_amount) / value * 10_000 if value else 0.0
    )
    within = [i for i, m in enumerate(means) if i == best or (m <= most and (not steady or steady[i]))]
    if share <= 0 or len(within) < 2:
        return Drawn(best, False, propensities=[float(i == best) for i in range(len(means))])
    chance = likelihoods([means[i] for i in within], [errors[i] for i in within])
    propensities = [0.0] * len(means)
    for i, p in zip(within, chance, strict=True):
        propensities[i] = share * p
    propensities[best] += 1 - share
    draws = draw(means, errors, within, share=share, seed=seed)
    if draws is None:
        return Drawn(best, False, propensities=propensities)
    picked = min(within, key=draws.__getitem__)
    return Drawn(picked, picked != best, draws, propensities)


def draw(
    means: Sequence[float], errors: Sequence[float], within: Sequence[int], *, share: float, seed: int
) -> list[float] | None:
    """Return the costs that a seed draws for those who take part, the expected ones for the others; None where it explores nothing."""
    rng = random.Random(seed)  # noqa: S311 - a draw that must come again by its seed, not a secret
    if rng.random() >= share:
        return None
    taking_part = set(within)
    return [rng.gauss(m, e) if i in taking_part else m for i, (m, e) in enumerate(zip(means, errors, strict=True))]
