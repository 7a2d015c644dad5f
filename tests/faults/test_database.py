"""What PostgreSQL can do to the order entry: die at COMMIT, deadlock, fill up, crawl. A real server, a real web process."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.db import connection

from orders.models import Order, Submission
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults import proof
from tests.faults.client import Client, Intent
from tests.faults.conftest import database_url
from tests.faults.nursery import Nursery
from tests.faults.proxy import Proxy
from tests.faults.test_crash_points import Web

pytestmark = pytest.mark.django_db(transaction=True)
CROSSING = 16
ROUNDS_MAX = 8
"""Callers, and as many transactions that take the same locks the other way round: 32 at once."""
HELD = 100
HALT_SECONDS_MAX = 1.0
SHED_SECONDS_MAX = 1.0


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    told = connection.settings_dict
    with Proxy(told["HOST"], int(told["PORT"])) as one:
        yield one


@pytest.fixture
def behind(proxy: Proxy, tmp_path: Path, live_desk: Desk) -> Iterator[Nursery]:
    """Processes that reach the database through the proxy."""
    told = connection.settings_dict
    url = f"postgresql://{told['USER']}:{told['PASSWORD']}@127.0.0.1:{proxy.port}/{told['NAME']}"
    one = Nursery(url, tmp_path / "behind.log")
    yield one
    one.close()


def wanted(key: str, quantity: int = 5, side: str = "buy") -> Intent:
    return Intent(
        key, {"account": "MAIN", "symbol": "AAPL", "side": side, "quantity": str(quantity), "order_type": "market"}
    )


def refresh(desk: Desk) -> None:
    desk.at = datetime.now(UTC)
    desk.quote("AAPL", "100.00", "100.02")


@pytest.mark.parametrize("side", ["before", "after"])
def test_d06_a_connection_that_dies_at_commit_leaves_one_order(
    live_desk: Desk, proxy: Proxy, behind: Nursery, client: Client, join: Callable[..., Venue], side: str
) -> None:
    """Whether the commit happened nobody knows; the caller repeats its key and is told."""
    join()
    refresh(live_desk)
    Web(behind, client).start()
    first, second = wanted("first"), wanted("second", 6)
    client.insist(first, 20)

    proxy.cut = side
    assert client.place(second).status == 503
    assert Order.objects.filter(idempotencykey__key="second").count() == (side == "after")
    client.insist(second, 20)
    client.place(second)

    assert proxy.cuts == 1
    assert [a.status for a in second.answers] == [503, 200 if side == "after" else 201, 200]
    assert proof.compare_with_clients(database_url(), [first, second]) == 2
    assert Order.objects.count() == 2
    live_desk.holds()


def test_d07_deadlocks_are_run_again_and_nobody_sees_them(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    join()
    refresh(live_desk)
    Web(nursery, client).start()
    before, over, intents = deadlocks(), threading.Event(), list[Intent]()
    crossers = [threading.Thread(target=_cross, args=(over, n)) for n in range(CROSSING)]
    for thread in crossers:
        thread.start()
    for _ in range(ROUNDS_MAX):  # whether two cross is chance: once round is enough mostly
        several = range(len(intents), len(intents) + CROSSING * 4)
        more = [wanted(f"crossing-{n}", 1 + n % 90, ("buy", "sell_short")[n % 2]) for n in several]
        callers = [threading.Thread(target=_call, args=(client, more[n::CROSSING])) for n in range(CROSSING)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        intents += more
        if deadlocks() > before:
            break
    over.set()
    for thread in crossers:
        thread.join()

    assert deadlocks() > before, "nothing crossed: this proves nothing"
    assert {a.status for i in intents for a in i.answers} <= {201, 200, 503}
    assert proof.compare_with_clients(database_url(), intents) == len(intents)
    live_desk.holds()


def _call(client: Client, intents: list[Intent]) -> None:
    for intent in intents:
        client.insist(intent, 60)
    client.close()


def _cross(over: threading.Event, number: int) -> None:
    """Take the journal's head before the account, which nobody else does."""
    rng = random.Random(number)
    with psycopg.connect(database_url()) as link:
        while not over.wait(rng.uniform(0, 2)):
            try:
                link.execute("SET LOCAL lock_timeout = '4s'")
                link.execute("SELECT 1 FROM journal_stream WHERE name = 'account:MAIN' FOR UPDATE")
                time.sleep(0.02)
                link.execute("SELECT 1 FROM portfolio_account WHERE code = 'MAIN' FOR NO KEY UPDATE")
                link.commit()
            except psycopg.OperationalError:
                link.rollback()


