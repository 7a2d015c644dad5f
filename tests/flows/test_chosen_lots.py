"""Lots chosen on the ticket, judged when the order is placed and closed first when it fills; and wash sales foretold."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from orders.operations.placing import Request
from orders.operations.previewing import preview
from portfolio.models import Lot, LotPolicy, Trade
from tests.conftest import Desk, ticket


def bought(desk: Desk, *prices: int) -> list[str]:
    """Buy 10 at each price in turn; return the lots' ids, oldest first."""
    for number, price in enumerate(prices):
        trade(desk, "buy 10 AAPL limit 110", price, f"buy-{number}")
    return [str(i) for i in Lot.objects.order_by("opened_at").values_list("id", flat=True)]


def trade(desk: Desk, text: str, price: int, name: str, **more: Any) -> Any:
    [placed] = desk.place(text, broker="NEAR", client_order_id=name, **more)
    assert placed.problem is None, placed.problem
    assert desk.order(placed).status == "pending_new", desk.order(placed).reason_detail
    desk.send()
    desk.report(
        desk.near.report(
            "trade", desk.near.sent[-1], execution_id=name, last_quantity=Decimal(text.split()[1]),
            last_price=Decimal(price), executed_at=desk.at + timedelta(seconds=Trade.objects.count()),
        )
    )  # fmt: skip
    return placed


def test_an_order_closes_the_lots_that_it_chose_and_then_the_oldest(desk: Desk) -> None:
    first, second, third = bought(desk, 101, 102, 103)
    placed = trade(desk, "sell 15 AAPL limit 95", 104, "sale", lots=[third])
    left = {str(lot.id): lot.remaining for lot in Lot.objects.filter(closed_at=None)}
    assert left == {first: 5, second: 10}
    assert desk.order(placed).lots == [third]
    assert Trade.objects.latest("executed_at").chosen == [third]
    desk.holds()


def test_a_bust_gives_back_what_was_chosen(desk: Desk) -> None:
    bought(desk, 101, 102)
    lots = Lot.objects.order_by("opened_at")
    trade(desk, "sell 10 AAPL limit 95", 104, "sale", lots=[str(lots[1].id)])
    desk.report(desk.near.report("bust", desk.near.sent[-1], execution_id="bust", ref_execution_id="sale"))
    assert [(lot.price, lot.remaining) for lot in Lot.objects.filter(closed_at=None).order_by("price")] == [
        (101, 10), (102, 10),
    ]  # fmt: skip
    desk.holds()


def test_a_preview_shows_the_lots_chosen(desk: Desk) -> None:
    _, second = bought(desk, 101, 102)
    asked = ticket("sell 5 AAPL limit 95", lots=[second], broker="NEAR")
    told = preview(Request(asked, desk.actor(desk.alice)), at=desk.at)
    assert [(lot["id"], lot["quantity"]) for lot in told["lots"]] == [(second, "5")]


def test_lots_that_the_order_could_not_close_are_refused(desk: Desk) -> None:
    [lot] = bought(desk, 101)
    for text, lots in (
        ("buy 1 AAPL limit 99", [lot]),
        ("sell 1 MSFT limit 200", [lot]),
        ("sell 1 AAPL limit 95", ["00000000-0000-7000-8000-000000000001"]),
    ):
        [placed] = desk.place(text, lots=lots)
        assert placed.problem is not None
        assert placed.problem.code == "unknown_lot"


def test_a_pool_has_no_lots_to_choose(desk: Desk) -> None:
    LotPolicy.objects.create(account=desk.account, since="0001-01-01", method="average")
    [lot] = bought(desk, 101)
    [placed] = desk.place("sell 1 AAPL limit 95", lots=[lot])
    assert placed.problem is not None
    assert placed.problem.code == "no_lots_to_choose"


def test_a_replay_is_answered_though_its_lots_are_gone(desk: Desk) -> None:
    [lot] = bought(desk, 101)
    placed = trade(desk, "sell 10 AAPL limit 95", 104, "sale", lots=[lot])
    [again] = desk.place("sell 10 AAPL limit 95", broker="NEAR", client_order_id="sale", lots=[lot])
    assert (again.order_id, again.created) == (placed.order_id, False)
    [other] = desk.place("sell 10 AAPL limit 95", broker="NEAR", client_order_id="sale")
    assert other.problem is not None
    assert other.problem.code == "idempotency_conflict"


@pytest.mark.parametrize("lots", [[], "x", ["x"], [1], ["00000000-0000-7000-8000-000000000001"] * 2, {}])
def test_what_is_no_list_of_lots_is_refused(lots: Any) -> None:
    from oms.kernel.errors import InvalidFields

    with pytest.raises(InvalidFields) as refused:
        ticket("sell 1 AAPL", lots=lots)
    assert [e.field for e in refused.value.errors] == ["lots"]


def foretold(desk: Desk, text: str, **more: Any) -> Any:
    return preview(Request(ticket(text, broker="NEAR", **more), desk.actor(desk.alice)), at=desk.later(1))["wash_sale"]


def test_a_preview_foretells_the_loss_that_a_purchase_would_wash(desk: Desk) -> None:
    LotPolicy.objects.create(account=desk.account, since="0001-01-01", method="fifo", wash_sales=True)
    bought(desk, 105)
    trade(desk, "sell 10 AAPL limit 95", 100, "sale")
    desk.later(2)
    assert foretold(desk, "buy 4 AAPL limit 101") == {"loss": "20", "currency": "USD"}
    assert foretold(desk, "buy 40 AAPL limit 101") == {"loss": "50", "currency": "USD"}
    assert foretold(desk, "buy 4 MSFT limit 201") is None


def test_a_preview_foretells_the_loss_that_a_sale_would_not_take(desk: Desk) -> None:
    LotPolicy.objects.create(account=desk.account, since="0001-01-01", method="fifo", wash_sales=True)
    bought(desk, 105, 99)
    desk.later(3)
    assert foretold(desk, "sell 10 AAPL limit 100") == {"loss": "50", "currency": "USD"}
    assert foretold(desk, "sell 10 AAPL limit 106") is None
    LotPolicy.objects.all().delete()
    assert foretold(desk, "sell 10 AAPL limit 100") is None
