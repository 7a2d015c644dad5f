"""Cash dividends: paid to who held when the ex date began, once, and taken back by the opposite."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from oms.kernel.ids import uuid7
from orders.api import corporate as desk_api
from orders.operations import restating
from portfolio import api, invariants, queries, rebuilding
from portfolio.models import CorporateAction, Entitlement, LedgerEntry
from tests.conftest import Desk
from tests.integration.test_portfolio import OPS, book, fill
from tests.integration.test_risk_api import call

EX = date(2026, 3, 9)
MORNING = datetime(2026, 3, 9, tzinfo=UTC)


def announced(desk: Desk, **more: Any) -> str:
    body = {"type": "cash_dividend", "symbol": "AAPL", "cash": "0.62", "ex_date": str(EX)} | more
    status, told = call(api.CorporateActions, "post", desk.oona, body)
    assert status == 201, told
    return str(told["id"])


def act(desk: Desk, view: Any, action: str, **body: Any) -> tuple[int, Any]:
    return call(view, "post", desk.oona, body, id=action)


def cash(desk: Desk) -> str:
    return str(queries.balances_of(desk.account.pk)[0]["ledger"])


def broken() -> list[str]:
    with connection.cursor() as cursor:
        found = []
        for name, statement in invariants.PREDICATES.items():
            cursor.execute(statement)
            found += [name] if cursor.fetchall() else []
        return found + [f"rebuilt {name}: {rows}" for name, rows in rebuilding.differences().items() if rows]


def held(desk: Desk) -> None:
    """10 shares when the ex date begins; what was bought that day, and sold of it, doesn't count."""
    book(
        desk,
        fill(desk, "buy 10 AAPL @ 100", executed_at=MORNING - timedelta(seconds=1)),
        fill(desk, "buy 5 AAPL @ 100", executed_at=MORNING),
        fill(desk, "sell 12 AAPL @ 100", executed_at=MORNING + timedelta(hours=1)),
    )


def test_who_bought_on_the_ex_date_gets_nothing_and_who_sold_does(desk: Desk) -> None:
    held(desk)
    action, before = announced(desk), cash(desk)
    [due] = act(desk, api.CorporateActionPreview, action)[1]["results"]
    assert (due["account"], due["quantity"], due["amount"], due["posted"]) == ("MAIN", "10", "6.2", "0")
    assert cash(desk) == before
    for _ in range(2):
        assert act(desk, desk_api.CorporateActionApply, action)[0] == 200
    assert Decimal(cash(desk)) - Decimal(before) == Decimal("6.2")
    assert Entitlement.objects.count() == 1
    assert LedgerEntry.objects.get(code="dividends").amount == Decimal("-6.2")
    assert queries.pnl_of(desk.account.pk)["currencies"][0]["dividends"] == "6.2"
    position = queries.positions_of(desk.account.pk)[0]
    assert (position["quantity"], position["realized_pnl"], position["average_cost"]) == ("3", "0", "100")
    assert broken() == []


def test_a_late_fill_and_a_bust_change_what_is_paid_once(desk: Desk) -> None:
    held(desk)
    action, before = announced(desk), Decimal(cash(desk))
    act(desk, desk_api.CorporateActionApply, action)
    late = fill(desk, "buy 4 AAPL @ 100", executed_at=MORNING - timedelta(days=1))
    book(desk, late)
    for _ in range(2):
        act(desk, desk_api.CorporateActionApply, action)
    assert Decimal(cash(desk)) == before - 400 + Decimal("8.68")
    book(desk, replace(late, source_id=uuid7(), kind="bust", ref_source_id=late.source_id))
    act(desk, desk_api.CorporateActionApply, action)
    assert Decimal(cash(desk)) == before + Decimal("6.2")
    assert broken() == []


def test_who_is_short_pays(desk: Desk) -> None:
    book(desk, fill(desk, "sell 10 AAPL @ 100", executed_at=MORNING - timedelta(days=1)))
    before = Decimal(cash(desk))
    act(desk, desk_api.CorporateActionApply, announced(desk))
    assert Decimal(cash(desk)) == before - Decimal("6.2")


def test_it_is_reversed_once_and_may_be_announced_again(desk: Desk) -> None:
    held(desk)
    action, before = announced(desk), cash(desk)
    act(desk, desk_api.CorporateActionApply, action)
    status, told = act(desk, desk_api.CorporateActionReversal, action, reason="wrong rate")
    assert (status, told["state"], cash(desk)) == (200, "reversed", before)
    assert act(desk, desk_api.CorporateActionReversal, action, reason="again")[1]["code"] == "already_reversed"
    assert act(desk, desk_api.CorporateActionApply, action)[1]["code"] == "action_reversed"
    act(desk, desk_api.CorporateActionApply, announced(desk, cash="0.26"))
    assert Decimal(cash(desk)) - Decimal(before) == Decimal("2.6")
    assert broken() == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "split"}, "required"), ({"type": "odd"}, "invalid_choice"), ({"symbol": "NONE"}, "unknown_symbol"),
        ({"cash": None}, "null"), ({"cash": "-1"}, "not_positive"), ({"pay_date": "2026-03-01"}, "out_of_range"),
        ({"ex_date": "x"}, "invalid"), ({"odd": 1}, "unknown_field"),
    ],
)  # fmt: skip
def test_what_can_not_be_announced_is_refused(desk: Desk, body: dict[str, Any], code: str) -> None:
    wanted = {"type": "cash_dividend", "symbol": "AAPL", "cash": "0.62", "ex_date": str(EX)} | body
    status, told = call(api.CorporateActions, "post", desk.oona, wanted)
    assert status == 400
    assert code in (told["code"], *(e["code"] for e in told.get("errors", [])))
    assert not CorporateAction.objects.exists()


def test_nothing_is_announced_twice_and_nothing_paid_before_its_day(desk: Desk) -> None:
    held(desk)
    announced(desk)
    again = {"type": "cash_dividend", "symbol": "AAPL", "cash": "0.62", "ex_date": str(EX)}
    assert call(api.CorporateActions, "post", desk.oona, again)[1]["code"] == "action_exists"
    later = announced(desk, symbol="MSFT", pay_date=str(datetime.now(UTC).date() + timedelta(days=2)))
    assert act(desk, desk_api.CorporateActionApply, later)[1]["code"] == "too_early"
    assert act(desk, desk_api.CorporateActionApply, str(uuid7()))[0] == 404


def test_the_command_applies_what_is_due(desk: Desk, capsys: Any) -> None:
    held(desk)
    announced(desk)
    before = Decimal(cash(desk))
    for arguments, paid in ((["--dry-run"], "0"), (["--as", "oona"], "6.2"), ([], "6.2")):
        call_command("apply_corporate_actions", *arguments)
        assert Decimal(cash(desk)) - before == Decimal(paid)
    assert capsys.readouterr().out.split("\n")[:3] == ["1 due.", "1 applied.", "0 applied."]


def test_what_was_paid_is_a_fact(desk: Desk) -> None:
    held(desk)
    restating.apply(CorporateAction.objects.get(pk=announced(desk)).pk, actor=OPS, at=desk.at)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Entitlement.objects.update(amount=1)
