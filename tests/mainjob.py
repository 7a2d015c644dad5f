"""The main job, on a whole desk: recorded quotes come in, orders go out by REST, and all of it stands in the books.

    .venv/bin/python -m tests.mainjob --quotes DIR --orders 200

Starts `up` on a folder of its own, replays the recordings side by side, places market orders meanwhile, and fails
unless each is filled inside the spread recorded between its arrival and its fill, positions and cash are what the fills
make of them, every broker agrees, and invariants and audit are clean.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import machine
from tests.faults.client import Answer
from tests.faults.desk import Desk, environment

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "data"
"""Quotes recorded off the demo market: what is replayed where no recording of a real one is at hand."""
QUANTITIES = {"EUR/USD": "1000", "BTC/USDT": "0.01", "USD/JPY": "1000"}
SECONDS = 45.0
"""How long a replay takes here, whatever time it was recorded in; a shorter recording keeps its own pace."""
LATE = timedelta(seconds=0.5)
"""A broker may still trade on a quote so old: they hear of quotes later than the desk, and take their time to fill."""
ENDED_SECONDS_MAX = 60.0
CENTS = Decimal("0.00000001")


@dataclass(frozen=True)
class Recorded:
    """One recorded quote."""

    at: datetime
    bid: Decimal
    ask: Decimal


class Recording:
    """One file of quotes, and the process that replays it."""

    def __init__(self, file: Path, seconds: float) -> None:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        self.file = file
        self.quotes: dict[str, list[Recorded]] = defaultdict(list)
        for row in rows:
            at = datetime.fromisoformat(row["at"])
            self.quotes[row["symbol"]].append(Recorded(at, Decimal(row["bid"]), Decimal(row["ask"])))
        times = [q.at for quotes in self.quotes.values() for q in quotes]
        self.length = (max(times) - min(times)).total_seconds()
        self.speed = max(1.0, self.length / seconds)
        self.process: subprocess.Popen[str] | None = None

    @property
    def symbols(self) -> list[str]:
        return [s for s in self.quotes if s in QUANTITIES]

    def start(self, data: Path) -> None:
        command = [sys.executable, "-W", "ignore", str(ROOT / "manage.py"), "replay_quotes", str(self.file)]
        self.process = subprocess.Popen(
            [*command, "--speed", str(self.speed), "--json", "--data", str(data)],
            env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self) -> int:
        """Wait for the end of the replay and return how many quotes went in."""
        assert self.process is not None
        out, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors
        return int(json.loads(out)["quotes"])

    def kill(self) -> None:
        if self.running():
            assert self.process is not None
            self.process.kill()
            self.process.wait()

    def was_inside(self, symbol: str, price: Decimal, arrival: dict[str, str], executed_at: datetime) -> bool:
        """Tell whether a price lies inside a spread recorded between an order's arrival and its fill."""
        bid, ask, began = Decimal(arrival["bid"]), Decimal(arrival["ask"]), datetime.fromisoformat(arrival["at"])
        around = (max(executed_at - began, timedelta()) + LATE) * self.speed
        quotes = self.quotes[symbol]
        for first in (q for q in quotes if (q.bid, q.ask) == (bid, ask)):
            window = (q for q in quotes if first.at - LATE * self.speed <= q.at <= first.at + around)
            if any(q.bid <= price <= q.ask for q in window):
                return True
        return False


