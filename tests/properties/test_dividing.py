"""One quantity among several, and one execution's worth among accounts: nothing is lost, nothing is made, whoever asks."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from portfolio.domain.allocating import divide

UNITS = st.sampled_from([Decimal(1), Decimal("0.01"), Decimal("0.000001"), Decimal(100)])


@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=8), UNITS)
def test_b16_shares_add_up_to_the_last_unit(units: int, weights: list[int], unit: Decimal) -> None:
    """Any quantity, any weights, any lot: the sum is exact, each share within a unit of its due, the same every time."""
    if not any(weights):
        weights[0] = 1
    total, parts = units * unit, {f"account-{n}": Decimal(w) for n, w in enumerate(weights)}
    shares = divide(total, parts, unit)
    assert sum(shares.values(), Decimal(0)) == total
    assert shares == divide(total, dict(parts), unit)
    whole = sum(parts.values())
    for name, share in shares.items():
        assert share % unit == 0
        assert share * total >= 0
        assert abs(share * whole - total * parts[name]) < unit * whole
