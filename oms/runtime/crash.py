"""Named points where a fault test may end or freeze the process, to prove that nothing is lost or doubled there.

`OMS_CRASH=name:n` kills the process with SIGKILL at the n-th passing of the point, `name:n:SIGSTOP` freezes it there.
Settings for production refuse to start with it; without it a point costs one comparison.
"""

import os
import signal

_name, _left, _signal = "", 0, signal.SIGKILL


def arm(what: str) -> None:
    """Die or freeze at the n-th passing of a point, told as above; nothing told disarms."""
    global _name, _left, _signal
    _name, count, number, *_ = [*what.split(":"), "", ""]
    _left, _signal = int(count or 1), signal.Signals[number or "SIGKILL"]


def point(name: str) -> None:
    """Pass a named point, or end there when a test asked for that."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), _signal)


arm(os.environ.get("OMS_CRASH", ""))
