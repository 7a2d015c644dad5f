"""Which servers belong to a data folder, who may stop them, and how a second program finds them.

`servers.json` tells ports; `servers.lock` is held by the one that started them; every program that uses them holds
`servers.users` shared, so that a passing owner waits for the others before it stops what they use.
"""

import fcntl
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from oms.servers.postgres import Postgres, PostgresFailed
from oms.servers.valkey import Valkey, ValkeyFailed

ADOPT_WAIT_SECONDS = 15
"""A server whose owner was killed is on its way down; this long we wait before we take it over alive."""
OWNER_WAIT_SECONDS_MAX = 120
DESK_WAIT_SECONDS_MAX = 15
"""A desk may be about to stop; a second one on the same data is otherwise a mistake."""
STOP_SECONDS_MAX = 60
PORT_TRIES = 4

Server = Postgres | Valkey


class ServersUnavailable(Exception):
    """No server can be reached or started; the text says what to do."""


@dataclass(frozen=True)
class ServerUrls:
    """Where the desk's two servers answer."""

    database_url: str
    redis_url: str


@dataclass
class Lease:
    """Servers in use. `owned` are ours to supervise and to stop; what others run or the user named is not."""

    urls: ServerUrls
    users: IO[str]
    owned: list[Server] = field(default_factory=list)
    adopted: dict[str, int] = field(default_factory=dict)

    def wait_for_others(self) -> None:
        """Let the programs that attached to our servers end first; who comes now waits until we are gone."""
        fcntl.flock(self.users, fcntl.LOCK_EX)

    def stop(self, *, hard: bool = False) -> None:
        """Stop what is ours, Valkey before PostgreSQL."""
        for server in reversed(self.owned):
            stop(server, hard=hard, pid=self.adopted.get(server.name))


