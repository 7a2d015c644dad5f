"""Who reaches what: every route, every role, somebody else's objects (G01, G02, G03, G14, G16)."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.test import Client
from django.urls import get_resolver

from oms.journal.models import Event
from oms.runtime import signin
from orders.models import IdempotencyKey, Order
from portfolio.models import LedgerTransaction
from tests.conftest import Desk
from tests.security.house import OPEN_TO_ALL, ROLES, ROWS, UNSAFE, House, Program, address, api_routes, walk
from tests.web import BUY

PAGES = {
    "", "positions/", "execution/", "operations/", "risk/", "login/", "logout/", "second-factor/", "confirm/", "healthz", "readyz", "metrics", "api/schema/", "api/docs/",
}  # fmt: skip
"""Every address beside the API and the admin."""


# ---------------------------------------------------------------- G01


def test_g01_every_route_has_a_row() -> None:
    routes = set(api_routes())
    assert routes - set(ROWS) == set(), "give each new route a row in tests/security/house.py"
    assert set(ROWS) - routes == set(), "these rows speak of routes that are gone"


def test_g01_no_address_stands_outside_of_the_tables() -> None:
    others = {p for p, _ in walk(get_resolver()) if not p.startswith(("api/v1/", "admin/"))}
    assert others == PAGES


def test_g01_nobody_unknown_gets_anything(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        signin, "TOKENS", replace(signin.TOKENS, per_second=10_000)
    )  # who guesses so often is turned away
    for (method, route), row in ROWS.items():
        path = address(route, house.things, row.place)
        for program in (Program(), Program("0" * 64)):
            answer = program.call(method, path, row.body)
            assert answer.status_code == 401, (method, route, answer.content)
        session = house.clients["trader"].call(method, path, row.body, Authorization="Bearer x", Cookie="sessionid=x")
        assert session.status_code in (401, 403), (method, route)


@pytest.mark.parametrize("role", ROLES)
def test_g01_a_role_that_may_not_act_is_refused_before_the_body_is_read(house: House, role: str) -> None:
    for (method, route), row in ROWS.items():
        path = address(route, house.things, row.place)
        answer = house.clients[role].call(method, path, b"{not json" if method in UNSAFE else None)
        expected = role not in row.may
        assert (answer.status_code == 403) is expected, (method, route, answer.status_code, answer.content)
        if expected:
            assert answer.json()["code"] == "role_required", (method, route)


@pytest.mark.parametrize("role", ["trader", "nobody"])
def test_g01_what_belongs_to_others_is_not_there(house: House, role: str) -> None:
    before = state()
    for (method, route), row in ROWS.items():
        if role not in row.may or route in OPEN_TO_ALL or not (row.place or row.body or row.query):
            continue
        query = f"?{row.query.format(**house.things)}" if row.query else ""
        answer = house.clients[role].call(method, address(route, house.things, row.place) + query, row.body)
        missing = dict.fromkeys(house.things, str(uuid4())) | {"account": "NONE", "broker": "NONE"}
        told = house.clients[role].call(method, address(route, missing, row.place) + query, row.body)
        assert answer.status_code == row.foreign, (method, route, answer.status_code, answer.content)
        assert answer.content == told.content, (method, route, "a foreign object looks unlike one that is missing")
    assert state() == before


@pytest.mark.parametrize("role", ["trader", "nobody"])
def test_g01_no_list_or_filter_leaks_a_word_of_others(house: House, role: str) -> None:
    filters = ("", "?account=MAIN", "?limit=500", "?symbol=AAPL", "?parent={order}", "?client_order_id=canary-order")
    for method, route in ROWS:
        if method != "GET" or "{" in route:
            continue
        for given in filters:
            for accept in ("application/json", "text/csv"):
                answer = house.clients[role].get(route + given.format(**house.things), Accept=accept)
                shown = answer.content.decode()
                assert not [w for w in house.secrets() if w in shown], (route, given, shown)


def test_g01_the_owner_sees_what_the_others_do_not(house: House) -> None:
    for (method, route), row in ROWS.items():
        if method == "GET" and row.place and "trader" in row.may:
            assert house.owner.get(address(route, house.things, row.place)).status_code == 200, route
    assert "canary-order" in house.owner.get("orders").content.decode()
    scopes = [h["scope"] for h in house.owner.get("risk/halts").json()["results"]]
    assert {"account": "MAIN"} in scopes


@pytest.mark.parametrize("role", ["risk", "ops", "auditor", "admin"])
def test_g01_officers_read_all_and_find_nothing_that_is_not_there(house: House, role: str) -> None:
    missing = dict.fromkeys(house.things, str(uuid4())) | {"account": "NONE", "broker": "NONE"}
    for (method, route), row in ROWS.items():
        if role not in row.may or not row.place:
            continue
        if method == "GET":
            assert house.clients[role].get(address(route, house.things, row.place)).status_code == 200, route
        answer = house.clients[role].call(method, address(route, missing, row.place), row.body)
        assert answer.status_code == 404, (method, route, answer.content)


def test_g01_pages_show_only_the_accounts_of_the_reader(house: House) -> None:
    browser = Client()
    browser.force_login(house.people["trader"])
    for page in ("/", "/positions/", "/risk/", "/execution/"):
        shown = browser.get(page).content.decode()
        assert "ALPHA" in shown
        assert not [w for w in house.secrets() if w in shown], page


def test_g01_the_admin_shows_a_trader_nothing_of_others(house: House) -> None:
    for role in ("trader", "nobody"):
        user = house.people[role]
        user.is_staff = True
        user.save()
        browser = Client()
        browser.force_login(user)
        for model in apps.get_models():
            name = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
            for path in (name, f"{name}add/", f"{name}{house.things['order']}/change/", f"{name}1/change/"):
                answer = browser.get(path, follow=True)
                shown = answer.content.decode()
                words = [
                    w for w in house.secrets() if w in shown and w not in path
                ]  # the log-in page repeats the address
                assert words == [], (role, path)
                if model is not Order:
                    turned_away = answer.request["PATH_INFO"] in ("/admin/", "/admin/login/")
                    assert turned_away or answer.status_code in (403, 404), (role, path)


# ---------------------------------------------------------------- G02

FORGED = (
    "role", "roles", "is_staff", "is_superuser", "user", "user_id", "account_id", "status", "filled_quantity", "leaves_quantity",
    "cum_qty", "approved_by", "approver", "maker", "version", "id", "pk", "created_at", "origin", "unknown", "parent",
)  # fmt: skip


def test_g02_forged_fields_are_refused_by_name_on_every_writable_route(house: House) -> None:
    fields = {f.name for m in apps.get_models() for f in m._meta.get_fields()} | set(FORGED)
    before = state()
    for (method, route), row in ROWS.items():
        if method not in UNSAFE:
            continue
        program = house.owner if "trader" in row.may else house.clients[min(row.may)]
        forged = fields - set(_example(row.body)) - ALLOWED.get(route, set())
        answer = program.call(method, address(route, house.things, row.place), _forge(row.body, forged))
        told = {name.rpartition(".")[2] for name in _refused(answer)}
        assert forged <= told, (route, forged - told)
        for name in sorted(forged & set(FORGED)):
            alone = program.call(method, address(route, house.things, row.place), _forge(row.body, {name}))
            assert [n.rpartition(".")[2] for n in _refused(alone)] == [name], (route, name)
    assert state() == before


def test_g02_nothing_is_written_by_the_methods_of_generic_editing(house: House) -> None:
    before = state()
    for (_, route), row in ROWS.items():
        for method in ("PUT", "PATCH", "DELETE"):
            for program in (house.owner, house.clients["admin"]):
                answer = program.call(method, address(route, house.things, row.place), {"status": "filled"})
                assert answer.status_code in (403, 405), (method, route, answer.status_code)
    assert state() == before


ALLOWED = {
    "orders": {
        "limit_price", "stop_price", "strategy", "broker", "note", "client_order_id", "expire_at", "time_in_force", "size_by",
        "lots", "trail_amount", "trail_percent", "good_after", "min_quantity", "display_quantity",
        "reduce_only", "self_trade_prevention",
        "algo",
        "do_not_reduce",
        "group", "partial_fills",
    },
    "executions/{id}/correct": {"quantity"},
    "accounts/{code}/trades": {"fees"},
    "orders/{id}/cancel": {"reason"},
    "orders/{id}/pause": {"cancel_working"},
    "orders/{id}/group/cancel": {"reason"},
    "orders/{id}/replace": {"limit_price", "stop_price", "time_in_force", "quantity", "expected_version"},
    "orders/cancel": {"symbol", "strategy", "side", "account"},
    "risk/limits": {"currency", "soft", "aggregate", "effective_from", "scope", "kind", "value", "reason"},
    "risk/approvals": {"object", "decision", "reason", "content_hash"},
    "risk/account-rules": {
        "borrowing", "haircuts", "settled_only", "locates", "day_trading", "migrated_on", "self_trade", "since",
    },
    "risk/locates": {"day"},
    "risk/compliance/rules": {"effective_to"},
    "risk/halts": {"cancel_open"},
    "accounts": {"name", "lot_method", "commissions", "wash_sales", "valued_at"},
    "accounts/{code}/lot-policies": {"commissions", "wash_sales"},
    "accounts/{code}/transfers": {"to", "broker"},
    "statements": {"name", "file", "profile", "as_of", "since", "partial"},
    "reconciliations": {"date", "override"},
    "breaks/{id}/resolve": {"price"},
    "accounts/{code}/settlements/{id}": {"quantity"},
    "corporate-actions": {
        "currency", "record_date", "pay_date", "declared_on", "ratio", "target", "cash_in_lieu", "cost_share", "price",
        "own_price", "new_symbol", "elections",
    },
    "corporate-actions/{id}/apply": {"cash_in_lieu"},
    "rebalances": {"account", "accounts", "targets", "model", "key", "reason", "method"},
    "rebalances/{id}/approve": {"content_hash", "decision", "reason"},
    "rebalances/{id}/cancel": {"reason"},
    "model-portfolios": {"name"},
    "accounts/{code}/rebalance-rule": {"model", "next_on", "second_person", "method"},
    "blocks": {"order_type", "limit_price", "stop_price", "time_in_force", "client_order_id", "broker", "note"},
    "accounts/{code}/grants": {"expires_at"},
    "brokers": {"name"},
    "quotes": {"bid_size", "ask_size", "last", "volume"},
}  # fmt: skip
"""Names that a body may hold beside those of the row's example."""
ALLOWED["orders/preview"] = ALLOWED["orders/batch"] = ALLOWED["orders"]


