"""What processes cost: CPU by kind of process, private memory by process, and how busy the machine was."""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

KINDS = (
    ("oms.asgi", "web"),
    ("naive.asgi", "web"),
    ("celery -A oms.celery worker", "worker"),
    ("naive.celery worker", "worker"),
    ("oms.celery beat", "beat"),
    ("run_gateway", "gateways"),
    ("run_market", "market and venues"),
    ("run_pricer", "pricer"),
    ("postgres", "postgres"),
    ("valkey-server", "valkey"),
    ("manage.py up", "supervisor"),
    ("guard.py", "supervisor"),
)
"""What a command line contains, and what its process is called; the first that fits."""
LOAD = "load generator"
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """Seconds of CPU by kind of process, from the start of the measured piece to its end."""

    cpu: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    load_average: float = 0.0

    def per_order(self, orders: int) -> dict[str, float]:
        """Return microseconds of CPU an order by kind, all of them together first, what costs nothing left out."""
        parts = {kind: seconds / orders * 1e6 for kind, seconds in self.cpu.items() if seconds >= TICK}
        return {"all": sum(parts.values())} | dict(sorted(parts.items(), key=lambda p: -p[1]))


class Meter:
    """Watches the trees of processes below some roots, and the process it stands in as the load generator."""

    def __init__(self, *roots: int) -> None:
        self.roots = roots

    def start(self) -> None:
        """Begin a measured piece."""
        self._cpu, self._time = self._read(), time.perf_counter()

    def stop(self) -> Usage:
        """End it."""
        now, seconds = self._read(), time.perf_counter() - self._time
        cpu = {kind: max(0.0, spent - self._cpu.get(kind, 0.0)) for kind, spent in now.items()}
        return Usage(cpu, seconds, os.getloadavg()[0])

    def _read(self) -> Counter[str]:
        """Sum CPU by kind; what ended meanwhile is in its parent's account of buried children."""
        spent: Counter[str] = Counter()
        for process in self._processes():
            try:
                times = process.cpu_times()
                spent[kind_of(process)] += times.user + times.system + times.children_user + times.children_system
            except psutil.Error:
                continue
        spent[LOAD] = time.process_time()
        return spent

    def memory(self) -> dict[str, float]:
        """Return MiB of a process's own making, by a name that tells processes apart.

        Anonymous pages, those still shared with a parent by halves: neither code nor the database's shared buffers.
        """
        found: Counter[str] = Counter()
        for process in self._processes():
            try:
                found[name_of(process)] += anonymous_kib(process.pid) / 1024
            except (psutil.Error, OSError):
                continue
        return {name: round(size, 1) for name, size in sorted(found.items(), key=lambda f: -f[1])}

    def _processes(self) -> list[psutil.Process]:
        found = []
        for root in self.roots:
            try:
                process = psutil.Process(root)
                found += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        return found


def anonymous_kib(pid: int) -> int:
    """Return a process's share of the anonymous pages that it maps."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def kind_of(process: psutil.Process) -> str:
    """Return what a process is for."""
    line = " ".join(process.cmdline())
    return next((kind for part, kind in KINDS if part in line), "other")


def name_of(process: psutil.Process) -> str:
    """Return a name for one process: its kind, and which of that kind where there are several."""
    kind, line = kind_of(process), " ".join(process.cmdline())
    if kind == "gateways":
        return f"gateway {line.split()[-1]}"
    if kind == "postgres":
        return "postgres sessions" if re.search(r"\d\(\d+\)", line) else "postgres itself"
    if kind == "worker":
        inner = kind_of(process.parent() or process) == "worker"
        return f"worker child {process.pid}" if inner else "worker parent"
    if kind == "supervisor":
        return "guard" if "guard.py" in line else "supervisor"
    return kind


def growth(before: dict[str, float], after: dict[str, float], orders: int) -> dict[str, dict[str, Any]]:
    """Return MiB of each process before and after, and what it grew by for 10,000 orders."""
    return {
        name: {
            "before_mib": before.get(name),
            "after_mib": size,
            "growth_mib_per_10000_orders": round((size - before[name]) / orders * 10_000, 2)
            if name in before
            else None,
        }
        for name, size in after.items()
    }
