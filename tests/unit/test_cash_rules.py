"""Money that has not arrived: which sales of a cash account came too early, by the textbook's cases."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from portfolio.domain.cash_rules import FREE_RIDING, GOOD_FAITH, Flow, Ledger, Violation, restricted_until

MONDAY = datetime(2026, 3, 2, 15, tzinfo=UTC)
A, B = 1, 2


def cash(day: int, amount: int) -> Flow:
    at = MONDAY + timedelta(days=day)
    return Flow(UUID(int=day + 1000), at, Decimal(amount), at.date())


def trade(n: int, day: int, instrument: int, quantity: int, price: int, settles: int | None = None) -> Flow:
    at = MONDAY + timedelta(days=day, minutes=n)
    due = at.date() + timedelta(days=1 if settles is None else settles)
    return Flow(UUID(int=n), at, Decimal(-quantity * price), due, instrument, Decimal(quantity))


def violated(*flows: Flow) -> list[tuple[str, int, int, Decimal]]:
    return [(v.kind, v.sale.int, v.purchase.int, v.amount) for v in Ledger().run(flows)]


def test_settled_cash_may_be_traded_all_day() -> None:
    assert violated(cash(0, 10_000), trade(1, 0, A, 100, 100), trade(2, 0, A, -100, 101)) == []


def test_good_faith_sold_before_the_sale_that_paid_for_it_settled() -> None:
    flows = [
        cash(-1, 10_000), trade(1, 0, A, 100, 100), trade(2, 0, A, -100, 105), trade(3, 0, B, 105, 100), trade(4, 0, B, -105, 101),
    ]  # fmt: skip
    assert violated(*flows) == [(GOOD_FAITH, 4, 3, Decimal(10_500))]
    assert violated(*flows[:-1], trade(4, 1, B, -105, 101)) == []  # on the day its money arrives it is paid for


def test_only_the_part_that_unsettled_money_paid_for_has_to_wait() -> None:
    flows = [
        cash(-1, 12_000), trade(1, 0, A, 100, 100), trade(2, 0, A, -100, 100), trade(3, 0, B, 120, 100), trade(4, 0, B, -20, 100),
    ]  # fmt: skip
    assert violated(*flows) == []  # the first twenty were paid from the two thousand left
    assert violated(*flows, trade(5, 0, B, -50, 100)) == [(GOOD_FAITH, 5, 3, Decimal(5_000))]


def test_free_riding_sold_before_anything_paid_for_it() -> None:
    flows = [cash(-1, 1_000), trade(1, 0, A, 100, 100), trade(2, 0, A, -100, 110)]
    assert violated(*flows) == [(FREE_RIDING, 2, 1, Decimal(9_000))]
    assert violated(*flows[:2], cash(1, 9_000), trade(2, 1, A, -100, 110)) == []


def test_a_sale_now_is_judged_before_it_is_made() -> None:
    ledger = Ledger()
    ledger.run([cash(-1, 10_000), trade(1, 0, A, 100, 100), trade(2, 0, A, -100, 100), trade(3, 0, B, 100, 100)])
    [part] = ledger.locked(B, Decimal(40), MONDAY.date())
    assert (part.quantity, part.cost, part.free_on) == (40, 4_000, MONDAY.date() + timedelta(days=1))
    assert ledger.locked(B, Decimal(40), MONDAY.date() + timedelta(days=1)) == []
    assert ledger.locked(A, Decimal(1), MONDAY.date()) == []


def test_three_in_a_year_restrict_the_account_for_ninety_days() -> None:
    def one(n: int, day: date) -> Violation:
        return Violation(GOOD_FAITH, UUID(int=n), UUID(int=0), A, day, Decimal(1), day)

    days = [date(2026, 1, 5), date(2026, 2, 5), date(2026, 3, 5)]
    found = [one(n, d) for n, d in enumerate(days)]
    assert restricted_until(found[:2], date(2026, 3, 6)) is None
    assert restricted_until(found, date(2026, 3, 6)) == date(2026, 6, 3)
    assert restricted_until([one(0, date(2024, 1, 5)), *found[1:]], date(2026, 3, 6)) is None
