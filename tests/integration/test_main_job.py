"""The main job, short: a whole desk trades on recorded quotes. `make replay` runs it at length.

`OMS_QUOTES` names a folder of recordings of real markets; without it a small one of the demo market is replayed.
"""

import os
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from oms.kernel.json import rfc3339
from tests.mainjob import SAMPLE, Recording, recordings_in, run

ORDERS = 16


def test_orders_fill_inside_the_recorded_spread_and_stand_in_the_books(tmp_path: Path) -> None:
    files = recordings_in(Path(os.environ.get("OMS_QUOTES") or SAMPLE))
    told = run(files, orders=ORDERS, seconds=20.0, folder=tmp_path)
    assert told["orders"] == ORDERS
    assert told["executions"] >= ORDERS
    assert told["quotes"] >= 200


def test_a_price_outside_of_the_spread_is_seen() -> None:
    [file] = recordings_in(SAMPLE)
    recording = Recording(file, 20.0)
    quotes = recording.quotes["EUR/USD"]
    first, at = quotes[0], quotes[0].at
    arrival = {"bid": str(first.bid), "ask": str(first.ask), "at": rfc3339(at)}
    soon = at + timedelta(milliseconds=50)
    assert recording.was_inside("EUR/USD", first.ask, arrival, soon)
    assert recording.was_inside("EUR/USD", (first.bid + first.ask) / 2, arrival, soon)
    worst = max(q.ask for q in quotes)
    assert not recording.was_inside("EUR/USD", worst + Decimal("0.00001"), arrival, soon)
    assert not recording.was_inside("EUR/USD", first.ask, arrival | {"bid": "1"}, soon)
