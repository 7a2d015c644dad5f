"""docs/operations.md, read by a machine: its commands are run with production settings, its units are started."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations.md"
NEEDS_A_MACHINE = {"install", "cat", "useradd", "sudo", "cd", "systemctl", "journalctl", "set"}
"""What blocks marked `console` may start with: a service manager, root, another user."""
READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 30.0


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of a kind, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_every_variable_that_the_settings_read_is_documented_and_no_other() -> None:
    code = "".join(
        p.read_text() for p in (ROOT / "oms/settings.py", ROOT / "oms/bootstrap.py", ROOT / "oms/runtime/crash.py")
    )
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    read = set(re.findall(r'(?:env(?:\.\w+)?\(|environ\.get\(|environ\[?)"(\w+)"', code)) | {"OMS_CRASH", "OMS_DATA"}
    inner = {"DJANGO_SETTINGS_MODULE", "OMS_SUPERVISED"}  # what our own processes tell each other
    assert table == read - inner


def test_only_what_needs_a_whole_machine_is_left_untested() -> None:
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line[:2] in ("# ", "$ ")]
    untested = {shlex.split(c, comments=True)[0] for c in commands if not c.startswith("(")}
    assert untested <= NEEDS_A_MACHINE


class Production:
    """A database, a Redis and the environment of a production machine, with the page's units."""

    def __init__(self, environment: dict[str, str], port: int, folder: Path) -> None:
        self.environment = environment
        self.port = port
        self.folder = folder
        self.units: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, command: str) -> str:
        """Return a command with the page's places replaced by those of this test."""
        python = shlex.quote(sys.executable)
        places = {
            "/srv/oms/desk/.venv/bin/python": python, ".venv/bin/python": python, "/var/lib/oms": str(self.folder),
            "--port 8000": f"--port {self.port}", "127.0.0.1:8000": f"127.0.0.1:{self.port}", "%i": "PRIME",
        }  # fmt: skip
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], command)

    def run(self, block: str) -> None:
        """Run a block as a person would, stopping at the first command that fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(block)],
            env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def start_units(self) -> None:
        for line in re.findall(r"^ExecStart=(.*)$", "\n".join(blocks("ini")), re.MULTILINE):
            name = next(n for n in ("uvicorn", "worker", "beat", "run_gateway", "run_pricer") if n in line.split())
            with (self.folder / f"{name}.log").open("wb") as log:
                self.units[name] = subprocess.Popen(
                    shlex.split(self.here(line)), env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while (told := self.ask("/readyz")).get("status") != "ready":
            self.require_alive()
            assert time.monotonic() < deadline, f"{told}\n{self.logs()}"
            time.sleep(0.5)

    def ask(self, path: str, **headers: str) -> dict[str, Any]:
        request = Request(f"http://127.0.0.1:{self.port}{path}")
        for name, value in {"Host": "desk.example.com", "X-Forwarded-Proto": "https", **headers}.items():
            request.add_header(name, value)
        try:
            with urlopen(request, timeout=5) as answer:
                return {"http": answer.status, **json.load(answer)}
        except (URLError, TimeoutError, ConnectionError) as error:
            return {"http": getattr(error, "code", None), "error": str(error)}

    def require_alive(self) -> None:
        ended = [n for n, p in self.units.items() if p.poll() is not None]
        assert ended == [], self.logs()

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-1500:]}" for p in sorted(self.folder.glob("*.log")))

    def stop_units(self, *, hard: bool = False) -> dict[str, float]:
        """Stop all units and return the seconds that each took."""
        taken = {}
        for name, process in reversed(self.units.items()):
            began = time.monotonic()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL) if hard else process.terminate()
                process.wait(STOP_SECONDS_MAX)
            taken[name] = time.monotonic() - began
        self.units.clear()
        return taken


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    """A fresh database beside the tests' own."""
    from oms.servers.postgres import binaries

    maintenance = os.environ["DATABASE_URL"]
    name = f"operations_{os.getpid()}"
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    environment = {
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "OMS_ENV": "production",
        "OMS_SECRET_KEY": "".join(chr(33 + i) for i in range(60) if chr(33 + i) not in "\"'\\$`"),
        "OMS_HOSTS": "desk.example.com",
        "OMS_ORIGINS": "https://desk.example.com",
        "OMS_STATIC_ROOT": str(tmp_path / "static"),
        "OMS_BROKER_HOSTS": "127.0.0.1",
        "OMS_DATA": str(tmp_path / "data"),
        "OMS_SUPERVISED": "1",  # this Python has the packages; nothing needs to be installed
        "DATABASE_URL": f"{maintenance.rsplit('/', 1)[0]}/{name}",
        "REDIS_URL": f"{os.environ['REDIS_URL'].rsplit('/', 1)[0]}/7",
        "BACKUPS": str(tmp_path),
        "PRIME_KEY": "change-me",  # the page tells to give the units what a broker's settings name
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk = Production(environment, port, tmp_path)
    try:
        yield desk
    finally:
        desk.stop_units(hard=True)
        with psycopg.connect(maintenance, autocommit=True) as connection:
            for left in (name, "oms_drill"):
                connection.execute(f'DROP DATABASE IF EXISTS "{left}" WITH (FORCE)')


def test_every_command_of_the_page_runs_and_its_units_make_a_desk_that_is_ready(production: Production) -> None:
    for block in blocks("sh"):
        if "curl" in block:
            production.start_units()
            production.wait_ready()
        production.run(block)
    production.require_alive()
    assert production.ask("/healthz", **{"X-Forwarded-Proto": "http"})["http"] != 200  # only TLS is answered
    assert production.ask("/healthz", Host="elsewhere.example.com")["http"] == 400
    taken = production.stop_units()
    assert max(taken.values()) < STOP_SECONDS_MAX, taken
