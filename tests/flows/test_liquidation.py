"""Bringing a scope to zero: what is blocked, canceled, sent and filled, and what the proof says."""

import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from oms.kernel.errors import DomainError
from orders.api.liquidations import LiquidationOne, Liquidations
from orders.models import Order
from orders.operations.halting import halt
from orders.operations.liquidating import advance, advance_all, begin
from portfolio.models import Position
from risk.domain.scopes import Scope
from risk.models import Halt, Limit, Liquidation
from tests.conftest import Desk
from tests.integration.test_risk_api import call

MAIN = Scope("account", "MAIN")


def fill(
    desk: Desk, message: Any, quantity: str, price: str, name: str, code: str = "NEAR", *, last: str = "trade"
) -> None:
    book = {"NEAR": desk.near, "FAR": desk.far}[code]
    told = {
        "execution_id": name,
        "last_quantity": Decimal(quantity),
        "last_price": Decimal(price),
        "executed_at": desk.at,
    }
    desk.report(book.report("new", message), book.report(last, message, **told), code=code)


def hold(desk: Desk, text: str, name: str, code: str = "NEAR") -> None:
    """Trade and fill it."""
    desk.place(text, broker=code)
    assert desk.send(code) == 1
    book = {"NEAR": desk.near, "FAR": desk.far}[code]
    fill(desk, book.sent[-1], text.split()[1], "100", name, code)


def go_on(desk: Desk) -> Liquidation:
    advance_all(at=desk.at)
    return Liquidation.objects.get()


def start(desk: Desk, scope: Scope = MAIN) -> Liquidation:
    return begin(scope, reason="the desk is on fire", actor=desk.actor(desk.rita), at=desk.at)


