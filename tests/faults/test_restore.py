"""D19: a desk brought back from an old copy: halted, told by its brokers what it has forgotten, and signed off by a person."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from oms import backups
from oms.bootstrap import ROOT
from orders.operations.reconciling import reconcile
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults.conftest import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

ADOPT = """
from datetime import UTC, datetime
from django.contrib.auth import get_user_model
from oms.kernel.actor import Actor
from orders.operations import manual, resolving
from portfolio.models import Break
people = {n: get_user_model().objects.get(username=n) for n in ("oona", "omar")}
oona, omar = (Actor(f"user:{n}", u.pk) for n, u in people.items())
for row in Break.objects.filter(kind__in=["missing_fill", "missing_order"]).order_by("id"):
    at = datetime.now(UTC)
    resolving.propose(row.pk, "adopt", reason="forgotten", actor=oona, at=at)
    manual.decide(row.pk, "approve", reason="seen at the broker", actor=omar, at=at)
"""
RELEASE = """
from datetime import UTC, datetime
from django.contrib.auth import get_user_model
from oms.kernel.actor import Actor
from risk import operations as risk
from risk.models import Halt
rita = get_user_model().objects.get(username="rita")
risk.release_halt(Halt.objects.get(released_at=None).pk, reason="reconciled", actor=Actor("user:rita", rita.pk), at=datetime.now(UTC))
"""


def run(url: str, *words: str, script: str = "", good: int = 0) -> Any:
    """Run a command of the restored desk and return what it told."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words], env=os.environ | {"DATABASE_URL": url, "OMS_SUPERVISED": "1"},
        input=script, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == good, f"{words}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else None


def trade(desk: Desk, *texts: str) -> None:
    """Trade at the venue and take in what it did."""
    desk.place(*texts)
    desk.send()
    at = datetime.now(UTC) + timedelta(seconds=30)
    assert reconcile("NEAR", actor=desk.actor(desk.oona), clock=lambda: at).state == "done"


def test_d19_a_restored_desk_adopts_what_it_has_forgotten_before_anybody_trades(
    live_desk: Desk, join: Callable[..., Venue], tmp_path: Path
) -> None:
    join()
    trade(live_desk, "buy 5 AAPL")
    copy = tmp_path / "old.dump"
    backups.back_up(database_url(), copy, at=datetime.now(UTC))
    trade(live_desk, "buy 7 AAPL", "buy 3 AAPL limit 90")
    connection.close()
    with backups.drill_database(database_url()) as url:
        assert run(url, "restore", str(copy), "--json")["whole"] is True
        told = run(url, "reconcile", "--broker", "NEAR", "--json", good=1)
        [first] = told["runs"]
        assert {b["kind"] for b in first["breaks"]} == {"missing_fill", "missing_order", "position", "cash"}
        assert {b["cause"] for b in first["breaks"] if b["kind"] in ("position", "cash")} == {"fills"}
        run(url, "shell", script=ADOPT)
        [second] = run(url, "reconcile", "--broker", "NEAR", "--json")["runs"]
        assert (second["open"], second["closed"]) == (0, 4)
        with psycopg.connect(url) as restored:
            held = restored.execute("SELECT quantity FROM portfolio_brokerposition").fetchall()
            assert [int(q) for (q,) in held] == [12]
            halts = restored.execute("SELECT scope_kind, mode, released_at FROM risk_halt").fetchall()
            assert halts == [("all", "halt", None)]
            working = restored.execute("SELECT leaves_quantity FROM orders_order WHERE status = 'new'").fetchall()
            assert [int(q) for (q,) in working] == [3]
        run(url, "check_invariants")
        run(url, "verify_audit", "--no-checkpoints")
        run(url, "shell", script=RELEASE)
