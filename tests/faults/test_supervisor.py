"""A whole desk under `up`: killed, restarted, stopped. Real processes on a data folder of their own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from oms.servers import ServersUnavailable, connect
from tests.faults.desk import OURS, Desk

pytestmark = pytest.mark.long


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    one = Desk(tmp_path / "data")
    yield one
    one.kill()


WORKERS = ("--no-demo", "--only", "worker,beat")
RUNNING = "Running worker, beat"


def test_kill_9_of_the_supervisor_leaves_nobody_and_the_data_whole(desk: Desk) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    desk.until(lambda: len(desk.members("celery")) >= 4)  # worker, its pool of two, beat
    desk.query("create table kept as select generate_series(1, 1000) as n")
    assert desk.process is not None

    os.kill(desk.process.pid, signal.SIGKILL)
    desk.process.wait()
    desk.until(lambda: not desk.members(), seconds=20)

    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    assert desk.query("select count(*) from kept") == [(1000,)]


def test_kill_9_and_a_start_at_once_is_no_race(desk: Desk) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    before = {process.pid for process in desk.members()}
    assert desk.process is not None
    desk.process.kill()
    desk.process.wait()

    desk.up(*WORKERS)
    desk.until_said(RUNNING)

    assert not before & {process.pid for process in desk.members()}
    assert desk.query("select 1") == [(1,)]


def test_postgres_and_valkey_come_back_on_their_ports(desk: Desk) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    url = desk.url()
    for name, said in (("bin/postgres", "postgres ended"), ("valkey-server", "valkey ended")):
        (server,) = [process for process in desk.members() if name in process.cmdline()[0]]
        server.kill()
        desk.until_said(said)
        desk.until(
            lambda killed=server.pid, name=name: bool(
                [p for p in desk.members() if name in p.cmdline()[0] and p.pid != killed]
            )
        )

    desk.until(lambda: _connects(url))
    assert desk.url() == url


def test_a_killed_worker_is_started_again(desk: Desk) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    desk.until(lambda: len(desk.members("celery")) >= 4)
    oldest = min(
        (p for p in desk.members("celery") if "worker" in p.cmdline()), key=lambda process: process.create_time()
    )

    oldest.kill()

    desk.until_said("worker ended (signal SIGKILL); starting again in 0.5 s")
    desk.until(lambda: len(desk.members("celery")) >= 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(desk: Desk, number: signal.Signals) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    assert desk.process is not None

    desk.process.send_signal(number)

    assert desk.process.wait(60) == 0
    assert desk.members() == []
    assert "database system is shut down" in (desk.data / "log" / "postgres.log").read_text()


def test_gateways_follow_the_enabled_brokers_of_a_running_desk(desk: Desk) -> None:
    desk.up("--only", "gateway,market")
    desk.until(lambda: len(desk.members("run_gateway")) == 4)

    desk.query("update brokers_broker set enabled = false where code = 'FLAKY'")
    desk.until(lambda: not desk.members("FLAKY"), seconds=15)
    desk.query("update brokers_broker set enabled = true where code = 'FLAKY'")
    desk.until(lambda: bool(desk.members("FLAKY")), seconds=5)


def test_a_second_desk_waits_for_the_folder_and_says_whose_it_is(desk: Desk) -> None:
    desk.up(*WORKERS)
    desk.until_said(RUNNING)
    second = Desk(desk.data)
    second.output = desk.data.parent / "second.out"
    second.up(*WORKERS)
    assert desk.process is not None
    assert second.process is not None

    second.until_said(f"`manage.py up` (process {desk.process.pid})")
    second.process.terminate()
    second.process.wait(30)

    assert desk.query("select 1") == [(1,)]


def test_nothing_is_found_where_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServersUnavailable):
        connect(tmp_path)


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
