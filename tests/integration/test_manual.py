"""What ops enter by hand: it waits for a second of them, then stands in orders, books and audit like a broker's word."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.db import connections

from orders.models import Execution, Order
from portfolio.models import BrokerPosition, CashBalance, Position, Trade
from risk.models import Approval
from tests.conftest import Desk
from tests.web import BUY, Client, token

pytestmark = pytest.mark.django_db(transaction=True)


class House:
    """The desk with a client for each of its people."""

    def __init__(self, desk: Desk) -> None:
        app = get_asgi_application()
        self.desk = desk
        people = ("alice", "otto", "rita", "oona", "omar")
        self.alice, self.otto, self.rita, self.oona, self.omar = (
            Client(app, token(getattr(desk, name))) for name in people
        )

    def fill(self, quantity: str = "10", price: str = "100", **more: str) -> dict[str, Any]:
        """Have alice's order filled by a broker; return the execution."""
        order = self.alice.post("orders", BUY | {"quantity": quantity} | more).json()
        self.desk.send()
        report = self.desk.near.report(
            "trade", self.desk.near.sent[-1], execution_id=f"E{Execution.objects.count()}",
            last_quantity=Decimal(quantity), last_price=Decimal(price), executed_at=self.desk.at,
        )  # fmt: skip
        self.desk.report(report)
        [execution] = self.alice.get(f"orders/{order['id']}/executions").json()["results"]
        return dict(execution)

    def decide(self, client: Client, approval: dict[str, Any], decision: str = "approve", **more: str) -> Any:
        return client.post(
            "risk/approvals", {"object": approval["object"], "decision": decision, "reason": "seen"} | more
        )

    def trade(self, **change: Any) -> dict[str, Any]:
        body = {
            "broker": "NEAR", "symbol": "AAPL", "side": "buy", "quantity": "10", "price": "100.5",
            "executed_at": (self.desk.at - timedelta(hours=1)).isoformat(), "key": "phone-1",
        }  # fmt: skip
        return body | change


