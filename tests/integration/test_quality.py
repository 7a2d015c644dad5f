"""Measuring what really happened: fills, busts and corrections on a desk, against the sums and the worked figures."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from analytics import operations, queries
from analytics.domain.pairs import KEYS as PAIR_KEYS
from analytics.domain.pairs import bits
from analytics.models import ExecutionQuality, FillQuality, FillSum, RouteSum, RouteTime
from brokers.models import Bar, QuoteTick
from brokers.operations import prune_ticks, sample_ticks
from oms.runtime import sql
from orders.models import Order
from tests.conftest import Desk

KEYS = {"pair", "day", "account_id", *PAIR_KEYS, "what", "bucket"}
BY_BROKER = bits(("broker_id", "algo"))


@pytest.fixture
def near(desk: Desk) -> Desk:
    """A desk whose AAPL stands at 99.99/100.01."""
    desk.quote("AAPL", "99.99", "100.01")
    return desk


def fill(desk: Desk, number: int, quantity: str, price: str, kind: str = "trade", **more: Any) -> None:
    sent = desk.near.sent[-1]
    told = {"execution_id": f"E{number}", "last_quantity": Decimal(quantity), "last_price": Decimal(price)}
    desk.report(desk.near.report(kind, sent, **told, executed_at=datetime.now(UTC), **more))


def bought(desk: Desk, text: str, number: int, price: str, **more: Any) -> Any:
    """Place, send and fill an order at a price."""
    [placed] = desk.place(text, **more)
    desk.send()
    fill(desk, number, text.split()[1], price)
    return placed


def sums(model: Any, **which: Any) -> list[dict[str, Any]]:
    """Return the rows of sums that aren't nought, without their ids."""
    names = [f.attname for f in model._meta.concrete_fields if f.attname != "id"]
    keys = [n for n in names if n in KEYS]
    rows = model.objects.filter(**which).order_by(*keys).values(*names)
    return [r for r in rows if any(r[n] for n in names if n not in KEYS)]


def now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