def deadlocks() -> int:
    [(count,)] = proof.rows(database_url(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


def test_d08_a_halt_needs_nobody_to_let_go(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    """A hundred connections held, one idle with the account's locks, a sender frozen within its claim: halted in a second."""
    from knox.models import get_token_model

    venue = join()
    refresh(live_desk)
    Web(nursery, client).start()
    officer = Client(client.port, get_token_model().objects.create(live_desk.rita)[1])
    assert officer.call("GET", "/api/v1/risk/halts").status == 200
    live_desk.place("buy 5 AAPL")
    frozen = nursery.start("send", "NEAR", crash="before_commit:1:SIGSTOP")
    _until(lambda: psutil.Process(frozen).status() == psutil.STATUS_STOPPED)

    with ExitStack() as held:
        for _ in range(HELD):
            held.enter_context(psycopg.connect(database_url(), autocommit=True))
        idle = held.enter_context(_idle_in_transaction())
        told = {"scope": {"all": True}, "mode": "halt", "reason": "drill"}
        answer = officer.call("POST", "/api/v1/risk/halts", told)
        idle.close()
    os.kill(frozen, signal.SIGCONT)
    assert nursery.wait(frozen, fails=True) == 1, "its session was ended, and it says so"
    officer.close()

    assert answer.status == 201, answer
    assert answer.seconds < HALT_SECONDS_MAX
    nursery.run("send", "NEAR")
    assert venue.book()["orders"] == []
    assert not Submission.objects.filter(state="sent").exists()
    live_desk.holds()


@contextmanager
def _idle_in_transaction() -> Iterator[psycopg.Connection[Any]]:
    link = psycopg.connect(database_url())
    link.execute("SELECT 1 FROM portfolio_account FOR NO KEY UPDATE")
    link.execute("SELECT 1 FROM journal_stream FOR UPDATE")
    try:
        yield link
    finally:
        link.close()


def test_d10_a_slow_database_sheds_orders_and_sends_none_unrecorded(
    live_desk: Desk, proxy: Proxy, behind: Nursery, nursery: Nursery, client: Client, join: Callable[..., Venue]
) -> None:
    """A second for each statement: who comes while a commit drags on is turned away at once, and may come again."""
    venue = join()
    refresh(live_desk)
    Web(behind, client).start()
    client.insist(wanted("warm"), 20)
    proxy.delay = 1.0
    slow, late = wanted("slow", 6), wanted("late", 7)
    dragging = threading.Thread(target=_call, args=(client, [slow]))
    dragging.start()
    time.sleep(7)
    client.close()  # the web hangs up what was idle for 5 s

    turned_away = client.place(late)
    sender = behind.start("send", "NEAR")
    time.sleep(5)
    proxy.delay = 0.0
    dragging.join()
    client.insist(late, 20)
    behind.wait(sender)
    gateway = nursery.start("follow", "NEAR", "60")
    proof.wait_until_all_ended(database_url(), 60)
    nursery.kill(gateway)

    assert turned_away.status == 503
    assert b"overloaded" in turned_away.body
    assert turned_away.seconds < SHED_SECONDS_MAX
    assert Order.objects.count() == 3
    proof.compare_with_books(database_url(), {"NEAR": venue.book()})
    live_desk.holds()


def _until(so: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.05)


FULL_TABLES = (
    "orders_order",
    "orders_childorder",
    "orders_submission",
    "orders_idempotencykey",
    "risk_hold",
    "risk_riskcheck",
    "routing_routingdecision",
)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 32 MB that holds the tables of orders; the log and the journal stay where there is room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        for parent in folder.parents[: len(folder.parents) - 2]:
            parent.chmod(parent.stat().st_mode | 0o011)
        [(data,)] = proof.rows(database_url(), "SHOW data_directory")
        server = Path(data).stat()
        space = folder / "tables"
        space.mkdir(mode=0o700)
        os.chown(space, server.st_uid, server.st_gid)
        _run(f"CREATE TABLESPACE small LOCATION '{space}'")
        try:
            _move("small")
            yield folder
        finally:
            _move("pg_default")
            _run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _move(space: str) -> None:
    for table in FULL_TABLES:
        _run(f"ALTER TABLE {table} SET TABLESPACE {space}")
        indexes = proof.rows(database_url(), f"SELECT indexname FROM pg_indexes WHERE tablename = '{table}'")
        for (index,) in indexes:
            _run(f'ALTER INDEX "{index}" SET TABLESPACE {space}')


def _run(statement: str) -> None:
    with psycopg.connect(database_url(), autocommit=True) as link:
        link.execute(statement)


def test_d09_a_full_disk_refuses_orders_and_leaves_nothing_half_done(
    live_desk: Desk, nursery: Nursery, client: Client, join: Callable[..., Venue], tmp_path: Path
) -> None:
    """Reads and halts go on; what was refused under its key is taken under the same key when there is room again."""
    from knox.models import get_token_model

    join()
    refresh(live_desk)
    with _small_disk(tmp_path / "disk") as disk:
        Web(nursery, client).start()
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        intents, refused = [], None
        while refused is None:
            intents.append(wanted(f"full-{len(intents)}", 1 + len(intents), ("buy", "sell_short")[len(intents) % 2]))
            answer = client.place(intents[-1])
            assert answer.status in (201, 503), answer
            refused = intents[-1] if answer.status == 503 else None
            assert len(intents) < 2_000, "the disk was never full"

        listed = client.call("GET", "/api/v1/orders?limit=5")
        officer = Client(client.port, get_token_model().objects.create(live_desk.rita)[1])
        halted = officer.call(
            "POST", "/api/v1/risk/halts", {"scope": {"symbol": "MSFT"}, "mode": "halt", "reason": "drill"}
        )
        officer.close()
        half_done = proof.rows(
            database_url(),
            "SELECT id FROM risk_hold h WHERE NOT EXISTS (SELECT 1 FROM orders_order o WHERE o.id = h.id)",
        )
        filler.unlink()
        client.insist(refused, 20)

        assert listed.status == 200
        assert halted.status == 201
        assert half_done == []
        assert [a.status for a in refused.answers][-1] == 201
        assert proof.compare_with_clients(database_url(), intents) == len(intents)
        live_desk.holds()
        nursery.close()
