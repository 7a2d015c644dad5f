"""People's log-ins: forged requests, foreign pages, what ends a socket, and guessing (G04, G05, G06, G13)."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.cookies import SimpleCookie
from typing import Any

import pytest
import redis
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import Client
from knox.models import get_token_model

from oms.asgi import application
from oms.journal.models import Event
from oms.live import hub as hubs
from oms.live.reading import inThread
from oms.runtime import sessions, signin, throttle
from oms.runtime.throttle import Window
from orders.models import Order
from tests.conftest import Desk
from tests.integration.test_live import Line, closed_with, heard, joined, played
from tests.security.house import ROWS, UNSAFE, House, Program, address
from tests.web import BUY, token


@pytest.fixture(autouse=True)
def _connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)  # as the web process has it


def browser(user: Any, **options: Any) -> Client:
    """Return a browser that is logged in and, unlike most tests' ones, judged for forgery."""
    made = Client(enforce_csrf_checks=True, **options)
    made.force_login(user)
    return made


# ---------------------------------------------------------------- G04


def test_g04_a_session_without_the_form_token_changes_nothing(house: House) -> None:
    for user in (house.desk.alice, house.people["risk"], house.people["ops"], house.people["admin"]):
        for given in ({}, {"X-CSRFToken": "x" * 32}, {"X-CSRFToken": "x" * 64, "Origin": "https://evil.example"}):
            client = browser(user)
            client.cookies["csrftoken"] = "y" * 32
            before = Order.objects.count(), Event.objects.exclude(stream__name="security").count()
            for (method, route), row in ROWS.items():
                if method in UNSAFE:
                    path = "/api/v1/" + address(route, house.things, row.place)
                    answer = client.generic(
                        method, path, json.dumps(row.body), content_type="application/json", headers=given
                    )
                    assert answer.status_code == 403, (route, given)
            assert (Order.objects.count(), Event.objects.exclude(stream__name="security").count()) == before


@pytest.mark.parametrize("path", ["/login/", "/logout/", "/admin/login/", "/admin/logout/", "/admin/orders/order/"])
def test_g04_forms_need_the_token_too(house: House, path: str) -> None:
    client = browser(house.people["admin"])
    assert client.post(path, {"username": "admin-person", "password": "demo"}).status_code == 403


def test_g04_a_form_of_another_kind_is_no_order(house: House) -> None:
    client, before = browser(house.desk.alice), Order.objects.count()
    client.get("/")
    secret = client.get("/login/", follow=True) and client.cookies.get("csrftoken")
    given = {"X-CSRFToken": secret.value} if secret else {}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client.generic("POST", "/api/v1/orders", json.dumps(BUY), content_type=kind, headers=given)
        assert answer.status_code in (403, 415), kind
    assert Order.objects.count() == before


def test_g04_reading_changes_nothing_and_logging_out_is_no_reading(house: House) -> None:
    client = browser(house.desk.alice)
    assert client.get("/logout/").status_code == 405
    assert client.get("/").status_code == 200
    for route in {r for m, r in ROWS if m == "POST"} - {r for m, r in ROWS if m == "GET"}:
        answer = client.get("/api/v1/" + address(route, house.things, ROWS["POST", route].place))
        assert answer.status_code in (403, 404, 405), route


# ---------------------------------------------------------------- G05


def page(user: Any, **headers: str) -> Line:
    """Return a browser's socket through the whole application: its cookie, and whatever page opened it."""
    client = Client()
    client.force_login(user)
    cookie = SimpleCookie({"sessionid": client.cookies["sessionid"].value}).output(header="").strip().split(";")[0]
    told = {"host": "localhost", "cookie": cookie, **headers}
    made = Line([(k.encode(), v.encode()) for k, v in told.items()], [])
    made.application = application
    return made


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "origin",
    [
        None, "null", "", "https://evil.example", "http://localhost.evil.example", "http://evil-localhost", "http://localhost@evil.example",
        "http://localhost:81", "file://", "javascript://localhost%0aalert(1)",
    ],
)  # fmt: skip
def test_g05_a_foreign_page_gets_no_socket_though_the_cookie_is_valid(live_desk: Desk, origin: str | None) -> None:
    line = page(live_desk.alice, **({} if origin is None else {"origin": origin}))

    async def scenario() -> None:
        if origin and "localhost%0a" in origin:
            assert (await line.connect())["type"] == "websocket.close"
            return
        assert await line.connect() == {"type": "websocket.close", "code": 4403}

    played(scenario)