class TestOneOrder:
    def test_costs_are_told_at_once_and_sum_exactly(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.01")
        told = queries.quality_of(near.order(placed))
        assert told["arrival_bps"] == "1"
        parts = {k: Decimal(told["shortfall"][k]) for k in ("delay", "trading", "opportunity", "fees", "total")}
        assert parts["total"] == parts["delay"] + parts["trading"] + parts["opportunity"] + parts["fees"]
        assert (parts["delay"], parts["trading"], parts["opportunity"]) == (0, Decimal("0.1"), 0)
        assert (told["effective_spread_bps"], told["price_improvement_bps"], told["anomalies"]) == ("1.9998", "0", [])
        assert [m["what"] for m in told["moments"]] == ["decided", "sent", "answered", "filled"]
        assert told["markouts"]["1s"] is None

    def test_waiting_at_the_desk_is_delay(self, near: Desk) -> None:
        [placed] = near.place("buy 10 AAPL")
        near.later(1)
        near.quote("AAPL", "100.49", "100.51")
        near.send()
        fill(near, 1, "10", "100.51")
        told = queries.quality_of(near.order(placed))["shortfall"]
        assert (told["delay"], told["trading"]) == ("5", "0.1")

    def test_what_was_canceled_lost_the_market(self, near: Desk) -> None:
        [placed] = near.place("buy 10 AAPL limit 99.98")
        near.send()
        fill(near, 1, "4", "99.98")
        near.later(1)
        near.quote("AAPL", "100.99", "101.01")
        sample_ticks()
        near.report(near.near.report("canceled", near.near.sent[-1]))
        sql.run("UPDATE brokers_quotetick SET at = at - interval '1 second'")
        told = queries.quality_of(near.order(placed))["shortfall"]
        assert (told["opportunity"], told["bps"]["opportunity"]) == ("6", "60")
        operations.measure(at=now())
        assert ExecutionQuality.objects.get(order_id=placed.order_id).opportunity == 6

    def test_the_close_is_a_benchmark_once_the_day_is_over(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.00")
        assert queries.quality_of(near.order(placed))["close_bps"] is None
        yesterday = (near.at - timedelta(days=1)).replace(hour=23, minute=59, second=0, microsecond=0)
        Order.objects.filter(pk=placed.order_id).update(decided_at=yesterday - timedelta(hours=2))
        price = dict.fromkeys(("open", "high", "low", "close"), Decimal(101))
        Bar.objects.create(instrument=near.order(placed).instrument, at=yesterday, **price)
        assert queries.quality_of(near.order(placed))["close_bps"] == "-99.0099"

    def test_what_is_stored_is_what_is_shown(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.03")
        other = bought(near, "sell 7 AAPL", 2, "99.97")
        operations.measure(at=now())
        for one in (placed, other):
            stored = ExecutionQuality.objects.get(order_id=one.order_id)
            shown = queries.quality_of(near.order(one))["shortfall"]
            for part in ("delay", "trading", "opportunity", "fees"):
                assert getattr(stored, part) == Decimal(shown[part]), part


class TestSums:
    def test_busts_and_corrections_revise_them_and_a_rebuild_agrees(self, near: Desk) -> None:
        bought(near, "buy 10 AAPL", 1, "100.03")
        bought(near, "sell 5 AAPL", 2, "100.02")
        operations.measure(at=now())
        [row] = sums(FillSum, pair=BY_BROKER)
        assert (row["fills"], row["notional"], row["arrival"]) == (2, 1_500_400_000, 200_000)
        [placed] = near.place("buy 20 AAPL")
        near.send()
        fill(near, 3, "8", "100.05")
        fill(near, 4, "12", "100.04")
        operations.measure(at=now())
        fill(near, 5, "8", "100.05", kind="bust", ref_execution_id="E3")
        fill(near, 6, "12", "100.01", kind="correct", ref_execution_id="E4")
        operations.measure(at=now())
        [row] = sums(FillSum, pair=BY_BROKER)
        assert (row["fills"], row["arrival"]) == (3, 320_000)
        assert FillQuality.objects.filter(order_id=placed.order_id).count() == 1
        before = [sums(m) for m in (FillSum, RouteSum, RouteTime)]
        assert operations.rebuild(at=now()) == 3
        assert [sums(m) for m in (FillSum, RouteSum, RouteTime)] == before

    def test_measuring_twice_changes_nothing(self, near: Desk) -> None:
        bought(near, "buy 10 AAPL", 1, "100.03")
        operations.measure(at=now())
        before = sums(FillSum)
        operations.measure(at=now())
        assert sums(FillSum) == before

    def test_markouts_are_taken_when_due_and_kept_by_a_rebuild(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.00")
        operations.measure(at=now())
        [measured] = FillQuality.objects.all()
        for seconds, mid in ((1, "100.1"), (10, "99.9"), (60, "99")):
            at = measured.executed_at + timedelta(seconds=seconds)
            price = Decimal(mid)
            QuoteTick.objects.create(instrument_id=measured.instrument_id, at=at, bid=price, ask=price)
        assert operations.mark(at=measured.executed_at + timedelta(seconds=61)) == 3
        assert operations.mark(at=measured.executed_at + timedelta(seconds=62)) == 0
        told = queries.quality_of(near.order(placed))
        assert told["markouts"] == {"1s": "-10", "10s": "10", "60s": "100", "300s": None, "1800s": None}
        assert told["realized_spread_bps"] == "200"
        [row] = sums(FillSum, pair=BY_BROKER)
        assert (row["marks_60"], row["mark_bps_60"], row["marks_300"]) == (1, 1_000_000, 0)
        prune_ticks(at=measured.executed_at + timedelta(days=3))
        assert not QuoteTick.objects.exists()
        operations.rebuild(at=now())
        assert sums(FillSum, pair=BY_BROKER) == [row]


class TestReports:
    def test_groups_attribute_the_whole_cost(self, near: Desk) -> None:
        for n in range(4):
            bought(near, f"buy {n + 1} AAPL", n, "100.02")
        operations.measure(at=now())
        client = APIClient()
        client.force_authenticate(near.rita)
        [row] = client.get("/api/v1/analytics/tca?group_by=broker,symbol").json()["results"]
        assert (row["broker"], row["symbol"], row["fills"], row["ranked"]) == ("NEAR", "AAPL", 4, False)
        parts = row["attribution"]
        assert Decimal(parts["total"]) == sum(Decimal(parts[k]) for k in ("spread", "impact", "timing", "fees"))
        assert (parts["spread"], parts["impact"], row["mean_arrival_bps"]["mean"]) == ("0.1", "0.1", 2.0)
        [card] = client.get("/api/v1/analytics/brokers").json()["results"]
        assert (card["broker"], card["rank"], card["rejected"]["share"], card["fill_rate"]) == ("NEAR", None, 0.0, "1")
        assert (
            b"NEAR,AAPL"
            in client.get("/api/v1/analytics/tca?group_by=broker,symbol", headers={"accept": "text/csv"}).content
        )

    def test_an_outsider_sees_nothing_of_it(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.03")
        operations.measure(at=now())
        client = APIClient()
        client.force_authenticate(near.otto)
        assert client.get("/api/v1/analytics/tca").json()["results"] == []
        assert client.get("/api/v1/analytics/brokers").json()["results"] == []
        assert client.get("/api/v1/analytics/tca?account=MAIN").status_code == 404
        assert client.get(f"/api/v1/analytics/orders/{placed.order_id}/evidence").status_code == 404

    @pytest.mark.parametrize(
        ("query", "field"),
        [("group_by=venue", "group_by"), ("group_by=broker,day,hour", "group_by"), ("from=soon", "from"), ("from=2026-02-02&to=2026-02-01", "from"), ("since=2026-02-02", "since")],
    )  # fmt: skip
    def test_what_is_asked_wrongly_is_told(self, near: Desk, query: str, field: str) -> None:
        client = APIClient()
        client.force_authenticate(near.rita)
        answer = client.get(f"/api/v1/analytics/tca?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == field

    def test_evidence_holds_the_decision_and_the_outcome(self, near: Desk) -> None:
        placed = bought(near, "buy 10 AAPL", 1, "100.03")
        client = APIClient()
        client.force_authenticate(near.alice)
        told = client.get(f"/api/v1/analytics/orders/{placed.order_id}/evidence").json()
        assert {c["broker"] for c in told["routing"][0]["candidates"]} >= {"NEAR", "FAR"}
        assert told["quality"]["shortfall"]["currency"] == "USD"

    def test_the_page_needs_nothing_else(self, near: Desk, tmp_path: Path) -> None:
        for n in range(3):
            bought(near, "buy 10 AAPL", n, "100.02")
        page = tmp_path / "report.html"
        call_command("tca_report", html=page)
        html = page.read_text()
        assert "NEAR" in html
        assert "<svg" in html
        assert "http" not in html.replace("http-equiv", "")
        empty = tmp_path / "empty.html"
        call_command("tca_report", html=empty, since=datetime(2001, 1, 1).date(), until=datetime(2001, 1, 2).date())  # noqa: DTZ001 - a day
        assert "Nothing was filled" in empty.read_text()
