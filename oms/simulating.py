"""A desk and its brokers on a clock of their own: random orders, chosen lies, and a reckoning at the end.

Everything is the real thing (operations, PostgreSQL, venues, protocol, adapter) but the wire, which is a call, and the time,
which moves in steps. The same seed, orders and faults therefore end in the same books; `digest` tells.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
from django.contrib.auth import get_user_model

from brokers import adapters
from brokers import queries as brokers
from brokers.adapters import adapter_for
from brokers.domain.reference import BrokerRef
from brokers.models import Broker
from brokers.operations import QuoteUpdate, record_quotes
from brokers.simulation.demo import DEMO_BROKERS, DEMO_INSTRUMENTS
from brokers.simulation.inprocess import LINES, Line
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.market import MarketModel
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Quote
from oms.journal import queries as audit
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError
from oms.management.commands.check_invariants import violations
from oms.management.commands.seed_demo import seed
from oms.runtime import sql
from orders import operations as desk
from orders.domain.tickets import Terms, Ticket
from orders.models import Execution, Order
from orders.states import OPEN, OrdStatus
from risk.models import Halt
from risk.operations import release_halt

START = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
"""Always the same hour: what depends on the day must not depend on when it is run."""
STEP = timedelta(seconds=1)
DRAIN_STEPS_MAX = 600
FAULTS = {
    "drop_reply": 0.10, "error_though_accepted": 0.05, "hide_orders": 0.05, "duplicate_reports": 0.10,
    "reorder_reports": 0.10, "gap": 0.05, "corrupt": 0.02, "garbage": 0.02, "late_fill_after_cancel": 0.20, "bust": 0.02,
    "overfill": 0.01,
}  # fmt: skip
"""The lies that may be asked for, each with its rate where none is given."""


def parse_faults(text: str) -> dict[str, float]:
    """Return rates by fault out of `none`, `all`, or a list like `bust,gap=0.2`; `ValueError` for anything else."""
    if text in ("", "none"):
        return {}
    if text == "all":
        return dict(FAULTS)
    rates = {}
    for word in text.split(","):
        name, given, rate = word.partition("=")
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}; known: {', '.join(FAULTS)}")
        rates[name] = float(rate) if given else FAULTS[name]
        if not 0 <= rates[name] <= 1:
            raise ValueError(f"{name}: a rate lies between 0 and 1")
    return rates


class Simulation:
    """One run. The database must be fresh and nobody else's."""

    def __init__(self, *, seed: int, orders: int, faults: dict[str, float]) -> None:
        self.seed, self.orders, self.faults = seed, orders, faults
        self.rng = random.Random(seed)  # noqa: S311 - a play, not a secret
        self.at = START
        self.placed: list[Any] = []
        self.asked: Counter[str] = Counter()

    def clock(self) -> datetime:
        """Return the simulated time."""
        return self.at

    def run(self) -> dict[str, Any]:
        """Trade, let everything end, and reckon."""
        began = time.monotonic()
        random.seed(self.seed)  # backoff draws its jitter from here
        self._open()
        while len(self.placed) < self.orders:
            self._step()
            self._trade()
        self._drain()
        return {**self._reckon(), "seconds": round(time.monotonic() - began, 1)}

    # ------------------------------------------------------------ the world

    def _open(self) -> None:
        """Seed the desk and open its venues."""
        seed(self.at, Actor.system("simulation"))
        adapters.ADAPTERS["in_process"] = "brokers.simulation.inprocess"
        for broker in Broker.objects.order_by("id"):
            broker.adapter, broker.settings = (
                "in_process",
                {"code": broker.code, "venue": DEMO_BROKERS[broker.code]["venue"]},
            )
            broker.save()
        brokers.forget_cache()
        instruments = {
            i.symbol: Instrument(i.symbol, i.tick_size, i.lot_size, i.currency, i.asset_class)
            for i in brokers.instruments().values()
        }
        LINES.clear()
        for code, told in DEMO_BROKERS.items():
            knobs = msgspec.convert({**told["venue"], "seed": self.seed, "down": None, "lies": self.faults}, Knobs)
            LINES[code] = Line(Venue(code, instruments, knobs, Journal(), fees=told["fees"]), self.clock)
        self.brokers: list[BrokerRef] = [brokers.brokers_by_code()[code] for code in sorted(LINES)]
        self.streams = {b.code: adapter_for(b.id, b.adapter, b.settings).stream(0) for b in self.brokers}
        sql.run("UPDATE brokers_brokersession SET connected = true")
        officer = get_user_model().objects.get(username="risk")
        self.officer = Actor("user:risk", officer.pk)
        self.market = MarketModel(DEMO_INSTRUMENTS, seed=self.seed)

    def _step(self) -> None:
        """Move the time, the market, the venues and what they report."""
        self.at += STEP
        moved = self.market.step(self.at)
        updates = [QuoteUpdate(q.symbol, q.bid, q.ask, q.bid_size, q.ask_size, at=self.at) for q in moved]
        record_quotes(updates, source="market", at=self.at)
        for line in LINES.values():
            line.venue.quote([Quote(*q) for q in moved], self.at)
        for broker in self.brokers:
            desk.send(broker, owner="simulation", clock=self.clock)
            self._forget_real_time(broker)
            desk.resolve(broker, clock=self.clock)
            LINES[broker.code].wake()
            frames = self.streams[broker.code].receive(0)
            reports = [r for f in frames for r in f.reports]
            if reports:
                desk.apply(broker.id, reports, actor=Actor.system("gateway"), at=self.at)
            desk.apply_parked(broker.id, actor=Actor.system("gateway"), at=self.at)
        self._unfreeze()

    def _unfreeze(self) -> None:
        """Let an officer look at each account that an overfill has stopped, and release it."""
        for halt in Halt.objects.filter(released_at=None):
            release_halt(halt.id, reason="looked at", actor=self.officer, at=self.at)

    @staticmethod
    def _forget_real_time(broker: BrokerRef) -> None:
        """Let routing see the venue's own latency, not how long a call took on this machine."""
        mean = DEMO_BROKERS[broker.code]["venue"]["latency_ms"]["ack"][0]
        sql.run("UPDATE brokers_brokerhealth SET ack_ms = %s WHERE broker_id = %s", [float(mean), broker.id])

    # ------------------------------------------------------------ the desk's users

    def _trade(self) -> None:
        """Place a few orders, and change a few that are open."""
        count = min(self.rng.randint(1, 20), self.orders - len(self.placed))
        answers = desk.place([self._ticket() for _ in range(count)], actor=Actor.system("trader"), at=self.at)
        self.placed += [a.order_id for a in answers if a.order_id]
        working = list(Order.objects.filter(status__in=sorted(OPEN)).order_by("id").values_list("id", "quantity"))
        for order_id, quantity in self.rng.sample(working, min(2, len(working))):
            self._change(order_id, quantity)

    def _ticket(self) -> Ticket:
        rng, instrument = self.rng, self.rng.choice(DEMO_INSTRUMENTS)
        walk = self.market.walks[instrument["symbol"]]
        side = rng.choice(["buy", "buy", "sell", "sell_short"])
        kind = rng.choice(["market", "market", "limit", "limit", "stop"])
        away = Decimal(str(round(rng.uniform(-0.002, 0.004) * (1 if kind == "limit" else -1), 6)))
        if side != "buy":
            away = -away
        price = (Decimal(repr(walk.mid)) * (1 - away) // walk.tick) * walk.tick
        budget = Decimal(rng.randint(1_000, 50_000))
        lots = max(1, int(budget / (Decimal(repr(walk.mid)) * walk.lot)))
        return Ticket(
            account=rng.choice(["MAIN", "MAIN", "ALPHA", "EURO"]),
            symbol=instrument["symbol"],
            side=side,
            quantity=lots * walk.lot,
            order_type=kind,
            limit_price=price if kind == "limit" else None,
            stop_price=price if kind == "stop" else None,
            time_in_force=rng.choice(["day", "day", "gtc", "ioc", "fok"]) if kind != "stop" else "day",
        )

    def _change(self, order_id: Any, quantity: Decimal) -> None:
        act = self.rng.choice(["cancel", "cancel", "replace"])
        try:
            if act == "cancel":
                desk.cancel(order_id, actor=Actor.system("trader"), at=self.at)
            else:
                desk.replace(order_id, Terms(quantity=quantity * 2), actor=Actor.system("trader"), at=self.at)
            self.asked[act] += 1
        except DomainError as error:
            self.asked[f"{act} refused: {error.code}"] += 1

    # ------------------------------------------------------------ the end

    def _drain(self) -> None:
        """Let what is under way end, cancel what still works, and let that end too."""
        self._until_quiet()
        accounts = list(sql.run("SELECT id FROM portfolio_account ORDER BY id").fetchall())
        desk.cancel_matching([pk for (pk,) in accounts], actor=Actor.system("trader"), at=self.at, reason="the end")
        self._until_quiet(closed=True)

    def _until_quiet(self, *, closed: bool = False) -> None:
        for line in LINES.values():
            line.venue.lies.bust = 0.0
        for _ in range(DRAIN_STEPS_MAX):
            self._step()
            if not self._busy(closed=closed):
                return

    def _busy(self, *, closed: bool) -> bool:
        now = any(line.venue.due and line.venue.due[0][0] <= self.at + timedelta(seconds=10) for line in LINES.values())
        waiting = sql.run(
            "SELECT EXISTS (SELECT 1 FROM orders_submission WHERE state IN ('prepared', 'sent', 'unknown')) "
            "OR EXISTS (SELECT 1 FROM orders_parkedreport WHERE applied_at IS NULL) OR EXISTS (SELECT 1 FROM orders_order "
            "WHERE status = 'pending_new' OR status LIKE 'pending_%%' OR (%s AND status = ANY(%s)))",
            [closed, sorted(OPEN - {OrdStatus.DONE_FOR_DAY})],
        ).fetchone()
        return now or bool(waiting and waiting[0])

    def _reckon(self) -> dict[str, Any]:
        """Hold the desk's books against the venues', the rules and the audit trail."""
        lost, strange = self._compare()
        orders = list(Order.objects.order_by("id"))
        broken = {name: rows for name, rows in violations().items() if rows}
        sent_twice = self._sent_twice()
        wrong = {
            "executions_lost": lost,
            "executions_strange": strange,
            "orders_at_a_broker_twice": sent_twice,
            "positions_apart": self._positions_apart(),
            "invariants": broken,
            "audit": list(audit.faults()),
            "open": [str(o.id) for o in orders if o.status in OPEN],
        }
        wrong = {k: v for k, v in wrong.items() if v}
        return {
            "seed": self.seed,
            "orders": len(orders),
            "faults": self.faults,
            "statuses": dict(sorted(Counter(str(o.status) for o in orders).items())),
            "asked": dict(sorted(self.asked.items())),
            "executions": Execution.objects.count(),
            "resolved_by_asking": self._resolved(),
            "digest": _digest(orders),
            "wrong": wrong,
        }

    def _compare(self) -> tuple[list[str], list[str]]:
        """Return executions that a venue has and the desk hasn't, and the reverse; by broker, id, quantity and price."""
        there = {
            f"{code} {e.execution_id} {decimals.text(e.quantity)} @ {decimals.text(e.price)}"
            for code, line in LINES.items()
            for e in line.venue.living()
        }
        rows = Execution.objects.filter(execution=None).exclude(kind="bust").select_related("broker")
        here = {
            f"{e.broker.code} {e.broker_execution_id} {decimals.text(e.quantity)} @ {decimals.text(e.price)}"
            for e in rows
        }
        return sorted(there - here), sorted(here - there)

    @staticmethod
    def _sent_twice() -> list[str]:
        """Return client order ids under which a venue opened more than one order."""
        counts = Counter((code, name) for code, line in LINES.items() for name in _names(line.venue))
        return [f"{code} {name}" for (code, name), n in counts.items() if n > 1]

    def _positions_apart(self) -> list[str]:
        ours: dict[tuple[str, str, str], Decimal] = {
            (code, account, symbol): quantity
            for code, account, symbol, quantity in sql.run(
                "SELECT b.code, a.code, i.symbol, p.quantity FROM portfolio_brokerposition p JOIN brokers_broker b ON b.id = p.broker_id "
                "JOIN portfolio_account a ON a.id = p.account_id JOIN brokers_instrument i ON i.id = p.instrument_id WHERE p.quantity <> 0"
            ).fetchall()
        }
        theirs = {
            (code, account, symbol): quantity
            for code, line in LINES.items()
            for (account, symbol), quantity in line.venue.book.positions.items()
            if quantity
        }
        return [" ".join(k) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k, 0) != theirs.get(k, 0)]

    @staticmethod
    def _resolved() -> int:
        row = sql.run(
            "SELECT count(*) FROM orders_submission WHERE state = 'accepted' AND log @> '[{\"outcome\": \"unknown\"}]'::jsonb"
        ).fetchone()
        return int(row[0]) if row else 0


