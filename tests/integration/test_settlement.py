"""Settlements: one for each trade in force, from its booking until everything has changed hands.

B19 of the catalogue of failures (docs/faults.md) is told here: a delivery fails, comes in part, or moves to another day.
"""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from oms import monitoring
from oms.journal.models import Event
from oms.kernel.errors import Invalid
from oms.kernel.ids import uuid7
from portfolio import api, invariants, queries, settlement
from portfolio.domain.fills import Fill
from portfolio.models import Settlement
from tests.conftest import Desk
from tests.integration.test_portfolio import OPS, book, fill
from tests.integration.test_risk_api import call


def tomorrow(desk: Desk) -> Any:
    return desk.at + timedelta(days=1)


def states(desk: Desk) -> list[tuple[str, str]]:
    rows = call(api.Settlements, "get", desk.alice, code="MAIN")[1]["results"]
    return [(r["state"], r["amount"]) for r in rows]


def settled(desk: Desk) -> str:
    return str(queries.balances_of(desk.account.pk)[0]["settled"])


def broken() -> list[str]:
    with connection.cursor() as cursor:
        found = []
        for name, statement in invariants.PREDICATES.items():
            cursor.execute(statement)
            found += [name] if cursor.fetchall() else []
        return found


def mark(desk: Desk, trade: UUID, **body: Any) -> tuple[int, Any]:
    return call(
        api.SettlementMark, "post", desk.oona, {"reason": "told by the custodian"} | body, code="MAIN", id=str(trade)
    )


class TestRun:
    def test_a_trade_settles_on_its_day_and_once(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100 fees 1"))
        assert (states(desk), settled(desk)) == ([("pending", "-1001")], "1000000")
        assert settlement.settle(desk.at.date(), actor=OPS, at=desk.at) == {}
        for expected in ({"MAIN": 1}, {}):
            assert settlement.settle(tomorrow(desk).date(), actor=OPS, at=tomorrow(desk)) == expected
        assert (states(desk), settled(desk)) == ([("settled", "-1001")], "998999")
        assert Event.objects.filter(kind="settlement.settled").count() == 1
        assert broken() == []

    def test_what_is_due_at_once_has_settled_with_its_trade(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100", settle_date=desk.at.date()))
        assert (states(desk), settled(desk)) == ([("settled", "-1000")], "999000")

    def test_no_day_settles_before_it_comes(self, desk: Desk) -> None:
        with pytest.raises(Invalid):
            settlement.settle(tomorrow(desk).date(), actor=OPS, at=desk.at)

    def test_the_command_tells_what_is_due_and_settles_it(self, desk: Desk, capsys: Any) -> None:
        yesterday = desk.at - timedelta(days=1)
        book(desk, fill(desk, "buy 10 AAPL @ 100", executed_at=yesterday, settle_date=desk.at.date()))
        call_command("settle", "--dry-run")
        assert "MAIN: 1 due" in capsys.readouterr().out
        call_command("settle", "--as", "oona")
        assert "MAIN: 1 settled" in capsys.readouterr().out
        assert states(desk) == [("settled", "-1000")]


class TestUndone:
    @pytest.mark.parametrize("late", [False, True])
    def test_a_bust_takes_its_settlement_back_whenever_it_comes(self, desk: Desk, late: bool) -> None:
        bought = fill(desk, "buy 10 AAPL @ 100 fees 1")
        book(desk, bought)
        if late:
            settlement.settle(tomorrow(desk).date(), actor=OPS, at=tomorrow(desk))
        book(desk, replace(bought, source_id=uuid7(), kind="bust", ref_source_id=bought.source_id))
        assert (states(desk), settled(desk)) == ([("canceled", "-1001")], "1000000")
        assert broken() == []

    def test_a_correction_settles_in_its_place(self, desk: Desk) -> None:
        bought = fill(desk, "buy 10 AAPL @ 100")
        corrected = replace(
            bought, source_id=uuid7(), kind="correct", ref_source_id=bought.source_id, quantity=Decimal(4)
        )
        book(desk, bought, corrected)
        assert sorted(states(desk)) == [("canceled", "-1000"), ("pending", "-400")]
        assert broken() == []


class TestMarks:
    def make(self, desk: Desk) -> Fill:
        bought = fill(desk, "buy 10 AAPL @ 100 fees 1")
        book(desk, bought)
        return bought

    def test_b19_a_failed_delivery_waits_and_shows_among_the_exceptions(self, desk: Desk) -> None:
        trade = self.make(desk).source_id
        status, body = mark(desk, trade, state="failed")
        assert (status, body["state"]) == (200, "failed")
        later = desk.at + timedelta(days=5)
        assert settlement.settle(later.date(), actor=OPS, at=later) == {}
        [row] = queries.settlements_of(desk.account.pk, today=later.date(), state="failed")
        assert (row["days_late"], row["reason"]) == (4, "told by the custodian")
        [shown] = [e for e in monitoring.exceptions(at=later) if e["kind"] == "settlement"]
        assert (shown["object"], shown["account"]) == (str(trade), "MAIN")
        assert mark(desk, trade, state="settled")[1]["settled_amount"] == "-1001"
        assert broken() == []

    def test_b19_a_part_settles_its_share_of_the_cash(self, desk: Desk) -> None:
        trade = self.make(desk).source_id
        status, body = mark(desk, trade, state="partial", quantity="4")
        assert (status, body["settled_quantity"], body["settled_amount"]) == (200, "4", "-400.4")
        [usd] = queries.balances_of(desk.account.pk)
        assert (usd["ledger"], usd["settled"], usd["unsettled_out"]) == ("998999", "999599.6", "600.6")
        assert mark(desk, trade, state="partial", quantity="4")[0] == 400
        assert mark(desk, trade, state="partial", quantity="10")[0] == 400
        assert mark(desk, trade, state="settled")[1]["settled_quantity"] == "10"

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"state": "canceled"}, 400), ({"state": "partial"}, 400), ({"state": "failed", "quantity": "1"}, 400),
            ({"state": "partial", "quantity": "-1"}, 400), ({"state": "failed", "x": 1}, 400),
        ],
    )  # fmt: skip
    def test_what_can_not_be_is_refused(self, desk: Desk, body: dict[str, Any], status: int) -> None:
        trade = self.make(desk).source_id
        assert mark(desk, trade, **body)[0] == status
        assert states(desk) == [("pending", "-1001")]

    def test_nothing_settled_is_marked_and_nothing_unknown(self, desk: Desk) -> None:
        trade = self.make(desk).source_id
        settlement.settle(tomorrow(desk).date(), actor=OPS, at=tomorrow(desk))
        assert mark(desk, trade, state="failed")[0] == 409
        assert mark(desk, uuid7(), state="failed")[0] == 404

    def test_the_database_refuses_half_a_settlement(self, desk: Desk) -> None:
        trade = self.make(desk).source_id
        with pytest.raises(IntegrityError, match="settlement_settled_in_full"), transaction.atomic():
            Settlement.objects.filter(pk=trade).update(state="settled", settled_on=date(2026, 1, 1))


