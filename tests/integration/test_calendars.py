"""Exchanges keep hours and holidays: settlement dates follow them, and so do orders where the desk keeps sessions."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brokers import queries
from brokers.domain.calendars import Calendar, settle_date
from brokers.models import Instrument, TradingSession
from brokers.operations import published_sessions, store_sessions
from orders.models import Execution
from risk.models import RiskCheck
from tests.conftest import Desk

THANKSGIVING = date(2026, 11, 26)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def november() -> Any:
    """New York around Thanksgiving of 2026, as published."""
    return published_sessions(["XNYS"], since=date(2026, 11, 16), until=date(2026, 12, 31))


@pytest.fixture
def new_york(desk: Desk, november: Any) -> Calendar:
    Instrument.objects.filter(asset_class="equity").update(calendar="XNYS")
    store_sessions(november)
    found = queries.calendar("XNYS")
    assert found is not None
    return found


class TestCalendar:
    def test_hours_and_early_closes(self, new_york: Calendar) -> None:
        for text, is_open in (
            ("2026-11-25T14:29:59", False), ("2026-11-25T14:30:00", True), ("2026-11-25T20:59:59", True),
            ("2026-11-25T21:00:00", False), ("2026-11-26T16:00:00", False), ("2026-11-27T17:59:59", True),
            ("2026-11-27T18:00:00", False), ("2026-11-28T16:00:00", False), ("2020-01-02T16:00:00", False),
            ("2027-02-01T16:00:00", False),
        ):  # fmt: skip
            assert new_york.is_open(at(text)) is is_open, text

    def test_settlement_passes_over_holidays(self, new_york: Calendar) -> None:
        assert settle_date(at("2026-11-25T20:00:00"), 1, new_york) == date(2026, 11, 27)
        assert settle_date(at("2026-11-25T20:00:00"), 1) == THANKSGIVING  # by weekdays, without a calendar
        assert settle_date(at("2026-11-27T17:00:00"), 1, new_york) == date(2026, 11, 30)
        assert settle_date(at("2026-11-28T17:00:00"), 1, new_york) == date(2026, 11, 30)  # a Saturday's
        assert settle_date(at("2026-11-25T20:00:00"), 0, new_york) == date(2026, 11, 25)
        assert settle_date(at("2027-06-01T20:00:00"), 1, new_york) == date(2027, 6, 2)  # not loaded so far


def test_a_fill_settles_by_its_exchange(desk: Desk, new_york: Calendar) -> None:
    desk.place("buy 10 AAPL")
    desk.send()
    desk.report(
        desk.near.report(
            "trade", desk.near.sent[-1], execution_id="E1", last_quantity=Decimal(10), last_price=Decimal(100),
            executed_at=at("2026-11-25T20:00:00"),
        )
    )  # fmt: skip
    assert Execution.objects.get().settle_date == date(2026, 11, 27)


class TestSessions:
    @pytest.fixture(autouse=True)
    def kept(self, settings: Any, new_york: Calendar, desk: Desk) -> None:
        settings.SESSIONS = True

    def ask(self, desk: Desk, when: str, *texts: str) -> list[str]:
        desk.at = at(when)
        for symbol, bid, ask in (("AAPL", "99.99", "100.01"), ("EUR/USD", "1.12000", "1.12002")):
            desk.quote(symbol, bid, ask)
        return [desk.order(p).reason for p in desk.place(*texts)]

    @pytest.mark.parametrize("when", ["2026-12-23T16:00:00", "2026-12-24T16:00:00"])
    def test_in_session_all_trades(self, desk: Desk, when: str) -> None:
        assert self.ask(desk, when, "buy 10 AAPL", "buy 10 AAPL limit 100 ioc", "buy 10 EUR/USD") == ["", "", ""]

    @pytest.mark.parametrize("when", ["2026-12-23T22:00:00", "2026-12-24T18:30:00", "2026-12-25T16:00:00"])
    def test_out_of_session_what_would_trade_at_once_is_denied(self, desk: Desk, when: str) -> None:
        texts = ("buy 10 AAPL", "buy 10 AAPL limit 100", "buy 10 AAPL limit 100 fok", "buy 10 AAPL gtc")
        assert self.ask(desk, when, *texts) == ["session_closed"] * 4
        assert self.ask(desk, when, "buy 10 AAPL limit 100 gtc", "buy 10 EUR/USD") == ["", ""]
        check = next(c for c in RiskCheck.objects.order_by("id").first().checks if c["check"] == "session")
        assert (check["passed"], check["numbers"]["calendar"]) == (False, "XNYS")

    def test_a_calendar_that_was_never_loaded_is_closed(self, desk: Desk) -> None:
        TradingSession.objects.all().delete()
        queries.forget_cache()
        assert self.ask(desk, "2026-12-23T16:00:00", "buy 10 AAPL") == ["session_closed"]

    def test_the_demo_market_rests_with_the_exchange(self, desk: Desk) -> None:
        from brokers.management.commands.run_market import _resting

        assert _resting(at("2026-12-25T16:00:00")) == {"AAPL", "MSFT"}
        assert _resting(at("2026-12-23T16:00:00")) == set()


def test_without_sessions_equities_trade_round_the_clock(desk: Desk, new_york: Calendar) -> None:
    desk.at = at("2026-12-25T16:00:00")
    desk.quote("AAPL", "99.99", "100.01")
    [placed] = desk.place("buy 10 AAPL")
    assert desk.order(placed).reason == ""


class TestLoading:
    def test_the_calendars_that_instruments_name_are_loaded(self, desk: Desk) -> None:
        Instrument.objects.filter(symbol="AAPL").update(calendar="XNYS")
        out = StringIO()
        call_command("load_calendars", "--dry-run", "--json", stdout=out)
        assert json.loads(out.getvalue())["sessions"] == {}
        assert TradingSession.objects.count() == 0
        out = StringIO()
        call_command("load_calendars", "--json", stdout=out)
        told = json.loads(out.getvalue())["sessions"]
        assert 280 < told["XNYS"] == TradingSession.objects.count() < 310
        assert TradingSession.objects.order_by("-day").first().day > date.today() + timedelta(days=380)  # noqa: DTZ011 - days, wherever it is
        call_command("load_calendars", stdout=StringIO())
        assert TradingSession.objects.count() == told["XNYS"]

    def test_a_calendar_that_nobody_publishes_is_told(self, desk: Desk) -> None:
        Instrument.objects.filter(symbol="AAPL").update(calendar="XXXX")
        with pytest.raises(CommandError, match="No exchange calendar is named XXXX") as unknown:
            call_command("load_calendars")
        assert unknown.value.returncode == 2