@pytest.mark.django_db(transaction=True)
def test_g05_our_own_page_gets_its_socket(live_desk: Desk) -> None:
    line = page(live_desk.alice, origin="http://localhost")

    async def scenario() -> None:
        assert (await line.connect())["type"] == "websocket.accept"
        await line.say('{"type":"subscribe","accounts":["MAIN","EURO","ALPHA"]}')
        assert {(await heard(line))["account"] for _ in range(3)} == {"MAIN", "EURO", "ALPHA"}
        await line.disconnect()

    played(scenario)


# ---------------------------------------------------------------- G06

WITHIN_SECONDS = 5.0


def revoke_session(desk: Desk) -> None:
    Session.objects.all().delete()


def change_password(desk: Desk) -> None:
    desk.alice.set_password("another one")
    desk.alice.save()


def age_session(desk: Desk) -> None:
    row = Session.objects.get()
    data = row.get_decoded() | {sessions.BEGAN: int(time.time()) - 13 * 3600}
    Session.objects.update(session_data=sessions.SessionStore().encode(data))


def idle_session(desk: Desk) -> None:
    Session.objects.update(expire_date=datetime.now(UTC) - timedelta(seconds=1))


def switch_off(desk: Desk) -> None:
    type(desk.alice).objects.filter(pk=desk.alice.pk).update(is_active=False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [revoke_session, change_password, age_session, idle_session, switch_off])
def test_g06_what_ends_a_log_in_ends_its_socket(live_desk: Desk, end: Any) -> None:
    line = page(live_desk.alice, origin="http://localhost")

    async def scenario() -> None:
        await line.connect()
        await line.say('{"type":"subscribe","accounts":["MAIN"]}')
        assert (await heard(line))["type"] == "snapshot"
        await inThread(end)(live_desk)
        began = time.monotonic()
        assert await closed_with(line) == hubs.INVALID_TOKEN
        assert time.monotonic() - began < WITHIN_SECONDS
        assert await line.receive_nothing(0.3)

    played(scenario)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["grant", "expired grant", "role", "token", "expired token"])
def test_g06_what_is_withdrawn_is_heard_no_more(live_desk: Desk, what: str) -> None:
    user = live_desk.rita if what == "role" else live_desk.alice
    secret, past = token(user), datetime.now(UTC) - timedelta(seconds=1)
    withdraw = {
        "grant": lambda: live_desk.account.grants.all().delete(),
        "expired grant": lambda: live_desk.account.grants.update(expires_at=past),
        "role": user.groups.clear,
        "token": lambda: get_token_model().objects.all().delete(),
        "expired token": lambda: get_token_model().objects.update(expiry=past),
    }[what]

    async def scenario() -> None:
        line, _ = await joined(secret)
        await inThread(withdraw)()
        began = time.monotonic()
        if "token" in what:
            assert await closed_with(line) == hubs.INVALID_TOKEN
        else:
            assert await heard(line, "error") == {"type": "error", "code": "not_found", "account": "MAIN"}
        assert time.monotonic() - began < WITHIN_SECONDS
        await inThread(_trade)(live_desk)
        assert await line.receive_nothing(1.5)

    played(scenario)


def _trade(desk: Desk) -> None:
    """Make something happen in MAIN, whoever may do it by now."""
    from portfolio import operations

    operations.transfer(
        account="MAIN", kind="deposit", currency="USD", amount=Decimal(1), to="", reason="", key="g06",
        actor=desk.actor(desk.oona), at=datetime.now(UTC),
    )  # fmt: skip


# ---------------------------------------------------------------- a log-in ends


def test_a_log_in_ends_after_half_an_hour_without_a_request(desk: Desk) -> None:
    client = browser(desk.alice)
    assert client.get("/").status_code == 200
    session = client.session
    session[sessions.SEEN] = int(time.time()) - 1_900
    session.save()
    assert client.get("/").status_code == 302
    assert client.get("/api/v1/orders").status_code in (401, 403)


def test_a_log_in_ends_after_twelve_hours_however_busy(desk: Desk) -> None:
    client = browser(desk.alice)
    session = client.session
    session[sessions.BEGAN] = int(time.time()) - 12 * 3600 - 1
    session.save()
    assert client.get("/api/v1/orders").status_code in (401, 403)
    assert client.get("/").status_code == 302


def test_a_request_a_minute_keeps_a_log_in_alive_and_writes_no_more_often(desk: Desk) -> None:
    client = browser(desk.alice)
    session = client.session
    session[sessions.SEEN] = int(time.time()) - 61
    session.save()
    client.get("/")
    seen = client.session[sessions.SEEN]
    assert time.time() - seen < 5
    client.get("/")
    assert client.session[sessions.SEEN] == seen


def test_the_session_changes_its_key_at_the_log_in(desk: Desk) -> None:
    client = Client()
    client.get("/login/")
    session = client.session
    session["fixed"] = "by an attacker"
    session.save()
    before = session.session_key
    client.post("/login/", {"username": "alice", "password": "demo"})
    assert client.session.session_key not in (None, before)


