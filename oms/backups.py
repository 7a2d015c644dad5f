"""Copies of the desk's database, and proof that they can be brought back.

A copy is PostgreSQL's own dump, of one snapshot, with a manifest beside it: the file's digest, and where every chain of
the journal stood in that very snapshot. What is restored must be the bytes that were written, end its chains where they
ended, hold every invariant and an unbroken audit trail.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from oms.bootstrap import ROOT
from oms.servers.postgres import PostgresFailed, binaries

PROGRAM_SECONDS_MAX = 6 * 3600
FORMAT = 1
HEADS = "SELECT name, sequence, encode(head, 'hex') FROM journal_stream ORDER BY name"
COUNTS = ("orders_order", "orders_execution", "portfolio_ledgerentry", "journal_event")
_FROM_URL = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


class BackupFailed(Exception):
    """A copy can't be made or used; the text says why and what to do."""


def manifest_of(dump: Path) -> Path:
    """Return where a dump's manifest stands."""
    return dump.with_name(dump.name + ".json")


def back_up(url: str, target: Path, *, at: datetime) -> dict[str, Any]:
    """Write a dump and its manifest; return the manifest. Nothing is left behind where it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        with psycopg.connect(url) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            [snapshot] = connection.execute("SELECT pg_export_snapshot()").fetchone() or [""]
            told = _told(connection)
            part.touch(mode=0o600)
            _program("pg_dump", url, "--format=custom", f"--snapshot={snapshot}", f"--file={part}")
    except psycopg.Error as error:
        part.unlink(missing_ok=True)
        raise BackupFailed(str(error).strip()) from error
    except BackupFailed:
        part.unlink(missing_ok=True)
        raise
    manifest = {"format": FORMAT, "at": at.isoformat(), "sha256": digest(part), "bytes": part.stat().st_size, **told}
    beside = manifest_of(target)
    beside.write_text(json.dumps(manifest, indent=2) + "\n")
    beside.chmod(0o600)
    _sync(part)
    part.replace(target)
    return {"file": str(target), **manifest}


def _told(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    heads = {name: [sequence, head] for name, sequence, head in connection.execute(HEADS).fetchall()}
    counts = {t: (connection.execute(f"SELECT count(*) FROM {t}").fetchone() or [0])[0] for t in COUNTS}
    return {"server_version": connection.info.server_version, "rows": counts, "heads": heads}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(dump: Path) -> dict[str, Any]:
    """Return the manifest of a dump whose bytes are those that were written, or raise `BackupFailed`."""
    try:
        manifest = json.loads(manifest_of(dump).read_text())
        wanted, heads = str(manifest["sha256"]), dict(manifest["heads"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupFailed(f"{manifest_of(dump)} can't be read: {error}") from error
    if not dump.is_file():
        raise BackupFailed(f"There is no {dump}.")
    if digest(dump) != wanted:
        raise BackupFailed(f"{dump} is not the file that was written: its digest differs.")
    return {**manifest, "heads": heads}


def restore(url: str, dump: Path, manifest: dict[str, Any]) -> list[str]:
    """Bring a dump back into an empty database and return what is wrong with it, nothing for a good one."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
    if row and row[0]:
        raise BackupFailed("The database is not empty. Restore into a new one, or try the copy with --drill.")
    _program("pg_restore", url, "--exit-on-error", "--no-owner", f"--dbname={_name(url)}", str(dump))
    return judge(url, manifest)


def judge(url: str, manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with a restored database: chains that end elsewhere, invariants, audit, schema."""
    with psycopg.connect(url) as connection:
        told = _told(connection)
    wrong = [f"the chain of {n} ends elsewhere" for n, h in manifest["heads"].items() if told["heads"].get(n) != h]
    wrong += [f"there is a chain {n} more" for n in told["heads"].keys() - manifest["heads"].keys()]
    wrong += [
        f"{t} has {told['rows'][t]} rows, not {n}" for t, n in manifest["rows"].items() if told["rows"].get(t) != n
    ]
    for command in (("migrate", "--check"), ("check_invariants",), ("verify_audit", "--no-checkpoints")):
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *command],
            env=os.environ | {"DATABASE_URL": url, "OMS_SUPERVISED": "1"},
            capture_output=True, text=True, check=False, timeout=PROGRAM_SECONDS_MAX,
        )  # fmt: skip
        if done.returncode != 0:
            wrong.append(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-500:]}")
    return wrong


@contextmanager
def drill_database(url: str) -> Iterator[str]:
    """Make an empty database beside the desk's own and drop it again; yield its URL."""
    plain = f"oms_drill_{os.getpid()}"
    name = sql.Identifier(plain)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except psycopg.Error as error:
        raise BackupFailed(f"No database for the drill: {str(error).strip()}") from error
    try:
        yield urlsplit(url)._replace(path=f"/{plain}").geturl()
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _program(name: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a database; the password stays out of the process list."""
    told = {k: str(v) for k, v in conninfo_to_dict(url).items()}
    env = {variable: told.pop(key) for key, variable in _FROM_URL.items() if key in told}
    env |= {f"PG{key.upper()}": value for key, value in told.items()}
    try:
        done = subprocess.run(
            [_found(name, url), *arguments], env=os.environ | env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=PROGRAM_SECONDS_MAX,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackupFailed(f"{name}: {error}") from error
    if done.returncode != 0:
        raise BackupFailed(f"{name} failed:\n{done.stderr.strip()[-2000:]}")


def _found(name: str, url: str) -> str:
    """Return the program that is not older than the server: the one on the path, else the embedded PostgreSQL's."""
    with psycopg.connect(url) as connection:
        wanted = connection.info.server_version // 10_000
    places = [shutil.which(name)]
    with suppress(PostgresFailed):
        places.append(str(binaries() / name))
    for program in places:
        if program is not None and Path(program).exists() and _major(program) >= wanted:
            return program
    raise BackupFailed(f"No {name} of version {wanted} or newer is installed; PostgreSQL's client programs have it.")


def _major(program: str) -> int:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", told)
    return int(found[1]) if found else 0


def _name(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])
