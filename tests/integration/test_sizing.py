"""Orders that name no quantity, and signals: sized by the market and the account, through both doors."""

from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Quote
from orders.models import Order
from portfolio.models import Account, AccountGrant, Strategy
from tests.conftest import Desk
from tests.web import BUY, Client, token

pytestmark = pytest.mark.django_db(transaction=True)
SIZED = {k: v for k, v in BUY.items() if k != "quantity"}
SIGNAL = {
    "strategy": "momentum", "symbol": "AAPL", "side": "buy", "size_by": {"notional": "10000"}, "account": "MAIN",
    "key": "2026-11-25",
}  # fmt: skip


@pytest.fixture
def alice(live_desk: Desk, door: Any) -> Client:
    Strategy.objects.create(code="momentum")
    return Client(door, token(live_desk.alice))


class TestOrders:
    @pytest.mark.parametrize(
        ("size_by", "change", "quantity"),
        [
            ({"notional": "10000"}, {}, "99"),  # at the ask, 100.01, rounded down
            ({"notional": "10000"}, {"side": "sell_short"}, "100"),  # at the bid, 99.99
            ({"notional": "10000"}, {"order_type": "limit", "limit_price": "80"}, "125"),
            ({"weight": "0.02"}, {}, "199"),  # of 1,000,000
            ({"risk_fraction": "0.001", "stop_price": "95.01"}, {}, "200"),  # 1,000 at 5 a unit
            ({"notional": "2000"}, {"symbol": "EUR/USD"}, "1785"),
        ],
    )
    def test_a_size_becomes_whole_lots(
        self, alice: Client, size_by: dict[str, str], change: dict[str, str], quantity: str
    ) -> None:
        ask = SIZED | change | {"size_by": size_by}
        shown, made = alice.post("orders/preview", ask), alice.post("orders", ask)
        assert (shown.status_code, made.status_code) == (200, 201), shown.text + made.text
        assert shown.json()["quantity"] == made.json()["quantity"] == quantity
        assert made.json()["size_by"] == size_by
        assert made.json()["status"] == "pending_new"

    def test_a_replay_is_not_sized_again(self, live_desk: Desk, alice: Client) -> None:
        ask = SIZED | {"size_by": {"notional": "10000"}, "client_order_id": "once"}
        first = alice.post("orders", ask)
        live_desk.at = live_desk.later(1)
        live_desk.quote("AAPL", "49.99", "50.01")
        again = alice.post("orders", ask)
        assert (again.status_code, again.content) == (200, first.content)
        other = alice.post("orders", ask | {"size_by": {"notional": "10001"}})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")

    def test_risk_judges_what_was_worked_out(self, alice: Client) -> None:
        made = alice.post("orders", SIZED | {"size_by": {"notional": "4000000"}})
        assert (made.status_code, made.json()["reason"]["code"]) == (201, "quantity_limit")

    @pytest.mark.parametrize(
        ("size_by", "field", "code"),
        [
            ("10", "size_by", "not_an_object"),
            ({}, "size_by", "not_a_size"),
            ({"notional": "1", "weight": "0.1"}, "size_by", "not_a_size"),
            ({"notional": "-1"}, "size_by.notional", "not_positive"),
            ({"notional": 5}, "size_by.notional", "not_a_decimal_string"),
            ({"notional": "NaN"}, "size_by.notional", "not_a_decimal"),
            ({"weight": "1.5"}, "size_by.weight", "out_of_range"),
            ({"risk_fraction": "0.01"}, "size_by.stop_price", "required"),
            ({"notional": "5", "units": "1"}, "size_by.units", "unknown_field"),
            ({"notional": "5", "stop_price": "1"}, "size_by.stop_price", "unknown_field"),
        ],
    )
    def test_bad_sizes_are_named(self, alice: Client, size_by: Any, field: str, code: str) -> None:
        for path in ("orders", "orders/preview"):
            answer = alice.post(path, SIZED | {"size_by": size_by})
            assert answer.status_code == 400, answer.text
            assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Order.objects.count() == 0

    def test_a_quantity_and_a_size_exclude_each_other(self, alice: Client) -> None:
        answer = alice.post("orders", BUY | {"size_by": {"notional": "5"}})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "not_allowed")

    def test_what_can_not_be_sized_is_refused_and_uses_up_no_key(self, live_desk: Desk, alice: Client) -> None:
        def code(size_by: dict[str, str], **change: str) -> str:
            answer = alice.post("orders", SIZED | {"size_by": size_by, "client_order_id": "same"} | change)
            assert answer.status_code == 422, answer.text
            return str(answer.json()["code"])

        assert code({"notional": "50"}) == "zero_size"
        assert code({"risk_fraction": "0.01", "stop_price": "120"}) == "stop_on_wrong_side"
        Quote.objects.filter(instrument__symbol="AAPL").delete()
        assert code({"notional": "10000"}) == "no_quote"
        francs = Account.objects.create(code="FRANCS", base_currency="CHF")
        AccountGrant.objects.create(user=live_desk.alice, account=francs)
        assert code({"notional": "10000"}, account="FRANCS", symbol="MSFT") == "no_rate"
        assert Order.objects.count() == 0
        twins = [SIZED | {"size_by": {"notional": "5"}, "client_order_id": "twin"}] * 2
        parts = alice.post("orders/batch", {"orders": twins}).json()["results"]
        assert [(p["status"], p["problem"]["code"]) for p in parts] == [(422, "no_quote")] * 2

    def test_an_account_without_a_full_value_has_no_weight(self, live_desk: Desk, alice: Client) -> None:
        alice.post("orders", BUY)
        live_desk.send()
        [sent] = live_desk.near.sent
        live_desk.report(
            live_desk.near.report(
                "trade", sent, execution_id="E1", last_quantity=Decimal(10), last_price=Decimal(100),
                executed_at=live_desk.at,
            )
        )  # fmt: skip
        assert alice.post("orders", SIZED | {"symbol": "MSFT", "size_by": {"weight": "0.01"}}).status_code == 201
        Quote.objects.filter(instrument__symbol="AAPL").delete()
        answer = alice.post("orders", SIZED | {"symbol": "MSFT", "size_by": {"weight": "0.01"}})
        assert (answer.status_code, answer.json()["code"]) == (422, "no_equity")

    def test_preview_tells_fees_cash_and_the_lots_that_would_close(self, live_desk: Desk, alice: Client) -> None:
        for number, quantity in enumerate(("4", "6")):
            alice.post("orders", BUY | {"quantity": quantity})
            live_desk.send()
            live_desk.report(
                live_desk.near.report(
                    "trade", live_desk.near.sent[-1], execution_id=f"E{number}", last_quantity=Decimal(quantity),
                    last_price=Decimal(100 + number), executed_at=live_desk.later(1),
                )
            )  # fmt: skip
        told = alice.post("orders/preview", BUY | {"side": "sell", "quantity": "7"}).json()
        assert [(x["quantity"], x["price"]) for x in told["lots"]] == [("4", "100"), ("3", "101")]
        assert (told["fees"], told["cash_after"]) == ("0", {"amount": "999693.93", "currency": "USD"})


