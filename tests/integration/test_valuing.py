"""What accounts are worth: live, day by day, over REST, with the rates and flows that were kept."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from brokers.models import Quote
from oms.kernel.actor import Actor
from oms.runtime import live
from portfolio import operations as portfolio
from portfolio.api import Performance, Positions, Valuation
from portfolio.marking import Marker
from portfolio.models import Account, DailyValue, Flow, PostingRate, Strategy
from portfolio.valuing import snapshot
from tests.conftest import Desk
from tests.flows.test_rebalance import PRICES, fill_all, hold
from tests.integration.test_portfolio import book, fill
from tests.integration.test_risk_api import call

D = Decimal


def value(desk: Desk, query: str = "", account: str = "MAIN") -> dict[str, Any]:
    status, told = call(Valuation, "get", desk.oona, query=query, code=account)
    assert status == 200, told
    return told


def transfer(
    desk: Desk, amount: str, *, account: str = "MAIN", currency: str = "USD", at: datetime | None = None
) -> None:
    portfolio.transfer(
        account=account, kind="deposit" if D(amount) > 0 else "withdrawal", currency=currency, amount=abs(D(amount)), to="",
        reason="x", key=f"{amount}-{at}", actor=Actor.system("test"), at=at or desk.at,
    )  # fmt: skip


def test_an_account_at_the_market_and_its_parts(desk: Desk) -> None:
    Strategy.objects.create(code="carry")
    desk.place("buy 100 AAPL", strategy="carry")
    desk.place("buy 50 AAPL", broker="FAR")
    fill_all(desk, PRICES)
    [far] = [desk.send("FAR") and desk.far.sent[-1]]
    told = {"execution_id": "F", "last_quantity": D(50), "last_price": D("100.01"), "executed_at": desk.at}
    desk.report(
        desk.far.report("new", far), desk.far.report("trade", far, cumulative_quantity=D(50), **told), code="FAR"
    )
    desk.quote("AAPL", "109.99", "110.01")
    whole = value(desk)
    assert (whole["value"], whole["cost"], whole["unrealized"]) == ("16500", "15001.5", "1498.5")
    assert D(whole["equity"]) == 1_000_000 + D(whole["unrealized"])
    assert whole["day"] == whole["unrealized"]
    parts = {p["key"]: p["value"] for p in value(desk, "?by=broker")["parts"]}
    assert parts == {"NEAR": "11000", "FAR": "5500"}
    assert {p["key"]: p["unrealized"] for p in value(desk, "?by=strategy")["parts"]} == {"carry": "999", None: "499.5"}
    assert [p["key"] for p in value(desk, "?by=symbol")["parts"]] == ["AAPL"]
    assert call(Valuation, "get", desk.otto, code="MAIN")[0] == 404
    assert call(Valuation, "get", desk.oona, query="?by=moon", code="MAIN")[0] == 400


def test_an_account_that_closes_its_book_counts_longs_at_the_bid(desk: Desk) -> None:
    hold(desk, "buy 100 AAPL")
    Account.objects.update(valued_at="closing")
    assert value(desk)["value"] == "9999"
    _, told = call(Positions, "get", desk.oona, code="MAIN")
    assert told["results"][0]["market_price"] == "99.99"


def test_what_has_no_price_or_rate_makes_the_whole_unknown_and_is_counted(desk: Desk) -> None:
    hold(desk, "buy 100 AAPL")
    Quote.objects.filter(instrument__symbol="AAPL").delete()
    told = value(desk)
    assert (told["equity"], told["unpriced"], told["value"]) == (None, 1, "0")
    transfer(desk, "5", currency="EUR")
    Quote.objects.filter(instrument__symbol="EUR/USD").delete()
    assert value(desk)["unrated"] == ["EUR"]
    assert Flow.objects.get(amount__lt=10).equity_before is None
    snapshot(at=desk.at)
    assert DailyValue.objects.get().equity is None


def test_postings_in_another_currency_keep_the_rate_they_were_worth(desk: Desk) -> None:
    portfolio.open_account(code="EURO", name="", base_currency="EUR", actor=Actor.system("t"), at=desk.at)
    transfer(desk, "1120.01", account="EURO")
    [kept] = PostingRate.objects.all()
    assert (kept.currency, kept.base_currency) == ("USD", "EUR")
    assert kept.rate == pytest.approx(1 / D("1.12001"), abs=D("1e-9"))
    flow = Flow.objects.get(account__code="EURO")
    assert (flow.amount, flow.equity_before) == (D(1000), D(0))
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        PostingRate.objects.update(rate=1)
    assert (
        PostingRate.objects.filter(transaction__account=desk.account).count() == 0
    )  # in its own currency nothing is asked


def test_what_was_realised_counts_at_the_rate_of_its_day(desk: Desk) -> None:
    book(desk, fill(desk, "buy 10 AAPL @ 100"), fill(desk, "sell 10 AAPL @ 110", after=1))
    assert value(desk)["realized"] == "100"
    euro = portfolio.open_account(code="EURO", name="", base_currency="EUR", actor=Actor.system("t"), at=desk.at)
    assert value(desk, account="EURO")["realized"] == "0"
    book(
        desk,
        fill(desk, "buy 10 AAPL @ 100", account_id=euro.pk),
        fill(desk, "sell 10 AAPL @ 110", after=1, account_id=euro.pk),
    )
    desk.quote("EUR/USD", "2.00000", "2.00002")  # what comes later changes nothing of what was
    book(
        desk,
        fill(desk, "buy 1 MSFT @ 200", account_id=euro.pk),
        fill(desk, "sell 1 MSFT @ 180", after=1, account_id=euro.pk),
    )
    expected = 100 / D("1.12001") - 20 / D("2.00001")
    assert D(value(desk, account="EURO")["realized"]) == pytest.approx(expected, abs=D("1e-6"))
    assert value(desk)["realized"] == "100"
    Quote.objects.filter(instrument__symbol="EUR/USD").delete()
    book(
        desk,
        fill(desk, "buy 1 MSFT @ 200", account_id=euro.pk),
        fill(desk, "sell 1 MSFT @ 180", after=1, account_id=euro.pk),
    )
    assert value(desk, account="EURO")["realized"] is None


def test_performance_over_days_with_money_coming_and_going(desk: Desk) -> None:
    hold(desk, "buy 5000 AAPL")  # half of the money, at 100.01
    snapshot(at=desk.at + timedelta(seconds=1))
    for day, (bid, flow) in enumerate([("109.99", "500000"), ("98.99", "-300000"), ("120.99", "0")], start=1):
        moment = desk.at + timedelta(days=day)
        desk.at = moment
        desk.quote("AAPL", bid, str(D(bid) + D("0.02")))
        if D(flow):
            transfer(desk, flow)
        snapshot(at=moment + timedelta(seconds=1))
    desk.at += timedelta(seconds=2)
    _, told = call_at(desk)
    assert (told["deposits"], told["withdrawals"]) == (
        "1500000" if told["from"] is None else told["deposits"],
        "300000",
    )
    assert told["missing_days"] == 0
    # growth before each flow and after it: the flows themselves add and take nothing
    first = 1_000_000 + 5000 * (D(110) - D("100.01"))
    second = first + 500_000 + 5000 * D(-11)
    third = second - 300_000 + 5000 * D(22)
    expected = (first / 1_000_000) * (second / (first + 500_000)) * (third / (second - 300_000)) - 1
    assert D(told["time_weighted"]) == pytest.approx(expected, abs=D("1e-7"))
    assert D(told["end_equity"]) == third
    assert D(told["gain"]) == third - 1_000_000 - 200_000
    assert told["max_drawdown"]["recovered_at"] is not None
    assert D(told["max_drawdown"]["depth"]) == pytest.approx(1 - second / (first + 500_000), abs=D("1e-7"))
    status, bad = call(Performance, "get", desk.oona, query="?from=tomorrow", code="MAIN")
    assert (status, bad["errors"][0]["field"]) == (400, "from")


def call_at(desk: Desk) -> tuple[int, Any]:
    """Ask at the desk's own time, which runs ahead of the clock here."""
    from portfolio.valuing import performance_out

    return 200, performance_out(desk.account, start=None, end=None, at=desk.at)


