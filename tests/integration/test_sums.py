"""Limits that bind the sum over accounts: of the firm, a user, a strategy, a symbol, a group; never passed, by 32 writers either."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from oms.kernel.actor import Actor
from oms.kernel.errors import Invalid
from oms.kernel.ids import uuid7
from oms.runtime import sql
from portfolio.models import Account, AccountGrant, CashBalance, Position, Strategy
from risk import operations as risk
from risk.domain.intents import Intent, Verdict
from risk.domain.replaying import replay
from risk.domain.scopes import Scope
from risk.models import Exposure, Group, GroupMember, Limit, RiskCheck
from tests.integration.test_risk import THREADS, Floor, floor, live_floor

__all__ = ["floor", "live_floor"]


def accounts(floor: Floor, count: int) -> list[Account]:
    """Open accounts of a million each beside MAIN."""
    made = [Account.objects.create(code=f"A{n}", base_currency="USD") for n in range(count)]
    for account in made:
        CashBalance.objects.create(account=account, currency="USD", balance=1_000_000)
    return made


def of(intent: Intent, account: Account, **more: Any) -> Intent:
    return replace(intent, account_id=account.pk, account_code=account.code, **more)


def check(intents: Sequence[Intent], floor: Floor) -> list[Verdict]:
    with transaction.atomic():
        ids = sorted({i.account_id for i in intents})
        sql.run("SELECT 1 FROM portfolio_account WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [ids])
        return risk.check(intents, at=floor.at)


def bind(floor: Floor, scope: Scope, kind: str, value: str, currency: str = "", *, soft: bool = False) -> None:
    Limit.objects.create(
        id=uuid7(), scope_kind=scope.kind, scope_key=scope.key, kind=kind, value=value, currency=currency, soft=soft,
        aggregate=True, status="active", effective_from=floor.at, reason="test", created_at=floor.at,
    )  # fmt: skip


class TestTheirSum:
    @pytest.mark.parametrize(
        ("kind", "value", "currency", "reason"),
        [
            ("position", "100", "", "position_limit"),
            ("position_long", "100", "", "position_limit"),
            ("position_gross", "100", "", "position_limit"),
            ("gross_exposure", "10000", "USD", "position_limit"),
            ("net_exposure", "10000", "USD", "net_exposure_limit"),
            ("open_orders", "2", "", "open_orders_limit"),
        ],
    )
    def test_of_the_firm_is_bound_over_accounts_and_batches(
        self, floor: Floor, kind: str, value: str, currency: str, reason: str
    ) -> None:
        one, other = accounts(floor, 2)
        bind(floor, Scope("firm"), kind, value, currency)
        buy = floor.intent("buy 50 AAPL limit 100")
        assert [
            v.reason
            for v in check([of(buy, one), of(buy, other, order_id=Floor.intent(floor, "buy 1 AAPL").order_id)], floor)
        ] == ["", ""]
        late = of(floor.intent("buy 1 AAPL limit 100"), one)
        [verdict] = check([late], floor)
        assert verdict.reason == reason
        assert "firm together" in verdict.detail
        stored = RiskCheck.objects.get(pk=late.order_id)
        assert replay(stored.checks)[:2] == (False, reason)

    def test_what_reduces_its_own_account_passes(self, floor: Floor) -> None:
        one, other = accounts(floor, 2)
        aapl = floor.intent("buy 1 AAPL").instrument.id
        Position.objects.create(account=one, instrument_id=aapl, quantity=80)
        Position.objects.create(account=other, instrument_id=aapl, quantity=-100)
        bind(floor, Scope("firm"), "position", "20")
        assert [v.reason for v in check([of(floor.intent("sell 80 AAPL limit 100"), one)], floor)] == [""]

    def test_of_a_user_a_strategy_a_symbol_and_a_group(self, floor: Floor) -> None:
        one, other = accounts(floor, 2)
        AccountGrant.objects.create(user=floor.alice, account=one)
        carry = Strategy.objects.create(code="carry")
        tech = Group.objects.create(code="tech")
        GroupMember.objects.create(group=tech, kind="symbol", key="AAPL")
        quants = Group.objects.create(code="quants")
        GroupMember.objects.create(group=quants, kind="strategy", key="carry")
        mine = {"strategy_id": carry.pk, "strategy_code": "carry"}
        for scope, reach in (
            (Scope("user", "alice"), {"user_name": "alice"}),
            (Scope("symbol", "AAPL"), {}),
            (Scope("group", "tech"), {}),
            (Scope("strategy", "carry"), mine),
            (Scope("group", "quants"), mine),
        ):
            Limit.objects.filter(aggregate=True).delete()
            sql.run("UPDATE risk_hold SET open_quantity = 0")
            sql.run("UPDATE risk_exposure SET buying = 0, selling = 0, amount = 0")
            bind(floor, scope, "position_long", "100")
            first = of(floor.intent("buy 60 AAPL limit 100"), one, **reach)
            second = of(floor.intent("buy 60 AAPL limit 100"), one if scope.kind == "user" else other, **reach)
            elsewhere = of(
                floor.intent(
                    "buy 60 AAPL limit 100",
                ),
                other,
                user_name="bob",
            )
            assert check([first], floor)[0].approved, scope
            assert check([second], floor)[0].reason == "position_limit", scope
            if scope.kind in ("user", "strategy") or scope.key == "quants":
                assert check([elsewhere], floor)[0].approved, scope

    def test_a_soft_one_holds_for_a_second_person(self, floor: Floor) -> None:
        [one] = accounts(floor, 1)
        bind(floor, Scope("firm"), "position", "10", soft=True)
        [verdict] = check([of(floor.intent("buy 11 AAPL limit 100"), one)], floor)
        assert (verdict.held, verdict.reason) == (True, "position_limit")

    @pytest.mark.parametrize(
        ("scope", "kind", "currency", "field"),
        [
            (Scope("account", "MAIN"), "position", "", "aggregate"),
            (Scope("firm"), "order_quantity", "", "aggregate"),
            (Scope("firm"), "gross_exposure", "", "currency"),
        ],
    )
    def test_what_has_no_sum_is_refused(self, floor: Floor, scope: Scope, kind: str, currency: str, field: str) -> None:
        with pytest.raises(Invalid) as refused:
            risk.propose_limit(
                scope, kind, Decimal(1), currency=currency, aggregate=True, reason="x",
                actor=Actor("user:rita", floor.rita.pk), at=floor.at,
            )  # fmt: skip
        assert refused.value.field == field

    def test_it_stands_beside_the_one_that_binds_each_account(self, floor: Floor) -> None:
        made = risk.propose_limit(
            Scope("firm"), "position", Decimal(5000), aggregate=True, reason="x",
            actor=Actor("user:rita", floor.rita.pk), at=floor.at,
        )  # fmt: skip
        assert made.status == "proposed"  # new, however tight
        risk.decide(made.id, "approve", reason="ok", actor=Actor("user:rolf", floor.rolf.pk), at=floor.at)
        assert Limit.objects.filter(kind="position", scope_kind="firm", status="active").count() == 2


@pytest.mark.parametrize(("kind", "value", "currency"), [("position", "1000", ""), ("gross_exposure", "100000", "USD")])
def test_e01_thirty_two_writers_on_as_many_accounts_never_pass_the_sum(
    live_floor: Floor, kind: str, value: str, currency: str
) -> None:
    many = accounts(live_floor, THREADS)
    bind(live_floor, Scope("firm"), kind, value, currency)

    def trade(account: Account) -> int:
        try:
            return sum(
                check([of(live_floor.intent("buy 10 AAPL limit 100"), account)], live_floor)[0].approved
                for _ in range(10)
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        approved = sum(pool.map(trade, many))
    assert approved == 100
    assert sum(e.buying for e in Exposure.objects.all()) == 1000
    assert live_floor.broken() == {}
