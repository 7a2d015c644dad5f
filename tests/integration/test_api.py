"""The order API from outside, through both doors: the thin entry ahead of Django, and the REST views."""

import json
from typing import Any
from uuid import uuid4

import pytest

from oms.runtime import throttle
from orders.models import Order, Submission
from tests.conftest import Desk
from tests.web import BUY, Client, token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice(live_desk: Desk, door: Any) -> Client:
    return Client(door, token(live_desk.alice))


@pytest.fixture
def rita(live_desk: Desk, door: Any) -> Client:
    return Client(door, token(live_desk.rita))


class TestPlacing:
    def test_an_order_is_made_once_and_replayed_with_the_same_words(self, alice: Client) -> None:
        ask = BUY | {"client_order_id": "c-1"}
        first, again = alice.post("orders", ask), alice.post("orders", ask)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.content == first.content
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers
        assert Order.objects.count() == 1

    def test_the_same_key_with_another_body_is_a_conflict(self, alice: Client) -> None:
        alice.post("orders", BUY | {"client_order_id": "c-1"})
        clash = alice.post("orders", BUY | {"client_order_id": "c-1", "quantity": "11"})
        assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_conflict")
        header = {"Idempotency-Key": "k-1"}
        alice.post("orders", BUY, headers=header)
        clash = alice.post("orders", BUY | {"side": "sell"}, headers=header)
        assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_conflict")

    def test_a_batch_under_a_key_is_made_once(self, alice: Client) -> None:
        header, batch = (
            {"Idempotency-Key": "b-1"},
            {"orders": [BUY, BUY | {"quantity": "NaN"}, BUY | {"quantity": "11"}]},
        )
        first, again = (alice.post("orders/batch", batch, headers=header).json()["results"] for _ in range(2))
        assert [r["status"] for r in first] == [201, 400, 201]
        assert [r["status"] for r in again] == [200, 400, 200]
        assert [r.get("order") for r in again] == [r.get("order") for r in first]
        other = alice.post("orders/batch", {"orders": [BUY | {"side": "sell"}]}, headers=header).json()["results"]
        assert other[0]["problem"]["code"] == "idempotency_conflict"
        assert Order.objects.count() == 2

    def test_what_risk_refuses_is_an_order_with_its_reason(self, alice: Client) -> None:
        answer = alice.post("orders", BUY | {"quantity": "10001"})
        assert answer.status_code == 201
        assert answer.json()["status"] == "denied"
        assert answer.json()["reason"]["code"] == "quantity_limit"
        assert Submission.objects.count() == 0

    @pytest.mark.parametrize(
        ("change", "field", "code"),
        [
            ({"quantity": 10}, "quantity", "not_a_decimal_string"),
            ({"quantity": "NaN"}, "quantity", "not_a_decimal"),
            ({"quantity": "1e3"}, "quantity", "not_a_decimal"),
            ({"quantity": "-1"}, "quantity", "not_positive"),
            ({"quantity": "0"}, "quantity", "not_positive"),
            ({"quantity": "1" * 40}, "quantity", "out_of_range"),
            ({"quantity": "0.5"}, "quantity", "off_lot"),
            ({"order_type": "limit", "limit_price": "100.001"}, "limit_price", "off_tick"),
            ({"order_type": "limit"}, "limit_price", "required"),
            ({"limit_price": "100"}, "limit_price", "not_allowed"),
            ({"side": "hold"}, "side", "not_a_choice"),
            ({"side": ["buy"]}, "side", "not_a_choice"),
            ({"symbol": "NOPE"}, "symbol", "unknown_symbol"),
            ({"symbol": "NO\u0000PE"}, "symbol", "control_character"),
            ({"account": "ELSE"}, "account", "unknown_account"),
            ({"price": "1"}, "price", "unknown_field"),
            ({"note": "x" * 201}, "note", "not_a_note"),
        ],
    )
    def test_bad_input_is_named_and_stores_nothing(
        self, alice: Client, change: dict[str, Any], field: str, code: str
    ) -> None:
        answer = alice.post("orders", BUY | change)
        assert answer.status_code == 400, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
        assert Order.objects.count() == 0

    @pytest.mark.parametrize(
        ("raw", "status", "code"),
        [
            (b"{", 400, "malformed_json"),
            (b"[]", 400, "not_an_object"),
            (b"\xff\xfe", 400, "malformed_json"),
            (b'{"quantity": 1.5}', 400, "float_refused"),
            (b'{"quantity": NaN}', 400, "malformed_json"),
            (b'{"quantity": 1E400}', 400, "malformed_json"),
            (b"[" * 100_000, 400, "too_deep"),
            (b'{"a":' * 30 + b"1" + b"}" * 30, 400, "too_deep"),
            (b'{"note": "' + b"x" * 1_100_000 + b'"}', 413, "body_too_large"),
        ],
        ids=["cut", "list", "not utf-8", "float", "nan", "huge exponent", "100,000 deep", "30 deep", "1.1 MB"],
    )
    def test_hostile_bodies_end_as_problems(self, alice: Client, raw: bytes, status: int, code: str) -> None:
        answer = alice.post("orders", raw)
        body = answer.json()
        codes = {body["code"], *(e["code"] for e in body["errors"])}
        assert answer.status_code == status
        assert code in codes
        assert Order.objects.count() == 0

    def test_a_role_is_judged_before_the_body(self, rita: Client) -> None:
        answer = rita.post("orders", BUY | {"quantity": "nonsense"})
        assert (answer.status_code, answer.json()["code"]) == (403, "role_required")

    def test_without_a_valid_token_nothing_is_told(self, alice: Client) -> None:
        for bad in ("", "0" * 64, "short"):
            alice.token = bad
            answer = alice.post("orders", BUY)
            assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")

    def test_a_foreign_account_looks_like_none(self, live_desk: Desk, door: Any) -> None:
        otto = Client(door, token(live_desk.otto))
        foreign, missing = otto.post("orders", BUY), otto.post("orders", BUY | {"account": "NONE"})
        assert foreign.status_code == missing.status_code == 400
        assert foreign.json() == missing.json()
        assert foreign.json()["code"] == "unknown_account"

    def test_each_order_of_a_batch_is_judged_alone(self, alice: Client) -> None:
        orders = [
            BUY | {"client_order_id": "b-1"},
            BUY | {"quantity": "x"},
            BUY | {"client_order_id": "b-1"},
            BUY | {"quantity": "99999"},
        ]
        answer = alice.post("orders/batch", {"orders": orders})
        parts = answer.json()["results"]
        assert answer.status_code == 200
        assert [p["status"] for p in parts] == [201, 400, 200, 201]
        assert parts[0]["order"] == parts[2]["order"]
        assert parts[1]["problem"]["code"] == "not_a_decimal"
        assert parts[3]["order"]["status"] == "denied"

    @pytest.mark.parametrize(
        "body", [{}, {"orders": []}, {"orders": {}}, {"orders": [{}] * 1001}, {"orders": [{}], "more": 1}]
    )
    def test_a_batch_holds_one_to_a_thousand(self, alice: Client, body: Any) -> None:
        answer = alice.post("orders/batch", body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "orders")

    def test_the_budget_is_told_and_ends(self, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        assert int(alice.post("orders", BUY).headers["RateLimit-Remaining"]) > 0
        monkeypatch.setattr(throttle, "_count_shared", lambda window, *_: (window.per_second + 1, 0))
        refused = alice.post("orders", BUY)
        assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
        assert refused.headers["Retry-After"] == "1"
        assert Order.objects.count() == 1


def test_one_request_spoils_no_other_of_its_commit(live_desk: Desk) -> None:
    from oms import entry
    from orders.operations import Request
    from tests.conftest import ticket

    caller = entry.Caller(live_desk.actor(live_desk.alice), True, 0.0)
    origins = ("desk", "far too long for its column", "desk")
    waiting = [
        entry.Waiting([Request(ticket("buy 1 AAPL"), caller.actor, f"w-{n}", origin)], caller, None)
        for n, origin in enumerate(origins)
    ]
    first, spoilt, last = entry._commit(waiting)
    assert isinstance(spoilt, Exception)
    assert [answers[0].created for _, answers in (first, last)] == [True, True]
    assert Order.objects.count() == 2


class TestReading:
    def test_an_order_is_shown_to_those_who_may_see_it_only(
        self, live_desk: Desk, door: Any, alice: Client, rita: Client
    ) -> None:
        made = alice.post("orders", BUY).json()
        otto = Client(door, token(live_desk.otto))
        for path in ("", "/status", "/children", "/executions", "/events", "/routing"):
            assert alice.get(f"orders/{made['id']}{path}").status_code == 200
            assert rita.get(f"orders/{made['id']}{path}").status_code == 200
            assert otto.get(f"orders/{made['id']}{path}").status_code == 404
        for missing in (str(uuid4()), "17", "x'--", "%00"):
            assert alice.get(f"orders/{missing}").status_code == 404

    def test_pages_hold_every_order_once_newest_first(self, alice: Client) -> None:
        made = [o["order"]["id"] for o in alice.post("orders/batch", {"orders": [BUY] * 7}).json()["results"]]
        seen, address, pages = [], "/api/v1/orders?limit=3&side=buy", 0
        while address:
            page = alice.get(address.replace("http://localhost", "")).json()
            seen += [o["id"] for o in page["results"]]
            address, pages = page["next"], pages + 1
        assert (seen, pages) == (made[::-1], 3)

    def test_filters_narrow_and_unknown_ones_are_refused(self, alice: Client) -> None:
        alice.post("orders/batch", {"orders": [BUY, BUY | {"symbol": "MSFT"}, BUY | {"quantity": "99999"}]})

        def count(query: str) -> int:
            return len(alice.get(f"orders?{query}").json()["results"])

        assert (count(""), count("symbol=MSFT"), count("status=denied"), count("open=true")) == (3, 1, 1, 2)
        assert (count("broker=NEAR"), count("account=ELSE"), count("created_before=2020-01-01T00:00:00Z")) == (2, 0, 0)
        for query, field in (
            ("colour=red", "colour"), ("limit=501", "limit"), ("limit=-1", "limit"), ("cursor=abc", "cursor"),
            ("status=odd", "status"), ("created_after=yesterday", "created_after"), ("open=1", "open"), ("parent=7", "parent"),
        ):  # fmt: skip
            answer = alice.get(f"orders?{query}")
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)

    def test_a_table_is_exported_and_runs_nothing_in_a_spreadsheet(self, alice: Client) -> None:
        alice.post("orders", BUY | {"note": "=1+1"})
        answer = alice.get("orders", headers={"Accept": "text/csv"})
        assert answer.headers["Content-Type"].startswith("text/csv")
        assert answer.text.splitlines()[0].startswith("id,client_order_id,account,symbol")
        assert ",'=1+1," in answer.text

    def test_polling_returns_the_frames_in_sequence(self, alice: Client) -> None:
        alice.post("orders", BUY)
        page = alice.get("orders/updates?account=MAIN&since=0").json()
        sequences = [f["seq"] for f in page["frames"]]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert page["frames"][-1]["data"]["symbol"] == "AAPL"
        assert alice.get(f"orders/updates?account=MAIN&since={page['next_since']}").json()["frames"] == []

    def test_preview_tells_and_stores_nothing(self, alice: Client) -> None:
        answer = alice.post("orders/preview", BUY).json()
        assert answer["approved"] is True
        assert {c["broker"] for c in answer["routing"]["candidates"]} == {"NEAR", "FAR"}
        assert Order.objects.count() == 0
        assert alice.post("orders/preview", BUY | {"quantity": "99999"}).json()["reason"]["code"] == "quantity_limit"


