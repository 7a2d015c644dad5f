"""Who PostgreSQL runs as. It refuses uid 0, so a root user lends it another face, without touching the machine."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

NAMESPACE = ("unshare", "-U", "--map-user=1000", "--map-group=1000", "--")


@dataclass(frozen=True)
class Identity:
    """What goes before a command (`prefix`) or into Popen (`drop`) so that it doesn't run as root."""

    prefix: tuple[str, ...] = ()
    drop: dict[str, Any] = field(default_factory=dict)

    def own(self, folder: Path) -> None:
        """Give a folder and all in it to the user that the server drops to."""
        if not self.drop:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.drop["user"], self.drop["group"], follow_symlinks=False)

    def can_run(self, program: Path) -> bool:
        """Whether that user reaches the program through every folder above it."""
        return _succeeds([*self.prefix, str(program), "--version"], **self.drop)


@cache
def identity() -> Identity:
    """Ourselves; as root a user namespace (files stay root's), else the user postgres or nobody."""
    if os.geteuid() != 0:
        return Identity()
    if shutil.which("unshare") and _succeeds([*NAMESPACE, "true"]):
        return Identity(prefix=NAMESPACE)
    return dropped()


def dropped() -> Identity:
    """Another user of this machine, where a hardened container refuses namespaces."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known.get("nobody")
    if user is None:
        return Identity()
    return Identity(drop={"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []})


def _succeeds(command: list[str], **popen: Any) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", check=False, timeout=20, **popen
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