def _example(body: Any) -> dict[str, Any]:
    inner = body[0] if isinstance(body, list) else body
    return inner["orders"][0] if "orders" in inner else inner


def _forge(body: Any, names: Iterable[str]) -> Any:
    forged = _example(body) | dict.fromkeys(names, "forged")
    if isinstance(body, list):
        return [forged]
    return {"orders": [forged]} if "orders" in body else forged


def _refused(answer: Any) -> list[str]:
    """Return the fields that an answer refuses; a batch answers 200 with a problem for each order."""
    body = answer.json()
    problems = [p["problem"] for p in body["results"]] if "results" in body else [body]
    assert all(p["status"] == 400 for p in problems), answer.content
    faults = [e for p in problems for e in p["errors"]]
    return [e["field"] for e in faults if e["code"] == "unknown_field"]


# ---------------------------------------------------------------- G03


@pytest.mark.parametrize(
    ("role", "path", "body"),
    [
        ("trader", "risk/halts/{halt}/release", {"reason": "x"}),
        ("trader", "risk/limits", {"scope": {"firm": True}, "kind": "position", "value": "1", "reason": "x"}),
        ("trader", "accounts/MAIN/transfers", {}),
        ("risk", "orders", BUY),
        ("ops", "accounts/MAIN/grants", {"user": "oona"}),
        ("auditor", "quotes", []),
    ],
)
def test_g03_a_refusal_is_answered_and_written_down(house: House, role: str, path: str, body: Any) -> None:
    answer = house.clients[role].post(path.format(**house.things), body)
    assert answer.status_code == 403
    event = Event.objects.get(kind="access.refused")
    data = json.loads(event.body)["data"]
    assert event.actor == f"user:{house.people[role].username}"
    assert (data["method"], data["code"]) == ("POST", "role_required")
    assert data["path"] == f"/api/v1/{path.format(**house.things)}"
    house.desk.holds()