def _names(venue: Venue) -> Sequence[str]:
    return [o.client_order_id for o in venue.book.orders.values()]


def _digest(orders: Sequence[Order]) -> str:
    """Return a hash of how every order ended, and of all positions and cash."""
    told: list[Any] = [
        [
            o.side, decimals.text(o.quantity), o.instrument_id, o.account_id, str(o.status), o.reason,
            decimals.text(o.filled_quantity), decimals.text(o.filled_amount), decimals.text(o.fees), o.overfilled,
        ]
        for o in orders
    ]  # fmt: skip
    for statement in (
        (
            "SELECT a.code, i.symbol, p.quantity::text, p.cost::text, p.realized::text FROM portfolio_position p "
            "JOIN portfolio_account a ON a.id = p.account_id JOIN brokers_instrument i ON i.id = p.instrument_id ORDER BY 1, 2"
        ),
        (
            "SELECT a.code, c.currency, c.balance::text FROM portfolio_cashbalance c JOIN portfolio_account a ON a.id = c.account_id "
            "ORDER BY 1, 2"
        ),
    ):
        told += [list(row) for row in sql.run(statement).fetchall()]
    return sha256(json.dump_bytes(told)).hexdigest()


__all__ = ["FAULTS", "Simulation", "parse_faults"]