@pytest.fixture
def house(live_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    return House(live_desk)


class TestUndoing:
    def test_a_bust_waits_for_another_of_ops_and_then_undoes(self, house: House) -> None:
        execution = house.fill()
        asked = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "wrong counterparty"})
        assert asked.status_code == 202, asked.text
        approval = asked.json()["approval"]
        assert (approval["object"], approval["object_kind"], approval["action"]) == (
            execution["id"], "execution", "bust",
        )  # fmt: skip
        assert (approval["status"], approval["maker"], approval["account"]) == ("pending", "oona", "MAIN")
        assert Position.objects.get().quantity == 10

        own = house.decide(house.oona, approval)
        assert (own.status_code, own.json()["code"]) == (403, "approver_is_maker")
        assert house.decide(house.rita, approval).json()["code"] == "role_required"
        assert house.decide(house.alice, approval).status_code == 403
        done = house.decide(house.omar, approval, content_hash=approval["content_hash"])
        assert (done.status_code, done.json()["status"], done.json()["approver"]) == (200, "approved", "omar")

        assert Position.objects.get().quantity == 0
        assert CashBalance.objects.get(currency="USD").balance == 1_000_000
        order = house.alice.get(f"orders/{execution['order']}").json()
        assert (order["status"], order["filled_quantity"], order["leaves_quantity"]) == ("canceled", "0", "0")
        kinds = [e["kind"] for e in house.alice.get(f"orders/{execution['order']}/events").json()["results"]]
        assert {"approval.asked", "approval.approved", "execution.bust"} <= set(kinds)
        house.desk.holds()
        again = house.decide(house.omar, approval)
        assert (again.status_code, again.json()["code"]) == (409, "already_decided")
        late = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "again"})
        assert (late.status_code, late.json()["code"]) == (409, "already_undone")

    def test_a_correction_restates_quantity_and_price(self, house: House) -> None:
        execution = house.fill()
        asked = house.oona.post(f"executions/{execution['id']}/correct", {"price": "99", "reason": "misheard"})
        assert asked.json()["approval"]["content"]["new_price"] == "99"
        assert house.decide(house.omar, asked.json()["approval"]).status_code == 200
        assert (Position.objects.get().quantity, Position.objects.get().cost) == (10, 990)
        assert house.alice.get(f"orders/{execution['order']}").json()["average_price"] == "99"
        [_, correction] = house.alice.get(f"orders/{execution['order']}/executions").json()["results"]
        assert (correction["kind"], correction["ref"]) == ("correct", execution["id"])
        house.desk.holds()

    def test_a_fill_of_a_working_order_undone_leaves_it_working(self, house: House) -> None:
        order = house.alice.post("orders", BUY | {"order_type": "limit", "limit_price": "100"}).json()
        house.desk.send()
        [sent] = house.desk.near.sent
        house.desk.report(
            house.desk.near.report("new", sent),
            house.desk.near.report(
                "trade", sent, execution_id="E1", last_quantity=Decimal(4), last_price=Decimal(100),
                executed_at=house.desk.at,
            ),
        )  # fmt: skip
        [execution] = house.alice.get(f"orders/{order['id']}/executions").json()["results"]
        approval = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "x"}).json()["approval"]
        house.decide(house.omar, approval)
        shown = house.alice.get(f"orders/{order['id']}").json()
        assert (shown["status"], shown["leaves_quantity"]) == ("new", "10")
        house.desk.holds()

    def test_a_refused_bust_changes_nothing_and_may_be_asked_for_again(self, house: House) -> None:
        execution = house.fill()
        first = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "a"}).json()["approval"]
        pending = house.omar.post(f"executions/{execution['id']}/correct", {"price": "1", "reason": "b"})
        assert (pending.status_code, pending.json()["code"]) == (409, "approval_pending")
        assert house.decide(house.omar, first, "refuse").json()["status"] == "refused"
        assert Position.objects.get().quantity == 10
        assert house.oona.post(f"executions/{execution['id']}/bust", {"reason": "c"}).status_code == 202

    def test_the_broker_may_be_faster(self, house: House) -> None:
        execution = house.fill()
        approval = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "a"}).json()["approval"]
        [sent] = house.desk.near.sent
        house.desk.report(house.desk.near.report("bust", sent, execution_id="B1", ref_execution_id="E0"))
        late = house.decide(house.omar, approval)
        assert (late.status_code, late.json()["code"]) == (409, "already_undone")
        assert Approval.objects.get().status == "pending"  # nothing of it stands; it lapses by itself
        house.desk.holds()

    def test_what_nobody_decided_lapses(self, house: House) -> None:
        execution = house.fill()
        approval = house.oona.post(f"executions/{execution['id']}/bust", {"reason": "a"}).json()["approval"]
        assert [e["kind"] for e in house.oona.get("exceptions").json()["results"]] == ["approval"]
        Approval.objects.update(expires_at=house.desk.at)
        late = house.decide(house.omar, approval)
        assert (late.status_code, late.json()["code"]) == (409, "approval_expired")
        assert [a["status"] for a in house.rita.get("risk/approvals").json()["results"]] == ["expired"]
        assert house.rita.get("risk/approvals?status=pending").json()["results"] == []
        assert len(house.rita.get("risk/approvals?status=expired&object_kind=execution").json()["results"]) == 1
        assert house.oona.get("exceptions").json()["results"] == []
        assert house.oona.post(f"executions/{execution['id']}/bust", {"reason": "b"}).status_code == 202

    @pytest.mark.parametrize(
        ("path", "body", "field", "code"),
        [
            ("bust", {}, "reason", "required"),
            ("bust", {"reason": "x", "price": "1"}, "price", "unknown_field"),
            ("correct", {"reason": "x"}, "quantity", "nothing_to_change"),
            ("correct", {"reason": "x", "price": "100"}, "quantity", "nothing_to_change"),
            ("correct", {"reason": "x", "quantity": "1.5"}, "quantity", "off_lot"),
            ("correct", {"reason": "x", "quantity": "0"}, "quantity", "not_positive"),
            ("correct", {"reason": "x", "price": "NaN"}, "price", "not_a_decimal"),
        ],
    )
    def test_bad_input_is_named(self, house: House, path: str, body: dict[str, str], field: str, code: str) -> None:
        answer = house.oona.post(f"executions/{house.fill()['id']}/{path}", body)
        assert answer.status_code == 400, answer.text
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Approval.objects.count() == 0

    def test_only_ops_ask_and_only_for_what_is_there(self, house: House) -> None:
        execution = house.fill()
        for client in (house.alice, house.rita):
            assert client.post(f"executions/{execution['id']}/bust", {}).status_code == 403
        for missing in ("17", "0193a000-0000-7000-8000-000000000000"):
            assert house.oona.post(f"executions/{missing}/bust", {"reason": "x"}).status_code == 404
        assert house.alice.get("risk/approvals").status_code == 403
        unknown = {"object": execution["id"], "decision": "approve", "reason": "x"}
        assert house.omar.post("risk/approvals", unknown).status_code == 404


