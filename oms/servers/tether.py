"""`tether.py SIGNAL PARENT USER COMMAND...`: become COMMAND, and get SIGNAL when PARENT dies.

USER is `uid:gid` to drop to, or `-`. (Popen's own `user=` would run *this* as that user, who may not reach Python.)

Run as a plain script before each child, so that a kill -9 of the parent leaves no orphan. On Linux the kernel keeps
the promise and this process *becomes* the command; elsewhere it stays as a watch that ends the command's group.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


def main(number: int, parent: int, user: str, command: list[str]) -> None:
    """Never returns."""
    if user != "-":
        uid, gid = map(int, user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)  # before the wish below: a change of user takes it back
    if sys.platform != "linux":
        watch(number, parent, command)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew of the wish
        sys.exit(128 + number)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def watch(number: int, parent: int, command: list[str]) -> None:
    """Stand between parent and command: pass stop signals down, end the command when the parent is gone."""
    child = subprocess.Popen(command)
    for passed in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(passed, lambda received, _: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.send_signal(number)
        time.sleep(0.5)
    sys.exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
