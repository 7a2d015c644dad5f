"""`make bench`: what one order costs here, beside what it costs elsewhere, in one run on one machine.

    python -m tests.benchmarks [--only NAME] [--orders N] [--naive N]

Starts a desk of its own (durable PostgreSQL, Valkey, web, worker, gateways, simulated brokers) and writes
var/reports/bench-<utc>.json. Names: batch, single, screens, setbased, naive, bare.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.benchmarks import load, screens, setbased

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable


def main() -> None:
    """Run the benchmarks asked for and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--naive", type=int, default=500)
    options = parser.parse_args()
    wanted = [options.only] if options.only else ["batch", "single", "screens", "setbased", "naive", "bare"]
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), **machine(), "results": {}}
    with tempfile.TemporaryDirectory(prefix="bench") as folder, Desk(Path(folder)) as desk:
        if "batch" in wanted or "setbased" in wanted:
            report["results"]["batch"] = desk.batch(options.orders)
        if "single" in wanted:
            report["results"]["single"] = desk.single(min(options.orders, 4_000))
        if "screens" in wanted:
            line = f"ws://127.0.0.1:{desk.port}/ws/blotter/"
            report["results"]["screens"] = asyncio.run(screens.measure(line, desk.token, desk.redis_url, "EURO"))
        desk.stop_processes()
        if "setbased" in wanted:
            report["results"]["setbased"] = setbased.measure(desk.database_url, 5_000)
        print(json.dumps(report, indent=2), file=sys.stderr)  # should a baseline fail, this was measured
        if "naive" in wanted or "bare" in wanted:
            report["results"] |= Naive(desk).measure(options.naive, wanted)
    target = ROOT / "var" / "reports" / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))
    print(target)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Desk:
    """A whole desk in a folder of its own."""

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
        self.token = self._manage("token", "trader").strip()
        urls = self._urls()
        self.database_url, self.redis_url = urls["DATABASE_URL"], urls["REDIS_URL"]
        return self

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 180
        import httpx

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

    def _cpu(self) -> float:
        total = 0.0
        for process in psutil.Process(self.up.pid).children(recursive=True):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total

    def _memory(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for process in psutil.Process(self.up.pid).children(recursive=True):
            try:
                name = " ".join(process.cmdline())[-60:]
                found[name] = found.get(name, 0) + process.memory_info().rss // 2**20
            except psutil.Error:
                continue
        return dict(sorted(found.items(), key=lambda i: -i[1])[:12])

    def _wait_booked(self, prefix: str, count: int, started: float) -> float:
        told = 0.0
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            while True:
                row = connection.execute(
                    "SELECT count(*), count(*) FILTER (WHERE leaves_quantity = 0) FROM orders_order WHERE client_order_id LIKE %s",
                    [f"{prefix}-%"],
                ).fetchone()
                assert row is not None
                elapsed = time.perf_counter() - started
                if elapsed - told > 5:
                    told = elapsed
                    print(f"  {prefix}: {row[1]} of {count} ended, {row[0]} recorded, {elapsed:.0f} s", file=sys.stderr)
                if row[1] >= count or elapsed > 120:
                    if row[1] < count:
                        raise SystemExit(f"only {row[1]} of {count} ended ({row[0]} recorded): no rate is told")
                    return elapsed
                time.sleep(0.1)

    def _ended_as(self, prefix: str) -> dict[str, int]:
        """Count how orders ended; what is not filled is told apart by whether a broker took its fill back."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT status || CASE WHEN status <> 'filled' AND EXISTS (SELECT 1 FROM orders_execution e "
                "WHERE e.order_id = o.id AND e.kind = 'bust') THEN ' after a bust' ELSE '' END, count(*) "
                "FROM orders_order o WHERE client_order_id LIKE %s GROUP BY 1",
                [f"{prefix}-%"],
            ).fetchall()
        return {str(name): int(number) for name, number in rows}

    def batch(self, count: int) -> dict[str, Any]:
        """Place orders by thousands and wait until all are filled and booked."""
        self._place_batches(2_000, "warm")
        cpu, started = self._cpu(), time.perf_counter()
        accepted, statuses = self._place_batches(count, "batch", wait=False)
        booked = self._wait_booked("batch", count, started)
        return {
            "orders": count,
            "accepted_per_second": count / accepted,
            "filled_and_booked_per_second": count / booked,
            "cpu_us_per_order": (self._cpu() - cpu) / count * 1e6,
            "ended_as": self._ended_as("batch"),
            "statuses": sorted(set(statuses)),
            "memory_mib": self._memory(),
        }

    def _place_batches(self, count: int, prefix: str, *, wait: bool = True) -> tuple[float, list[int]]:
        bodies = []
        for start in range(0, count, 1_000):
            rows = [
                {
                    "client_order_id": f"{prefix}-{n}", "account": "MAIN", "symbol": "EUR/USD", "quantity": "1", "order_type": "market",
                    "side": ("buy", "sell")[n % 2],
                }
                for n in range(start, min(start + 1_000, count))
            ]  # fmt: skip
            bodies.append(json.dumps({"orders": rows}).encode())
        started = time.perf_counter()
        seconds, _, statuses = asyncio.run(load.post_all(self.port, "/api/v1/orders/batch", self.token, bodies, 2))
        if wait:
            self._wait_booked(prefix, count, started)
        return seconds, statuses

    def single(self, count: int) -> dict[str, Any]:
        """Place single orders over 32 connections; then some at rest for the latency to the first acknowledgement."""
        bodies = load.orders(count, "single", account="MAIN", symbol="EUR/USD", order_type="market")
        started = time.perf_counter()
        seconds, latencies, statuses = asyncio.run(load.post_all(self.port, "/api/v1/orders", self.token, bodies, 32))
        booked = self._wait_booked("single", count, started)
        return {
            "orders": count,
            "accepted_per_second": count / seconds,
            "latency_ms_p50": load.percentile(latencies, 0.5) * 1000,
            "latency_ms_p99": load.percentile(latencies, 0.99) * 1000,
            "filled_and_booked_per_second": count / booked,
            "ended_as": self._ended_as("single"),
            "statuses": sorted(set(statuses)),
            "acknowledged_ms_p95": self._at_rest(100),
        }

    def _at_rest(self, count: int) -> float:
        delays = []
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            for body in load.orders(count, "rest", account="MAIN", symbol="EUR/USD", order_type="market"):
                started = time.perf_counter()
                asyncio.run(load.post_all(self.port, "/api/v1/orders", self.token, [body], 1))
                name = json.loads(body)["client_order_id"]
                while time.perf_counter() - started < 5:
                    row = connection.execute(
                        "SELECT status FROM orders_order WHERE client_order_id = %s", [name]
                    ).fetchone()
                    if row and row[0] != "pending_new":
                        break
                    time.sleep(0.002)
                delays.append(time.perf_counter() - started)
        return load.percentile(delays, 0.95) * 1000

    def stop_processes(self) -> None:
        """Freeze the desk's own processes but keep its servers, for baselines on the same ones."""
        for process in psutil.Process(self.up.pid).children(recursive=True):
            line = " ".join(process.cmdline())
            if any(word in line for word in ("uvicorn", "celery", "run_gateway", "run_pricer", "run_market")):
                process.suspend()

    def __exit__(self, *_: object) -> None:
        for process in psutil.Process(self.up.pid).children(recursive=True):
            try:
                process.resume()
            except psutil.Error:
                continue
        self.up.send_signal(signal.SIGTERM)
        try:
            self.up.wait(30)
        except subprocess.TimeoutExpired:
            self.up.kill()


class Naive:
    """The desk that most people would write, on the same servers."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        base, _, _ = desk.database_url.rpartition("/")
        self.url = f"{base}/naive"
        self.environment = os.environ | {
            "DATABASE_URL": self.url,
            "REDIS_URL": desk.redis_url,
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.naive.settings",
            "PYTHONPATH": str(ROOT),
        }
        self.port = free_port()

    def measure(self, count: int, wanted: list[str]) -> dict[str, Any]:
        """Run both parts: the naive desk to filled, and a bare insert."""
        with psycopg.connect(self.desk.database_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE naive")
        self._django("migrate", "auth", "-v0")  # what the naive tables point at comes first
        self._django("migrate", "--run-syncdb", "-v0")
        token = self._token()
        web = [PYTHON, "-m", "uvicorn", "tests.benchmarks.naive.asgi:application", "--port", str(self.port)]
        commands = [
            [*web, "--no-access-log", "--log-level", "warning"],
            [
                PYTHON,
                "-m",
                "celery",
                "-A",
                "tests.benchmarks.naive.celery",
                "worker",
                "-c",
                "2",
                "-l",
                "error",
                "-Q",
                "naive",
            ],
        ]
        processes = [
            subprocess.Popen(c, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for c in commands
        ]
        try:
            time.sleep(8)
            found: dict[str, Any] = {}
            if "naive" in wanted:
                found["naive"] = self._naive(count, token)
            if "bare" in wanted:
                found["bare"] = self._bare(1_000, token)
            return found
        finally:
            for process in processes:
                process.terminate()

    def _naive(self, count: int, token: str) -> dict[str, float]:
        asyncio.run(load.post_all(self.port, "/orders/", token, load.orders(50, "warm", symbol="AAPL"), 4))
        bodies = load.orders(count, "naive", symbol="AAPL")
        started = time.perf_counter()
        asyncio.run(load.post_all(self.port, "/orders/", token, bodies, 4))
        with psycopg.connect(self.url, autocommit=True) as connection:
            while time.perf_counter() - started < 300:
                row = connection.execute("SELECT count(*) FROM naive_order WHERE status = 'filled'").fetchone()
                if row and row[0] >= count + 50:
                    break
                time.sleep(0.1)
        return {"orders": count, "filled_and_booked_per_second": count / (time.perf_counter() - started)}

    def _bare(self, count: int, token: str) -> dict[str, float]:
        bodies = load.orders(count, "bare", symbol="AAPL")
        seconds, latencies, _ = asyncio.run(load.post_all(self.port, "/bare/", token, bodies, 32))
        return {
            "orders": count,
            "accepted_per_second": count / seconds,
            "latency_ms_p99": load.percentile(latencies, 0.99) * 1000,
        }

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


if __name__ == "__main__":
    main()
