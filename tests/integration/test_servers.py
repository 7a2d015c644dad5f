"""The embedded servers: found, lent, kept through every kill, and never left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import psutil
import psycopg
import pytest
import redis

from oms.bootstrap import ROOT
from oms.servers import (
    Postgres,
    ServersUnavailable,
    ServerUrls,
    Valkey,
    attach_or_start,
    connect,
    discovery,
    postgres,
    running,
    secret_key,
    valkey,
)
from oms.servers.identity import NAMESPACE, Identity, dropped
from oms.servers.process import free_port, lives, spawn

HOLD = """
import sys, time
from pathlib import Path
from oms.servers import running
with running(Path(sys.argv[1]), purpose="hold") as urls:
    print(urls.database_url, urls.redis_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _servers_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def hold(data: Path) -> Iterator[Callable[[], tuple["subprocess.Popen[str]", ServerUrls]]]:
    """Start another program that uses the servers until its input ends."""
    holders: list[subprocess.Popen[str]] = []

    def start() -> tuple["subprocess.Popen[str]", ServerUrls]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        holders.append(holder)
        assert holder.stdout is not None
        return holder, ServerUrls(*holder.stdout.readline().split())

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        for pipe in (holder.stdin, holder.stdout):
            assert pipe is not None
            pipe.close()
    eventually(lambda: not processes_of(data))


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def processes_of(data: Path) -> list[psutil.Process]:
    """Servers on this folder and all that they started."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        of_data = line[:1] != [sys.executable] and any(str(data) in part for part in line)
        if of_data and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def postmaster(data: Path) -> int:
    pid = Postgres(data / "postgres", data / "log").running_pid()
    assert pid is not None
    return pid


def execute(urls: ServerUrls, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(urls.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def keep_a_row(urls: ServerUrls) -> None:
    execute(urls, "CREATE TABLE kept (note text)")
    execute(urls, "INSERT INTO kept VALUES ('before')")


class TestRunning:
    def test_starts_both_for_its_own_duration_and_leaves_nothing(self, data: Path) -> None:
        with running(data, purpose="test") as urls:
            assert execute(urls, "SELECT 1") == [(1,)]
            with redis.Redis.from_url(urls.redis_url) as client:
                assert client.ping()

        assert processes_of(data) == []
        with pytest.raises(ServersUnavailable, match=r"manage\.py up"):
            connect(data)

    def test_keeps_data_and_ports_from_one_start_to_the_next(self, data: Path) -> None:
        with running(data, purpose="test") as first:
            keep_a_row(first)
        with running(data, purpose="test") as second:
            assert execute(second, "SELECT note FROM kept") == [("before",)]

        assert first == second

    def test_attaches_to_servers_that_run(self, data: Path, hold: Callable[..., object]) -> None:
        _, theirs = hold()

        with running(data, purpose="test") as ours:
            assert ours == theirs == connect(data)

        assert execute(theirs, "SELECT 1") == [(1,)]

    def test_an_owner_waits_for_those_who_attached(self, data: Path, hold: Callable[..., object]) -> None:
        owner, urls = hold()
        guest, _ = hold()

        owner.stdin.close()
        time.sleep(0.5)
        assert execute(urls, "SELECT 1") == [(1,)]
        guest.stdin.close()

        assert owner.wait(30) == 0
        assert processes_of(data) == []

    def test_a_second_desk_is_refused_with_the_name_of_the_first(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(discovery, "DESK_WAIT_SECONDS_MAX", 0.3)
        named = pytest.raises(ServersUnavailable, match=rf"manage\.py up` \(process {os.getpid()}\)")
        with running(data, purpose="up"), ExitStack() as held, named:
            attach_or_start(data, held, purpose="up", own=True)

    def test_the_users_own_servers_win_each_on_its_own(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://someone@elsewhere/desk")

        with running(data, purpose="test") as urls:
            assert urls.database_url == "postgresql://someone@elsewhere/desk"
            assert not (data / "postgres").exists()
            with redis.Redis.from_url(urls.redis_url) as client:
                assert client.ping()

    def test_starts_nothing_when_the_user_names_both(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://someone@elsewhere/desk")
        monkeypatch.setenv("REDIS_URL", "redis://elsewhere")

        with running(data, purpose="test") as urls:
            assert urls == ServerUrls("postgresql://someone@elsewhere/desk", "redis://elsewhere")

        assert not data.exists()


class TestKills:
    def test_a_killed_owner_leaves_no_process_and_no_broken_data(self, data: Path, hold: Callable[..., object]) -> None:
        owner, urls = hold()
        keep_a_row(urls)
        family = psutil.Process(owner.pid).children(recursive=True)
        assert len(family) > 5  # the background processes of PostgreSQL are among them

        owner.kill()

        eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
        with running(data, purpose="test") as again:
            assert execute(again, "SELECT note FROM kept") == [("before",)]

    def test_a_killed_postgres_recovers_what_was_committed(self, data: Path, hold: Callable[..., object]) -> None:
        owner, urls = hold()
        keep_a_row(urls)

        os.kill(postmaster(data), signal.SIGKILL)
        owner.stdin.close()
        owner.wait(30)

        with running(data, purpose="test") as again:
            assert execute(again, "SELECT note FROM kept") == [("before",)]

    def test_what_valkey_kept_survives_a_kill(self, data: Path) -> None:
        server = Valkey(data / "valkey", data / "log" / "valkey.log")
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.set("doorbell", "rung")
        assert server.process is not None
        time.sleep(1.2)  # the append-only file is synced every second
        server.process.kill()
        server.process.wait()

        server.start()
        try:
            with redis.Redis.from_url(server.url) as client:
                assert client.get("doorbell") == b"rung"
        finally:
            server.process.terminate()
            server.process.wait()

    def test_an_initdb_that_was_cut_off_is_done_again(self, data: Path) -> None:
        half = data / "postgres" / "data.new"
        half.mkdir(parents=True)
        (half / "PG_VERSION").write_text("18\n")

        with running(data, purpose="test") as urls:
            assert execute(urls, "SELECT 1") == [(1,)]
        assert not half.exists()


class TestPorts:
    @pytest.mark.parametrize("module", [postgres, valkey], ids=["postgres", "valkey"])
    def test_a_port_lost_in_the_last_moment_is_given_up_for_another(
        self, data: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            taken = stranger.getsockname()[1]
            offered = [taken]
            monkeypatch.setattr(module, "free_port", lambda wanted: offered.pop() if offered else free_port(wanted))

            with running(data, purpose="test") as urls:
                assert not offered
                assert execute(urls, "SELECT 1") == [(1,)]
                assert f":{taken}/" not in urls.database_url + urls.redis_url

    def test_servers_stay_clear_of_outgoing_connections(self) -> None:
        assert free_port() in range(20_000, 32_000)


class TestStop:
    def test_never_signals_a_number_that_is_no_longer_the_servers(self, data: Path, tmp_path: Path) -> None:
        stranger = spawn(["sleep", "60"], log=tmp_path / "log", orphan_signal=signal.SIGKILL)
        ended = subprocess.Popen(["true"])
        ended.wait()
        ended.pid = stranger.pid  # as if the number had come round again
        buried = Valkey(data / "valkey", data / "log" / "valkey.log")
        buried.process = ended

        discovery.stop(buried)
        discovery.stop(Valkey(data / "valkey", data / "log" / "valkey.log"), pid=stranger.pid)

        with pytest.raises(subprocess.TimeoutExpired):  # a signal takes a moment to end it
            stranger.wait(1)
        stranger.kill()
        stranger.wait()


class TestSettings:
    def test_the_desk_is_durable_and_checksummed(self, data: Path) -> None:
        with running(data, purpose="test") as urls:
            names = ["fsync", "synchronous_commit", "full_page_writes", "data_checksums", "jit", "TimeZone"]
            assert [execute(urls, f"SHOW {name}")[0][0] for name in names] == ["on", "on", "on", "on", "off", "UTC"]
            with redis.Redis.from_url(urls.redis_url) as client:
                assert client.config_get("appendonly") == {"appendonly": "yes"}
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    def test_throw_away_servers_sync_nothing(self, data: Path) -> None:
        with running(data, purpose="test", durable=False) as urls:
            assert execute(urls, "SHOW fsync") == [("off",)]

    def test_passwords_stand_in_files_of_the_owner_only(self, data: Path) -> None:
        with running(data, purpose="test") as urls:
            secrets = [(data / name / "password").read_text() for name in ("postgres", "valkey")]
            lines = " ".join(part for process in processes_of(data) for part in process.cmdline())

            assert not any(secret in lines for secret in secrets)
            for path in (data / "postgres" / "password", data / "valkey" / "password", data / "valkey" / "valkey.conf"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(urls.database_url.replace(secrets[0], "guess"))
            wrong = redis.Redis.from_url(urls.redis_url.replace(secrets[1], "guess"))
            with wrong, pytest.raises(redis.AuthenticationError):
                wrong.ping()

    def test_the_secret_key_is_made_once(self, data: Path) -> None:
        assert secret_key(data) == secret_key(data)
        assert len(secret_key(data)) >= 50
        assert stat.S_IMODE((data / "secret-key").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend PostgreSQL another face")
class TestAsRoot:
    @pytest.mark.parametrize("face", [Identity(prefix=NAMESPACE), dropped()], ids=["namespace", "user"])
    def test_postgres_runs_and_is_started_again(self, face: Identity) -> None:
        folder = Path("/var/tmp") / f"oms-test-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 - nobody must reach it
        folder.mkdir(mode=0o755)
        try:
            for _ in range(2):
                server = Postgres(folder / "postgres", folder / "log", identity=face)
                server.start()
                assert server.process is not None
                assert server.answers()
                server.process.send_signal(server.stop_signal)
                assert server.process.wait(30) == 0
        finally:
            subprocess.run(["rm", "-rf", folder], check=True)


class TestProcesses:
    def test_a_zombie_and_a_stranger_do_not_live(self, tmp_path: Path) -> None:
        child = spawn(["sleep", "60"], log=tmp_path / "log", orphan_signal=signal.SIGKILL)
        eventually(lambda: psutil.Process(child.pid).name() == "sleep")
        assert lives(child.pid, name="sleep", marker=Path("60"))
        assert not lives(child.pid, name="postgres", marker=Path("60"))
        child.kill()
        eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)

        assert not lives(child.pid, name="sleep", marker=Path("60"))
        child.wait()
        assert not lives(child.pid, name="sleep", marker=Path("60"))

    def test_a_taken_port_is_not_insisted_on(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]

            assert free_port(port) != port
        assert free_port(port) == port
