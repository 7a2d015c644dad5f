"""A desk and its brokers in one process, on a clock of their own: random orders, chosen faults, and a reckoning.

The scheduler, the people, the market and the faults all draw from one seed, so that the same seed, orders and faults end in
the same books; `digest` tells, and a failure is played again by its seed.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from brokers import queries as brokers
from brokers.operations import QuoteUpdate, record_quotes, record_volumes
from brokers.simulation.demo import DEMO_BROKERS, DEMO_INSTRUMENTS
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.market import MarketModel
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Quote
from oms.kernel.actor import Actor
from oms.management.commands.seed_demo import seed as furnish_demo
from oms.runtime import sql
from oms.simulating import reckoning
from oms.simulating.faults import FAULTS, FREEZE_SECONDS, LIES, OUTAGE_SECONDS, POINTS, parse_faults
from oms.simulating.people import Officers, Staff, Traders
from oms.simulating.world import Gateway, Pricer, Process, Reconciler, Resolver, Sender, Sweeper, Worker, World, unheard
from orders import operations as desk
from orders.models import Execution, Order
from orders.states import OPEN, OrdStatus
from orders.tasks import due_work

START = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
"""Always the same hour: what depends on the day must not depend on when it is run."""
STEP_SECONDS = (0.1, 2.5)
BATCH_MAX = 8
CHECK_EVERY = 10
"""After so many steps of the clock all invariants are looked at."""
DRAIN_SECONDS = 5.0
DRAIN_STEPS_MAX = 120


def furnish() -> None:
    """Furnish a database for simulations: the demo desk as of the start."""
    furnish_demo(START, Actor.system("simulation"))


class Simulation:
    """One run, in a database furnished for it and nobody else's."""

    def __init__(self, *, seed: int, orders: int, faults: dict[str, float]) -> None:
        self.seed, self.orders, self.faults = seed, orders, faults
        self.rng = random.Random(seed)  # noqa: S311 - a play, not a secret
        self.seen: Counter[str] = Counter()
        self.rung: set[str] = set()
        self.wrong: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Trade, let everything end, and reckon; stops at the first step that breaks a rule."""
        began = time.monotonic()
        random.seed(self.seed)  # backoff draws its jitter from here
        with unheard(self._ring):
            self._open()
            steps = 0
            while not self.wrong and self.traders.made < self.orders:
                steps += 1
                self._step()
                self.traders.trade(min(self.rng.randint(1, BATCH_MAX), self.orders - self.traders.made))
                self.traders.meddle()
                if steps % CHECK_EVERY == 0:
                    self._check()
            if not self.wrong:
                self._drain()
        return {**self._told(), "seconds": round(time.monotonic() - began, 1)}

    # ------------------------------------------------------------ the world

    def _open(self) -> None:
        instruments = {
            i.symbol: Instrument(i.symbol, i.tick_size, i.lot_size, i.currency, i.asset_class)
            for i in brokers.instruments().values()
        }
        lies = {name: rate for name, rate in self.faults.items() if name in LIES}
        venues = {}
        for number, (code, told) in enumerate(sorted(DEMO_BROKERS.items())):
            dedupe = ("forever", "none", "open_only", "window")[(self.seed + number) % 4]
            own = {"seed": self.seed, "down": None, "lies": lies, "dedupe": dedupe}
            knobs = msgspec.convert({**told["venue"], **own}, Knobs)
            venues[code] = Venue(code, instruments, knobs, Journal(), fees=told["fees"])
        self.world = World(venues, START)
        self.world.move_in()
        self.market = MarketModel(DEMO_INSTRUMENTS, seed=self.seed)
        self.traders = Traders(self.world, self.market, self.rng, self.faults.get("kill", 0.0))
        self.officers = Officers(self.world, self.rng, self.faults.get("halt", 0.0))
        self.staff = Staff(self.world, self.rng, self.faults)
        self.senders = [Sender(self.world, code, f"sender-{n}") for code in venues for n in (1, 2)]
        self.resolvers = [Resolver(self.world, code) for code in venues]
        self.gateways = [Gateway(self.world, code) for code in venues]
        self.reconcilers = [Reconciler(self.world, code) for code in venues]
        workers = [Worker(self.world, f"worker-{n}") for n in (1, 2)]
        self.others: list[Process] = [Pricer(self.world), Sweeper(self.world), *workers]
        for gateway in self.gateways:
            gateway.step()

    def _ring(self, codes: Iterable[str], **_: Any) -> None:
        """Hear the doorbell, most of the time: nothing may depend on it."""
        self.rung |= {code for code in codes if self.rng.random() < 0.7}

    # ------------------------------------------------------------ time passing

    def _step(self, seconds: float | None = None) -> None:
        """Move the time and the market, then let the processes take their turns in an order that chance has."""
        at = self.world.wait(self.rng.uniform(*STEP_SECONDS) if seconds is None else seconds)
        moved = self.market.step(at)
        record_quotes(
            [QuoteUpdate(q.symbol, q.bid, q.ask, q.bid_size, q.ask_size, at=at) for q in moved], source="market", at=at
        )
        record_volumes(self.market.traded(1.0), at=at)
        for line in self.world.lines.values():
            line.venue.quote([Quote(*q) for q in moved], at)
            line.wake()
        self.staff.act(seconds=OUTAGE_SECONDS)
        self.officers.act()
        due = due_work()
        ready = self._ready({c for c, unsent, _ in due if unsent}, {c for c, _, open_ in due if open_})
        self.rung.clear()
        for process in self.rng.sample(ready, len(ready)):
            self._run(process)
        sql.run("UPDATE brokers_brokerhealth SET ack_ms = 5")  # not how long a call took on this machine

    def _ready(self, unsent: set[str], unanswered: set[str]) -> list[Process]:
        """Return the processes that have something to do; one with a call under way may get two turns."""
        ready: list[Process] = []
        for sender in self.senders:
            if sender.busy or sender.code in unsent or sender.code in self.rung:
                ready += [sender] * 3
        ready += [r for r in self.resolvers if r.code in unanswered]
        if self.rng.random() < self.faults.get("reconcile", 0.0):
            ready.append(self.rng.choice(self.reconcilers))
            self.seen["reconciled"] += 1
        return [*ready, *self.gateways, *self.others]

    def _run(self, process: Process) -> None:
        crash_at = ""
        if self.rng.random() < self.faults.get("kill", 0.0):
            crash_at = f"{self.rng.choice(POINTS[type(process).__name__])}:{self.rng.randint(1, 2)}"
        if not self.world.run(process, crash_at):
            self.seen[f"killed: {type(process).__name__.lower()}"] += 1
        elif self.rng.random() < self.faults.get("freeze", 0.0):
            process.sleep(self.rng.uniform(*FREEZE_SECONDS))
            self.seen["frozen"] += 1

    # ------------------------------------------------------------ the end

    def _drain(self) -> None:
        """Let what is under way end, cancel what still works, and let that end too: faults stop, lies go on."""
        kept, self.faults = self.faults, {}
        self.staff.faults = {}
        self.officers.rate = 0.0
        self.staff.all_back()
        self.officers.release_all()
        accounts = [pk for (pk,) in sql.run("SELECT id FROM portfolio_account ORDER BY id").fetchall()]
        for closing in (False, True):
            if closing:
                desk.cancel_matching(accounts, actor=Actor.system("trader"), at=self.world.at, reason="the end")
            for _ in range(DRAIN_STEPS_MAX):
                self.officers.decide("refuse")
                self._step(DRAIN_SECONDS if closing else 2.0)
                if not self._busy(closing=closing):
                    break
        self.faults = kept
        for reconciler in self.reconcilers if kept.get("reconcile") else []:
            self.world.run(reconciler)
        self._check(at_the_end=True)

    def _busy(self, *, closing: bool) -> bool:
        if any(s.busy for s in self.senders) or any(line.coming for line in self.world.lines.values()):
            return True
        waiting = sql.run(
            "SELECT EXISTS (SELECT 1 FROM orders_submission WHERE state IN ('prepared', 'sent', 'unknown')) "
            "OR EXISTS (SELECT 1 FROM orders_parkedreport WHERE applied_at IS NULL) OR EXISTS (SELECT 1 FROM orders_order "
            "WHERE status = 'pending_new' OR status LIKE 'pending_%%' OR (%s AND status = ANY(%s)))",
            [closing, sorted(OPEN - {OrdStatus.DONE_FOR_DAY})],
        ).fetchone()
        soon = any(line.venue.due and line.venue.due[0][0] <= self.world.at for line in self.world.lines.values())
        return soon or bool(waiting and waiting[0])

    def _check(self, *, at_the_end: bool = False) -> None:
        """Look at every rule; what is broken stops the run."""
        self.seen["checks"] += 1
        found = reckoning.apart(self.world, at_the_end=at_the_end)
        if broken := reckoning.broken():
            found["invariants"] = broken
        if promises := self.traders.broken_promises():
            found["promises"] = promises
        self.wrong |= found

    def _told(self) -> dict[str, Any]:
        orders = list(Order.objects.order_by("id"))
        return {
            "seed": self.seed,
            "orders": len(orders),
            "faults": self.faults,
            "statuses": dict(sorted(Counter(str(o.status) for o in orders).items())),
            "reasons": dict(sorted(Counter(o.reason for o in orders if o.reason).items())),
            "asked": dict(sorted(self.traders.asked.items())),
            "happened": dict(sorted((self.seen + self.staff.done + Counter(halts=self.officers.halts)).items())),
            "executions": Execution.objects.count(),
            "resolved_by_asking": reckoning.resolved_by_asking(),
            "simulated_seconds": round((self.world.at - START).total_seconds()),
            "digest": reckoning.digest(orders),
            "wrong": self.wrong,
        }


__all__ = ["FAULTS", "Simulation", "furnish", "parse_faults"]
