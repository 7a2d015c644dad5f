"""What is used of limits and by what, who may trade what, and what jumps would do: the figures that judge orders, for people."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Instrument
from brokers.queries import forget_cache
from oms.kernel.ids import uuid7
from portfolio.models import Account, AccountGrant
from risk.domain.stress import Exposed, outcomes
from risk.models import Group, GroupMember, Halt, Limit, Mandate, RestrictedInstrument
from risk.queries import headroom_out, matrix_out, stress_out
from tests.conftest import Desk
from tests.integration.test_account_rules import fill
from tests.unit.test_risk_checks import COIN, PAIR, STOCK, D


def bind(desk: Desk, scope: str, key: str, kind: str, value: str, currency: str = "", **more: Any) -> None:
    Limit.objects.create(
        id=uuid7(), scope_kind=scope, scope_key=key, kind=kind, value=value, currency=currency, status="active",
        effective_from=desk.at, reason="test", created_at=desk.at, **more,
    )  # fmt: skip


def rows(desk: Desk) -> dict[tuple[str, str, bool, str | None], dict[str, Any]]:
    found = headroom_out(list(Account.objects.order_by("code")), at=desk.at)
    return {(str(next(iter(r["scope"].items()))), r["kind"], r["aggregate"], r["account"]): r for r in found}


@pytest.mark.django_db
def test_a_desk_without_instruments_has_nothing_to_tell() -> None:
    forget_cache()
    account = Account.objects.create(code="ALPHA", base_currency="USD")
    assert headroom_out([account], at=datetime.now(UTC)) == []
    assert stress_out([account], at=datetime.now(UTC)) == []


def test_every_limit_shows_its_use_what_is_left_and_what_uses_it(desk: Desk) -> None:
    other = Account.objects.create(code="ALPHA", base_currency="USD")
    AccountGrant.objects.create(user=desk.alice, account=other)
    tech = Group.objects.create(code="tech")
    GroupMember.objects.create(group=tech, kind="symbol", key="AAPL")
    bind(desk, "firm", "", "gross_exposure", "50000", "USD", aggregate=True)
    bind(desk, "account", "MAIN", "gross_exposure", "12000", "USD")
    bind(desk, "user", "alice", "position_long", "500")
    bind(desk, "account", "MAIN", "open_orders", "5")
    bind(desk, "account", "MAIN", "leverage", "2")
    fill(desk, "buy 100 AAPL", "100")
    desk.place("buy 20 AAPL limit 99", "sell 5 AAPL limit 105")
    bind(desk, "group", "tech", "position", "90")
    found = rows(desk)
    whole = found["('firm', True)", "gross_exposure", True, None]
    assert (whole["used"], whole["headroom"], whole["breach"]) == ("12000", "38000", False)
    assert [(c["symbol"], c["quantity"], c["buying"], c["value"]) for c in whole["consumers"]] == [
        ("AAPL", "100", "20", "12000")
    ]
    mine = found["('account', 'MAIN')", "gross_exposure", False, "MAIN"]
    assert (mine["used"], mine["headroom"], mine["breach"]) == ("12000", "0", False)
    user = found["('user', 'alice')", "position_long", False, "MAIN"]
    assert (user["symbol"], user["used"], user["headroom"]) == ("AAPL", "120", "380")
    grouped = found["('group', 'tech')", "position", False, "MAIN"]
    assert (grouped["used"], grouped["headroom"], grouped["breach"]) == ("120", "0", True)
    assert found["('account', 'MAIN')", "open_orders", False, "MAIN"]["used"] == "2"
    assert Decimal(found["('account', 'MAIN')", "leverage", False, "MAIN"]["used"]) == Decimal("0.012")
    # a limit that was lowered below its use shows as a breach, and gives nothing more away
    Limit.objects.filter(kind="gross_exposure", aggregate=True).update(value=11_000)
    lowered = rows(desk)["('firm', True)", "gross_exposure", True, None]
    assert (lowered["headroom"], lowered["breach"]) == ("0", True)
    assert desk.order(desk.place("buy 1 AAPL limit 100")[0]).reason == "position_limit"


def test_the_matrix_tells_what_is_open_to_whom_and_what_bars_the_rest(desk: Desk) -> None:
    Mandate.objects.create(scope_kind="user", scope_key="alice", dimension="asset_class", allowed="equity", reason="x")
    RestrictedInstrument.objects.create(instrument=Instrument.objects.get(symbol="MSFT"), since=desk.at, reason="x")
    Halt.objects.create(
        id=uuid7(),
        scope_kind="account",
        scope_key="MAIN",
        mode="reduce_only",
        reason="x",
        engaged_by="x",
        engaged_at=desk.at,
    )
    [row] = matrix_out(Account.objects.all(), at=desk.at)
    assert (row["user"], row["account"], row["symbols"]) == ("alice", "MAIN", ["AAPL"])
    assert row["barred"] == ["EUR/USD", "MSFT"]
    assert row["halts"] == ["reduce_only account MAIN"]
    assert row["mandates"] == ["user alice: asset_class equity"]


def test_scenarios_move_prices_currencies_and_the_largest_name() -> None:
    held = [Exposed(STOCK, D(1000)), Exposed(PAIR, D(-200)), Exposed(COIN, D(500))]
    found = {(o.scenario, o.shock): o.profit for o in outcomes(held, {"USD": D(10), "USDT": D(100)}, "USD")}
    assert found["all prices", D("-0.1")] == -130
    assert found["prices of fx", D("0.1")] == -20
    assert found["USDT against USD", D("-0.10")] == -60  # the coin is paid in it, and cash is held in it
    assert found["gap of AAPL", D("-0.30")] == -300
    unknown = outcomes([Exposed(COIN, None)], {}, "USD")
    assert {o.profit for o in unknown} == {None}


def test_stress_is_told_for_accounts(desk: Desk) -> None:
    fill(desk, "buy 100 AAPL", "100")
    found = {(r["scenario"], r["shock"]): r for r in stress_out([desk.account], at=desk.at)}
    gap = found["gap of AAPL", "-0.3"]
    assert (gap["profit"], gap["equity_after"], gap["currency"]) == ("-3000", "997000", "USD")
