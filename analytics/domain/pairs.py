"""By which two keys fills are added up together, and which of these sums a report reads."""

from collections.abc import Iterable
from itertools import combinations

KEYS = ("broker_id", "instrument_id", "strategy_id", "algo", "hour", "size")
"""Beside day and account, which every sum is kept by."""
PAIRS = tuple(combinations(KEYS, 2))
_FEW = ("algo", "strategy_id", "size", "broker_id", "hour", "instrument_id")
"""Keys by how many values they have, the fewest first: the partner of a key that is asked for alone."""


def bits(pair: Iterable[str]) -> int:
    """Return a pair as PostgreSQL's GROUPING tells it: a bit for each key that is not in it, the first key's the highest."""
    kept = set(pair)
    return sum(1 << (len(KEYS) - 1 - n) for n, key in enumerate(KEYS) if key not in kept)


def pair_for(keys: Iterable[str]) -> tuple[str, str]:
    """Return the pair that holds what a report groups by, with as few rows as there are."""
    wanted = [k for k in keys if k in KEYS]
    for partner in _FEW:
        if len(wanted) < 2 and partner not in wanted:
            wanted.append(partner)
    first, second = sorted(wanted, key=KEYS.index)
    return first, second
