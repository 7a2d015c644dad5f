"""SQL time comes from one function, which only a simulation may replace."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oms.runtime import clock, sql

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("oms", "analytics", "orders", "risk", "portfolio", "routing", "brokers")
TIME = re.compile(r"\bnow\(\)|clock_timestamp|current_timestamp|current_date|localtimestamp", re.IGNORECASE)
STATEMENT = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|WHERE|EXISTS)\b")
OWN_TIME = {"oms/runtime/clock.py", "risk/operations/halting.py"}
"""Where the function is made, and where sessions are asked how long they have stood idle: the server's own time."""


def statements(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_statement_asks_the_server_itself_what_time_it_is() -> None:
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if "/migrations/" in name or name in OWN_TIME:
                continue
            texts = [t for t in statements(path) if TIME.search(t) and (STATEMENT.search(t) or "due_at" in t)]
            found += [f"{name}: {t.strip()[:60]}" for t in texts]
    assert found == []


@pytest.mark.django_db
def test_the_clock_of_a_desk_is_the_real_one_and_a_simulated_one_is_found_out() -> None:
    assert clock.is_real()
    clock.simulate()
    assert not clock.is_real()
    assert sql.run("SELECT abs(extract(epoch FROM desk_clock() - clock_timestamp())) < 1").fetchone() == (True,)
