"""Our end of the guard: whom it must end should this process be killed."""

import fcntl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from oms.supervisor import guard

EARLIER_SECONDS_MAX = 30.0
"""So long the guard of a killed desk may still be at work."""


class Guard:
    """Holds the pipe whose end tells the guard that we are gone."""

    def __init__(self, data: Path) -> None:
        self.lock = data / "guard.lock"
        self.watched: dict[str, tuple[int, int]] = {}
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        end = time.monotonic() + EARLIER_SECONDS_MAX
        with self.lock.open("a") as lock:
            while time.monotonic() < end:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.1)
            return subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=subprocess.DEVNULL,
                pass_fds=[lock.fileno()],  # from here on the lock is the guard's
                start_new_session=True,
                cwd="/",
            )

    def watch(self, name: str, pid: int, number: int) -> None:
        """Should we be killed: send it `number`, then kill its group. A name has one process at a time."""
        self.forget(name)
        self.watched[name] = pid, int(number)
        self._say(f"watch {pid} {int(number)}\n")

    def forget(self, name: str) -> None:
        if name in self.watched:
            self._say(f"forget {self.watched.pop(name)[0]}\n")

    def mend(self) -> None:
        """A guard that was killed itself gets a successor."""
        if self.process.poll() is not None:
            self._hang_up()
            self.process = self._start()
            for pid, number in self.watched.values():
                self._say(f"watch {pid} {number}\n")

    def done(self) -> None:
        self._say("done\n")
        self._hang_up()
        self.process.wait()

    def _hang_up(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _say(self, line: str) -> None:
        if self.process.stdin is not None:
            with suppress(OSError):  # it is dead; `mend` tells its successor
                self.process.stdin.write(line.encode())
