"""First in, first out, forwards and backwards."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from portfolio.domain.lots import Holding, LiveTrade
from portfolio.domain.posting import trade_lines
from portfolio.domain.versions import TradeRow, generations

OPEN = datetime(2026, 3, 2, tzinfo=UTC)


def trades(text: str) -> list[LiveTrade]:
    """Read trades like `+10@100 -4@120`, a second apart."""
    found = []
    for n, word in enumerate(text.split()):
        quantity, _, price = word.partition("@")
        key = UUID(int=n + 1)
        found.append(LiveTrade(key, key, OPEN + timedelta(seconds=n), Decimal(quantity), Decimal(price)))
    return found


def holding(text: str) -> Holding:
    made = Holding()
    for trade in trades(text):
        made.apply(trade)
    return made


def shown(book: Holding) -> str:
    return " ".join(f"{lot.remaining:+}@{lot.price}" for lot in book.open_lots)


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ("+10@100 +5@120", "+10@100 +5@120"),
        ("+10@100 +5@120 -12@130", "+3@120"),
        ("+10@100 -10@90", ""),
        ("-10@100 -5@90 +12@80", "-3@90"),
        ("+10@100 -15@110", "-5@110"),
        ("-4@100 +9@110 -5@120 -1@130", "-1@130"),
    ],
)
def test_the_oldest_lots_go_first(history: str, left: str) -> None:
    assert shown(holding(history)) == left


def test_the_change_of_cost_is_what_was_paid_for_what_left() -> None:
    book = holding("+10@100 +5@120")
    [sale] = trades("+1@1 +1@1 -12@130")[2:]
    assert book.apply(sale) == Decimal(-1240)  # 10 at 100 and 2 at 120


@pytest.mark.parametrize("kept", range(7))
def test_rewinding_is_the_exact_reverse(kept: int) -> None:
    text = "+10@100 +5@120 -12@130 -9@90 +2@80 +20@70 -14@60"
    whole, words = holding(text), text.split()
    cost = sum((lot.cost for lot in whole.open_lots), Decimal(0))
    change = whole.rewind(trades(text)[kept:])
    before = holding(" ".join(words[:kept]))
    assert shown(whole) == shown(before)
    assert change == sum((lot.cost for lot in before.open_lots), Decimal(0)) - cost


def test_rewinding_trades_that_did_not_make_the_lots_is_refused() -> None:
    with pytest.raises(RuntimeError, match="lack"):
        holding("+10@100").rewind(trades("+10@100 -3@110")[1:])


@pytest.mark.parametrize(
    ("quantity", "value", "realized", "fees"),
    [("10", "1000", "0", "1"), ("-10", "-1300", "300", "0"), ("-10", "-700", "-300", "-0.5"), ("0", "0", "12", "0")],
)
def test_postings_balance_and_carry_the_quantity(quantity: str, value: str, realized: str, fees: str) -> None:
    lines = trade_lines(
        quantity=Decimal(quantity), value=Decimal(value), realized=Decimal(realized), fees=Decimal(fees), currency="USD"
    )
    assert sum(line.amount for line in lines) == 0
    assert sum(line.quantity for line in lines) == Decimal(quantity)
    assert sum(line.amount for line in lines if line.code == "cash") == -Decimal(value) - Decimal(fees)


def test_a_version_comes_after_the_one_it_refers_to() -> None:
    def row(number: int, ref: int | None) -> TradeRow:
        key = UUID(int=ref) if ref else None
        return TradeRow(UUID(int=number), "correct" if ref else "trade", key, OPEN, Decimal(1), Decimal(1), Decimal(0))

    rows = [row(3, 2), row(2, 1), row(1, None), row(9, 8)]
    assert [[r.id.int for r in g] for g in generations(rows)] == [[1, 9], [2], [3]]
    with pytest.raises(ValueError, match="circle"):
        list(generations([row(1, 2), row(2, 1)]))
