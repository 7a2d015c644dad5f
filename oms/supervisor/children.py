"""The processes of a desk, each started again with growing patience when it ends by itself."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from oms.servers.process import spawn
from oms.supervisor.console import Tail

PATIENCE_SECONDS = 0.5
PATIENCE_SECONDS_MAX = 30.0
STEADY_SECONDS = 30.0
"""A process that ran for so long was well: its next end starts the patience anew."""
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `tier` orders the stop: the highest first."""

    name: str
    command: tuple[str, ...]
    tier: int


@dataclass
class Child:
    """One program under watch."""

    program: Program
    log: Path
    env: Mapping[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    ends: int = 0
    tail: Tail = field(init=False)

    def __post_init__(self) -> None:
        self.tail = Tail(self.program.name, self.log)

    def start(self, now: float) -> int:
        """Start it in a group of its own; returns its process id."""
        self.process = spawn(
            self.program.command, log=self.log, orphan_signal=signal.SIGTERM, env=self.env, cwd=self.folder
        )
        self.started_at = now
        return self.process.pid

    def running(self) -> bool:
        """Looks without burying it: until `finish` its number cannot become a stranger's."""
        if self.process is None or self.process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ended(self, now: float) -> str | None:
        """Once per end: what happened. Sets when it is due again."""
        if self.process is None or self.running():
            return None
        code = self.finish()
        self.ends = 1 if now - self.started_at > STEADY_SECONDS else self.ends + 1
        patience = min(PATIENCE_SECONDS_MAX, PATIENCE_SECONDS * 2 ** (self.ends - 1))
        self.due_at = now + patience
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        return f"{self.program.name} ended ({how}); starting again in {patience:g} s; see {self.log}"

    def ask_to_stop(self) -> None:
        """Only the leader is asked: a pool's own processes end by its order."""
        if self.process is not None and self.running():
            os.kill(self.process.pid, signal.SIGTERM)

    def finish(self) -> int:
        """Leave nobody of the group; returns the leader's exit code."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self.process = None
        return code


def stop_all(children: list[Child], *, hurried: "Hurry") -> None:
    """Tier by tier from the top: no new orders first, then nothing that sends, the venues' side last."""
    for tier in sorted({child.program.tier for child in children}, reverse=True):
        tier_children = [child for child in children if child.program.tier == tier]
        for child in tier_children:
            child.ask_to_stop()
        end = time.monotonic() + GRACE_SECONDS
        while any(child.running() for child in tier_children) and time.monotonic() < end and not hurried.hard:
            time.sleep(0.05)
        for child in tier_children:
            child.finish()


class Hurry:
    """What the operator's signals ask for: one stops in order, a second one at once."""

    def __init__(self) -> None:
        self.count = 0

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self.add())

    def add(self) -> None:
        self.count += 1

    def stopping(self) -> bool:
        return self.count > 0

    @property
    def hard(self) -> bool:
        return self.count > 1