def test_trades_booked_before_settlements_were_kept_get_theirs(desk: Desk) -> None:
    bought = fill(desk, "buy 10 AAPL @ 100 fees 1")
    old = fill(
        desk, "buy 3 MSFT @ 50", executed_at=desk.at - timedelta(days=9), settle_date=desk.at.date() - timedelta(days=8)
    )
    busted = fill(desk, "buy 1 AAPL @ 100", after=2)
    book(desk, bought, old, busted)
    book(
        desk,
        replace(bought, source_id=uuid7(), kind="correct", ref_source_id=bought.source_id, quantity=Decimal(4)),
        replace(busted, source_id=uuid7(), kind="bust", ref_source_id=busted.source_id),
    )
    Settlement.objects.all().delete()
    migration = import_module("portfolio.migrations.0010_settle_what_was_booked")
    with connection.cursor() as cursor:
        cursor.execute(migration.BOOKED)
    assert sorted(states(desk)) == [("pending", "-401"), ("settled", "-150")]
    assert broken() == []


def test_the_ladder_tells_what_comes_when_what_is_late_and_what_was_sold_too_early(desk: Desk) -> None:
    from portfolio.ladder import ladder_of, too_early, violations_of
    from portfolio.models import Settlement

    bought = _ladder_fill(desk, "buy 10 AAPL", "L1")
    today = bought.executed_at.date()
    told = ladder_of(desk.account.pk, today=today)
    [usd] = told["currencies"]
    assert (usd["settled"], usd["days"][0]["going"], usd["days"][0]["settled_after"]) == ("1000000", "1000", "999000")
    assert told["late"] == []
    row = Settlement.objects.get(pk=bought.pk)
    row.due_on, row.state, row.failed_at = today - timedelta(days=5), "failed", desk.at
    row.save()
    [late] = ladder_of(desk.account.pk, today=today)["late"]
    assert (late["age"], late["state"], late["amount"], late["oldest_days"]) == ("4-7 days", "failed", "1000", 5)
    assert violations_of(desk.account.pk, today=today) == {"violations": [], "restricted_until": None}
    assert (
        too_early(desk.account.pk, bought.instrument_id, Decimal(5), today=today) is None
    )  # a deposit had paid for it


def _ladder_fill(desk: Desk, text: str, name: str) -> Any:
    from portfolio.models import Trade

    desk.place(text)
    desk.send()
    desk.report(
        desk.near.report(
            "trade",
            desk.near.sent[-1],
            execution_id=name,
            last_quantity=Decimal(10),
            last_price=Decimal(100),
            executed_at=desk.at,
        )
    )
    return Trade.objects.latest("id")
