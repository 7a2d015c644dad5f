"""Fees by schedule, and exchange rates out of quotes."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.domain.calendars import settle_date
from brokers.domain.fees import Done, FeeCharge, charge
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef


def item(basis: str, rate: str, **more: str) -> dict[str, str]:
    return {"kind": "commission", "basis": basis, "rate": rate, **more}


def fee(*items: dict[str, str], side: str = "buy", quantity: str = "100", price: str = "20") -> list[FeeCharge]:
    return charge(items, side=side, quantity=Decimal(quantity), price=Decimal(price), currency="USD")


@pytest.mark.parametrize(
    ("schedule", "quantity", "amount"),
    [
        (item("per_share", "0.005"), "100", "0.5"),
        (item("per_share", "0.005", min="1"), "100", "1"),
        (item("per_share", "0.005", min="1", max_percent="1"), "2", "0.4"),  # the cap wins over the minimum
        (item("per_share", "-0.002"), "100", "-0.2"),  # a rebate
        (item("percent", "0.05"), "100", "1"),
        (item("per_order", "4.95"), "100", "4.95"),
    ],
)
def test_each_basis_charges_as_it_says(schedule: dict[str, str], quantity: str, amount: str) -> None:
    assert fee(schedule, quantity=quantity) == [FeeCharge("commission", Decimal(amount), "USD")]


@pytest.mark.parametrize(
    "schedule",
    [
        item("per_order", "4.95"),
        item("per_share", "0.005", min="1"),
        item("per_share", "0.005", min="1", max_percent="0.5"),
        item("percent", "0.0333", min="0.5"),
        item("per_share", "-0.0017"),
    ],
)
@pytest.mark.parametrize("parts", [("100",), ("1", "99"), ("30", "30", "40"), ("1",) * 100])
def test_an_order_is_charged_once_however_it_fills(schedule: dict[str, str], parts: tuple[str, ...]) -> None:
    [whole] = fee(schedule, quantity="100", price="1.37")
    done, charged = Done(), Decimal(0)
    for part in map(Decimal, parts):
        told = charge([schedule], side="buy", quantity=part, price=Decimal("1.37"), currency="USD", done=done)
        charged += sum((c.amount for c in told), Decimal(0))
        done = Done(done.quantity + part, done.value + part * Decimal("1.37"))
    assert charged == whole.amount


def test_items_of_another_side_and_zero_amounts_are_left_out() -> None:
    assert fee(item("percent", "0.1", side="sell"), item("per_order", "0")) == []
    assert [c.amount for c in fee(item("percent", "0.1", side="sell"), side="sell")] == [Decimal(2)]


def test_an_unknown_basis_is_an_error_not_a_free_trade() -> None:
    with pytest.raises(ValueError, match="per_moon"):
        fee(item("per_moon", "1"))


def test_fees_may_fall_in_a_currency_of_their_own() -> None:
    assert fee(item("per_order", "1", currency="EUR")) == [FeeCharge("commission", Decimal(1), "EUR")]


def pair(number: int, symbol: str, bid: str, ask: str) -> tuple[InstrumentRef, QuoteRef]:
    base, _, currency = symbol.partition("/")
    one = Decimal(1)
    instrument = InstrumentRef(
        number, symbol, "fx" if currency else "equity", base if currency else "", currency or "USD", one, one, 2, True
    )
    at = datetime(2026, 3, 2, tzinfo=UTC)
    return instrument, QuoteRef(number, symbol, Decimal(bid), Decimal(ask), None, None, None, at, Decimal(bid))


def rates(*pairs: Any) -> Rates:
    return Rates({i.id: q for i, q in pairs}, {i.id: i for i, _ in pairs})


class TestRates:
    table = rates(
        pair(1, "EUR/USD", "1.0999", "1.1001"), pair(2, "USD/JPY", "149", "151"), pair(3, "AAPL", "99", "101")
    )

    @pytest.mark.parametrize(
        ("amount", "source", "target", "worth"),
        [
            ("100", "EUR", "USD", "110"),
            ("110", "USD", "EUR", "100"),
            ("10", "EUR", "JPY", "1650"),
            ("7", "CHF", "CHF", "7"),
        ],
    )
    def test_converts_either_way_and_through_the_dollar(
        self, amount: str, source: str, target: str, worth: str
    ) -> None:
        converted = self.table.convert(Decimal(amount), source, target)
        assert converted is not None
        assert converted.quantize(Decimal("0.00000001")) == Decimal(worth)

    def test_a_missing_rate_is_an_answer(self) -> None:
        assert self.table.convert(Decimal(1), "EUR", "CHF") is None

    def test_a_share_is_no_currency(self) -> None:
        assert self.table.convert(Decimal(1), "AAPL", "USD") is None


@pytest.mark.parametrize(
    ("executed", "days", "settles"),
    [
        ("2026-03-05", 1, "2026-03-06"),
        ("2026-03-06", 1, "2026-03-09"),
        ("2026-03-06", 2, "2026-03-10"),
        ("2026-03-07", 0, "2026-03-07"),
    ],
)
def test_settlement_counts_weekdays(executed: str, days: int, settles: str) -> None:
    at = datetime.fromisoformat(executed).replace(hour=23, tzinfo=UTC)
    assert settle_date(at, days) == date.fromisoformat(settles)
