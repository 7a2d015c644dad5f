"""Brokers of this process on a clock that only `wait` moves, and the processes of a desk that work them step by step.

Everything is the real thing (operations, PostgreSQL, venues, protocol, adapter) but the wire, which is a call, and the time,
which the statements and the venues are told. A process does one thing in a step, may be frozen between two, and may die at
any of the points that a real one can be killed at.
"""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from brokers import adapters
from brokers import operations as inbox
from brokers import queries as brokers
from brokers.adapters import adapter_for
from brokers.adapters.port import BrokerError, Stream
from brokers.domain.reference import BrokerRef
from brokers.models import Broker
from brokers.simulation.inprocess import LINES, Line
from brokers.simulation.venue import Venue
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict
from oms.runtime import clock, crash, sql
from orders import operations as desk
from orders.operations.reconciling import reconcile
from orders.operations.sending import sending

ADAPTER = "in_process"


class Died(BaseException):
    """A process ended at a crash point. Nobody may catch it but who runs the processes, as nobody catches a SIGKILL."""


def die() -> None:
    raise Died


@dataclass(eq=False)
class World:
    """Venues by code, the time, and the way to each. The desk's brokers must have the venues' codes."""

    venues: Mapping[str, Venue]
    at: datetime
    lines: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        adapters.ADAPTERS[ADAPTER] = "brokers.simulation.inprocess"
        self.lines = {code: Line(venue, self.clock) for code, venue in self.venues.items()}
        LINES.clear()
        LINES.update(self.lines)
        clock.simulate()
        clock.tell(self.at)

    def move_in(self) -> None:
        """Make the desk's brokers of these codes meet the venues here."""
        for broker in Broker.objects.filter(code__in=self.venues):
            knobs = {k: v for k, v in vars_of(self.venues[broker.code]).items() if k != "lies"}
            broker.adapter, broker.settings = ADAPTER, {"code": broker.code, "venue": knobs}
            broker.save()
        brokers.forget_cache()
        adapters.forget()

    def clock(self) -> datetime:
        """Return the time here."""
        return self.at

    def monotonic(self) -> float:
        """Return the time here in seconds, as a deadline counts it."""
        return self.at.timestamp()

    def wait(self, seconds: float) -> datetime:
        """Let time pass, for the desk, its database and the venues; return the time."""
        self.at += timedelta(seconds=seconds)
        clock.tell(self.at)
        for line in self.lines.values():
            line.wake()
        return self.at

    def broker(self, code: str) -> BrokerRef:
        """Return a broker as the desk has it."""
        return brokers.brokers_by_code()[code]

    def run(self, process: "Process", crash_at: str = "") -> bool:
        """Let a process take a step, or die at a point on the way (`name:n`); tell whether it lived."""
        if process.asleep_until is not None and process.asleep_until > self.at:
            return True
        process.asleep_until = None
        crash.arm(crash_at, end=die)
        try:
            process.step()
        except Died:
            process.begin_anew()
            return False
        finally:
            crash.arm("")
        return True


def vars_of(venue: Venue) -> dict[str, Any]:
    """Return what a venue's broker documents, as settings."""
    knobs = venue.knobs
    return {
        "dedupe": knobs.dedupe, "dedupe_window_seconds": knobs.dedupe_window_seconds, "orders_per_second": knobs.orders_per_second,
        "visibility_delay_seconds": knobs.visibility_delay_seconds, "replace": knobs.replace, "short": knobs.short, "oco": knobs.oco,
        "order_types": list(knobs.order_types), "times_in_force": list(knobs.times_in_force),
        "asset_classes": list(knobs.asset_classes),
    }  # fmt: skip


class Process:
    """Works in steps; what it knows dies with it, what it has committed stays."""

    def __init__(self, world: World, code: str = "") -> None:
        self.world, self.code = world, code
        self.asleep_until: datetime | None = None

    def step(self) -> None:
        """Do the next thing."""
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        """Be frozen for so long: a paused machine, a long collection of garbage."""
        self.asleep_until = self.world.at + timedelta(seconds=seconds)

    def begin_anew(self) -> None:
        """Be what is started in the place of one that died."""
        self.asleep_until = None


class Sender(Process):
    """A worker that sends what is due at a broker: claims in one step, calls in another, records in a third."""

    def __init__(self, world: World, code: str, name: str = "sender") -> None:
        super().__init__(world, code)
        self.name = name
        self.steps: Generator[str, None, int] | None = None

    def step(self) -> None:
        """Go on to the next point of the call under way, or begin one."""
        if self.steps is None:
            broker = self.world.broker(self.code)
            self.steps = sending(broker, owner=self.name, clock=self.world.clock, monotonic=self.world.monotonic)
        try:
            crash.point(next(self.steps))
        except StopIteration:
            self.steps = None

    def begin_anew(self) -> None:
        """See `Process`."""
        super().begin_anew()
        self.steps = None

    @property
    def busy(self) -> bool:
        """Tell whether a call is under way."""
        return self.steps is not None


