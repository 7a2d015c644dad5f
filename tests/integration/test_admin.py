"""The admin as each role meets it: who sees what, who edits what, and that edits are told."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from knox.models import AuthToken

from oms.journal.models import Event
from oms.kernel import json
from oms.runtime import sessions
from portfolio.models import Account, AccountGrant
from tests.conftest import Desk

OURS = ("brokers", "journal", "orders", "portfolio", "risk", "routing")


@pytest.fixture(autouse=True)
def quiet(settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path  # whitenoise warns of a folder that is not there


def inside(client: Any, user: Any, role: str = "", **more: bool) -> Any:
    """Log a user into the admin, in one role more."""
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    User.objects.filter(pk=user.pk).update(is_staff=True, **more)
    assert sessions.BEGAN  # a log-in is dated from the moment this module is there, as it is in every request
    client.force_login(user)
    return client


def pages() -> list[str]:
    """Return the address of every list of ours."""
    return [
        f"/admin/{m._meta.app_label}/{m._meta.model_name}/"
        for m in admin.site._registry
        if m._meta.app_label in OURS and not m.__name__.startswith("Historical")
    ]


def test_every_model_stands_in_the_admin() -> None:
    from django.apps import apps

    ours = {m for m in apps.get_models() if m._meta.app_label in OURS and not m.__name__.startswith("Historical")}
    assert ours - set(admin.site._registry) == set()


@pytest.mark.parametrize("role", ["risk", "ops", "auditor", "admin"])
def test_officers_open_every_list_and_the_rows_in_it(desk: Desk, client: Any, role: str) -> None:
    placed = desk.place("buy 10 AAPL limit 99")[0]
    inside(client, desk.omar, role)
    assert {p: client.get(p).status_code for p in pages()} == dict.fromkeys(pages(), 200)
    page = client.get(f"/admin/orders/order/{placed.order_id}/change/").content.decode()
    assert "99.0000" not in page
    assert "10.0000" not in page


def test_a_trader_sees_own_orders_and_nothing_else(desk: Desk, client: Any) -> None:
    own = desk.place("buy 10 AAPL limit 99")[0]
    inside(client, desk.alice)
    assert [p for p in pages() if client.get(p).status_code == 200] == ["/admin/orders/order/"]
    assert "AAPL" in client.get("/admin/orders/order/?open=yes").content.decode()
    assert "AAPL" not in client.get("/admin/orders/order/?open=no").content.decode()
    inside(client, desk.otto)
    assert "AAPL" not in client.get("/admin/orders/order/").content.decode()
    assert client.get(f"/admin/orders/order/{own.order_id}/change/").status_code == 302


def test_orders_are_replaced_and_canceled_after_a_question(desk: Desk, client: Any) -> None:
    placed = desk.place("buy 10 AAPL limit 99")[0]
    inside(client, desk.alice)
    chosen = {"_selected_action": [str(placed.order_id)], "action": "cancel"}
    asked = client.post("/admin/orders/order/", chosen).content.decode()
    assert "buy 10 AAPL limit 99 in MAIN" in asked
    assert desk.order(placed).status == "pending_new"
    client.post("/admin/orders/order/", chosen | {"confirmed": "yes"})
    assert desk.order(placed).status == "canceled"


def test_an_edit_is_told_with_what_stood_before(desk: Desk, client: Any) -> None:
    inside(client, desk.oona)
    where = f"/admin/portfolio/account/{Account.objects.get(code='MAIN').pk}/change/"
    assert client.post(where, {"name": "Main book", "status": "closed", "valued_at": "mid"}).status_code == 302
    event = Event.objects.get(kind="account.edited")
    told = json.loads(event.body)["data"]
    assert event.actor == "user:oona"
    assert (told["before"]["status"], told["after"]["status"]) == ("open", "closed")
    assert Account.objects.get(code="MAIN").history.count() >= 1


def test_only_an_administrator_grants_and_the_grants_end_is_told(desk: Desk, client: Any) -> None:
    grant = AccountGrant.objects.get()
    inside(client, desk.oona)
    assert client.post(f"/admin/portfolio/accountgrant/{grant.pk}/delete/", {"post": "yes"}).status_code == 403
    inside(client, desk.omar, "admin")
    assert client.post(f"/admin/portfolio/accountgrant/{grant.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not AccountGrant.objects.exists()
    assert Event.objects.get(kind="accountgrant.deleted").object_id == str(grant.pk)


def test_a_new_role_is_told(desk: Desk, client: Any) -> None:
    inside(client, desk.omar, is_superuser=True)
    person = {
        "username": "otto",
        "is_active": "on",
        "is_staff": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
    }
    roles = [Group.objects.get(name="risk").pk]
    answer = client.post(f"/admin/auth/user/{desk.otto.pk}/change/", person | {"groups": roles})
    assert answer.status_code == 302, answer.context["errors"]
    told = json.loads(Event.objects.get(kind="user.edited").body)["data"]
    assert (told["before"]["roles"], told["after"]["roles"]) == (["trader"], ["risk"])


def test_a_token_is_revoked_by_administrators_alone(desk: Desk, client: Any) -> None:
    token, _ = AuthToken.objects.create(user=desk.alice)
    where = f"/admin/knox/authtoken/{token.pk}/delete/"
    inside(client, desk.oona)
    assert client.post(where, {"post": "yes"}).status_code == 403
    inside(client, desk.omar, "admin")
    assert client.post(where, {"post": "yes"}).status_code == 302
    assert not AuthToken.objects.exists()


def test_a_secret_of_a_broker_is_neither_shown_nor_told(desk: Desk, client: Any) -> None:
    from brokers.models import Broker

    broker = Broker.objects.get(code="NEAR")
    Broker.objects.filter(pk=broker.pk).update(settings={"key": "s3cret"})
    inside(client, desk.omar, "admin")
    where = f"/admin/brokers/broker/{broker.pk}/change/"
    assert "s3cret" not in client.get(where).content.decode()
    client.post(where, {"code": "NEAR", "name": "Near by", "adapter": "scripted", "enabled": "on"})
    assert Broker.objects.get(pk=broker.pk).settings == {"key": "s3cret"}
    assert "s3cret" not in Event.objects.get(kind="broker.edited").body


def test_the_front_page_counts_what_needs_attention(desk: Desk, client: Any) -> None:
    desk.place("buy 10 AAPL limit 99")
    inside(client, desk.rita)
    page = client.get("/admin/").content.decode()
    assert "Halts engaged" in page
    assert "Open orders" in page
    inside(client, desk.alice)
    assert "Halts engaged" not in client.get("/admin/").content.decode()


def test_a_browser_is_led_to_the_log_in_for_the_apis_pages_and_a_program_is_refused(desk: Desk, client: Any) -> None:
    answer = client.get("/api/docs/", headers={"Accept": "text/html,*/*"})
    assert (answer.status_code, answer.url) == (302, "/login/?next=/api/docs/")
    assert client.get("/api/docs/", headers={"Accept": "*/*"}).status_code == 401
    inside(client, desk.alice)
    assert client.get("/api/docs/", headers={"Accept": "text/html,*/*"}).status_code == 200
