"""Inside the environment: which command, on which data folder, with which servers."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from oms.servers import ServersUnavailable, ServerUrls, running, secret_key

READS_CODE_ALONE = frozenset(
    {"help", "version", "check", "makemigrations", "collectstatic", "diffsettings", "findstatic", "spectacular"}
)
ON_ITS_OWN = frozenset({"simulate"})
NOWHERE = ServerUrls("postgresql://oms@127.0.0.1:1/oms", "redis://127.0.0.1:1/0")
USAGE = """The order management system:

  python3 manage.py up [--port 8000] [--host 127.0.0.1] [--data DIR] [--no-demo] [--only web,worker] [--sessions]
        start the whole desk and watch over it; Ctrl-C stops it, the data stays
  python3 manage.py test [pytest arguments]
        all tests but the long suites, on throw-away servers
  python3 manage.py setup [--dev]
        only make .venv with the pinned packages
  python3 manage.py COMMAND [--data DIR] ...
        a management command, on the servers of a running desk, or on its own for as long as it takes
"""


def launch(program: str, command: str, arguments: Sequence[str], data: Path) -> int:
    """Run one command and return its exit code."""
    try:
        if command == "up":
            from oms.supervisor.desk import up  # noqa: PLC0415 - each command loads what it needs alone

            return up(arguments, data)
        if command == "test":
            from oms.supervisor.testing import run_tests  # noqa: PLC0415 - brings the development packages

            return run_tests(arguments)
        return manage([program, *([command] if command else []), *arguments], data)
    except KeyboardInterrupt:
        return 130
    except ServersUnavailable as error:
        print(f"oms: {error}", file=sys.stderr)
        return 2


def manage(argv: Sequence[str], data: Path) -> int:
    """One of Django's commands, with DATABASE_URL and REDIS_URL in its environment before settings are read."""
    command = argv[1] if len(argv) > 1 else "help"
    if command == "broker":
        argv = [_broker_settings(word) for word in argv]
    if command in ("help", "--help", "-h") and len(argv) <= 2:
        print(USAGE)
    if command in READS_CODE_ALONE or command.startswith("-") or {"-h", "--help"} & set(argv):
        for name, url in (("DATABASE_URL", NOWHERE.database_url), ("REDIS_URL", NOWHERE.redis_url)):
            os.environ.setdefault(name, url)
        return _execute(argv, data)
    signal.signal(signal.SIGTERM, _leave)  # so that servers of our own are stopped in peace
    if command in ON_ITS_OWN:
        return _apart(argv, command)
    with running(data, purpose=command) as urls:
        os.environ.update(DATABASE_URL=urls.database_url, REDIS_URL=urls.redis_url)
        return _execute(argv, data)


def _apart(argv: Sequence[str], command: str) -> int:
    """Run a command on servers that are thrown away afterwards: it makes a desk of its own, whatever the user named."""
    folder = Path(tempfile.mkdtemp(prefix=f"oms-{command}-"))
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    try:
        with running(folder, purpose=command, durable=False) as urls:
            os.environ.update(DATABASE_URL=urls.database_url, REDIS_URL=urls.redis_url)
            return _execute(argv, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _broker_settings(word: str) -> str:
    """`broker add --settings FILE` means the broker's: Django would take the option for its own settings module."""
    return word.replace("--settings", "--broker-settings", 1) if word.split("=")[0] == "--settings" else word


def environment(data: Path, urls: ServerUrls) -> dict[str, str]:
    """What every process of a desk gets, beside what the user's own environment says."""
    env = {
        "DATABASE_URL": urls.database_url,
        "REDIS_URL": urls.redis_url,
        "OMS_DATA": str(data),
        "OMS_ENV": os.environ.get("OMS_ENV", "demo"),
        "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "oms.settings"),
        "PYTHONUNBUFFERED": "1",
    }
    if env["OMS_ENV"] != "production" and "OMS_SECRET_KEY" not in os.environ and data.is_dir():
        env["OMS_SECRET_KEY"] = secret_key(data)  # production names its own: many hosts must share it
    return env


def _execute(argv: Sequence[str], data: Path) -> int:
    urls = ServerUrls(os.environ["DATABASE_URL"], os.environ["REDIS_URL"])
    os.environ.update(environment(data, urls))
    from django.core.management import execute_from_command_line  # noqa: PLC0415 - only now is its environment whole
    from django.db import InterfaceError, OperationalError, ProgrammingError, connection  # noqa: PLC0415 - set up by now

    try:
        execute_from_command_line(list(argv))
    except (OperationalError, InterfaceError) as error:
        print(f"oms: the database can't be used: {str(error).strip()}", file=sys.stderr)
        return 2
    except ProgrammingError:
        if connection.introspection.table_names():
            raise
        print(
            "oms: this database is empty; `manage.py up` sets it up (`--data DIR` names another desk)", file=sys.stderr
        )
        return 2
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return 130
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
