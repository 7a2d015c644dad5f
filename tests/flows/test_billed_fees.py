"""Fees as they are billed replace what was accrued, in the books too; the estimate knows of the month."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from brokers import queries as market
from brokers.adapters.port import FeeItem
from brokers.models import Broker, FeeSchedule
from oms.kernel.errors import Invalid
from oms.kernel.ids import uuid7
from orders import queries
from orders.models import Execution, Order
from orders.operations.billing import Bill, bill_fees
from orders.operations.previewing import preview
from portfolio.models import CashBalance, LotPolicy, Position
from tests.conftest import Desk
from tests.flows.test_hard_reports import trade, undo

D = Decimal


def filled(desk: Desk, name: str = "E1", fees: str = "1") -> Execution:
    desk.place("buy 10 AAPL", broker="NEAR")
    desk.send()
    message = desk.near.sent[-1]
    told = trade(desk, message, name, "10", "100", fees=(FeeItem("commission", D(fees), "USD"),))
    desk.report(desk.near.report("new", message), told)
    return Execution.objects.get(broker_execution_id=name)


def bill(desk: Desk, execution: Execution, *items: tuple[str, str, str]) -> Any:
    told = Bill(execution.id, tuple(FeeItem(k, D(a), c) for k, a, c in items))
    return bill_fees([told], actor=desk.actor(desk.oona), at=desk.at)


def cash(currency: str = "USD") -> Decimal:
    row = CashBalance.objects.filter(currency=currency).first()
    return row.balance if row else D(0)


def test_what_is_billed_takes_the_place_of_what_was_accrued(desk: Desk) -> None:
    execution, before = filled(desk), cash()
    assert bill(desk, execution, ("commission", "1.25", "USD"), ("exchange", "-0.05", "USD")).changed == 1
    assert (before - cash(), Position.objects.get().fees) == (D("0.20"), D("1.20"))
    order = Order.objects.get()
    assert (order.status, order.fees, order.filled_quantity) == ("filled", D("1.20"), 10)
    for _ in range(2):
        assert bill(desk, execution, ("exchange", "-0.05", "USD"), ("commission", "1.25", "USD")).unchanged == 1
    assert bill(desk, execution, ("commission", "0.50", "USD")).changed == 1
    assert Position.objects.get().fees == D("0.50")
    [line] = queries.fee_variance()
    assert line == {
        "broker": "NEAR", "currency": "USD", "executions": 1, "accrued": "1", "billed": "0.5", "variance": "-0.5",
    }  # fmt: skip
    desk.holds()


def test_a_bill_in_another_currency_is_paid_in_it(desk: Desk) -> None:
    execution = filled(desk)
    bill(desk, execution, ("commission", "1", "USD"), ("levy", "0.30", "HKD"))
    assert (cash("HKD"), Position.objects.get().fees) == (D("-0.30"), 1)
    assert {(x["currency"], x["variance"]) for x in queries.fee_variance()} == {("USD", "0"), ("HKD", "0.3")}
    desk.holds()


def test_where_fees_are_part_of_the_cost_lots_follow_the_bill(desk: Desk) -> None:
    LotPolicy.objects.create(account=desk.account, since=date(2020, 1, 1), method="fifo", commissions="in_cost")
    execution = filled(desk)
    assert Position.objects.get().cost == 1001
    bill(desk, execution, ("commission", "3", "USD"))
    assert Position.objects.get().cost == 1003
    desk.holds()


def test_a_bill_for_nothing_changes_nothing(desk: Desk) -> None:
    execution = filled(desk)
    desk.report(undo(desk, desk.near.sent[-1], "bust", "B1", "E1"))
    for one, code in ((execution.id, "undone"), (uuid7(), "not_found")):
        with pytest.raises(Invalid) as caught:
            bill_fees([Bill(one, ())], actor=desk.actor(desk.oona), at=desk.at)
        assert caught.value.code == code
    assert queries.fee_variance() == []


def test_the_estimate_begins_where_the_month_stands(desk: Desk) -> None:
    tiers = {"kind": "commission", "basis": "per_share", "tiers": [["10", "0.10"], [None, "0.01"]]}
    levy = {"kind": "levy", "basis": "per_order", "rate": "1.00", "currency": "EUR"}
    near = Broker.objects.get(code="NEAR")
    FeeSchedule.objects.filter(broker=near).delete()
    FeeSchedule.objects.create(broker=near, asset_class="equity", effective_from=date(2020, 1, 1), items=[tiers])
    market.forget_cache()

    def fees() -> Any:
        from orders.operations import Request
        from tests.conftest import ticket

        return preview(Request(ticket("buy 10 AAPL", broker="NEAR"), desk.actor(desk.alice), ""), at=desk.at)["fees"]

    assert fees() == "1"
    filled(desk)
    assert fees() == "0.1"
    for currency, expected in (("EUR", "1.22001"), ("HKD", None)):  # a rate for the one, none for the other: no sum
        FeeSchedule.objects.filter(broker=near).update(items=[tiers, levy | {"currency": currency}])
        market.forget_cache()
        assert fees() == expected
