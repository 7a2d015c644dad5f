"""Processes of one machine: tethered children, who is alive, free ports, logs that stay small."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import psutil

TETHER = Path(__file__).with_name("tether.py")
PORTS = range(20_000, 32_000)
LOG_BYTES_MAX = 20_000_000
"""A log is turned over (one older copy is kept) when a process starts and finds it larger."""


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    orphan_signal: int,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    user: int | None = None,
    group: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, output to `log`; `orphan_signal` reaches it when this process dies.

    `user` and `group` are dropped to; `prefix` goes before all.
    Call from the main thread: the kernel watches the thread that started the child.
    """
    tether = [sys.executable, "-I", "-S", str(TETHER), str(int(orphan_signal)), str(os.getpid())]
    tether.append("-" if user is None else f"{user}:{group}")
    with open_log(log) as output:
        return subprocess.Popen(
            [*prefix, *tether, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if env is None else dict(env),
            cwd=cwd,
        )


def open_log(log: Path) -> Any:
    """Open for appending; the caller closes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, or nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def lives(pid: int | None, *, name: str, marker: Path) -> bool:
    """Whether this pid is a living `name` whose command line speaks of `marker`; a zombie or a reused pid is not."""
    if not pid:
        return False
    try:
        process = psutil.Process(pid)
        line = process.cmdline()
        return (
            process.status() != psutil.STATUS_ZOMBIE and any(name in part for part in line[:1]) and str(marker) in line
        )
    except psutil.Error:
        return False


def free_port(preferred: int | None = None) -> int:
    """The preferred port if it is free, else a random free one of the loopback.

    Below the range that the kernel lends to outgoing connections, which could take it before the server does, and
    again while the server is restarted.
    """
    for port in [*([preferred] if preferred else []), *SystemRandom().sample(PORTS, 200)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on the loopback")


def packaged(package: str, *inside: str) -> Path | None:
    """A program shipped inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    for pattern in inside:
        for found in sorted(Path(spec.submodule_search_locations[0]).glob(pattern)):
            return found
    return None


def on_path(*names: str) -> Path | None:
    """The first of these programs that the machine has."""
    return next((Path(found) for found in map(shutil.which, names) if found), None)


def memory_mb() -> int:
    """The machine's memory, or less where a container holds this process to less."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return (min(total, int(limit)) if limit.isdigit() else total) // 1_048_576
