"""A whole desk under `up`, on a data folder of its own, and the means to hurt its servers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.benchmarks.desk import free_port
from tests.brokers.venue import administer
from tests.faults import proof
from tests.faults.client import Client

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
AGREE_SECONDS_MAX = 20.0
"""So long a bust that a broker makes of a trade may be on its way when everything has ended."""


class Desk:
    """One `up` and everything that belongs to its folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.output = data.parent / f"{data.name}.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.urls: dict[str, str] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    def up(self, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--data", str(self.data), *arguments]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(), cwd=ROOT)

    def open(self) -> "Desk":
        """Start all of it with the demo desk in it, and return when it serves."""
        self.port = free_port()
        self.up("--port", str(self.port))
        self.until_said("The desk is open", 180)
        self.urls = self._urls()
        return self

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.members():
            process.kill()

    def close(self) -> None:
        """Stop in order; whoever does not listen is killed."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self.kill()

    # -- looking ---------------------------------------------------------------------------------------------------

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

    def server(self, name: str) -> psutil.Process | None:
        """Return the leader of `bin/postgres` or `valkey-server`, if it lives."""
        for process in self.members(name):
            with suppress(psutil.Error, IndexError):  # it may end while we look
                if name in process.cmdline()[0]:
                    return process
        return None

    def until(self, so: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < end, self.output.read_text()[-3000:]
            time.sleep(0.1)

    def until_said(self, text: str, seconds: float = 90) -> None:
        self.until(lambda: text in self.output.read_text(), seconds)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url()) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def url(self) -> str:
        """The database, as a program beside the desk finds it."""
        return self._urls()["database"]

    def _urls(self) -> dict[str, str]:
        code = (
            "import json,sys,pathlib,oms.servers as s; u = s.connect(pathlib.Path(sys.argv[1])); "
            "print(json.dumps({'database': u.database_url, 'redis': u.redis_url}))"
        )
        command = [sys.executable, "-c", code, str(self.data)]
        done = subprocess.run(command, env=environment(), cwd=ROOT, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))

    def ended(self) -> list[str]:
        """Return the processes of the desk that ended by themselves, the servers that we kill left out."""
        return [
            n for n in re.findall(r"^(\S+) ended", self.output.read_text(), re.M) if n not in ("postgres", "valkey")
        ]

    # -- trading ---------------------------------------------------------------------------------------------------

    def manage(self, *words: str) -> str:
        """Run a management command on this desk and return what it says; fails with it."""
        command = [sys.executable, "-W", "ignore", str(ROOT / "manage.py"), *words, "--data", str(self.data)]
        done = subprocess.run(command, env=environment(), cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def client(self, user: str = "trader") -> Client:
        """Return a program of a user's."""
        return Client(self.port, self.manage("token", user).strip())

    def books(self) -> dict[str, dict[str, Any]]:
        """Return what every simulated broker really has: the oracle."""
        rows = proof.rows(self.urls["database"], "SELECT code, settings FROM brokers_broker WHERE enabled")
        return {code: administer(told["port"], told["key"], "book") for code, told in rows}

    def agree(self) -> None:
        """Fail unless the desk agrees with its brokers' books, all invariants hold and the audit chain is whole."""
        end = time.monotonic() + AGREE_SECONDS_MAX
        while True:
            try:
                proof.compare_with_books(self.urls["database"], self.books())
                break
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        self.manage("check_invariants")
        self.manage("verify_audit")

    # -- hurting ---------------------------------------------------------------------------------------------------

    def kill_redis_empty(self) -> None:
        """Kill -9 Valkey and take its append-only file away, so that it comes back with nothing."""
        server = self.server("valkey-server")
        assert server is not None
        shutil.rmtree(self.data / "valkey" / "appendonlydir")  # it goes on writing to what has no name any more
        server.kill()
        self._until_another("valkey-server", server.pid)

    def stop_postgres(self, number: signal.Signals) -> None:
        """SIGQUIT is `pg_ctl stop -m immediate`; SIGKILL is worse: its processes find out by themselves."""
        server = self.server("bin/postgres")
        assert server is not None
        server.send_signal(number)
        self._until_another("bin/postgres", server.pid)

    def _until_another(self, name: str, pid: int) -> None:
        self.until(lambda: (new := self.server(name)) is not None and new.pid != pid)


def environment() -> dict[str, str]:
    """Return the environment of a stranger who knows nothing of the tests' own servers."""
    return {name: value for name, value in os.environ.items() if name not in OURS}