def secret_key(data: Path) -> str:
    """The desk's own signing key: random, made once, readable by its owner only."""
    path = _folder(data) / "secret-key"
    if not path.exists():
        new = path.with_suffix(f".{os.getpid()}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(64))
        with suppress(FileExistsError):  # another start was first: its key counts
            os.link(new, path)
        new.unlink()
    return path.read_text()


def connect(data: Path) -> ServerUrls:
    """The URLs of the servers that run for this data folder now. Raises ServersUnavailable where none do."""
    found = {server.name: server for server in _servers(data, _read_state(data), durable=True)}
    for server in found.values():
        if server.running_pid() is None:
            raise ServersUnavailable(f"No {server.name} runs for {data}; start the desk with: python3 manage.py up")
        server.port = server.running_port()
        if not server.answers():
            raise ServersUnavailable(f"The {server.name} of {data} does not answer yet.")
    return _urls(list(found.values()))


@contextmanager
def running(data: Path, *, purpose: str, durable: bool = True) -> Iterator[ServerUrls]:
    """Use the servers of a data folder: those that run, or our own for as long as this takes."""
    if _named_by_user("DATABASE_URL") and _named_by_user("REDIS_URL"):
        yield _urls([])
        return
    with ExitStack() as held:
        lease = attach_or_start(data, held, purpose=purpose, durable=durable)
        try:
            yield lease.urls
        finally:
            if lease.owned:
                lease.wait_for_others()
                lease.stop()


def attach_or_start(data: Path, held: ExitStack, *, purpose: str, durable: bool = True, own: bool = False) -> Lease:
    """Attach to the running servers, or take the lock and start them; with `own`, wait to be their owner.

    `held` keeps the locks open. Raises ServersUnavailable.
    """
    began = time.monotonic()
    lock, told = held.enter_context(_open(data, "servers.lock")), False
    users = held.enter_context(_open(data, "servers.users"))
    while True:
        fcntl.flock(users, fcntl.LOCK_SH)
        if _try_lock(lock):
            lock.truncate(0)
            print(os.getpid(), purpose, file=lock, flush=True)
            return _start(data, users, durable=durable)
        if not own:
            with suppress(ServersUnavailable):
                return Lease(connect(data), users)
        fcntl.flock(users, fcntl.LOCK_UN)  # the owner may be waiting for us to let go
        patience = DESK_WAIT_SECONDS_MAX if own and _purpose(data) == "up" else OWNER_WAIT_SECONDS_MAX
        if time.monotonic() - began > patience:
            raise ServersUnavailable(f"{_holder(data)} runs on {data} already; stop it, or use another --data.")
        if own and not told:
            print(f"Waiting for {_holder(data)} to end ...", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.1)


def stop(server: Server, *, hard: bool = False, pid: int | None = None) -> None:
    """Stop one server and wait until it is gone; harder when it doesn't listen."""
    pid = server.process.pid if server.process is not None else pid
    for sent in [*([] if hard else [server.stop_signal]), server.kill_signal, signal.SIGKILL]:
        if pid is None or _is_gone(server, pid):  # its number may be a stranger's by now
            return
        _signal(pid, sent)
        deadline = time.monotonic() + (10 if hard else STOP_SECONDS_MAX)
        while not _is_gone(server, pid) and time.monotonic() < deadline:
            time.sleep(0.02)


def note(data: Path, owned: list[Server]) -> None:
    """Write the ports down, so that the same ones serve again."""
    new = _state_path(data).with_suffix(".new")
    new.write_text(json.dumps({server.name: {"port": server.port} for server in owned}))
    new.replace(_state_path(data))


def _start(data: Path, users: IO[str], *, durable: bool) -> Lease:
    servers, adopted = _servers(data, _read_ports(data), durable=durable), dict[str, int]()
    started: list[Server] = []
    try:
        for server in servers:
            pid = _left_alive(server)
            if pid is None:
                started.append(server)
                server.spawn()
            else:
                server.port, adopted[server.name] = server.running_port(), pid
        for server in servers:
            _wait_ready(server)
        note(data, servers)
    except BaseException as error:
        for server in reversed(started):
            stop(server)
        if isinstance(error, PostgresFailed | ValkeyFailed | OSError):
            raise ServersUnavailable(str(error)) from error
        raise
    return Lease(_urls(servers), users, servers, adopted)


def _wait_ready(server: Server) -> None:
    """Wait; give a server that lost its port to a stranger in the last moment another one."""
    for _ in range(PORT_TRIES - 1):
        try:
            return server.wait_ready()
        except (PostgresFailed, ValkeyFailed) as error:
            if "already in use" not in str(error) or server.process is None:
                raise
            server.process.wait(STOP_SECONDS_MAX)
            server.port = None
            server.spawn()
    return server.wait_ready()


def _left_alive(server: Server) -> int | None:
    """The pid of a server without an owner that stays up; one that is going down is waited for."""
    deadline = time.monotonic() + ADOPT_WAIT_SECONDS
    while (pid := server.running_pid()) is not None:
        server.port = server.running_port()
        if time.monotonic() > deadline:
            return pid
        time.sleep(0.1)
    return None


def _servers(data: Path, ports: dict[str, int], *, durable: bool) -> list[Server]:
    """PostgreSQL first: it is what must stop last. A server that the user named by URL is not ours."""
    servers: list[Server] = []
    if not _named_by_user("DATABASE_URL"):
        servers.append(Postgres(data / "postgres", data / "log" / "postgres.log", ports.get("postgres"), durable))
    if not _named_by_user("REDIS_URL"):
        servers.append(Valkey(data / "valkey", data / "log" / "valkey.log", ports.get("valkey"), durable))
    return servers


def _urls(servers: list[Server]) -> ServerUrls:
    ours = {server.name: server.url for server in servers}
    return ServerUrls(ours.get("postgres") or os.environ["DATABASE_URL"], ours.get("valkey") or os.environ["REDIS_URL"])


def _named_by_user(variable: str) -> bool:
    return bool(os.environ.get(variable))


def _is_gone(server: Server, pid: int) -> bool:
    """Our own child by its end, an adopted one by what its number is now."""
    return server.process.poll() is not None if server.process is not None else server.running_pid() != pid


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _folder(data: Path) -> Path:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServersUnavailable(f"The data folder {data} can't be made: {error}") from error
    return data


def _open(data: Path, name: str) -> IO[str]:
    try:
        return (_folder(data) / name).open("a+")
    except OSError as error:
        raise ServersUnavailable(f"The data folder {data} can't be used: {error}") from error


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _purpose(data: Path) -> str:
    return (data / "servers.lock").read_text().strip().partition(" ")[2]


def _holder(data: Path) -> str:
    pid, _, purpose = (data / "servers.lock").read_text().strip().partition(" ")
    return f"`manage.py {purpose}` (process {pid})" if purpose else "another program"


def _state_path(data: Path) -> Path:
    return data / "servers.json"


def _read_state(data: Path) -> dict[str, int]:
    if not _state_path(data).exists():
        raise ServersUnavailable(f"No servers run for {data}; start the desk with: python3 manage.py up")
    return _read_ports(data)


def _read_ports(data: Path) -> dict[str, int]:
    """The ports of last time; a torn or absent file means any port will do."""
    try:
        state: dict[str, dict[str, Any]] = json.loads(_state_path(data).read_text())
        return {name: int(entry["port"]) for name, entry in state.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
