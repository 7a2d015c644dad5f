"""Settlement dates against published tables: cycles by trade date, exchange holidays, days on which only banks rest."""

import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from brokers.domain.calendars import Calendar, settle_date
from brokers.domain.settlement import CYCLES, cycle, easter, euro_bank_holiday, settles_on, us_bank_holiday, value_date

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "settlement.json").read_text())


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def exchange(case: dict[str, Any]) -> Calendar:
    """Return the weekdays around a case's dates without those on which its market is closed."""
    days = [date.fromisoformat(r["trade_date"]) for r in case["rows"]]
    first, shut = min(days) - timedelta(days=3), {date.fromisoformat(d) for d in case["market_closed"]}
    span = [first + timedelta(days=n) for n in range((max(days) - first).days + 20)]
    open_days = [d for d in span if d.weekday() < 5 and d not in shut]
    return Calendar(open_days, [noon(d) for d in open_days], [noon(d) for d in open_days])


def code(case: dict[str, Any]) -> str:
    return "XNYS" if case["market"] == "US" else "XLON"


@pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])
def test_trades_settle_as_published(case: dict[str, Any]) -> None:
    banks_rest = {date.fromisoformat(d) for d in case["open_but_not_settlement_day"]}
    for row in case["rows"]:
        day = date.fromisoformat(row["trade_date"])
        days = cycle(code(case), "equity", day, 0)
        assert settle_date(noon(day), days, exchange(case), banks_rest.__contains__) == date.fromisoformat(
            row["settle_date"]
        ), row
        told = row.get("cycle", case["cycle"])
        assert f"T+{days}" == told


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["id"] not in ("SET-NASD84-10", "SET-NASD85-63")], ids=lambda c: c["id"]
)
def test_the_rules_find_the_days_on_which_banks_rest(case: dict[str, Any]) -> None:
    for row in case["rows"]:
        day = date.fromisoformat(row["trade_date"])
        found = settles_on(noon(day), exchange=code(case), asset_class="equity", days=9, calendar=exchange(case))
        assert found == date.fromisoformat(row["settle_date"]), row


def test_a_market_without_a_cycle_takes_what_its_instrument_says() -> None:
    assert cycle("", "crypto", date(2026, 1, 2), 0) == 0
    assert cycle("XNYS", "future", date(2026, 1, 2), 7) == 7
    assert all(steps[0][0] == date.min and list(steps) == sorted(steps) for steps in CYCLES.values())


@pytest.mark.parametrize(
    ("day", "rests"),
    [
        ("2026-01-01", True), ("2026-01-19", True), ("2026-02-16", True), ("2026-05-25", True), ("2026-05-18", False),
        ("2026-06-19", True), ("2020-06-19", False), ("2026-07-03", False), ("2027-07-05", True), ("2026-09-07", True),
        ("2026-10-12", True), ("2026-11-11", True), ("2026-11-26", True), ("2026-11-19", False), ("2027-12-24", False),
        ("2023-01-02", True), ("2026-04-03", False),
    ],
)  # fmt: skip
def test_holidays_of_the_federal_reserve(day: str, rests: bool) -> None:
    assert us_bank_holiday(date.fromisoformat(day)) is rests


def test_holidays_of_the_euro() -> None:
    assert [easter(y) for y in (2000, 2019, 2024, 2025, 2026, 2038)] == [
        date(2000, 4, 23), date(2019, 4, 21), date(2024, 3, 31), date(2025, 4, 20), date(2026, 4, 5), date(2038, 4, 25),
    ]  # fmt: skip
    kept = [d for n in range(365) if euro_bank_holiday(d := date(2026, 1, 1) + timedelta(days=n))]
    assert kept == [date(2026, *d) for d in ((1, 1), (4, 3), (4, 6), (5, 1), (12, 25), (12, 26))]


@pytest.mark.parametrize(
    ("traded", "pair", "settles"),
    [
        ("2026-11-23", ("EUR", "USD"), "2026-11-25"),
        ("2026-11-24", ("EUR", "USD"), "2026-11-27"),  # the 26th is Thanksgiving: nothing settles, yet it counts
        ("2026-11-25", ("EUR", "USD"), "2026-11-27"),
        ("2026-04-01", ("EUR", "USD"), "2026-04-07"),  # Good Friday and Easter Monday
        ("2026-04-30", ("EUR", "USD"), "2026-05-05"),
        ("2026-11-27", ("EUR", "USD"), "2026-12-01"),
        ("2026-11-24", ("EUR", "GBP"), "2026-11-27"),  # a cross doesn't settle without the dollar
    ],
)
def test_currencies_settle_when_both_pay(traded: str, pair: tuple[str, str], settles: str) -> None:
    def closed(currency: str, day: date) -> bool:
        return {"USD": us_bank_holiday, "EUR": euro_bank_holiday}.get(currency, lambda _: False)(day)

    assert value_date(noon(date.fromisoformat(traded)), 2, pair, closed) == date.fromisoformat(settles)
