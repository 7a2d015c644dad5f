"""What a sample tells of the mean behind it, and what a histogram tells of the spread."""

import math
from collections.abc import Mapping
from functools import lru_cache
from statistics import NormalDist

from oms.kernel.errors import Invalid

SAMPLE_MIN = 30
"""Below so many observations nobody is ranked: the interval is wider than the differences between brokers."""
_NORMAL = NormalDist()
BUCKETS_PER_OCTAVE = 4


@lru_cache(maxsize=4096)
def student(confidence: float, freedom: int) -> float:
    """Return the two-sided quantile of Student's t, by the expansion of Cornish and Fisher around the normal one.

    Right to a hundredth from 4 degrees of freedom on; ranking asks for many more.
    """
    if freedom < 1:
        raise Invalid("too_few", "An interval takes two observations.")
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    n = float(freedom)
    terms = (
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return z + sum(terms)


def interval(n: int, sum_: float, squares: float, confidence: float = 0.95) -> tuple[float, float, float] | None:
    """Return the mean with the bounds of its confidence interval, from a count, a sum and a sum of squares; None below two."""
    if n < 2:
        return None
    mean = sum_ / n
    variance = max(squares - n * mean * mean, 0.0) / (n - 1)
    half = student(confidence, n - 1) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def share_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the bounds of a share by Wilson's score interval; None of nothing."""
    if n == 0:
        return None
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bucket_of(milliseconds: float) -> int:
    """Return the bucket of a duration: four to each doubling, the first up to a millisecond."""
    return max(0, math.ceil(BUCKETS_PER_OCTAVE * math.log2(max(milliseconds, 1.0))))


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the milliseconds that a share of a histogram does not pass, right to a fifth; None of an empty one."""
    wanted = share * sum(counts.values())
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if counts[bucket] and seen >= wanted:
            return float(2 ** (bucket / BUCKETS_PER_OCTAVE))
    return None
