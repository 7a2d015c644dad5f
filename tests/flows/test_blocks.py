"""Block orders: one order for several accounts, divided at the average price to the last unit."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from oms.kernel.actor import Actor
from oms.kernel.errors import InvalidFields, Refused
from orders.api.blocks import BlockOne, Blocks
from orders.models import Allocation, Block, BlockShare, Execution, Order
from orders.operations import advance_blocks, allocating
from portfolio import operations as portfolio
from portfolio.models import Account, AccountGrant, CashBalance, LedgerEntry, Position
from risk.models import Exposure, Hold
from tests.conftest import Desk
from tests.integration.test_risk_api import call

D = Decimal


@pytest.fixture
def house(desk: Desk) -> Desk:
    """MAIN trades for ONE, TWO and TRE, of 100,000 USD each."""
    system = Actor.system("test")
    for code in ("ONE", "TWO", "TRE"):
        portfolio.open_account(code=code, name="", base_currency="USD", actor=system, at=desk.at)
        portfolio.transfer(
            account=code, kind="deposit", currency="USD", amount=D(100_000), to="", reason="x", key=code, actor=system, at=desk.at
        )  # fmt: skip
        AccountGrant.objects.create(user=desk.alice, account=Account.objects.get(code=code))
    # the block's own account needs no money: what it trades is paid by others
    portfolio.transfer(
        account="MAIN", kind="withdrawal", currency="USD", amount=D(1_000_000), to="", reason="x", key="out", actor=system, at=desk.at
    )  # fmt: skip
    return desk


def body(*shares: tuple[str, str], **more: Any) -> dict[str, Any]:
    parts = [{"account": a, "quantity": q} for a, q in shares]
    return {"account": "MAIN", "symbol": "AAPL", "side": "buy", "shares": parts, "client_order_id": "block-1"} | more


def fill(desk: Desk, *parts: tuple[str, str], end: str = "", fee: str = "0") -> None:
    """Fill what was sent last in parts of a quantity at a price; end it as told."""
    from brokers.adapters.port import FeeItem

    desk.send()
    message = desk.near.sent[-1]
    done = D(0)
    desk.report(desk.near.report("new", message))
    for n, (quantity, price) in enumerate(parts):
        done += D(quantity)
        told = {"execution_id": f"X{n}-{message.client_order_id}", "last_quantity": D(quantity), "last_price": D(price)}
        fees = (FeeItem("commission", D(fee), "USD"),)
        desk.report(
            desk.near.report("trade", message, cumulative_quantity=done, executed_at=desk.at, fees=fees, **told)
        )
    if end:
        desk.report(desk.near.report(end, message, cumulative_quantity=done))


def held(symbol: str = "AAPL") -> dict[str, Decimal]:
    return {
        p.account.code: p.quantity for p in Position.objects.filter(instrument__symbol=symbol).select_related("account")
    }


def cash() -> dict[str, Decimal]:
    return {c.account.code: c.balance for c in CashBalance.objects.select_related("account")}


def test_what_is_filled_goes_to_the_accounts_at_one_price_and_leaves_nothing_behind(house: Desk) -> None:
    status, told = call(Blocks, "post", house.alice, body(("ONE", "100"), ("TWO", "50"), ("TRE", "51")))
    assert status == 201, told
    assert Hold.objects.filter(open_quantity__gt=0).count() == 4
    assert {e.account.code: e.amount > 0 for e in Exposure.objects.select_related("account")} == {
        "MAIN": False, "ONE": True, "TWO": True, "TRE": True,
    }  # fmt: skip
    before = cash()
    fill(house, ("100", "100.01"), ("101", "100.02"), fee="0.33333333")
    assert advance_blocks(at=house.at) == 1
    assert held() == {"MAIN": 0, "ONE": 100, "TWO": 50, "TRE": 51}
    paid = {a: before[a] - b for a, b in cash().items()}
    assert paid["MAIN"] == 0
    # to the last unit: what the broker was paid, and its two fees
    assert sum(paid.values()) == 100 * D("100.01") + 101 * D("100.02") + 2 * D("0.33333333")
    prices = set(Execution.objects.filter(order__origin="allocation").values_list("price", flat=True))
    assert prices == {D("100.01502488")}
    assert not Exposure.objects.exclude(amount=0, buying=0, selling=0).exists()
    # nothing is gained or lost in the block's account but what it handed on
    gained = LedgerEntry.objects.filter(account__code="MAIN", code__in=["realized_pnl", "fees"])
    assert sum(e.amount for e in gained) == 0
    assert advance_blocks(at=house.at) == 0
    _, shown = call(BlockOne, "get", house.alice, id=told["id"])
    assert (shown["state"], shown["allocated"]) == ("allocated", "201")
    assert [(s["account"], s["allocated"], len(s["orders"])) for s in shown["shares"]] == [
        ("ONE", "100", 1), ("TWO", "50", 1), ("TRE", "51", 1),
    ]  # fmt: skip
    house.holds()


def test_a_part_is_divided_by_the_largest_remainders_and_a_late_fill_by_what_is_lacking(house: Desk) -> None:
    call(Blocks, "post", house.alice, body(("ONE", "100"), ("TWO", "100"), ("TRE", "100")))
    fill(house, ("100", "100.01"), end="canceled")
    advance_blocks(at=house.at)
    assert {a: q for a, q in held().items() if q} == {"ONE": 34, "TWO": 33, "TRE": 33}
    message = house.near.sent[-1]
    late = {"execution_id": "LATE", "last_quantity": D(2), "last_price": D(101), "executed_at": house.at}
    house.report(house.near.report("trade", message, cumulative_quantity=D(102), **late))
    assert advance_blocks(at=house.at) == 1
    assert {a: q for a, q in held().items() if q} == {"ONE": 34, "TWO": 34, "TRE": 34}
    assert Allocation.objects.filter(share=None).count() == 2
    house.holds()


def test_a_sale_is_divided_like_a_purchase(house: Desk) -> None:
    call(Blocks, "post", house.alice, body(("ONE", "10"), ("TWO", "20")))
    fill(house, ("30", "100"))
    advance_blocks(at=house.at)
    before = cash()
    status, told = call(
        Blocks, "post", house.alice, body(("ONE", "10"), ("TWO", "10"), side="sell", client_order_id="block-2")
    )
    assert status == 201, told
    fill(house, ("7", "99.99"), ("13", "99.98"), fee="0.1")
    advance_blocks(at=house.at)
    got = {a: b - before[a] for a, b in cash().items()}
    assert got["MAIN"] == 0
    assert sum(got.values()) == 7 * D("99.99") + 13 * D("99.98") - D("0.2")
    assert {a: q for a, q in held().items() if q} == {"TWO": 10}
    house.holds()


def test_one_account_that_may_not_have_its_share_keeps_all_from_trading(house: Desk) -> None:
    status, told = call(Blocks, "post", house.alice, body(("ONE", "100"), ("TWO", "2000")))
    assert (status, told["code"]) == (422, "buying_power")
    assert told["detail"].startswith("TWO:")
    assert not Order.objects.exists()
    assert not Hold.objects.exists()
    assert not Block.objects.exists()
    status, told = call(Blocks, "post", house.alice, body(("ONE", "100"), side="sell"))
    assert (status, told["code"]) == (422, "short_not_allowed")


def test_a_repeat_places_nothing_and_another_body_is_told(house: Desk) -> None:
    first = call(Blocks, "post", house.alice, body(("ONE", "10")))
    again = call(Blocks, "post", house.alice, body(("ONE", "10")))
    assert (first[0], again[0]) == (201, 200)
    assert first[1]["id"] == again[1]["id"]
    assert call(Blocks, "post", house.alice, body(("ONE", "11")))[1]["code"] == "idempotency_conflict"
    assert Order.objects.count() == 1


def test_who_may_not_trade_an_account_sees_and_does_nothing(house: Desk) -> None:
    AccountGrant.objects.create(user=house.otto, account=house.account)
    status, told = call(Blocks, "post", house.otto, body(("ONE", "10")))
    assert (status, told["errors"][0]["field"]) == (400, "shares.ONE")
    _, made = call(Blocks, "post", house.alice, body(("ONE", "10")))
    assert call(BlockOne, "get", house.otto, id=made["id"])[0] == 404
    assert call(Blocks, "get", house.otto)[1]["results"] == []
    assert len(call(Blocks, "get", house.alice)[1]["results"]) == 1


def test_a_block_that_cannot_be_allocated_keeps_no_other_waiting(house: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("block-1", "block-2"):
        call(Blocks, "post", house.alice, body(("ONE", "10"), client_order_id=name))
        fill(house, ("10", "100"))
    bad, good = Block.objects.order_by("order_id")
    allocate = allocating.allocate

    def fail_once(pk: UUID, *, at: Any) -> Block:
        if pk == bad.pk:
            raise KeyError("no link")
        return allocate(pk, at=at)

    with monkeypatch.context() as broken:
        broken.setattr(allocating, "allocate", fail_once)
        with pytest.raises(KeyError, match="no link"):
            advance_blocks(at=house.at)
    assert held()["ONE"] == 10
    assert Block.objects.get(pk=good.pk).state == "allocated"
    assert advance_blocks(at=house.at) == 1
    assert held() == {"MAIN": 0, "ONE": 20}


def test_a_list_of_blocks_asks_the_database_as_often_as_one_of_them(house: Desk) -> None:
    asked = []
    for n in (1, 2, 3):
        call(Blocks, "post", house.alice, body(("ONE", "10"), ("TWO", "5"), client_order_id=f"block-{n}"))
        with CaptureQueriesContext(connection) as queried:
            assert len(call(Blocks, "get", house.alice)[1]["results"]) == n
        asked.append(len(queried))
    assert len(set(asked)) == 1


def test_a_block_that_dies_at_the_broker_gives_its_holds_free(house: Desk) -> None:
    from orders.operations import cancel

    _, made = call(Blocks, "post", house.alice, body(("ONE", "10")))
    cancel(UUID(made["id"]), actor=house.actor(house.alice), at=house.at)
    advance_blocks(at=house.at)
    assert not Exposure.objects.exclude(amount=0, buying=0, selling=0).exists()
    assert Block.objects.get().state == "allocated"
    house.holds()


def test_a_bust_after_the_allocation_is_left_to_a_person(house: Desk) -> None:
    call(Blocks, "post", house.alice, body(("ONE", "10")))
    fill(house, ("10", "100"))
    advance_blocks(at=house.at)
    execution = Execution.objects.get(order__origin="block")
    message = house.near.sent[-1]
    house.report(
        house.near.report(
            "bust", message, execution_id="B", ref_execution_id=execution.broker_execution_id, last_quantity=D(10), last_price=D(100)
        )
    )  # fmt: skip
    advance_blocks(at=house.at)
    assert Block.objects.get().state == "broken"
    assert advance_blocks(at=house.at) == 0


def change_a_share() -> None:
    BlockShare.objects.filter(account__code="ONE").update(quantity=11)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_the_database_refuses_shares_that_do_not_add_up(house: Desk) -> None:
    call(Blocks, "post", house.alice, body(("ONE", "10"), ("TWO", "20")))
    with pytest.raises(IntegrityError, match="do not add up"), transaction.atomic():
        change_a_share()
    with pytest.raises(IntegrityError, match="block_share_within_its_part"), transaction.atomic():
        BlockShare.objects.filter(account__code="ONE").update(allocated=11)


def test_what_no_block_can_be_is_named(house: Desk) -> None:
    from orders.operations.allocating import place_block
    from tests.conftest import ticket

    actor = house.actor(house.alice)
    with pytest.raises(InvalidFields) as told:
        place_block(ticket("buy 3 AAPL"), {"ONE": D("1.5"), "NONE": D("1.5")}, actor=actor, at=house.at)
    assert {e.field for e in told.value.errors} == {"shares.ONE", "shares.NONE"}
    with pytest.raises(InvalidFields):
        place_block(ticket("buy 3 AAPL"), {"MAIN": D(3)}, actor=actor, at=house.at)
    with pytest.raises(Refused, match="quantity_limit"):
        place_block(ticket("buy 20000 AAPL"), {"ONE": D(20000)}, actor=actor, at=house.at)
