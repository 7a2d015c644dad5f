"""A whole desk under `up`: killed, restarted, stopped. Real processes on a data folder of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from oms.servers import ServersUnavailable, connect

ROOT = Path(__file__).resolve().parents[2]
OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "OMS_DATA",
    "OMS_ENV",
    "OMS_SUPERVISED",
    "OMS_SECRET_KEY",
    "DJANGO_SETTINGS_MODULE",
)

pytestmark = pytest.mark.long


class Desk:
    """One `up` and everything that belongs to its folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.output = data.parent / f"{data.name}.out"
        self.process: subprocess.Popen[bytes] | None = None

    def up(self, *arguments: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in OURS}
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--data", str(self.data), *arguments]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=env, cwd=ROOT)

    def members(self, marker: str = "") -> list[psutil.Process]:
        """Every living process with this folder in its environment or command line."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), process.environ().get("OMS_DATA", "")]
                ours = any(str(self.data) in word for word in words) and process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if ours and process.pid != os.getpid() and any(marker in word for word in words):
                found.append(process)
        return found

    def until(self, so: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < end, self.output.read_text()[-3000:]
            time.sleep(0.1)

    def until_said(self, text: str, seconds: float = 90) -> None:
        self.until(lambda: text in self.output.read_text(), seconds)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url()) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def url(self) -> str:
        """As a program beside the desk finds it."""
        code = "import json,sys,pathlib,oms.servers as s; print(json.dumps(s.connect(pathlib.Path(sys.argv[1])).database_url))"
        env = {name: value for name, value in os.environ.items() if name not in OURS}
        done = subprocess.run(
            [sys.executable, "-c", code, str(self.data)], env=env, cwd=ROOT, check=True, capture_output=True, text=True
        )
        return str(json.loads(done.stdout))

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.members():
            process.kill()


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
