"""A whole desk in a folder of its own: durable PostgreSQL, Valkey, web, worker, gateways, simulated brokers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import psutil
import psycopg

from orders.states import OPEN
from tests.benchmarks.meter import Meter

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
WORKING = ("oms.asgi", "celery", "run_gateway", "run_pricer", "run_market")
"""Command lines of the desk's own processes, servers left out."""


class Desk:
    """Started on entry, with a trader's token; stopped on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    def __enter__(self) -> "Desk":
        environment = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL", "OMS_ENV")}
        self.log = (self.folder / "up.log").open("wb")
        self.up = subprocess.Popen(
            [PYTHON, "manage.py", "up", "--data", str(self.folder / "var"), "--port", str(self.port)],
            cwd=ROOT, env=environment, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        self._wait_ready()
        self.token = self.token_of("trader")
        urls = self._urls()
        self.database_url, self.redis_url = urls["DATABASE_URL"], urls["REDIS_URL"]
        self.meter = Meter(self.up.pid)
        return self

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self.up.poll() is not None:
                break
            time.sleep(0.5)
        raise SystemExit("the desk did not start:\n" + (self.folder / "up.log").read_text()[-3000:])

    def token_of(self, user: str) -> str:
        """Return an API token of a demo user."""
        return self._manage("token", user).strip()

    def _manage(self, *words: str) -> str:
        done = subprocess.run(
            [PYTHON, "manage.py", *words, "--data", str(self.folder / "var")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def _urls(self) -> dict[str, str]:
        for process in psutil.Process(self.up.pid).children(recursive=True):
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if "REDIS_URL" in environment and "DATABASE_URL" in environment:
                return environment
        raise SystemExit("no process of the desk tells its servers")

    def sql(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        """Return the rows of a question to the desk's database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(query, parameters or None).fetchall()

    def wait_ended(self, what: str, *, patience: float = 180.0) -> None:
        """Wait until no order works any more but limit orders that rest where they were meant to."""
        # Spelled out, so that the partial index of open orders serves it whoever else is in the table.
        statuses = ", ".join(f"'{s}'" for s in sorted(OPEN))
        working = (
            f"SELECT count(*) FROM orders_order WHERE status IN ({statuses}) "
            "AND (order_type = 'market' OR status = 'pending_new')"
        )
        started = told = time.monotonic()
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("SET enable_seqscan = off")
            while True:
                row = connection.execute(working).fetchone()
                assert row is not None
                if row[0] == 0:
                    return
                if time.monotonic() - told > 5:
                    told = time.monotonic()
                    say(f"  {what}: {row[0]} orders still work after {told - started:.0f} s")
                if time.monotonic() - started > patience:
                    raise SystemExit(f"{what}: {row[0]} orders still work after {patience:.0f} s: no rate is told")
                time.sleep(0.05)

    def ended_as(self, prefix: str) -> dict[str, int]:
        """Count how orders ended; what is not filled is told apart by whether a broker took its fill back."""
        rows = self.sql(
            "SELECT status || CASE WHEN status <> 'filled' AND EXISTS (SELECT 1 FROM orders_execution e "
            "WHERE e.order_id = o.id AND e.kind = 'bust') THEN ' after a bust' ELSE '' END, count(*) "
            "FROM orders_order o WHERE client_order_id LIKE %s GROUP BY 1 ORDER BY 2 DESC",
            f"{prefix}-%",
        )
        return {str(name): int(str(number)) for name, number in rows}

    def pause(self, *words: str) -> None:
        """Freeze the desk's own processes but keep its servers, for baselines on the same ones; or only those named."""
        self._each(lambda process: process.suspend(), words or WORKING)

    def resume(self) -> None:
        """Let them run again."""
        self._each(lambda process: process.resume(), WORKING)

    def _each(self, act: Callable[[psutil.Process], None], words: Sequence[str]) -> None:
        for process in psutil.Process(self.up.pid).children(recursive=True):
            try:
                if any(word in " ".join(process.cmdline()) for word in words):
                    act(process)
            except psutil.Error:
                continue

    def __exit__(self, *_: object) -> None:
        self.resume()
        self.up.send_signal(signal.SIGTERM)
        try:
            self.up.wait(30)
        except subprocess.TimeoutExpired:
            self.up.kill()
        self.log.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    """Tell whoever waits; the figures come on standard output."""
    print(text, file=sys.stderr, flush=True)