class TestTrades:
    def test_a_trade_by_hand_is_an_external_order_filled_and_booked(self, house: House) -> None:
        asked = house.oona.post("accounts/MAIN/trades", house.trade(fees="1.25"))
        assert asked.status_code == 202, asked.text
        approval = asked.json()["approval"]
        assert (approval["object_kind"], approval["action"]) == ("trade", "book")
        assert Order.objects.count() == 0
        again = house.oona.post("accounts/MAIN/trades", house.trade(fees="1.25"))
        assert again.json()["approval"]["id"] == approval["id"]
        clash = house.oona.post("accounts/MAIN/trades", house.trade(fees="1.26"))
        assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_conflict")
        assert house.decide(house.oona, approval).json()["code"] == "approver_is_maker"
        assert house.decide(house.omar, approval).status_code == 200

        [order] = house.alice.get("orders").json()["results"]
        assert (order["origin"], order["status"], order["filled_quantity"]) == ("external", "filled", "10")
        assert (order["average_price"], order["fees"]) == ("100.5", "1.25")
        [execution] = house.alice.get(f"orders/{order['id']}/executions").json()["results"]
        assert execution["id"] == approval["object"] == str(Trade.objects.get().id)
        assert BrokerPosition.objects.get().quantity == 10
        assert CashBalance.objects.get(currency="USD").balance == Decimal("998993.75")
        assert house.desk.near.sent == []
        house.desk.holds()
        assert house.oona.post("accounts/MAIN/trades", house.trade(fees="1.25")).json()["approval"]["status"] == (
            "approved"
        )

    def test_a_trade_is_reversed_by_two_people(self, house: House) -> None:
        approval = house.oona.post("accounts/MAIN/trades", house.trade()).json()["approval"]
        early = house.oona.post(f"accounts/MAIN/trades/{approval['object']}/reverse", {"reason": "typo"})
        assert early.status_code == 404
        house.decide(house.omar, approval)
        reverse = house.omar.post(f"accounts/MAIN/trades/{approval['object']}/reverse", {"reason": "typo"})
        assert (reverse.status_code, reverse.json()["approval"]["action"]) == (202, "reverse")
        assert house.decide(house.oona, reverse.json()["approval"]).status_code == 200
        assert Position.objects.get().quantity == 0
        assert CashBalance.objects.get(currency="USD").balance == 1_000_000
        assert Order.objects.get().status == "canceled"
        house.desk.holds()

    @pytest.mark.parametrize(
        ("change", "field", "code"),
        [
            ({"broker": "NOWHERE"}, "broker", "unknown_broker"),
            ({"symbol": "NOPE"}, "symbol", "unknown_symbol"),
            ({"side": "hold"}, "side", "invalid_choice"),
            ({"quantity": "-1"}, "quantity", "not_positive"),
            ({"quantity": "0.5"}, "quantity", "off_lot"),
            ({"price": 5}, "price", "not_a_decimal_string"),
            ({"executed_at": "2999-01-01T00:00:00Z"}, "executed_at", "in_the_future"),
            ({"executed_at": "noon"}, "executed_at", "invalid"),
            ({"key": ""}, "key", "blank"),
            ({"note": "x"}, "note", "unknown_field"),
        ],
    )
    def test_bad_trades_are_named_and_store_nothing(
        self, house: House, change: dict[str, Any], field: str, code: str
    ) -> None:
        answer = house.oona.post("accounts/MAIN/trades", house.trade(**change))
        assert answer.status_code == 400, answer.text
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Approval.objects.count() == 0

    def test_who_may(self, house: House) -> None:
        assert house.alice.post("accounts/MAIN/trades", {}).status_code == 403
        assert house.rita.post("accounts/MAIN/trades", {}).status_code == 403
        assert house.oona.post("accounts/ELSE/trades", house.trade()).status_code == 404
        body = json.dumps(house.trade()).encode()
        assert house.oona.post("accounts/MAIN/trades", body[:-5]).status_code == 400


class TestFrames:
    def test_every_event_of_an_account_is_a_frame_of_its_own_type(self, house: House) -> None:
        house.fill()
        moved = house.oona.post(
            "accounts/MAIN/transfers",
            {"kind": "deposit", "currency": "USD", "amount": "5", "reason": "r", "key": "k"},
        )
        approval = house.oona.post("accounts/MAIN/trades", house.trade()).json()["approval"]
        house.decide(house.omar, approval)
        frames = house.alice.get("orders/updates?account=MAIN&since=0").json()["frames"]
        sequences = [f["seq"] for f in frames]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        by_type: dict[str, list[Any]] = {}
        for frame in frames:
            by_type.setdefault(frame["type"], []).append(frame["data"])
        assert set(by_type) == {"cash", "order", "execution", "position", "risk"}
        assert by_type["cash"][-1]["transfer"] == moved.json()["id"]
        assert by_type["cash"][-1]["cash"] == [{"currency": "USD", "amount": "5"}]
        assert all("symbol" in position for position in by_type["position"])
        assert [a["status"] for a in by_type["risk"]] == ["pending", "approved"]
