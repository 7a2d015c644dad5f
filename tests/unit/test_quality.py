"""Execution quality against worked figures."""

from decimal import Decimal

from analytics.domain.quality import arrival_bps, shortfall


def test_paying_above_the_arrival_costs_a_buyer() -> None:
    assert arrival_bps("buy", Decimal("100.10"), Decimal(100)) == 10


def test_selling_above_the_arrival_gains_a_seller() -> None:
    assert arrival_bps("sell", Decimal("100.10"), Decimal(100)) == -10


def test_shortfall_is_the_exact_sum_of_its_parts() -> None:
    parts = shortfall("buy", Decimal(10), Decimal(10), Decimal("1001"), Decimal("0.5"), Decimal(100))
    assert (parts.trading, parts.fees, parts.opportunity, parts.total) == (1, Decimal("0.5"), 0, Decimal("1.5"))


def test_what_stayed_undone_has_no_price_yet() -> None:
    assert shortfall("sell", Decimal(10), Decimal(4), Decimal(400), Decimal(0), Decimal(100)).total is None