def test_the_command_keeps_the_day_and_tells_what_is_not_known(desk: Desk) -> None:
    out = StringIO()
    call_command("snapshot", "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert (told["kept"], told["accounts"][0]["equity"]) == (1, "1000000")
    call_command("snapshot", stdout=StringIO())
    assert DailyValue.objects.count() == 1  # over the earlier one of the day


def test_the_live_book_tells_what_moved_and_only_that(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(live, "publish_marks", lambda frames: told.extend((a, json.loads(f)) for a, f in frames))
    hold(desk, "buy 100 AAPL")
    hold(desk, "buy 10 MSFT")
    marker = Marker()
    assert marker.look(at=desk.at) == 2
    told.clear()
    assert marker.look(at=desk.at) == 0
    desk.later(0.001)
    desk.quote("AAPL", "104.99", "105.01")
    assert marker.look(at=desk.at) == 1
    [(account, frame)] = told
    [row] = frame["data"]
    assert (account, row["symbol"], row["market_price"], row["unrealized_pnl"]) == ("MAIN", "AAPL", "105", "499")
    assert frame["totals"]["unrealized"] == "498.8"  # with the MSFT that did not move
    assert (frame["totals"]["positions"], frame["totals"]["unpriced"], frame["totals"]["stale"]) == (2, 0, 0)
    hold(desk, "buy 100 AAPL")  # what is held of it is looked at again with its next price
    desk.later(0.001)
    desk.quote("AAPL", "105.99", "106.01")
    told.clear()
    assert marker.look(at=desk.at) == 1
    assert told[0][1]["data"][0]["unrealized_pnl"] == "1198"
