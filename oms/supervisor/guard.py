"""The guard outlives its owner by seconds, to see that nothing else does.

It reads from a pipe that the owner holds: `watch PID SIGNAL`, `forget PID`, `done`. When the pipe ends without
`done` the owner was killed: the guard ends every watched process, last one first, whole groups, and goes. It holds
the lock `guard.lock` of the data folder meanwhile, so that the next start waits. Standard library only, no imports
of the project: it must start fast and need nothing.
"""

import os
import signal
import sys
import time
from contextlib import suppress

GRACE_SECONDS = 6.0


def identity(pid: int) -> str:
    """State-independent name of a process: its start time tells a reused number apart. Empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        if os.path.isdir("/proc/self"):
            return ""
        try:
            os.kill(pid, 0)
        except OSError:
            return ""
        return "alive"
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def tell(pid: int, number: int) -> None:
    with suppress(OSError):
        os.kill(pid, number)


def end_all(watched: dict[int, tuple[int, str]]) -> None:
    """Ask all, wait for each, then kill what is left of the groups; last started is first ended."""
    order = list(reversed(watched.items()))
    for pid, (number, name) in order:
        if identity(pid) == name:
            tell(pid, number)
    for pid, (_, name) in order:
        end = time.monotonic() + GRACE_SECONDS
        while identity(pid) == name and time.monotonic() < end:
            time.sleep(0.05)
    for pid, (_, name) in order:
        if identity(pid) in (name, ""):  # never a stranger that got the number
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, tuple[int, str]] = {}
    for line in sys.stdin:
        verb, *numbers = line.split()
        if verb == "watch":
            watched[int(numbers[0])] = (int(numbers[1]), identity(int(numbers[0])))
        elif verb == "forget":
            watched.pop(int(numbers[0]), None)
        elif verb == "done":
            return
    end_all(watched)


if __name__ == "__main__":
    main()
