"""Fees by a broker's schedule where it tells none: the month's tiers, makers, and schedules refused where they are entered."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from brokers import queries
from brokers.models import Broker, FeeSchedule
from oms.kernel.errors import Invalid
from oms.runtime import sql
from orders.models import Execution
from portfolio.models import Position, Trade
from portfolio.operations import require_usable
from tests.conftest import Desk

TIERS = {"kind": "commission", "basis": "per_share", "tiers": [["100", "0.02"], [None, "0.01"]]}


def agree(*items: dict[str, Any]) -> None:
    row = FeeSchedule(
        broker=Broker.objects.get(code="NEAR"), asset_class="equity", effective_from=date(2020, 1, 1), items=list(items)
    )
    row.full_clean()
    row.save()
    queries.forget_cache()


def trade(desk: Desk, text: str, name: str, *parts: str, **more: Any) -> None:
    desk.place(text, broker="NEAR", client_order_id=name)
    desk.send()
    sent = desk.near.sent[-1]
    desk.report(
        *(
            desk.near.report(
                "trade", sent, execution_id=f"{name}-{n}", last_quantity=Decimal(part), last_price=Decimal(100),
                executed_at=desk.at + timedelta(seconds=Trade.objects.count()), **more,
            )
            for n, part in enumerate(parts)
        )
    )  # fmt: skip


def fees() -> list[Decimal]:
    return list(Execution.objects.order_by("executed_at", "broker_execution_id").values_list("fees", flat=True))


@pytest.mark.parametrize("parts", [("150",), ("60", "90"), ("30", "40", "80")])
def test_the_month_before_an_order_and_its_own_fills_count_for_the_tiers(desk: Desk, parts: tuple[str, ...]) -> None:
    agree(TIERS)
    trade(desk, "buy 80 AAPL limit 101", "first", "80")
    trade(desk, "buy 150 MSFT limit 201", "second", *parts)
    assert fees()[0] == Decimal("1.6")
    assert sum(fees()[1:]) == Decimal("1.7")  # 20 at 0.02 and 130 at 0.01
    assert sum(p.fees for p in Position.objects.all()) == Decimal("3.3")
    desk.holds()


def test_what_was_done_this_month_is_added_up_once_a_batch(desk: Desk) -> None:
    agree(TIERS)
    with sql.recorded() as statements:
        trade(desk, "buy 150 AAPL limit 101", "parts", "10", "20", "30", "40", "50")
    sums = [s for s in statements if "FROM portfolio_position p JOIN brokers_instrument" in s]
    assert len(sums) == 2  # to route, to charge
    assert sum(fees()) == Decimal("2.5")


def test_a_correction_is_charged_as_if_it_had_come_first(desk: Desk) -> None:
    agree(TIERS)
    trade(desk, "buy 150 AAPL limit 101", "first", "150")
    desk.report(
        desk.near.report(
            "correct", desk.near.sent[-1], execution_id="C", ref_execution_id="first-0", last_quantity=Decimal(120),
            last_price=Decimal(100),
        )
    )  # fmt: skip
    assert sorted(fees()) == [Decimal("2.2"), Decimal("2.5")]
    assert Position.objects.get().fees == Decimal("2.2")
    desk.holds()


def test_a_maker_gets_the_makers_rate(desk: Desk) -> None:
    agree(
        {"kind": "rebate", "basis": "per_share", "rate": "-0.002", "liquidity": "maker"},
        {"kind": "take", "basis": "per_share", "rate": "0.003", "liquidity": "taker"},
    )
    trade(desk, "buy 100 AAPL limit 101", "made", "100", liquidity="maker")
    trade(desk, "buy 100 MSFT limit 201", "taken", "100")
    assert fees() == [Decimal("-0.2"), Decimal("0.3")]


def test_a_schedule_that_can_not_be_read_is_refused(desk: Desk) -> None:
    with pytest.raises(ValidationError, match="typo"):
        agree({"kind": "commission", "basis": "per_share", "rate": "1", "typo": "1"})
    with pytest.raises(Invalid, match="typo"):
        require_usable(
            "scripted",
            {"name": "NEAR", "fees": {"equity": [{"kind": "x", "basis": "percent", "rate": "1", "typo": 1}]}},
        )