# ---------------------------------------------------------------- G13


def forget_guesses() -> None:
    signin._local.clear()
    for pattern in ("oms:signin:*", "oms:rate:refusals:*"):
        for key in signin.client().scan_iter(pattern):
            signin.client().delete(key)


@pytest.fixture(autouse=True)
def _clean_slate() -> None:
    forget_guesses()


def log_in(name: str, password: str, path: str = "/login/", **extra: Any) -> Any:
    return Client(**extra).post(path, {"username": name, "password": password})


@pytest.mark.parametrize("path", ["/login/"])  # the admin's own leads there
def test_g13_guessing_waits_longer_each_time_and_the_right_password_waits_too(desk: Desk, path: str) -> None:
    desk.alice.is_staff = True
    desk.alice.save()
    for _ in range(signin.FREE_TRIES + 1):
        assert log_in("alice", "guess", path).status_code == 200
    right = log_in("alice", "demo", path)
    assert right.status_code == 200  # the form again: locked
    assert log_in("otto", "demo", "/login/").status_code == 302  # others go on
    waits = []
    now = time.time()
    for _ in range(12):
        key = next(
            k for k in signin.client().scan_iter("oms:signin:name:*") if k.decode().startswith("oms:signin:name")
        )
        signin._fail(key.decode().removeprefix("oms:signin:"), now)
        waits.append(signin._wait(key.decode().removeprefix("oms:signin:"), signin.FREE_TRIES, now))
    assert waits == sorted(waits)
    assert waits[1] == pytest.approx(2 * waits[0], rel=0.01)
    assert waits[-1] == pytest.approx(signin.WAIT_SECONDS_MAX, rel=0.01)
    failed = Event.objects.filter(kind="login.failed", object_id="alice")
    assert failed.count() >= signin.FREE_TRIES + 1
    assert '"guess"' not in "".join(e.body for e in failed)


def test_g13_a_lock_ends_by_itself_and_a_success_clears_the_count(desk: Desk) -> None:
    for _ in range(signin.FREE_TRIES + 1):
        log_in("alice", "guess")
    assert log_in("alice", "demo").status_code == 200
    time.sleep(1.1)
    assert log_in("alice", "demo").status_code == 302
    assert not list(signin.client().scan_iter("oms:signin:name:*"))
    assert Event.objects.filter(kind="login.succeeded", actor="user:alice").count() == 1


def test_g13_spraying_one_password_over_many_names_locks_the_address(desk: Desk) -> None:
    for number in range(signin.ADDRESS_FREE_TRIES + 1):
        log_in(f"name-{number}", "Summer2026!", REMOTE_ADDR="203.0.113.9")
    assert log_in("alice", "demo", REMOTE_ADDR="203.0.113.9").status_code == 200
    assert log_in("alice", "demo", REMOTE_ADDR="198.51.100.1").status_code == 302


def test_g13_a_name_that_is_nobodys_is_answered_and_counted_like_any(desk: Desk) -> None:
    known, unknown = log_in("alice", "guess"), log_in("nobody-here", "guess")
    words = [a.content.decode().replace("nobody-here", "alice") for a in (known, unknown)]
    without_form_token = [re.sub(r'value="[^"]{30,}"', "", w) for w in words]
    assert without_form_token[0] == without_form_token[1]
    for _ in range(signin.FREE_TRIES + 1):
        log_in("nobody-here", "guess")
    assert len(list(signin.client().scan_iter("oms:signin:name:*"))) == 2
    assert not Event.objects.filter(body__contains="nobody-here").exists()


def test_g13_a_wrong_name_takes_as_long_as_a_wrong_password(desk: Desk, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
    desk.alice.set_password("demo")
    desk.alice.save()
    backend = signin.PatientBackend()

    def seconds(name: str) -> float:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            assert backend.authenticate(None, username=name, password="guess") is None
            taken.append(time.perf_counter() - began)
            forget_guesses()
        return min(taken)

    assert 0.5 < seconds("nobody-here") / seconds("alice") < 2


def test_g13_counting_goes_on_without_redis(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = redis.Redis(port=1, socket_connect_timeout=0.2, retry=None)
    monkeypatch.setattr(signin, "client", lambda: dead)
    monkeypatch.setattr(throttle, "client", lambda: dead)
    for _ in range(signin.FREE_TRIES + 1):
        log_in("alice", "guess")
    assert log_in("alice", "demo").status_code == 200


def test_g13_guessed_tokens_are_slowed_by_address(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "TOKENS", Window("wrong-tokens-few", 3, fallback=True))
    answers = [Program("f" * 64).get("orders").status_code for _ in range(30)]
    assert set(answers) == {401, 429}
    assert house.owner.get("orders").status_code == 200
