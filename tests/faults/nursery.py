"""Processes of a desk that are there to be killed.

They are forked from one process that has imported everything and holds no connection, so a death costs milliseconds
and a test can afford hundreds: `python -m tests.faults.nursery` reads wishes from its standard input.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


def now() -> datetime:
    """Return the time; the one clock of these processes."""
    return datetime.now(UTC)


class Nursery:
    """The test's end: starts processes on a database, waits for them, ends all of them with itself."""

    def __init__(self, database_url: str, log: Path, **environment: str) -> None:
        env = os.environ | {"DATABASE_URL": database_url, "OMS_ENV": "test"} | environment
        env.pop("OMS_CRASH", None)
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.faults.nursery"],
                cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def _ask(self, **wish: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the nursery died:\n{self.log.read_text()[-3000:]}"
        return json.loads(line)

    def start(self, *words: str, crash: str = "") -> int:
        """Start a process that dies at a crash point, if one is told; return its number."""
        return int(self._ask(do="start", words=words, crash=crash))

    def wait(self, pid: int, seconds: float = 60.0, *, fails: bool = False) -> int | None:
        """Return the exit code, below zero for a signal; None while it still runs."""
        code = self._ask(do="wait", pid=pid, seconds=seconds)
        assert fails or code in (None, 0, -signal.SIGKILL), f"exit code {code}:\n{self.log.read_text()[-3000:]}"
        return None if code is None else int(code)

    def run(self, *words: str, crash: str = "") -> int:
        """Run a process to its end, or to its death; return its exit code."""
        code = self.wait(self.start(*words, crash=crash))
        assert code is not None, f"{words} did not end:\n{self.log.read_text()[-3000:]}"
        return code

    def kill(self, pid: int) -> None:
        """Kill -9 one process and bury it."""
        if self.wait(pid, 0) is None:
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)

    def close(self) -> None:
        """End everything."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


# -- the other end -------------------------------------------------------------------------------------------------


def main() -> None:
    """Import everything, then fork one process for each wish. The death of this one is the death of all."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "oms.settings")
    django.setup()
    for module in ("oms.asgi", "orders.management.commands.run_gateway", "orders.tasks", "uvicorn"):
        import_module(module)  # once, for all

    codes: dict[int, int] = {}
    for line in sys.stdin:
        wish = json.loads(line)
        answer = _start(wish) if wish["do"] == "start" else _wait(codes, wish["pid"], wish["seconds"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(wish: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        from oms.runtime import crash

        crash.arm(wish["crash"])
        globals()[f"_{wish['words'][0]}"](*wish["words"][1:])
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(codes: dict[int, int], pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while pid not in codes:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            codes[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= end:
            return None
        else:
            time.sleep(0.005)
    return codes[pid]


def _web(port: str) -> None:
    import uvicorn

    from oms.asgi import application

    uvicorn.run(application, host="127.0.0.1", port=int(port), loop="uvloop", log_level="warning", access_log=False)


def _send(code: str, owner: str = "") -> None:
    from brokers import queries
    from orders import operations as desk

    desk.send(queries.brokers_by_code()[code], owner=owner or f"sender:{os.getpid()}", clock=now)


def _work(seconds: str) -> None:
    from orders import operations as desk

    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        desk.work(owner=f"worker:{os.getpid()}", at=now())
        time.sleep(0.05)


def _resolve(code: str) -> None:
    from brokers import queries
    from oms.kernel.actor import Actor
    from orders import operations as desk

    broker = queries.brokers_by_code()[code]
    desk.resolve(broker, clock=now)
    desk.apply_parked(broker.id, actor=Actor.system("resolver"), at=now())


def _follow(code: str, seconds: str) -> None:
    from brokers import queries
    from orders.management.commands.run_gateway import Gateway

    gateway = Gateway(queries.brokers_by_code()[code])
    threading.Timer(float(seconds), gateway.stop.set).start()
    gateway.run()


if __name__ == "__main__":
    main()
