"""The order state matrices as published, read from `$ORACLES_DIR`; the suite's own copy of the rules is in tests/data."""

import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Desk
from tests.fix.conftest import Wired, wire
from tests.fix.states import play_all
from tests.flows.order_states import Play, Row, paths, roomy

__all__ = ["wire"]  # the fixture of the FIX tests
FILE = Path(os.environ.get("ORACLES_DIR", "../shared/oracles")) / "fix_order_state.json"
KINDS = {
    "NewOrderSingle": "new",
    "OrderCancelRequest": "cancel",
    "OrderCancelReplaceRequest": "replace",
    "OrderCancelReject": "cancel_rejected",
    "TradeCancel": "bust",
    "TradeCorrect": "correct",
    "OrderStatus": "status",
}
MORE = {"time_in_force": "tif", "exec_id": "exec", "exec_ref_id": "ref", "last_px": "price"}


def snake(word: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in word).lstrip("_")


def number(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def row(told: dict[str, Any]) -> Row:
    way = "none" if told["msg"] == "OrderStatusRequest" else told["dir"]
    word = told.get("exec_type") or told["msg"]
    more = {ours: str(told[theirs]).lower() for theirs, ours in MORE.items() if told.get(theirs) is not None}
    more |= {ours: str(told[theirs]) for theirs, ours in MORE.items() if ours in ("exec", "ref") and told.get(theirs)}
    if told.get("exec_type") in ("TradeCorrect", "Trade") and told.get("last_qty"):
        more["last"] = str(told["last_qty"])
    counts = told.get("order_qty") is not None and way == "out" and "cum_qty" in told
    return Row(
        told["t"], way, KINDS.get(word, snake(word)), told.get("cl_ord_id") or "", told.get("orig_cl_ord_id") or "",
        snake(told.get("ord_status") or ""), number(told.get("order_qty")),
        number(told["cum_qty"]) if counts else None, number(told["leaves_qty"]) if counts else None,
        more, bool(told.get("alternative_path")),
    )  # fmt: skip


def rows_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a case's rows; an order over an amount of money has the units that the broker then names."""
    rows = case["rows"]
    units = next((r["order_qty"] for r in rows if r["dir"] == "out" and r.get("order_qty")), None)
    return [r | {"order_qty": r.get("order_qty") or units} if r["msg"] == "NewOrderSingle" else r for r in rows]


def ways() -> dict[str, list[Row]]:
    found = json.loads(FILE.read_text())["scenarios"] if FILE.exists() else []
    return {
        f"{case['id']}{f'-{n}' if n else ''}": way
        for case in found
        for n, way in enumerate(paths([row(r) for r in rows_of(case)]))
    }


@pytest.mark.parametrize("way", [pytest.param(way, id=title) for title, way in ways().items()])
def test_a_published_race(desk: Desk, way: list[Row]) -> None:
    roomy(desk)
    Play(desk).run(way)
    desk.holds()


@pytest.mark.skipif(not FILE.exists(), reason=f"the published races are not at {FILE}")
@pytest.mark.parametrize("begin", ["FIX.4.4", pytest.param("FIX.4.2", marks=pytest.mark.long)])
def test_the_published_races_through_a_fix_session(wire: Callable[..., Wired], begin: str) -> None:
    wired = wire(begin)
    wired.log_on()
    assert play_all(wired, ways()) == {}
    wired.desk.holds()
