"""Brokers from outside: added by administrators, scored by their conduct, left out by the router while halted."""

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.asgi import get_asgi_application
from django.db import connections

from brokers.adapters.port import Outcome
from brokers.models import Broker, BrokerAccount, FeeSchedule, Listing, Quote
from oms.kernel.actor import Actor
from orders.operations.halting import halt
from risk.domain.scopes import Scope
from tests.conftest import Desk
from tests.web import BUY, Client, token

pytestmark = pytest.mark.django_db(transaction=True)
NEW = {
    "code": "THIRD", "name": "Third", "adapter": "simulated",
    "settings": {
        "host": "127.0.0.1", "port": 7001, "key": "s3cret", "accounts": {"MAIN": "ACC1"}, "listings": ["AAPL"],
        "fees": {"equity": [{"kind": "commission", "basis": "percent", "rate": "0.1"}]},
    },
}  # fmt: skip


@pytest.fixture
def admin(live_desk: Desk, django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    user = django_user_model.objects.create_user("ada")
    user.groups.add(Group.objects.get_or_create(name="admin")[0])
    return Client(get_asgi_application(), token(user))


class TestAdding:
    def test_a_broker_comes_with_what_its_settings_imply_and_keeps_its_secrets(self, admin: Client) -> None:
        answer = admin.post("brokers", NEW)
        assert answer.status_code == 201, answer.text
        assert "s3cret" not in answer.text + admin.get("brokers").text + admin.get("brokers/THIRD").text
        broker = Broker.objects.get(code="THIRD")
        assert [x.symbol for x in Listing.objects.filter(broker=broker)] == ["AAPL"]
        assert BrokerAccount.objects.get(broker=broker).external_id == "ACC1"
        assert FeeSchedule.objects.get(broker=broker).items[0]["rate"] == "0.1"
        again = admin.post("brokers", NEW)
        assert (again.status_code, again.json()["code"]) == (409, "broker_exists")

    @pytest.mark.parametrize(
        ("change", "field", "code"),
        [
            ({"code": "third"}, "code", "invalid"),
            ({"adapter": "telex"}, "adapter", "invalid_choice"),
            ({"settings": "none"}, "settings", "not_a_dict"),
            ({"settings": {"venue": 5}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"listings": ["NOPE"]}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"accounts": {"NOPE": "1"}}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"fees": {"equity": [{"kind": "x"}]}}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"fees": {"tulips": []}}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"fees": 5}}, "settings", "bad_settings"),
            ({"settings": NEW["settings"] | {"listings": 5}}, "settings", "bad_settings"),
            ({"secret": "x"}, "secret", "unknown_field"),
        ],
    )
    def test_bad_settings_are_named_and_add_nothing(
        self, admin: Client, change: dict[str, Any], field: str, code: str
    ) -> None:
        answer = admin.post("brokers", NEW | change)
        assert answer.status_code == 400, answer.text
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Broker.objects.count() == 2

    def test_only_administrators_add(self, live_desk: Desk, admin: Client) -> None:
        for user in (live_desk.alice, live_desk.rita, live_desk.oona):
            assert Client(admin.app, token(user)).post("brokers", {"x": 1}).status_code == 403


class TestScores:
    def test_conduct_is_counted_and_nothing_is_made_up(self, live_desk: Desk, admin: Client) -> None:
        rows = {r["broker"]: r for r in admin.get("routing/scores").json()["results"]}
        assert (rows["NEAR"]["sent"], rows["NEAR"]["reject_rate"], rows["NEAR"]["ack_ms"]) == (0, None, None)
        outcomes = iter([Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ACCEPTED, Outcome.UNKNOWN])
        live_desk.near.outcome = lambda _: next(outcomes)
        live_desk.place(*[f"buy {n} AAPL" for n in (1, 2, 3, 4)])
        live_desk.send()
        rows = {r["broker"]: r for r in admin.get("routing/scores").json()["results"]}
        near = rows["NEAR"]
        assert (near["sent"], near["accepted"], near["rejected"], near["unknown"]) == (4, 2, 1, 1)
        assert (near["reject_rate"], rows["FAR"]["ack_ms"]) == ("0.25", 50.0)
        table = admin.get("routing/scores", headers={"Accept": "text/csv"}).text
        assert table.splitlines()[0].startswith("broker,enabled,connected")


