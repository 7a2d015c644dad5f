"""The desk that most people would write, and a bare insert, on the same servers as ours."""

import asyncio
import itertools
import os
import subprocess
import time
from typing import Any

import httpx
import psutil
import psycopg

from tests.benchmarks import load
from tests.benchmarks.desk import PYTHON, ROOT, Desk, free_port
from tests.benchmarks.meter import Meter
from tests.benchmarks.orderpath import SINGLE_CONNECTIONS, summary

SETTINGS = "tests.benchmarks.naive.settings"
ROUNDS = 3
WEB = (
    "-m", "uvicorn", "tests.benchmarks.naive.asgi:application", "--loop", "uvloop", "--http", "httptools", "--no-access-log",
    "--log-level", "warning",
)  # fmt: skip
WORKER = ("-m", "celery", "-A", "tests.benchmarks.naive.celery", "worker", "-c", "2", "-l", "error", "-Q", "naive")
_numbers = itertools.count()


class Naive:
    """Started on entry: a database of its own on the desk's servers, a web process and two workers like the desk's."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        base, _, _ = desk.database_url.rpartition("/")
        self.url = f"{base}/naive"
        self.environment = os.environ | {
            "DATABASE_URL": self.url,
            "REDIS_URL": desk.redis_url,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "PYTHONPATH": str(ROOT),
        }
        self.port = free_port()

    def __enter__(self) -> "Naive":
        with psycopg.connect(self.desk.database_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE naive")
        self._django("migrate", "auth", "-v0")  # what the naive tables point at comes first
        self._django("migrate", "--run-syncdb", "-v0")
        self.token = self._token()
        commands = ([PYTHON, *WEB, "--port", str(self.port)], [PYTHON, *WORKER])
        self.processes = [
            subprocess.Popen(c, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for c in commands
        ]
        servers = [c.pid for c in psutil.Process(self.desk.up.pid).children() if c.name() != "python"]
        self.meter = Meter(*(p.pid for p in self.processes), *servers)
        self._wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/orders/", timeout=5)
                break
            except httpx.HTTPError:
                time.sleep(0.3)
        self._run_orders(50)  # ends when the workers have filled them: all of it is warm

    def measure(self, count: int) -> dict[str, Any]:
        """Post orders over four connections and wait until the tasks have filled and booked all of them."""
        runs = []
        for _ in range(ROUNDS):
            self.meter.start()
            accepted, booked, statuses = self._run_orders(count)
            usage = self.meter.stop()
            runs.append(
                {
                    "accepted_per_second": count / accepted,
                    "filled_and_booked_per_second": count / booked,
                    "cpu_us_per_order": usage.per_order(count),
                    "load_average": usage.load_average,
                    "statuses": statuses,
                }
            )
        return summary(runs, count)

    def _run_orders(self, count: int) -> tuple[float, float, list[int]]:
        bodies = load.orders(count, f"naive{next(_numbers)}", symbol="AAPL")
        with psycopg.connect(self.url, autocommit=True) as connection:
            started = time.perf_counter()
            accepted, _, statuses = asyncio.run(load.post_all(self.port, "/orders/", self.token, bodies, 4))
            open_orders = "SELECT count(*) FROM naive_order WHERE status <> 'filled'"
            while (row := connection.execute(open_orders).fetchone()) and row[0]:
                if time.perf_counter() - started > 300:
                    raise SystemExit(f"naive: {row[0]} orders still work after 300 s: no rate is told")
                time.sleep(0.05)
            return accepted, time.perf_counter() - started, sorted(set(statuses))

    def bare(self, count: int) -> dict[str, Any]:
        """Post bare rows over as many connections as our single orders come."""
        asyncio.run(load.post_all(self.port, "/bare/", self.token, load.orders(200, "barewarm", symbol="AAPL"), 32))
        runs = []
        for _ in range(ROUNDS):
            bodies = load.orders(count, f"bare{next(_numbers)}", symbol="AAPL")
            self.meter.start()
            seconds, latencies, statuses = asyncio.run(
                load.post_all(self.port, "/bare/", self.token, bodies, SINGLE_CONNECTIONS)
            )
            usage = self.meter.stop()
            runs.append(
                {
                    "accepted_per_second": count / seconds,
                    "latency_ms_p50": load.percentile(latencies, 0.5) * 1000,
                    "latency_ms_p99": load.percentile(latencies, 0.99) * 1000,
                    "cpu_us_per_order": usage.per_order(count),
                    "load_average": usage.load_average,
                    "statuses": sorted(set(statuses)),
                }
            )
        return summary(runs, count)

    def _django(self, *words: str) -> str:
        done = subprocess.run(
            [PYTHON, "-m", "django", *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def _token(self) -> str:
        code = (
            "from django.contrib.auth import get_user_model; from knox.models import AuthToken;"
            "print(AuthToken.objects.create(get_user_model().objects.create_user('bench'))[1])"
        )
        return self._django("shell", "-v0", "-c", code).strip().splitlines()[-1]
