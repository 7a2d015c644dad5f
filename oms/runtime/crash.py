"""Named points where a fault test may end the process, to prove that nothing is lost or doubled there.

`OMS_CRASH=name:n` kills the process with SIGKILL at the n-th passing of the point. Settings for production
refuse to start with it; without it a point costs one comparison.
"""

import os
import signal

_name, _left = "", 0


def arm(what: str) -> None:
    """Die at the n-th passing of a point, told as `name:n`; nothing told disarms."""
    global _name, _left
    _name, _, count = what.partition(":")
    _left = int(count or 1)


def point(name: str) -> None:
    """Pass a named point, or die at it when a test asked for that."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("OMS_CRASH", ""))