class Resolver(Process):
    """A worker that asks about what stayed unanswered."""

    def step(self) -> None:
        """Ask, and apply again what came too early."""
        broker = self.world.broker(self.code)
        desk.probe(broker, clock=self.world.clock)
        desk.resolve(broker, clock=self.world.clock)
        desk.apply_parked(broker.id, actor=Actor.system("resolver"), at=self.world.at)


class Gateway(Process):
    """The session of a broker: keeps what comes, applies it, and comes back behind its cursor."""

    def __init__(self, world: World, code: str) -> None:
        super().__init__(world, code)
        self.stream: Stream | None = None

    def step(self) -> None:
        """Take in what has arrived; open the session first where it is lost."""
        broker = self.world.broker(self.code)
        try:
            if self.stream is None:
                self.stream = self._open(broker)
            frames = self.stream.receive(0)
        except BrokerError:
            self.stream = None
            self._connected(broker, False)
            return
        if not frames:
            return
        inbox.keep_raw(broker.id, [(f.raw, f.sequence, f.error or "") for f in frames], at=self.world.at)
        crash.point("after_raw")
        cursor = max((f.sequence for f in frames if f.sequence is not None), default=None)
        reports = [r for f in frames for r in f.reports]
        desk.apply(broker.id, reports, actor=Actor.system("gateway"), at=self.world.at, cursor=cursor)
        crash.point("after_apply")

    def _open(self, broker: BrokerRef) -> Stream:
        found = sql.run("SELECT cursor FROM brokers_brokersession WHERE broker_id = %s", [broker.id]).fetchone()
        stream = adapter_for(broker.id, broker.adapter, broker.settings).stream((found[0] if found else None) or 0)
        self._connected(broker, True)
        desk.apply_parked(broker.id, actor=Actor.system("gateway"), at=self.world.at, mended=True)
        return stream

    def _connected(self, broker: BrokerRef, connected: bool) -> None:
        sql.run(
            "INSERT INTO brokers_brokersession AS s (broker_id, owner, fence, lease_until, connected) "
            "VALUES (%(id)s, 'simulation', 1, 'infinity', %(now)s) "
            "ON CONFLICT (broker_id) DO UPDATE SET connected = %(now)s, owner = 'simulation', lease_until = 'infinity'",
            {"id": broker.id, "now": connected},
        )

    def begin_anew(self) -> None:
        """See `Process`."""
        super().begin_anew()
        self.stream = None


class Pricer(Process):
    """Lets go what waits at the desk for a price or a time, brings groups in line, and halts where losses say so."""

    def step(self) -> None:
        """Look once."""
        desk.watch(at=self.world.at)
        desk.release_apart(at=self.world.at)
        desk.follow_groups(at=self.world.at)
        desk.guard(at=self.world.at)
        desk.advance_all(at=self.world.at)


class Reconciler(Process):
    """Holds the books against what a broker answers, whatever is in flight."""

    def step(self) -> None:
        """Run once; a broker that is away fails the run, and nothing else."""
        with suppress(Conflict):
            reconcile(self.code, actor=Actor.system("reconciler"), clock=self.world.clock)


class Worker(Process):
    """Sends the slices of large orders that are due."""

    def __init__(self, world: World, name: str = "worker") -> None:
        super().__init__(world)
        self.name = name

    def step(self) -> None:
        """Look once."""
        desk.work(owner=self.name, at=self.world.at)


class Sweeper(Process):
    """Ends what nobody decided in time."""

    def step(self) -> None:
        """Look once."""
        desk.lapse_held(at=self.world.at)
        desk.release_apart(at=self.world.at)


def settle_down(world: World, codes: list[str], *, seconds: float, step: float = 1.0) -> None:
    """Let the desk work undisturbed for so long: one sender, resolver and gateway a broker, and the pricer."""
    crew: list[Process] = [Pricer(world), Sweeper(world), Worker(world)]
    for code in codes:
        crew += [Sender(world, code), Resolver(world, code), Gateway(world, code)]
    end = world.at + timedelta(seconds=seconds)
    while world.at < end:
        world.wait(step)
        for process in crew:
            world.run(process)
            while isinstance(process, Sender) and process.busy:
                world.run(process)


@contextmanager
def unheard(ring: Any = None) -> Iterator[None]:
    """Run without Redis and without a log: rings go to `ring`, screens and their cache hear nothing.

    What a log would tell of is what the faults are there for.
    """
    from oms.runtime import doorbell, live  # noqa: PLC0415 - replaced where everybody finds them
    from orders import cache  # noqa: PLC0415 - as above

    kept, logs = (doorbell.ring, live.publish, cache.put), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    doorbell.ring = ring or (lambda codes, **_: None)
    live.publish = lambda *_: None
    cache.put = lambda *_: None
    try:
        yield
    finally:
        doorbell.ring, live.publish, cache.put = kept
        structlog.configure(**logs)
