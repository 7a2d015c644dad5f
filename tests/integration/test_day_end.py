"""The end of a day: every step once, resumed where it stopped."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from oms.journal.models import Event
from portfolio.models import DailyValue, DayEndStep, Reconciliation
from tests.conftest import Desk

pytestmark = pytest.mark.django_db


def end(*words: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and what it told."""
    out = StringIO()
    try:
        call_command("end_of_day", *words, "--json", stdout=out)
    except SystemExit as stop:
        return int(stop.code or 0), json.loads(out.getvalue())
    return 0, json.loads(out.getvalue())


def test_a_step_that_failed_is_tried_again_and_those_that_are_done_are_not(desk: Desk) -> None:
    desk.place("buy 10 AAPL")
    desk.send()
    [sent] = desk.near.sent
    fill = desk.near.report(
        "trade", sent, execution_id="X1", account="A1", last_quantity=Decimal(10), last_price=Decimal(100),
        executed_at=datetime.now(UTC) - timedelta(minutes=1),
    )  # fmt: skip
    desk.report(fill)
    desk.near.fills, desk.near.held = [fill], [("A1", "AAPL", Decimal(10))]
    desk.near.owned = [("A1", "USD", Decimal(-1000))]
    desk.near.reachable = False
    code, told = end()
    states = {s["step"]: s["state"] for s in told["steps"]}
    assert (code, told["done"]) == (1, False)
    assert states == {
        "settle": "done", "snapshot": "done", "statements": "done", "reconcile": "failed", "expiry": "done", "verify": "done",
    }  # fmt: skip
    assert DayEndStep.objects.get(step="reconcile").detail["runs"] == {"NEAR": "unavailable", "FAR": "done"}
    assert end("--dry-run")[1]["steps"] == ["reconcile"]

    desk.near.reachable = True
    code, told = end()
    assert (code, told["done"]) == (0, True)
    assert {s["step"]: s["tries"] for s in told["steps"]} == {
        "settle": 1, "snapshot": 1, "statements": 1, "reconcile": 2, "expiry": 1, "verify": 1,
    }  # fmt: skip
    runs = Reconciliation.objects.count()
    assert end()[0] == 0
    assert Reconciliation.objects.count() == runs
    assert Event.objects.filter(kind="day_end.done").count() == 6


def test_what_accounts_are_worth_is_kept_for_the_day(desk: Desk) -> None:
    assert end()[0] == 0
    value = DailyValue.objects.get()
    assert (value.day, value.equity) == (datetime.now(UTC).date(), Decimal(1_000_000))
    assert end("--again")[0] == 0
    assert DailyValue.objects.count() == 1


def test_a_day_that_lies_ahead_is_not_ended(desk: Desk) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    with pytest.raises(CommandError) as refused:
        call_command("end_of_day", "--date", tomorrow.isoformat())
    assert refused.value.returncode == 2
