"""A copy of the desk is made while it runs, and brought back whole, or said not to be."""

import json
import os
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from oms import backups
from oms.journal.models import Event
from tests.conftest import Desk

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def copied(live_desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup of a desk that has traded."""
    known = connection.settings_dict
    url = f"postgresql://{known['USER']}:{known['PASSWORD']}@{known['HOST']}:{known['PORT']}/{known['NAME']}"
    monkeypatch.setenv("DATABASE_URL", url)
    live_desk.place("buy 10 AAPL", "buy 5 MSFT limit 100")
    told = run("backup", "--to", str(tmp_path))
    live_desk.place("buy 1 AAPL")  # what comes after the copy is not in it, and does not make it wrong
    return Path(told["file"])


@pytest.fixture
def empty(copied: Path) -> Iterator[str]:
    """A new database beside the desk's."""
    with backups.drill_database(os.environ["DATABASE_URL"]) as url:
        yield url


def run(*command: str) -> dict[str, Any]:
    out = StringIO()
    call_command(*command, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def test_a_drill_proves_the_copy_and_leaves_nothing(copied: Path) -> None:
    told = run("restore", str(copied), "--drill")
    assert (told["whole"], told["wrong"]) == (True, [])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as check:
        for _ in range(600):  # a drill of another test beside this one may be under way on the same server
            left = check.execute("SELECT 1 FROM pg_database WHERE datname LIKE 'oms_drill%'").fetchall()
            if not left:
                break
            time.sleep(0.1)
        assert left == []
    assert copied.stat().st_mode & 0o077 == 0
    assert Event.objects.filter(kind="desk.backed_up").count() == 1


def test_a_copy_fills_an_empty_desk_and_never_another(
    copied: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="not empty") as full:
        run("restore", str(copied))
    assert full.value.returncode == 2
    manifest = backups.read_manifest(copied)
    assert backups.restore(empty, copied, manifest) == []
    with psycopg.connect(empty) as restored:
        assert restored.execute("SELECT count(*) FROM orders_order").fetchone() == (2,)


def test_bytes_that_changed_are_not_restored(copied: Path) -> None:
    raw = bytearray(copied.read_bytes())
    raw[len(raw) // 2] ^= 1
    copied.write_bytes(raw)
    with pytest.raises(CommandError, match="digest differs") as changed:
        run("restore", str(copied), "--drill")
    assert changed.value.returncode == 2


def test_a_chain_that_ends_elsewhere_is_told(copied: Path) -> None:
    beside = backups.manifest_of(copied)
    manifest = json.loads(beside.read_text())
    manifest["heads"]["account:MAIN"][0] += 1
    beside.write_text(json.dumps(manifest))
    out = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("restore", str(copied), "--drill", "--json", stdout=out)
    assert end.value.code == 1
    assert json.loads(out.getvalue())["wrong"] == ["the chain of account:MAIN ends elsewhere"]


def test_a_dry_run_writes_nothing(copied: Path, tmp_path: Path) -> None:
    there = sorted(tmp_path.iterdir())
    assert run("backup", "--to", str(tmp_path), "--dry-run")["dry_run"] is True
    assert run("restore", str(copied), "--dry-run")["whole"] is True
    assert sorted(tmp_path.iterdir()) == there


def test_a_database_that_is_not_there_leaves_no_half_copy(tmp_path: Path) -> None:
    told = conninfo_to_dict(os.environ["DATABASE_URL"]) | {"dbname": "nobody_made_this"}
    from datetime import UTC, datetime

    from psycopg.conninfo import make_conninfo

    with pytest.raises(backups.BackupFailed, match="does not exist"):
        backups.back_up(make_conninfo(**told), tmp_path / "x.dump", at=datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []
