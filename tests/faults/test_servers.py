"""Redis and PostgreSQL die under load, again and again, below a whole desk with everything running and real calls.

What was promised is there, nothing is at a broker twice, the books agree, and all of it ends soon after. Two
rounds of each stand in the default suite; `make faults` does twenty (CYCLES).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from oms.runtime.watchdog import DEAF_SECONDS
from oms.supervisor.readiness import missing
from tests.faults import proof
from tests.faults.client import Client, Load
from tests.faults.desk import ROOT, Desk, environment
from tests.faults.report import publish

SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOGL", "META", "TSLA", "JPM", "V", "XOM", "KO", "SPY", "QQQ", "IWM")
ENDED_SECONDS_MAX = 60.0
SERVES_SECONDS_MAX = 30.0
"""How soon after a server was killed an order must be promised again."""
SHORT, LONG = 2, int(os.environ.get("CYCLES", "20"))
SEED = int(os.environ.get("SEED", "7"))
pytestmark = pytest.mark.xdist_group("desk")
cycles = pytest.mark.parametrize("cycles", [SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["few", "many"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    one = Desk(tmp_path_factory.mktemp("desk") / "data")
    try:
        yield one.open()
    finally:
        one.close()


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    one = desk.client()
    yield one
    one.close()


def ticket(rng: random.Random) -> dict[str, str]:
    side = rng.choice(("buy", "sell_short"))
    return {
        "account": "MAIN",
        "symbol": rng.choice(SYMBOLS),
        "side": side,
        "quantity": str(rng.randint(1, 300)),
        "order_type": "market",
    }


def load(client: Client, name: str) -> Load:
    return Load(client, ticket, threads=6, seed=SEED, name=name, pause=0.1)


def until_promised(running: Load) -> float:
    """Return the seconds until an order that was asked for from now on is promised."""
    started = time.monotonic()
    known = len(running.intents)
    while not any(i.promised() for i in running.intents[known:]):
        waited = time.monotonic() - started
        assert waited < SERVES_SECONDS_MAX, f"no order was taken for {waited:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - started


def end(desk: Desk, running: Load, proof_name: str, cycles: int, **figures: Any) -> None:
    """Stop the load, wait until nothing is open, compare with clients and brokers, and report."""
    running.stop()
    ended = proof.wait_until_all_ended(desk.urls["database"], ENDED_SECONDS_MAX)
    promised = proof.compare_with_clients(desk.urls["database"], running.intents, prefix=f"{running.name}-")
    desk.agree()
    assert promised > cycles
    if cycles == LONG:
        calls = sum(len(i.answers) for i in running.intents)
        publish(proof_name, n=promised, cycles=cycles, calls=calls, ended_seconds=round(ended, 1), seed=SEED, **figures)


@cycles
def test_d01_redis_dies_empty_mid_burst(desk: Desk, client: Client, cycles: int) -> None:
    serves = []
    with load(client, f"redis{cycles}") as running:
        for number in range(cycles):
            store = redis.Redis.from_url(desk.urls["redis"])
            store.set("canary", number)
            desk.kill_redis_empty()
            serves.append(until_promised(running))
            desk.until(partial(answers, store))
            assert store.get("canary") is None, "it came back with what it had"
            store.close()
            time.sleep(0.5)
        end(desk, running, "Redis killed and empty", cycles, serves_seconds_max=round(max(serves), 1))


@cycles
def test_d05_postgresql_stops_immediately_mid_burst(desk: Desk, client: Client, cycles: int) -> None:
    serves, ends = [], desk.ended()
    with load(client, f"postgres{cycles}") as running:
        for number in range(cycles):
            desk.stop_postgres(signal.SIGKILL if number % 4 == 3 else signal.SIGQUIT)
            serves.append(until_promised(running))
            time.sleep(0.5)
        end(desk, running, "PostgreSQL stopped at once", cycles, serves_seconds_max=round(max(serves), 1))
    assert desk.ended() == ends, "a process could not do without its server for a moment"


def test_d02_a_worker_that_went_deaf_ends_itself_and_is_started_again(desk: Desk) -> None:
    """Connected and alive, it fetches nothing any more; orders go out meanwhile, the gateways see to it."""
    ends = desk.output.read_text().count("worker ended")
    with Celery(broker=desk.urls["redis"], set_as_current=False) as app:
        [told] = app.control.cancel_consumer("celery", reply=True, timeout=5)
    assert "ok" in str(told)

    desk.until(lambda: desk.output.read_text().count("worker ended") > ends, DEAF_SECONDS + 15)
    desk.until(lambda: not missing("127.0.0.1", desk.port, "/readyz"), 60)


def test_d12_two_beats_send_nothing_twice(desk: Desk, client: Client, tmp_path: Path) -> None:
    """Every tick comes twice; what it finds is claimed once."""
    env = environment() | {"DATABASE_URL": desk.urls["database"], "REDIS_URL": desk.urls["redis"]}
    words = ("-m", "celery", "-A", "oms.celery", "beat", "-l", "info", "-s", str(tmp_path / "schedule"))
    log = tmp_path / "beat.log"
    with log.open("wb") as output:
        beat = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        with load(client, "beats") as running:
            desk.until(lambda: log.read_text().count("Sending due task") >= 4)
            end(desk, running, "two beats", 0)
    finally:
        beat.kill()
        beat.wait()
    assert not proof.rows(
        desk.urls["database"],
        "SELECT id FROM orders_submission WHERE attempts > 1 AND state = 'accepted' AND jsonb_array_length(log) < attempts - 1",
    )


def answers(store: Any) -> bool:
    try:
        return bool(store.ping())
    except redis.RedisError:
        return False
