"""A real venue process for tests: started, scripted over its admin connection, killed, started again."""

import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from brokers.adapters.port import Frame, NewOrder, Report
from brokers.adapters.simulated.client import SimulatedBroker
from brokers.adapters.simulated.stream import SimulatedStream

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key"
INSTRUMENTS = [
    {"symbol": "AAPL", "tick_size": "0.01", "lot_size": "1", "currency": "USD", "asset_class": "equity"},
    {"symbol": "MSFT", "tick_size": "0.01", "lot_size": "1", "currency": "USD", "asset_class": "equity"},
    {"symbol": "BTC/USDT", "tick_size": "0.01", "lot_size": "0.000001", "currency": "USDT", "asset_class": "crypto"},
]


class Client(SimulatedBroker):
    """The adapter under test; it remembers its streams, so that a test's end can hang up all of them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.streams: list[SimulatedStream] = []

    def stream(self, after: int | None) -> SimulatedStream:
        self.streams.append(super().stream(after))
        return self.streams[-1]

    def hang_up(self) -> None:
        """Close every connection."""
        self.close()
        for stream in self.streams:
            stream.close()


class Process:
    """Simulated brokers in a process of their own."""

    def __init__(self, folder: Path, brokers: dict[str, dict[str, Any]]) -> None:
        self.config = folder / "venues.json"
        self.brokers = brokers
        self.ports = dict.fromkeys(brokers, 0)  # any free one at first, the same one after a kill
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start and wait until every port listens."""
        told = {
            "data": str(self.config.with_suffix("")),
            "instruments": INSTRUMENTS,
            "brokers": {c: {"port": self.ports[c], "key": KEY} | b for c, b in self.brokers.items()},
        }
        self.config.write_text(json.dumps(told))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brokers.simulation", "--config", str(self.config)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.kill()
            raise AssertionError("the venues did not start")
        self.ports = json.loads(line)["ports"]

    def kill(self) -> None:
        """Kill -9: nothing is flushed, nobody is told."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


class Venue:
    """One simulated broker of a process, and the means to script it."""

    def __init__(self, process: Process, code: str, knobs: dict[str, Any]) -> None:
        self.process = process
        self.port = process.ports[code]
        self.settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "key": KEY,
            "code": code,
            "venue": knobs,
        }
        self.ids = 0
        self.clients: list[Client] = []

    def admin(self, op: str, **fields: Any) -> dict[str, Any]:
        """Give an order of the script and return the venue's answer."""
        return administer(self.port, KEY, op, **fields)

    def quote(self, symbol: str, bid: str, ask: str, bid_size: str | None = None, ask_size: str | None = None) -> None:
        """Set the market."""
        self.admin("quotes", quotes=[[symbol, bid, ask, bid_size, ask_size]])

    def lies(self, **lies: Any) -> None:
        """Switch lies on or off."""
        self.admin("lies", lies=lies)

    def book(self) -> dict[str, Any]:
        """Return the oracle: what the venue really has."""
        return self.admin("book")

    def client(self) -> Client:
        """Return a client of this venue."""
        self.clients.append(Client(self.settings))
        return self.clients[-1]

    def close(self) -> None:
        """Hang up all clients."""
        for client in self.clients:
            client.hang_up()

    def order(self, text: str, *, account: str = "ACC", client_order_id: str = "") -> NewOrder:
        """Return an order spelled like `buy 10 AAPL`, `sell 5 AAPL limit 101 gtc`, `buy 5 AAPL stop 102`."""
        self.ids += 1
        words = text.split()
        side, quantity, symbol, *rest = words
        order_type = rest.pop(0) if rest and rest[0] in ("limit", "stop", "stop_limit") else "market"
        stop = Decimal(rest.pop(0)) if order_type in ("stop", "stop_limit") else None
        limit = Decimal(rest.pop(0)) if order_type in ("limit", "stop_limit") else None
        expire_at = datetime.fromisoformat(rest.pop()) if rest[:1] == ["gtd"] else None
        return NewOrder(
            client_order_id=client_order_id or f"o{self.ids}",
            account=account,
            symbol=symbol,
            side=side,
            quantity=Decimal(quantity),
            order_type=order_type,
            time_in_force=rest[0] if rest else "day",
            limit_price=limit,
            stop_price=stop,
            expire_at=expire_at,
        )


def administer(port: int, key: str, op: str, **fields: Any) -> dict[str, Any]:
    """Give an order to the venue behind a port and return its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link, link.makefile("rb") as lines:
        link.sendall(json.dumps({"type": "admin", "broker": "", "key": key, "hello": 1}).encode() + b"\n")
        assert json.loads(lines.readline())["ok"] is True
        link.sendall(json.dumps({"op": op, "id": 1} | fields).encode() + b"\n")
        answer: dict[str, Any] = json.loads(lines.readline())
    assert "error" not in answer, answer
    return answer


def soon(seconds: float = 3.0) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


def frames_until(stream: SimulatedStream, enough: Any, *, seconds: float = 5.0) -> list[Frame]:
    """Read frames until `enough(reports)` holds; fail with what came when it never does."""
    frames: list[Frame] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        frames += stream.receive(0.05)
        if enough(reports_of(frames)):
            return frames
    raise AssertionError(
        f"waited {seconds} s for more than {[(str(r.kind), r.client_order_id) for r in reports_of(frames)]}"
    )


def read_to_the_end(stream: SimulatedStream) -> None:
    """Read until the stream breaks, for ten seconds at most."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        stream.receive(0.2)


def reports_of(frames: list[Frame]) -> list[Report]:
    """Return the reports of frames, in order."""
    return [r for f in frames for r in f.reports]


def kinds(reports: list[Report]) -> list[str]:
    """Return the kinds of reports, in order."""
    return [str(r.kind) for r in reports]


def long_ago() -> datetime:
    """Return a time before everything a test does."""
    return datetime(2020, 1, 1, tzinfo=UTC)