class TestChanging:
    def test_a_cancel_is_asked_once(self, alice: Client) -> None:
        made = alice.post("orders", BUY | {"order_type": "limit", "limit_price": "90"}).json()
        first, second = (
            alice.post(f"orders/{made['id']}/cancel", {"reason": "changed"}),
            alice.post(f"orders/{made['id']}/cancel"),
        )
        assert first.status_code == 202
        assert second.status_code in (202, 409)
        assert Submission.objects.filter(kind="cancel").count() <= 1

    def test_closed_orders_can_not_change(self, alice: Client) -> None:
        denied = alice.post("orders", BUY | {"quantity": "99999"}).json()
        for act, body in (("cancel", {}), ("replace", {"quantity": "5"})):
            answer = alice.post(f"orders/{denied['id']}/{act}", body)
            assert (answer.status_code, answer.json()["code"]) == (409, "order_closed")

    def test_a_replace_names_what_it_can_not_read(self, alice: Client) -> None:
        made = alice.post("orders", BUY).json()
        assert alice.post(f"orders/{made['id']}/replace", {"quantity": 5}).json()["errors"][0]["field"] == "quantity"
        assert alice.post(f"orders/{made['id']}/replace", {}).json()["code"] == "nothing_to_change"
        assert alice.post(f"orders/{made['id']}/replace", {"side": "sell"}).json()["code"] == "unknown_field"

    def test_all_open_orders_of_a_symbol_end(self, alice: Client) -> None:
        alice.post("orders/batch", {"orders": [BUY, BUY | {"symbol": "MSFT"}]})
        answer = alice.post("orders/cancel", {"symbol": "MSFT"})
        assert (answer.status_code, answer.json()) == (202, {"canceled": 1})
        assert alice.post("orders/cancel", {"account": "ELSE"}).json()["code"] == "unknown_account"

    def test_cancels_pass_while_redis_is_away(self, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        import redis

        made = alice.post("orders", BUY).json()

        def gone(*_: Any) -> Any:
            raise redis.ConnectionError("gone")

        monkeypatch.setattr(throttle, "_count_shared", gone)
        monkeypatch.setattr(throttle, "_count_here", lambda window, *_: (window.per_second + 1, 0))
        assert alice.post("orders", BUY).status_code == 429
        assert alice.post(f"orders/{made['id']}/cancel").status_code == 202


class TestAround:
    def test_errors_under_the_api_are_problems(self, alice: Client) -> None:
        missing, method = alice.get("nothing/here"), alice.call("DELETE", "orders")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert (method.status_code, method.headers["Content-Type"]) == (405, "application/problem+json")

    def test_every_answer_says_how_to_find_it_and_what_it_may_do(self, alice: Client) -> None:
        answer = alice.get("orders", headers={"X-Correlation-ID": "from-outside-1"})
        assert answer.headers["X-Correlation-ID"] == "from-outside-1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        forged = alice.get("orders", headers={"X-Correlation-ID": "a b\tc"})
        assert forged.headers["X-Correlation-ID"] != "a b\tc"

    def test_pages_allow_nothing_inline(self, alice: Client) -> None:
        answer = alice.get("/login/")
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy

    def test_a_session_needs_the_csrf_token(self, live_desk: Desk, door: Any) -> None:
        from django.test import Client as Browser

        browser = Browser(enforce_csrf_checks=True)
        browser.force_login(live_desk.alice)
        answer = browser.post("/api/v1/orders", json.dumps(BUY), content_type="application/json")
        assert answer.status_code == 403
        assert Order.objects.count() == 0

    def test_the_market_is_read_by_all_and_written_by_ops(self, live_desk: Desk, door: Any, alice: Client) -> None:
        quotes = [{"symbol": "AAPL", "bid": "101", "ask": "101.02", "at": live_desk.later(1).isoformat()}]
        assert alice.post("quotes", quotes).status_code == 403
        oona = Client(door, token(live_desk.oona))
        assert oona.post("quotes", quotes).json() == {"stored": 1}
        assert alice.get("quotes?symbol=AAPL").json()["results"][0]["bid"] == "101"
        assert alice.get("quotes?symbol=EUR/USD").json()["results"][0]["symbol"] == "EUR/USD"
        crossed = oona.post("quotes", [quotes[0] | {"bid": "102"}])
        assert (crossed.status_code, crossed.json()["code"]) == (400, "crossed_quote")
        unknown = oona.post("quotes", [quotes[0] | {"symbol": "NOPE"}])
        assert unknown.json()["errors"] == [
            {"field": "0.symbol", "code": "unknown_symbol", "detail": "No such instrument."}
        ]
        assert oona.post("quotes", [quotes[0] | {"at": "2999-01-01T00:00:00Z"}]).json()["code"] == "in_the_future"

    def test_the_audit_is_for_auditors(self, live_desk: Desk, door: Any, alice: Client, django_user_model: Any) -> None:
        from django.contrib.auth.models import Group

        made = alice.post("orders", BUY).json()
        assert alice.get("audit").status_code == 403
        ada = django_user_model.objects.create_user("ada")
        ada.groups.add(Group.objects.get_or_create(name="auditor")[0])
        rows = Client(door, token(ada)).get(f"audit?object={made['id']}").json()["results"]
        assert {r["actor"] for r in rows} == {"user:alice"}

    def test_secrets_of_brokers_stay_inside(self, alice: Client) -> None:
        body = alice.get("brokers").text
        assert "settings" not in body
        assert {b["code"] for b in alice.get("brokers").json()["results"]} == {"NEAR", "FAR"}
        assert alice.get("brokers/NONE").status_code == 404

    def test_health_tells_what_is_missing(self, alice: Client) -> None:
        assert alice.get("/healthz").json() == {"status": "alive"}
        ready = alice.get("/readyz")
        assert ready.status_code == 503  # no gateway runs in a test
        assert ready.json()["checks"]["postgresql"]["ok"] is True
        assert ready.json()["checks"]["gateways"]["detail"] == "no gateway for FAR, NEAR"
        assert "oms_submissions_due" in alice.get("/metrics").text

    def test_the_schema_is_valid_and_needs_a_sign_in(self, alice: Client) -> None:
        import yaml
        from openapi_spec_validator import validate

        answer = alice.get("/api/schema/")
        schema = yaml.safe_load(answer.text)
        validate(schema)
        assert schema["openapi"] == "3.1.0"
        assert "/api/v1/orders/{id}/replace" in schema["paths"]
        alice.token = ""
        assert alice.get("/api/schema/").status_code == 401
