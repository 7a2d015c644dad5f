"""From a bare Python to a running command: make `.venv`, start again inside it.

Standard library only: nothing else is there yet.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
RUNTIME, DEVELOPMENT, INSTALLER = "requirements.txt", "requirements-dev.txt", "requirements-uv.txt"


class CannotSetUp(Exception):
    """The environment can't be made; the text says what the reader can do."""


def main(argv: Sequence[str]) -> None:
    """Run one command line in the environment it needs; ends the process."""
    command, arguments, data = parse(argv[1:])
    try:
        if "OMS_SUPERVISED" not in os.environ:  # a desk's process: its supervisor saw to the environment
            ensure(development=command == "test" or (command == "setup" and "--dev" in arguments))
    except CannotSetUp as error:
        sys.exit(f"\n{error}")
    if command == "setup":
        sys.exit(0)
    if Path(sys.prefix).resolve() != VENV.resolve() and "OMS_SUPERVISED" not in os.environ:
        sys.stdout.flush()
        os.execv(PYTHON, [str(PYTHON), *argv])  # noqa: S606 - this process becomes it
    from oms.launch import launch  # noqa: PLC0415 - its packages are there only inside .venv

    sys.exit(launch(argv[0], command, arguments, data))


def parse(arguments: Sequence[str]) -> tuple[str, list[str], Path]:
    """(command, its arguments, data folder): `--data` may stand anywhere before a bare `--`."""
    rest: list[str] = []
    data = os.environ.get("OMS_DATA") or str(ROOT / "var")
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument == "--data":
            data = next(waiting, "") or sys.exit("--data needs a folder.")
        elif argument.startswith("--data="):
            data = argument.removeprefix("--data=") or sys.exit("--data needs a folder.")
        else:
            rest.append(argument)
    command = rest.pop(0) if rest else ""
    return command, rest, Path(data).expanduser().resolve()


def ensure(*, development: bool, root: Path = ROOT) -> None:
    """Make `.venv` hold the pinned requirements. Cheap when it does; safe beside another start.

    The stamp is removed first and written last, so that what was cut off is done again.
    """
    if is_current(development=development, root=root):
        return
    with _alone(root):
        if is_current(development=development, root=root):
            return
        development = development or _had_development(root)
        _say(f"Setting up {root / '.venv'} (once; under a minute on a fast line) ...")
        (root / ".venv" / STAMP.name).unlink(missing_ok=True)
        _make_environment(root)
        _install(root, DEVELOPMENT if development else RUNTIME)
        _write_stamp(root, development=development)
        _say("Ready.")


def is_current(*, development: bool, root: Path = ROOT) -> bool:
    """Whether the last complete install was of these very requirements."""
    stamp, wanted = _read_stamp(root), _digests(root)
    return (
        (root / ".venv" / "bin" / "python").exists()
        and stamp.get(RUNTIME) == wanted[RUNTIME]
        and stamp.get(DEVELOPMENT) == (wanted[DEVELOPMENT] if development or DEVELOPMENT in stamp else None)
    )


def _had_development(root: Path) -> bool:
    return (root / ".venv" / "bin" / "pytest").exists()


def _digests(root: Path) -> dict[str, str]:
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in (RUNTIME, DEVELOPMENT)}


def _read_stamp(root: Path) -> dict[str, str]:
    try:
        lines = (root / ".venv" / STAMP.name).read_text().split("\n")
    except OSError:
        return {}
    pairs = (line.partition(" ") for line in lines)
    return {name: digest for name, _, digest in pairs if digest}


def _write_stamp(root: Path, *, development: bool) -> None:
    kept = {name: digest for name, digest in _digests(root).items() if development or name == RUNTIME}
    new = root / ".venv" / f"{STAMP.name}.new"
    new.write_text("".join(f"{name} {digest}\n" for name, digest in kept.items()))
    new.replace(root / ".venv" / STAMP.name)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One installer at a time: a second start waits and then finds the work done."""
    try:
        handle = (root / ".venv.lock").open("w")
    except OSError as error:
        raise CannotSetUp(f"This checkout can't be written ({error}); run it from a copy of your own.") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another start is setting up .venv; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make_environment(root: Path) -> None:
    venv, python = root / ".venv", root / ".venv" / "bin" / "python"
    if python.exists() and _works(python, "-m", "pip", "--version"):
        return
    _say("  a virtual environment")
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = _run([base, "-m", "venv", "--clear", str(venv)], quiet=True)
    if made.returncode == 0:
        return
    uv = shutil.which("uv")
    if uv and _run([uv, "venv", "--seed", "--clear", "--python", base, str(venv)]).returncode == 0:
        return
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    raise CannotSetUp(
        f"{made.stdout.strip()}\n\nPython can't make a virtual environment here.\n"
        f"On Debian or Ubuntu:  apt-get install python3-venv   (or python{version}-venv)\n"
        "Elsewhere install the venv module of this Python, then run the same command again."
    )


def _install(root: Path, requirements: str) -> None:
    """uv where it can be had (seconds), else pip (a minute or two); both hold every file to its hash."""
    python = str(root / ".venv" / "bin" / "python")
    uv = root / ".venv" / "bin" / "uv"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--require-hashes"]
    if not uv.exists():
        _say("  the installer")
        _run([*pip, "-q", "-r", str(root / INSTALLER)], quiet=True)
    _say(f"  the packages of {requirements}")
    if uv.exists():
        fast = [str(uv), "pip", "install", "--python", python, "--require-hashes", "-r", str(root / requirements)]
        if _run(fast).returncode == 0 or _run([*fast, "--system-certs"]).returncode == 0:  # a company's own authority
            return
        _say("  uv did not manage; trying pip")
    if _run([*pip, "-r", str(root / requirements)]).returncode != 0:
        raise CannotSetUp(
            "The packages could not be installed (see above). Is the package index within reach? "
            "Run the same command again; it goes on where it was."
        )


def _works(*command: object) -> bool:
    return _run([str(part) for part in command], quiet=True).returncode == 0


def _run(command: list[str], *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run with all output on standard error, so that a command's own output stays clean."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else sys.stderr,
        stderr=subprocess.STDOUT if quiet else sys.stderr,
        text=True,
        check=False,
        env=_installer_environment(os.environ),
    )


def _installer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's index, proxy and certificates stay; what would aim at another environment goes."""
    aimed = {
        "VIRTUAL_ENV",
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
    }
    return {name: value for name, value in environment.items() if name not in aimed}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