class TestSignals:
    def test_a_signal_makes_one_order(self, alice: Client) -> None:
        first, again = alice.post("signals", SIGNAL), alice.post("signals", SIGNAL)
        assert (first.status_code, again.status_code) == (201, 200), first.text
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.content == first.content
        order = first.json()
        assert (order["origin"], order["strategy"], order["quantity"]) == ("signal", "momentum", "99")
        assert (order["order_type"], order["time_in_force"], order["note"]) == ("market", "day", "signal 2026-11-25")
        clash = alice.post("signals", SIGNAL | {"side": "sell"})
        assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_conflict")
        assert alice.post("signals", SIGNAL | {"key": "2026-11-26"}).status_code == 201
        assert Order.objects.count() == 2

    @pytest.mark.parametrize(
        ("change", "field", "code"),
        [
            ({"key": None}, "key", "required"),
            ({"key": "a b"}, "key", "not_an_identifier"),
            ({"size_by": None}, "size_by", "required"),
            ({"strategy": None}, "strategy", "required"),
            ({"strategy": "nobody"}, "strategy", "unknown_strategy"),
            ({"account": "ELSE"}, "account", "unknown_account"),
            ({"symbol": "NOPE"}, "symbol", "unknown_symbol"),
            ({"quantity": "5"}, "quantity", "unknown_field"),
        ],
    )
    def test_bad_signals_are_named_and_store_nothing(
        self, alice: Client, change: dict[str, Any], field: str, code: str
    ) -> None:
        answer = alice.post("signals", {k: v for k, v in (SIGNAL | change).items() if v is not None})
        assert answer.status_code == 400, answer.text
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Order.objects.count() == 0

    def test_a_strategy_that_was_switched_off_trades_nothing(self, alice: Client) -> None:
        Strategy.objects.update(active=False)
        assert alice.post("signals", SIGNAL).json()["code"] == "unknown_strategy"

    def test_signals_are_for_traders_on_their_accounts(self, live_desk: Desk, door: Any, alice: Client) -> None:
        assert Client(door, token(live_desk.rita)).post("signals", {"key": 1}).status_code == 403
        foreign = Client(door, token(live_desk.otto)).post("signals", SIGNAL)
        assert (foreign.status_code, foreign.json()["code"]) == (400, "unknown_account")
