"""Named points where a fault test may end or freeze the process, to prove that nothing is lost or doubled there.

`OMS_CRASH=name:n` kills the process with SIGKILL at the n-th passing of the point, `name:n:SIGSTOP` freezes it there.
Settings for production refuse to start with it; without it a point costs one comparison. A simulation, whose processes
are not of the operating system, says itself what the end of one is.
"""

import os
import signal
from collections.abc import Callable

_name, _left, _signal = "", 0, signal.SIGKILL
_end: Callable[[], None] | None = None


def arm(what: str, end: Callable[[], None] | None = None) -> None:
    """Die or freeze at the n-th passing of a point, told as above, or call `end` there; nothing told disarms."""
    global _name, _left, _signal, _end
    _name, count, number, *_ = [*what.split(":"), "", ""]
    _left, _signal, _end = int(count or 1), signal.Signals[number or "SIGKILL"], end


def point(name: str) -> None:
    """Pass a named point, or end there when a test asked for that."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0 and _end is not None:
        _end()
    elif _left == 0:
        os.kill(os.getpid(), _signal)


arm(os.environ.get("OMS_CRASH", ""))
