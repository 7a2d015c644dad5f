"""`manage.py test`: pytest on servers that are thrown away afterwards."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from oms.bootstrap import ROOT
from oms.launch import environment
from oms.servers import running

TERMINAL_SECONDS = 20
"""How long pytest may take to say where Ctrl-C found it."""


def run_tests(arguments: Sequence[str]) -> int:
    """Run pytest on a quick cluster of its own, where nothing waits for the disk; returns pytest's exit code."""
    folder = Path(tempfile.mkdtemp(prefix="oms-test-"))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with running(folder, purpose="test", durable=False) as urls:
            os.environ["OMS_ENV"] = "test"
            return _pytest([*processes(arguments), *arguments], os.environ | environment(folder, urls))
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def processes(arguments: Sequence[str]) -> list[str]:
    """Two workers, unless the arguments say how many, want a debugger or a list, or name single tests."""
    own_say = (
        "-n",
        "--numprocesses",
        "--pdb",
        "--trace",
        "--collect-only",
        "--co",
        "no:xdist",
        "-pno:xdist",
        "-h",
        "--help",
    )
    own = any(word.startswith(own_say) or "::" in word for word in arguments)
    return [] if own else ["-n", "2", "--dist", "loadgroup"]  # tests that share a desk stay together


def _pytest(arguments: Sequence[str], env: dict[str, str]) -> int:
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=env)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(TERMINAL_SECONDS)
        except subprocess.TimeoutExpired:
            return 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