def test_g03_a_flood_of_refusals_does_not_fill_the_chain(house: House) -> None:
    for _ in range(60):
        assert house.clients["trader"].post("risk/limits").status_code == 403
    assert 1 <= Event.objects.filter(kind="access.refused").count() < 50


# ---------------------------------------------------------------- G14


def test_g14_the_key_of_another_leaks_no_answer(house: House) -> None:
    theirs = house.owner.post("orders", BUY | {"client_order_id": "k-1", "quantity": "7"}, **{"Idempotency-Key": "k-1"})
    assert theirs.status_code == 201
    otto = house.clients["trader"]
    for ask in (BUY | {"client_order_id": "k-1", "quantity": "7"}, BUY):
        foreign = otto.post("orders", ask, **{"Idempotency-Key": "k-1"})
        assert (foreign.status_code, foreign.json()["code"]) == (400, "unknown_account")
    mine = otto.post("orders", BUY | {"account": "ALPHA", "client_order_id": "k-1"}, **{"Idempotency-Key": "k-1"})
    assert mine.status_code == 201
    assert mine.json()["id"] != theirs.json()["id"]
    assert "Idempotent-Replayed" not in mine.headers
    assert IdempotencyKey.objects.filter(key="k-1").count() == 2


# ---------------------------------------------------------------- G16


def test_g16_no_private_answer_may_be_kept_by_a_cache(house: House) -> None:
    browser = Client()
    browser.force_login(house.people["admin"])
    answers = [browser.get(f"/{p}") for p in sorted(PAGES)]
    for (method, route), row in ROWS.items():
        path = address(route, house.things, row.place)
        answers += [p.call(method, path, row.body) for p in (Program(), house.owner, house.clients["auditor"])]
    answers += [browser.get("/admin/"), browser.get("/nothing"), browser.get("/api/v1/nothing")]
    for answer in answers:
        told = (answer.request["PATH_INFO"], answer.status_code)
        assert "no-store" in answer.headers["Cache-Control"], told
        assert answer.headers["X-Content-Type-Options"] == "nosniff", told
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], told
        assert answer.headers["Referrer-Policy"] == "same-origin", told
        assert not answer.headers.get("ETag"), told


# ---------------------------------------------------------------- what counts as unchanged


def state() -> Any:
    """Return what a write would change."""
    orders = list(Order.objects.order_by("id").values())
    told = Event.objects.exclude(stream__name="security").count()
    return orders, told, LedgerTransaction.objects.count(), IdempotencyKey.objects.count()


def test_the_state_sees_a_write(desk: Desk) -> None:
    before = state()
    desk.place("buy 1 AAPL")
    assert state() != before
