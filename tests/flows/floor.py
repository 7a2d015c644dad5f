"""A desk on a clock of its own over two real venues: what a flow needs to let a broker, a worker or a line fail on purpose."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from brokers import queries as brokers
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Quote
from oms.simulating import reckoning
from oms.simulating.world import Gateway, Pricer, Process, Resolver, Sender, World, unheard
from orders import operations
from orders.domain.tickets import Terms
from orders.models import ChildOrder, Order, Submission
from risk.models import Hold
from tests.conftest import Desk, ticket

CODES = ("NEAR", "FAR")


class Floor:
    """NEAR is the cheaper one: what is not directed goes there. Nothing happens but by `turn`, and time moves only there."""

    def __init__(self, desk: Desk, near: dict[str, Any], far: dict[str, Any]) -> None:
        self.desk = desk
        instruments = {
            i.symbol: Instrument(i.symbol, i.tick_size, i.lot_size, i.currency, i.asset_class)
            for i in brokers.instruments().values()
        }
        self.venues = {
            code: Venue(code, instruments, msgspec.convert({"seed": 7} | knobs, Knobs), Journal())
            for code, knobs in zip(CODES, (near, far), strict=True)
        }
        self.world = World(self.venues, desk.at)
        self.world.move_in()
        self.near, self.far = self.venues.values()
        self.senders = {code: Sender(self.world, code) for code in CODES}
        self.resolvers = {code: Resolver(self.world, code) for code in CODES}
        self.gateways = {code: Gateway(self.world, code) for code in CODES}
        self.pricer = Pricer(self.world)
        for gateway in self.gateways.values():
            gateway.step()
        self.market("AAPL", "99.99", "100.01")

    # ------------------------------------------------------------ what the desk is asked

    @property
    def at(self) -> datetime:
        return self.world.at

    def market(self, symbol: str, bid: str, ask: str) -> None:
        """Move a market, for the desk and at both venues."""
        self.desk.at = self.at
        self.desk.quote(symbol, bid, ask)
        for venue in self.venues.values():
            venue.quote([Quote(symbol, Decimal(bid), Decimal(ask), None, None)], self.at)

    def place(self, *texts: str, **more: Any) -> list[Any]:
        actor = self.desk.actor(self.desk.alice)
        return operations.place([ticket(t, **more) for t in texts], actor=actor, at=self.at)

    def cancel(self, placed: Any) -> None:
        operations.cancel(placed.order_id, actor=self.desk.actor(self.desk.alice), at=self.at)

    def replace(self, placed: Any, **terms: Any) -> None:
        operations.replace(placed.order_id, Terms(**terms), actor=self.desk.actor(self.desk.alice), at=self.at)

    # ------------------------------------------------------------ what happens

    def turn(self, seconds: float = 1.0, *, every: float = 1.0, without: Sequence[Process] = ()) -> None:
        """Let time pass and everybody work, but for those named."""
        left = seconds
        others = [*self.gateways.values(), *self.resolvers.values(), self.pricer]
        while left > 0:
            step = min(left, every)
            left -= step
            self.world.wait(step)
            for code, sender in self.senders.items():
                if sender not in without:
                    self.send(code)
            for line in self.world.lines.values():
                line.wake()
            for process in others:
                if process not in without:
                    self.world.run(process)

    def send(self, code: str = "NEAR", *, crash_at: str = "") -> bool:
        """Let a sender make one whole call, or die on the way; tell whether it lived."""
        sender = self.senders[code]
        lived = self.world.run(sender, crash_at)
        while lived and sender.busy:
            lived = self.world.run(sender, crash_at)
        return lived

    # ------------------------------------------------------------ what is to be seen

    def order(self, placed: Any) -> Order:
        return Order.objects.get(pk=placed.order_id)

    def held(self, placed: Any) -> Decimal:
        return Hold.objects.get(pk=placed.order_id).open_quantity

    def children(self, placed: Any) -> dict[str, ChildOrder]:
        """Return the last broker order at each broker."""
        found = ChildOrder.objects.filter(order_id=placed.order_id).order_by("id").select_related("broker")
        return {c.broker.code: c for c in found}

    def at_venue(self, code: str = "NEAR") -> list[Any]:
        """Return all orders that a venue ever took."""
        return [o for o in self.venues[code].book.orders.values() if o.status != "rejected"]

    def submissions(self, **what: Any) -> list[Submission]:
        return list(Submission.objects.filter(**what).order_by("id"))

    def agrees(self) -> None:
        """Fail unless every rule holds and the venues have nothing that the desk hasn't, and the reverse."""
        self.desk.holds()
        wrong = reckoning.apart(self.world, at_the_end=True)
        for later in ("open", "breaks", "not_reconciled"):  # a test says itself what is left
            wrong.pop(later, None)
        assert wrong == {}


__all__ = ["Floor", "unheard"]
