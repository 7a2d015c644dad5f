"""Published settlement dates, played by the desk's cycles and calendars."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from brokers.domain.calendars import Calendar, settle_date
from brokers.domain.settlement import cycle
from portfolio.domain.settling import settled_until
from tests.oracles.reading import ABOUT, Fields, cases

EXCHANGES = {
    "US": "XNYS", "UK": "XLON", "UK/EU": "XLON", "EU": "XPAR", "UK/EU/CH": "XLON", "CH": "XSWX", "CA": "XTSE", "MX": "XMEX",
    "JP": "XTKS", "AU": "XASX", "HK": "XHKG",
}  # fmt: skip
KNOWN = ABOUT | {"market", "cycle", "market_closed", "open_but_not_settlement_day", "rows", "inputs", "timeline"}


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def day_of(text: str) -> date:
    return date.fromisoformat(text)


def exchange(days: list[date], shut: set[date]) -> Calendar:
    """Return the weekdays around a case's dates without those on which its market is closed."""
    first = min(days) - timedelta(days=3)
    span = [first + timedelta(days=n) for n in range((max(days) - first).days + 20)]
    open_days = [d for d in span if d.weekday() < 5 and d not in shut]
    return Calendar(open_days, [noon(d) for d in open_days], [noon(d) for d in open_days])


def play_rows(case: dict[str, Any]) -> None:
    shut, banks_rest = (set(map(day_of, case[n])) for n in ("market_closed", "open_but_not_settlement_day"))
    calendar = exchange([day_of(r["trade_date"]) for r in case["rows"]], shut)
    for raw in case["rows"]:
        row = Fields(raw, "row")
        day, told = day_of(row.take("trade_date")), row.take("cycle", case["cycle"])
        days = cycle(EXCHANGES[case["market"]], "equity", day, 0)
        assert f"T+{days}" == told
        found = settle_date(noon(day), days, calendar, banks_rest.__contains__)
        assert found == day_of(row.take("settle_date")), raw
        row.end()


def play_timeline(case: dict[str, Any]) -> None:
    """Play a sale's cash over the days until it settles at an hour of its market's day."""
    inputs = Fields(case["inputs"], "inputs")
    moment, _, zone = inputs.take("trade").partition(" ")
    here, hour = ZoneInfo(zone), time.fromisoformat(inputs.take("settle_time"))
    traded = datetime.fromisoformat(moment).replace(tzinfo=here)
    days = cycle(EXCHANGES[case["market"]], "equity", traded.date(), 0)
    assert f"T+{days}" == case["cycle"]
    due, cash, proceeds = settle_date(traded, days), inputs.number("cash"), inputs.number("proceeds")
    inputs.end()
    for raw in case["timeline"]:
        step = Fields(raw, "step")
        at = datetime.fromisoformat(step.take("at")).replace(tzinfo=here)
        settled = due <= settled_until(at, hour, here)
        found = (cash + proceeds, Decimal(0)) if settled else (cash, proceeds)
        assert found == (step.number("cash"), step.number("unsettled")), raw
        step.end()


@pytest.mark.parametrize("case", cases("settlement.json"))
def test_a_published_settlement(case: dict[str, Any]) -> None:
    assert case.keys() <= KNOWN, f"nothing knows {sorted(case.keys() - KNOWN)}"
    if case.get("do_not_assert"):
        pytest.skip("published as not to be asserted")
    assert case["market"] in EXCHANGES, f"nothing knows the market {case['market']}"
    if "rows" in case:
        play_rows(case)
    else:
        play_timeline(case)
