"""Fees in a currency that is neither the instrument's nor, perhaps, the account's: booked and paid in their own."""

from decimal import Decimal
from typing import Any

from brokers.adapters.port import FeeItem
from oms.runtime import sql
from orders.models import Execution
from portfolio.models import CashBalance, Position
from tests.conftest import Desk
from tests.flows.test_hard_reports import trade, undo, working


def cash(currency: str) -> Decimal:
    return CashBalance.objects.filter(currency=currency).values_list("balance", flat=True).first() or Decimal(0)


def paid(**by_currency: str) -> dict[str, Any]:
    return {"fees": tuple(FeeItem("levy", Decimal(a), c) for c, a in by_currency.items())}


def test_they_reach_ledger_and_cash_and_count_at_the_rate_of_the_day(desk: Desk) -> None:
    placed, sent = working(desk)
    desk.report(trade(desk, sent, "E1", "4", **paid(USD="1", EUR="2")))
    assert cash("EUR") == -2
    assert cash("USD") == 1_000_000 - 401
    rate = Decimal("1.12001")
    assert Execution.objects.get().fees == 1 + 2 * rate
    assert desk.order(placed).fees == 1 + 2 * rate
    assert Position.objects.get().fees == 1
    ledger = sql.run(
        "SELECT code, currency, sum(amount) FROM portfolio_ledgerentry WHERE currency = 'EUR' GROUP BY 1, 2"
    )
    assert sorted(ledger.fetchall()) == [("cash", "EUR", -2), ("fees", "EUR", 2)]
    desk.holds()


def test_a_correction_books_the_difference_and_a_bust_gives_them_back(desk: Desk) -> None:
    placed, sent = working(desk)
    desk.report(trade(desk, sent, "E1", "4", **paid(EUR="2")))
    corrected = {"last_quantity": Decimal(5), "last_price": Decimal(100)}
    desk.report(undo(desk, sent, "correct", "C1", "E1", **corrected, **paid(EUR="3", GBP="1")))
    assert (cash("EUR"), cash("GBP")) == (-3, -1)
    desk.report(undo(desk, sent, "bust", "B1", "C1"))
    assert (cash("EUR"), cash("GBP"), cash("USD"), desk.order(placed).fees) == (0, 0, 1_000_000, 0)
    desk.holds()


def test_without_a_rate_the_sum_is_told_as_unknown(desk: Desk) -> None:
    placed, sent = working(desk)
    desk.report(trade(desk, sent, "E1", "4", **paid(USD="1", GBP="2")))
    assert Execution.objects.get().fees is None
    assert cash("GBP") == -2
    assert desk.order(placed).fees == 1
    desk.holds()
