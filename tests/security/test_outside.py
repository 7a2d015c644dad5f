"""What reaches out and what comes in from machines: hosts of brokers (G12), replays (G07), forged tasks (G15), packages (G17)."""

import hashlib
import json
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from celery.signals import task_postrun
from django.db import connections

from brokers.adapters import build, reach
from brokers.adapters.port import BrokerUnavailable
from brokers.adapters.simulated.connection import Connection
from brokers.models import Broker
from oms.journal.models import Event
from oms.runtime import doorbell
from oms.runtime.redis import client as redis_client
from orders.models import Order, Submission
from portfolio.models import LedgerTransaction
from tests.conftest import Desk
from tests.security.house import ROWS, UNSAFE, House, Program, address
from tests.web import BUY

ROOT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------- G12

FORBIDDEN = [
    "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "::",  # noqa: S104 - nothing is bound
    "169.254.1.1", "fe80::1", "::ffff:169.254.169.254",
    "224.0.0.1", "64:ff9b::a9fe:a9fe",
]  # fmt: skip


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every address that anything tries to connect to."""
    tried: list[Any] = []
    whole = socket.create_connection

    def told(address: Any, *args: Any, **kwargs: Any) -> Any:
        tried.append(address)
        return whole(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", told)
    kept = reach._permitted
    yield tried
    reach.permit(kept)


def connect(host: str) -> None:
    Connection({"host": host, "port": 9}, "orders", deadline=time.monotonic() + 1)


@pytest.mark.parametrize("host", FORBIDDEN)
def test_g12_no_list_of_hosts_opens_what_no_broker_can_be(host: str, connects: list[Any]) -> None:
    reach.permit([host])
    with pytest.raises(BrokerUnavailable) as refused:
        connect(host)
    assert (refused.value.permanent, refused.value.sent, connects) == (True, False, [])


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.5",
        "127.0.0.2",
        "2130706433",
        "0x7f.1",
        "127.1",
        "evil.example",
        "localhost.evil.example",
        "",
        " ",
        "[::1]x",
    ],
)
def test_g12_a_host_that_nobody_named_is_not_reached(host: str, connects: list[Any]) -> None:
    with pytest.raises(BrokerUnavailable):
        connect(host)
    assert connects == []


@pytest.mark.parametrize("answer", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1"])
def test_g12_a_name_that_leads_elsewhere_is_refused_after_resolution(
    answer: str, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach.permit(["broker.example", ".example.net"])
    family = socket.AF_INET6 if ":" in answer else socket.AF_INET
    found = [(family, socket.SOCK_STREAM, 6, "", (answer, 9))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    for host in ("broker.example", "deep.example.net"):
        with pytest.raises(BrokerUnavailable):
            connect(host)
    assert connects == []


def test_g12_a_name_is_resolved_once_and_the_judged_address_is_used(connects: list[Any], monkeypatch: Any) -> None:
    reach.permit(["broker.example"])
    answers = iter(["198.51.100.7", "127.0.0.1", "127.0.0.1"])

    def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 9))]

    assert reach.judge_name("broker.example") is None
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert reach.addresses("broker.example", 9) == [("198.51.100.7", 9)]


def test_g12_in_production_no_host_is_reached_that_the_environment_does_not_name() -> None:
    code = "import os; from django.conf import settings; print(settings.BROKER_HOSTS)"
    env = {
        "OMS_ENV": "production", "OMS_SECRET_KEY": "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz",
        "OMS_HOSTS": "desk.example.com", "DATABASE_URL": "postgresql://oms@127.0.0.1:1/oms", "DJANGO_SETTINGS_MODULE": "oms.settings",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("host", [*FORBIDDEN, "10.0.0.5", "evil.example"])
def test_g12_an_administrator_can_not_add_such_a_broker(house: House, host: str, connects: list[Any]) -> None:
    for settings in ({"host": host, "port": 80}, {"port": 80, "venue": {"base_url": f"http://{host}:80/x"}}):
        answer = house.clients["admin"].post("brokers", {"code": "EVIL", "adapter": "simulated", "settings": settings})
        assert (answer.status_code, answer.json()["code"]) == (400, "host_refused"), answer.content
    assert not Broker.objects.filter(code="EVIL").exists()
    assert connects == []


def test_g12_a_broker_that_may_be_reached_is_added_and_its_settings_stay_inside(house: House) -> None:
    settings = {
        "host": "127.0.0.1",
        "port": 7001,
        "key": "canary-of-the-broker",
        "listings": ["AAPL"],
        "accounts": {"MAIN": "A7"},
    }
    answer = house.clients["admin"].post("brokers", {"code": "THIRD", "adapter": "simulated", "settings": settings})
    assert answer.status_code == 201, answer.content
    assert answer.json()["code"] == "THIRD"
    assert "canary" not in answer.content.decode()
    assert Broker.objects.get(code="THIRD").listings.count() == 1
    house.desk.holds()


def test_a_secret_named_by_its_variable_is_kept_in_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIME_KEY", "from the environment")
    adapter: Any = build("simulated", {"port": 1, "key": {"env": "PRIME_KEY"}})
    assert adapter.settings["key"] == "from the environment"


# ---------------------------------------------------------------- G07


def test_g07_a_hundred_repeats_have_one_effect(house: House) -> None:
    oona = house.clients["ops"]
    transfer = {"kind": "deposit", "currency": "USD", "amount": "5", "reason": "once", "key": "replayed"}
    order = BUY | {"account": "ALPHA", "client_order_id": "replayed"}
    signal = {
        "strategy": "calm", "symbol": "AAPL", "side": "buy", "size_by": {"notional": "1000"}, "account": "ALPHA", "key": "replayed",
    }  # fmt: skip
    otto = house.clients["trader"]
    from portfolio.models import Strategy

    Strategy.objects.get_or_create(code="calm")
    before = LedgerTransaction.objects.count(), Order.objects.count()
    answers = [
        {p.post(path, body).content for _ in range(100)}
        for p, path, body in (
            (oona, "accounts/ALPHA/transfers", transfer),
            (otto, "orders", order),
            (otto, "signals", signal),
        )
    ]
    assert [len(a) for a in answers] == [1, 1, 1], answers
    assert (LedgerTransaction.objects.count() - before[0], Order.objects.count() - before[1]) == (1, 2)


def test_g07_the_same_key_with_another_body_has_no_effect(house: House) -> None:
    oona, otto = house.clients["ops"], house.clients["trader"]
    transfer = {"kind": "deposit", "currency": "USD", "amount": "5", "reason": "once", "key": "swapped"}
    oona.post("accounts/ALPHA/transfers", transfer)
    otto.post("orders", BUY | {"account": "ALPHA", "client_order_id": "swapped"})
    before = LedgerTransaction.objects.count(), Order.objects.count()
    assert oona.post("accounts/ALPHA/transfers", transfer | {"amount": "6"}).status_code == 422
    swapped = otto.post("orders", BUY | {"account": "ALPHA", "client_order_id": "swapped", "quantity": "11"})
    assert swapped.status_code == 422
    assert (LedgerTransaction.objects.count(), Order.objects.count()) == before


def test_g07_nothing_takes_a_push_that_nobody_signed_for(house: House) -> None:
    for (method, route), row in ROWS.items():
        if method not in UNSAFE:
            continue
        for headers in (
            {"X-Signature": "sha256=" + "0" * 64},
            {"X-Hub-Signature-256": "sha256=" + hashlib.sha256(b"").hexdigest(), "Authorization": "Basic YTpi"},
            {"Authorization": "Token"},
            {"Authorization": "Token a b"},
            {"Authorization": "Bearer " + house.owner.token},
        ):
            answer = Program().call(method, address(route, house.things, row.place), row.body, **headers)
            assert answer.status_code in (401, 429), (route, headers, answer.status_code)


# ---------------------------------------------------------------- G15


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def forge(task: str, args: list[Any], *, body: bytes | None = None, kind: str = "application/json") -> None:
    """Put a message into the queue as someone with access to Redis would."""
    raw = json.dumps([args, {}, {}]).encode() if body is None else body
    identifier = str(uuid4())
    message = {
        "body": b64encode(raw).decode(),
        "content-encoding": "utf-8" if kind == "application/json" else "binary",
        "content-type": kind,
        "headers": {"lang": "py", "task": task, "id": identifier, "root_id": identifier, "argsrepr": "", "kwargsrepr": ""},
        "properties": {
            "correlation_id": identifier, "delivery_mode": 2, "delivery_tag": identifier, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0,
        },
    }  # fmt: skip
    redis_client().lpush("celery", json.dumps(message))


def _close(**_: Any) -> None:
    connections.close_all()  # in the worker's thread, which ends with the test


@pytest.mark.django_db(transaction=True)
def test_g15_forged_messages_do_nothing_and_stop_nothing(live_desk: Desk, tmp_path: Path) -> None:
    from celery.contrib.testing.worker import start_worker

    redis_client().delete("celery")
    [placed] = live_desk.place("buy 10 AAPL")
    redis_client().delete("celery", "oms:rung:NEAR", "oms:sending:NEAR")  # the doorbell of this order is lost
    mark = tmp_path / "pickled"
    before = Order.objects.count(), Submission.objects.count(), Event.objects.count()
    forge("orders.send", [], body=pickle.dumps([[Bomb(mark)], {}, {}]), kind="application/x-python-serialize")
    forge("os.system", [f"touch {mark}"])
    forge("orders.send", ["NEAR'; DROP TABLE orders_order; --"])
    forge("orders.send", [{"code": "NEAR"}])
    forge("orders.send", ["NEAR", "more"])
    forge("orders.resolve", [[1, 2, 3]])
    sent = threading.Event()
    live_desk.near.outcome = lambda _, told=live_desk.near.outcome: (sent.set(), told(_))[1]
    doorbell.ring(["NEAR"])
    task_postrun.connect(_close, weak=False)
    with start_worker(current_app, pool="solo", perform_ping_check=False, loglevel="error", shutdown_timeout=20):
        assert sent.wait(30), "a true doorbell behind forged messages is not heard"
    task_postrun.disconnect(_close)
    assert not mark.exists()
    assert (Order.objects.count(), Submission.objects.count()) == before[:2]
    assert len(live_desk.near.sent) == 1
    live_desk.order(placed)


def test_g15_tasks_take_codes_alone_and_travel_as_json() -> None:
    current_app.loader.import_default_modules()
    assert current_app.conf.accept_content == ["json"]
    assert current_app.conf.task_serializer == "json"
    assert current_app.conf.result_backend is None
    import inspect

    ours = {n: t for n, t in current_app.tasks.items() if not n.startswith("celery.")}
    assert {"orders.send", "orders.resolve", "orders.sweep", "journal.checkpoint"} <= set(ours)
    for name, task in ours.items():
        parameters = inspect.signature(task.run).parameters
        assert len(parameters) <= 1, name
        assert all(p.annotation in (str, "str") for p in parameters.values()), name


# ---------------------------------------------------------------- G17


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-uv.txt"])
def test_g17_every_package_is_pinned_to_a_version_and_to_hashes(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^\s;]+", line), line
        hashes = re.findall(r"--hash=sha256:([0-9a-f]+)", line)
        assert hashes, line
        assert all(len(h) == 64 for h in hashes)
        assert "://" not in line
        assert "--index" not in line


def test_g17_what_is_meant_is_what_is_pinned() -> None:
    import tomllib

    meant = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(wanted: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ;]", w)[0].lower().replace("_", "-") for w in wanted}

    def pinned(file: str) -> set[str]:
        return {re.split(r"==|\[", w)[0].lower() for w in (ROOT / file).read_text().splitlines() if "==" in w}

    assert names(meant["dependencies"]) <= pinned("requirements.txt")
    assert names(meant["optional-dependencies"]["dev"]) <= pinned("requirements-dev.txt")


def test_g17_the_set_up_installs_by_hash_and_a_wrong_hash_stops_it(tmp_path: Path) -> None:
    assert "--require-hashes" in (ROOT / "oms" / "bootstrap.py").read_text()
    wheel = tmp_path / "tampered-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tampered.py", "")
        archive.writestr("tampered-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tampered\nVersion: 1.0\n")
        archive.writestr(
            "tampered-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tampered-1.0.dist-info/RECORD", "")
    uv = Path(sys.executable).parent / "uv"
    install = [str(uv), "pip", "install", "--offline", "--no-index", "--find-links", str(tmp_path), "--require-hashes"]
    install += ["--target", str(tmp_path / "there"), "-r", str(tmp_path / "pins.txt")]
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for digest, ends in (("0" * 64, False), (right, True)):
        (tmp_path / "pins.txt").write_text(f"tampered==1.0 --hash=sha256:{digest}\n")
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is ends, done.stderr


def test_g17_the_advisories_are_asked_by_one_command() -> None:
    made = (ROOT / "Makefile").read_text()
    assert re.search(r"^audit-deps:", made, re.MULTILINE)
    assert made.count("pip-audit --require-hashes") == 2