class Job:
    """One run on one desk."""

    def __init__(self, desk: Desk, recordings: list[Recording], orders: int) -> None:
        self.desk, self.recordings, self.orders = desk, recordings, orders
        self.trader = desk.client("trader")
        self.by_symbol = {s: r for r in recordings for s in r.symbols}
        self.placed: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Replay and trade, then hold everything against the recording."""
        opening = self._balances()
        for recording in self.recordings:
            recording.start(self.desk.data)
        self._await_replay()
        self._trade()
        quotes = sum(r.end() for r in self.recordings)
        ended = [self._ended(o["id"]) for o in self.placed]
        fills = {o["id"]: self._get(f"orders/{o['id']}/executions")["results"] for o in ended}
        self._judge_orders(ended, fills)
        self._judge_books(ended, fills, opening)
        self.trader.close()
        self.desk.agree()
        return {
            "orders": len(ended),
            "quotes": quotes,
            "executions": sum(map(len, fills.values())),
            "busts": sum(e["kind"] == "bust" for es in fills.values() for e in es),
            "symbols": {s: sum(o["symbol"] == s for o in ended) for s in self.by_symbol},
            "speeds": {r.file.name: round(r.speed, 1) for r in self.recordings},
        }

    def _await_replay(self) -> None:
        """Wait until every symbol shows a recorded quote."""
        end = time.monotonic() + 60
        for symbol, recording in self.by_symbol.items():
            known = {(q.bid, q.ask) for q in recording.quotes[symbol]}
            while True:
                [quote] = self._get(f"quotes?symbol={symbol.replace('/', '%2F')}")["results"]
                if (Decimal(quote["bid"]), Decimal(quote["ask"])) in known:
                    break
                assert time.monotonic() < end, f"no recorded quote of {symbol} came in"
                time.sleep(0.05)

    def _trade(self) -> None:
        """Place market orders one after another, spread over the shortest replay, each symbol and side in turn."""
        shortest = min(r.length / r.speed for r in self.recordings)
        pause = max(0.02, (shortest - 8) / self.orders)
        symbols, began = list(self.by_symbol), time.monotonic()
        for number in range(self.orders):
            assert all(r.running() for r in self.recordings), "the replay ended before the orders were placed"
            symbol = symbols[number % len(symbols)]
            ask = {
                "account": "MAIN", "symbol": symbol, "quantity": QUANTITIES[symbol], "order_type": "market",
                "side": "sell" if number // len(symbols) % 3 == 2 else "buy", "client_order_id": f"main-job-{number}",
            }  # fmt: skip
            answer = self._call("POST", "orders", ask)
            assert answer.status in (200, 201), answer  # 200: the first answer was lost, the order is there once
            self.placed.append(json.loads(answer.body))
            time.sleep(max(0.0, began + (number + 1) * pause - time.monotonic()))

    def _ended(self, order_id: str) -> dict[str, Any]:
        end = time.monotonic() + ENDED_SECONDS_MAX
        while True:
            order = self._get(f"orders/{order_id}")
            if order["status"] in ("filled", "canceled", "rejected", "denied", "expired"):
                return order
            assert time.monotonic() < end, order
            time.sleep(0.1)

    def _judge_orders(self, ended: list[dict[str, Any]], fills: dict[str, list[dict[str, Any]]]) -> None:
        outside = []
        for order in ended:
            executions = fills[order["id"]]
            busted = any(e["kind"] == "bust" for e in executions)
            assert order["status"] == "filled" or busted, order
            assert order["arrival"] is not None, order
            recording = self.by_symbol[order["symbol"]]
            for execution in (e for e in executions if e["kind"] == "trade"):
                at = datetime.fromisoformat(execution["executed_at"])
                if not recording.was_inside(order["symbol"], Decimal(execution["price"]), order["arrival"], at):
                    outside.append((order["symbol"], execution["price"], order["arrival"], execution["executed_at"]))
        assert not outside, outside

    def _judge_books(
        self, ended: list[dict[str, Any]], fills: dict[str, list[dict[str, Any]]], opening: dict[str, Decimal]
    ) -> None:
        """Positions and cash are what the live fills make of them, to the last digit."""
        quantity: dict[str, Decimal] = defaultdict(Decimal)
        cash = defaultdict(Decimal, opening)
        for order in ended:
            executions = fills[order["id"]]
            undone = {e["ref"] for e in executions if e["ref"]}
            for e in executions:
                if e["kind"] == "bust" or e["id"] in undone:
                    continue
                signed = Decimal(e["quantity"]) * (1 if e["side"] == "buy" else -1)
                quantity[order["symbol"]] += signed
                cash[e["currency"]] -= (signed * Decimal(e["price"])).quantize(CENTS) + Decimal(e["fees"])
        held = {p["symbol"]: Decimal(p["quantity"]) for p in self._get("accounts/MAIN/positions")["results"]}
        assert {s: q for s, q in held.items() if q} == {s: q for s, q in quantity.items() if q}
        assert self._balances() == {c: a for c, a in cash.items() if a or c in opening}

    def _balances(self) -> dict[str, Decimal]:
        rows = self._get("accounts/MAIN/balances")["results"]
        return {r["currency"]: Decimal(r["ledger"]) for r in rows}

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._call("GET", path)
        assert answer.status == 200, (path, answer)
        return dict(json.loads(answer.body))

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> Answer:
        """Make a call that may be repeated; a connection that the server let go while it was idle is opened anew."""
        answer = self.trader.call(method, f"/api/v1/{path}", body)
        return answer if answer.status else self.trader.call(method, f"/api/v1/{path}", body)


def run(files: list[Path], *, orders: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run the job on a desk in the folder; return the figures of a run that was right."""
    recordings = [Recording(file, seconds) for file in files]
    desk = Desk(folder / "data")
    began = time.monotonic()
    try:
        desk.open()
        told = Job(desk, [r for r in recordings if r.symbols], orders).run()
    finally:
        for recording in recordings:
            recording.kill()
        desk.close()
    return {**told, "seconds": round(time.monotonic() - began, 1)}


def recordings_in(folder: Path) -> list[Path]:
    """Return the files of quotes in a folder."""
    found = sorted(folder.glob("*quotes.csv"))
    if not found:
        raise SystemExit(f"No *quotes.csv in {folder}.")
    return found


def main() -> None:
    """Run from the command line, and leave var/reports/replay-<utc>.json behind."""
    parser = argparse.ArgumentParser(description="The main job on recorded quotes.")
    parser.add_argument(
        "--quotes", type=Path, default=Path(os.environ.get("OMS_QUOTES") or SAMPLE), help="a folder of *quotes.csv"
    )
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a replay may take")
    options = parser.parse_args()
    at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="oms-main-job-") as folder:
        files = recordings_in(options.quotes)
        told = run(files, orders=options.orders, seconds=options.seconds, folder=Path(folder))
    target = ROOT / "var" / "reports" / f"replay-{at:%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"at": at.isoformat(), **machine(), **told}, indent=2) + "\n")
    print(json.dumps(told, indent=2))
    print(f"{told['orders']} orders filled inside the recorded spread; books, brokers, invariants and audit agree.")
    print(f"  {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