class TestHalted:
    def engage(self, desk: Desk, code: str, mode: str = "halt") -> None:
        actor = Actor("user:rita", desk.rita.pk)
        halt(Scope("broker", code), mode=mode, cancel_open=False, reason="storm", actor=actor, at=desk.at)

    def candidates(self, client: Client, order: dict[str, Any]) -> dict[str, list[str]]:
        [decision] = client.get(f"orders/{order['id']}/routing").json()["results"]
        return {c["broker"]: c["reasons"] for c in decision["candidates"]}

    def test_a_halted_broker_is_passed_over_with_a_reason(self, live_desk: Desk, admin: Client) -> None:
        alice = Client(admin.app, token(live_desk.alice))
        self.engage(live_desk, "NEAR")
        order = alice.post("orders", BUY).json()
        assert self.candidates(alice, order) == {"NEAR": ["halted"], "FAR": []}
        assert [c["broker"] for c in alice.get(f"orders/{order['id']}/children").json()["results"]] == ["FAR"]
        self.engage(live_desk, "FAR")
        denied = alice.post("orders", BUY).json()
        assert (denied["status"], denied["reason"]["code"]) == ("denied", "no_route")
        assert "NEAR: halted" in denied["reason"]["detail"]

    def test_a_reduce_only_broker_takes_what_reduces(self, live_desk: Desk, admin: Client) -> None:
        alice = Client(admin.app, token(live_desk.alice))
        alice.post("orders", BUY)
        live_desk.send()
        live_desk.report(
            live_desk.near.report(
                "trade", live_desk.near.sent[-1], execution_id="E1", last_quantity=Decimal(10), last_price=Decimal(100),
                executed_at=live_desk.at,
            )
        )  # fmt: skip
        self.engage(live_desk, "NEAR", mode="reduce_only")
        more, less = alice.post("orders", BUY).json(), alice.post("orders", BUY | {"side": "sell"}).json()
        assert self.candidates(alice, more)["NEAR"] == ["halted"]
        assert self.candidates(alice, less)["NEAR"] == []

    def test_a_refused_order_does_not_go_on_to_a_halted_broker(self, live_desk: Desk, admin: Client) -> None:
        alice = Client(admin.app, token(live_desk.alice))
        order = alice.post("orders", BUY).json()
        self.engage(live_desk, "FAR")
        live_desk.near.outcome = lambda _: Outcome.REJECTED
        live_desk.send()
        shown = alice.get(f"orders/{order['id']}").json()
        assert (shown["status"], shown["reason"]["code"]) == ("rejected", "broker_rejected")


def test_quotes_with_sizes_below_zero_are_refused(live_desk: Desk, admin: Client) -> None:
    quote = {"symbol": "AAPL", "bid": "101", "ask": "101.02", "at": live_desk.later(1).isoformat()}
    for change, field in (({"bid_size": "-1"}, "0.bid_size"), ({"last": "0"}, "0.last")):
        answer = admin.post("quotes", [quote | change])
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
    assert Quote.objects.get(instrument__symbol="AAPL").bid == Decimal("99.99")


def test_a_grant_lasts_until_it_expires(live_desk: Desk, admin: Client) -> None:
    otto = Client(admin.app, token(live_desk.otto))
    assert otto.get("accounts").json()["results"] == []
    given = admin.post("accounts/MAIN/grants", {"user": "otto", "expires_at": "2999-01-01T00:00:00Z"})
    assert given.status_code == 201, given.text
    assert otto.post("orders", BUY).status_code == 201
    admin.post("accounts/MAIN/grants", {"user": "otto", "expires_at": "2020-01-01T00:00:00Z"})
    assert otto.post("orders", BUY).json()["code"] == "unknown_account"
    assert admin.post("accounts/MAIN/grants", {"user": "nobody"}).json()["errors"][0]["field"] == "user"
    assert admin.post("accounts/NONE/grants", {"user": "otto"}).status_code == 404
    assert otto.post("accounts/MAIN/grants", {"user": "otto"}).status_code == 403


def test_an_account_is_opened_by_ops(live_desk: Desk, admin: Client) -> None:
    oona = Client(admin.app, token(live_desk.oona))
    made = oona.post("accounts", {"code": "NEW", "base_currency": "EUR"})
    assert (made.status_code, made.json()["lot_method"]) == (201, "fifo")
    assert oona.post("accounts", {"code": "NEW", "base_currency": "EUR"}).json()["code"] == "account_exists"
    assert oona.post("accounts", {"code": "N", "base_currency": "EUR", "lot_method": "odd"}).status_code == 400
    assert oona.post("accounts", {"code": "n w", "base_currency": "EUR"}).json()["errors"][0]["field"] == "code"
    assert admin.post("accounts", {"code": "X", "base_currency": "EUR"}).status_code == 403