def test_a_position_is_brought_to_zero_and_proven(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    [resting] = desk.place("buy 5 MSFT limit 150")
    liquidation = start(desk)
    assert Halt.objects.get().mode == "reduce_only"
    assert desk.order(resting).status == "canceled"
    [order] = Order.objects.filter(origin="liquidation")
    assert (order.side, order.quantity, order.limit_price, order.time_in_force) == ("sell", 10, Decimal("95.00"), "ioc")
    assert desk.send() == 1
    assert go_on(desk).state == "running"
    fill(desk, desk.near.sent[-1], "10", "99.9", "E2")
    done = go_on(desk)
    assert (done.id, done.state, done.proof["flat"]) == (liquidation.id, "flat", True)
    assert done.proof["opened"] == [{"account": "MAIN", "symbol": "AAPL", "quantity": "10"}]
    [sent] = done.proof["orders"]
    assert (sent["filled"], sent["confirmations"][0]["id"]) == ("10", "E2")
    assert done.proof["remains"] == done.proof["brokers"] == done.proof["still_open"] == []
    assert [s["step"] for s in done.steps] == ["began", "blocked", "flattening", "flat"]
    assert desk.order(desk.place("buy 1 AAPL")[0]).reason == "halted"
    desk.holds()


def test_a_full_halt_stops_everybody_but_the_liquidation(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    halt(Scope("all"), mode="halt", reason="stop", actor=desk.actor(desk.rita), at=desk.at)
    assert desk.order(desk.place("sell 10 AAPL")[0]).reason == "halted"
    start(desk)
    [order] = Order.objects.filter(origin="liquidation")
    assert order.status == "pending_new"
    assert desk.send() == 1
    fill(desk, desk.near.sent[-1], "10", "99.9", "E2")
    assert go_on(desk).state == "flat"
    desk.holds()


def test_a_halted_broker_gets_nothing_of_a_liquidation_either(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    halt(Scope("broker", "NEAR"), mode="halt", reason="stop", actor=desk.actor(desk.rita), at=desk.at)
    start(desk)
    assert desk.send() == 0


def test_e09_what_is_left_of_a_slice_is_sent_again_and_never_more(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    start(desk)
    desk.send()
    first = desk.near.sent[-1]
    fill(desk, first, "4", "99.9", "E2")
    desk.report(desk.near.report("canceled", first, cumulative_quantity=Decimal(4), leaves_quantity=Decimal(0)))
    assert go_on(desk).state == "running"
    assert [o.quantity for o in Order.objects.filter(origin="liquidation").order_by("id")] == [10, 6]
    advance_all(at=desk.at)
    assert Order.objects.filter(origin="liquidation").count() == 2
    desk.send()
    fill(desk, desk.near.sent[-1], "6", "99.9", "E3")
    assert go_on(desk).state == "flat"
    assert Position.objects.get().quantity == 0
    desk.holds()


def test_nothing_is_flattened_while_something_may_still_be_filled(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    desk.place("sell 4 AAPL limit 100")
    desk.send()
    working = desk.near.sent[-1]
    desk.report(desk.near.report("new", working))
    start(desk)
    assert not Order.objects.filter(origin="liquidation").exists()
    fill(desk, working, "4", "100", "E2")  # it was filled before the cancel came
    assert go_on(desk).state == "running"
    assert Order.objects.get(origin="liquidation").quantity == 6


def test_a_short_position_is_bought_back_where_it_is_held(desk: Desk) -> None:
    hold(desk, "sell_short 10 AAPL", "E1", code="FAR")
    start(desk)
    order = Order.objects.get(origin="liquidation")
    assert (order.side, order.limit_price, order.directed_broker.code) == ("buy", Decimal("105.01"), "FAR")
    desk.send("FAR")
    fill(desk, desk.far.sent[-1], "10", "100.5", "E2", code="FAR")
    assert go_on(desk).state == "flat"
    desk.holds()


def test_limits_on_one_order_cut_it_into_slices(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    Limit.objects.filter(kind="order_quantity").update(value=7)
    start(desk)
    for number, quantity in enumerate((7, 3), 2):
        assert Order.objects.filter(origin="liquidation").last().quantity == quantity
        desk.send()
        fill(desk, desk.near.sent[-1], str(quantity), "99", f"E{number}")
        go_on(desk)
    assert go_on(desk).state == "flat"


def test_what_can_not_be_sold_is_told_with_its_reason(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from orders.operations import liquidating

    monkeypatch.setattr(liquidating, "TRIES_MAX", 2)
    hold(desk, "buy 10 AAPL", "E1")
    risk_halt = halt_brokers(desk)
    start(desk)
    done = go_on(desk)
    done = go_on(desk)
    assert done.state == "incomplete"
    [left] = done.proof["remains"]
    assert (left["quantity"], "halted" in left["why"]) == ("10", True)
    assert risk_halt.mode == "halt"
    desk.holds()


def halt_brokers(desk: Desk) -> Halt:
    """Stop every broker: a liquidation passes any halt but that of where it would have to go."""
    from risk import operations as risk

    actor = desk.actor(desk.rita)
    risk.engage_halt(Scope("broker", "FAR"), mode="halt", reason="x", actor=actor, at=desk.at)
    return risk.engage_halt(Scope("broker", "NEAR"), mode="halt", reason="x", actor=actor, at=desk.at)


def test_whoever_comes_next_goes_on_after_a_crash(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from orders.operations import liquidating

    hold(desk, "buy 10 AAPL", "E1")
    with monkeypatch.context() as broken:
        broken.setattr(liquidating, "halt", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            start(desk)
    assert not Halt.objects.exists()
    assert go_on(desk).halt is not None
    assert Order.objects.filter(origin="liquidation").count() == 1


def test_a_scope_without_positions_is_flat_at_once(desk: Desk) -> None:
    assert start(desk).state == "flat"


def test_one_scope_is_liquidated_once_at_a_time(desk: Desk) -> None:
    hold(desk, "buy 10 AAPL", "E1")
    start(desk)
    with pytest.raises(DomainError, match="liquidation_running"):
        start(desk)
    advance(Liquidation.objects.get().id, at=desk.at)


class TestRest:
    BODY: dict[str, Any] = {"scope": {"account": "MAIN"}, "reason": "fire"}

    def test_risk_asks_and_officers_follow(self, desk: Desk) -> None:
        hold(desk, "buy 10 AAPL", "E1")
        assert call(Liquidations, "post", desk.alice, self.BODY)[0] == 403
        status, made = call(Liquidations, "post", desk.rita, self.BODY)
        assert (status, made["state"], made["proof"]) == (201, "running", None)
        assert call(LiquidationOne, "get", desk.oona, id=made["id"])[1]["steps"] == made["steps"]
        assert call(LiquidationOne, "get", desk.alice, id=made["id"])[0] == 403
        assert call(LiquidationOne, "get", desk.rita, id="nonsense")[0] == 404
        assert [x["id"] for x in call(Liquidations, "get", desk.rita)[1]["results"]] == [made["id"]]
        assert call(Liquidations, "post", desk.rita, self.BODY)[1]["code"] == "liquidation_running"

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"scope": {"account": "NONE"}}, "unknown_account"),
            ({"scope": {"symbol": "NONE"}}, "unknown_symbol"),
            ({"scope": {"broker": "NEAR"}}, "not_a_scope"),
            ({"reason": ""}, "blank"),
            ({"extra": 1}, "unknown_field"),
        ],
    )
    def test_what_is_wrong_is_told(self, desk: Desk, change: dict[str, Any], code: str) -> None:
        status, body = call(Liquidations, "post", desk.rita, self.BODY | change)
        assert (status, body["code"]) == (400, code)
        assert not Liquidation.objects.exists()


class TestCommand:
    def run(self, *more: str) -> tuple[int, Any]:
        out, code = StringIO(), 0
        try:
            call_command("liquidate", "--scope", "account:MAIN", "--reason", "fire", "--json", *more, stdout=out)
        except SystemExit as ended:
            code = int(str(ended.code))
        return code, json.loads(out.getvalue())

    def test_a_dry_run_tells_what_stands_there(self, desk: Desk) -> None:
        hold(desk, "buy 10 AAPL", "E1")
        code, told = self.run("--dry-run")
        assert (code, told["positions"][0]["quantity"], told["open_orders"]) == (0, "10", 0)
        assert not Liquidation.objects.exists()

    def test_it_ends_with_1_while_something_is_open(self, desk: Desk) -> None:
        hold(desk, "buy 10 AAPL", "E1")
        assert self.run("--wait", "0")[0] == 1

    def test_it_ends_with_0_once_it_is_flat(self, desk: Desk) -> None:
        code, told = self.run()
        assert (code, told["liquidation"]["state"]) == (0, "flat")
