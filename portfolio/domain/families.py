"""Holdings of one account that corporate actions tie together, folded as one from their first trade on.

What a spin-off or a merger hands over depends on every trade before it, so a late fill in one instrument may change the
lots of another. An account's instruments that are tied so are a family; most holdings have none but themselves.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from uuid import UUID

from oms.kernel.decimals import EXACT, ZERO, money
from oms.kernel.errors import Conflict
from portfolio.domain.actions import (
    ONE_TO_ONE,
    SMALLEST,
    Act,
    CapitalReturn,
    Merger,
    Ratio,
    Receipt,
    SpinOff,
    Split,
    Subscription,
    entitled,
    whole,
)
from portfolio.domain.lots import LiveTrade, OpenLot
from portfolio.domain.matching import Closure, Matching
from portfolio.domain.policies import Policies

CASH_DIVIDEND, STOCK_DIVIDEND, SPLIT, REVERSE_SPLIT = "cash_dividend", "stock_dividend", "split", "reverse_split"
SPIN_OFF, MERGER, RIGHTS, SYMBOL_CHANGE = "spin_off", "merger", "rights", "symbol_change"
DELISTING, RETURN_OF_CAPITAL = "delisting", "return_of_capital"
TYPES = (
    CASH_DIVIDEND, STOCK_DIVIDEND, SPLIT, REVERSE_SPLIT, SPIN_OFF, MERGER, RIGHTS, SYMBOL_CHANGE, DELISTING,
    RETURN_OF_CAPITAL,
)  # fmt: skip
ON_LOTS = frozenset(TYPES) - {CASH_DIVIDEND, SYMBOL_CHANGE}
"""Types that change lots: units, cost, or both."""
DUST = 10 * SMALLEST
Key = tuple[int, int]
"""An instrument and the broker that holds it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A corporate action as the books read it. Ratios are new units for old; `cash` and `in_lieu` are for one unit.

    `step` is the smallest number of units that is delivered, of what comes; `elected` how many units an account
    subscribes to, all that it may where that is None.
    """

    id: UUID
    type: str
    at: datetime
    instrument_id: int
    target_id: int | None = None
    ratio: Ratio | None = None
    cash: Decimal | None = None
    in_lieu: Decimal | None = None
    cost_share: Decimal = ZERO
    price: Decimal = ZERO
    step: Decimal = Decimal(1)
    elected: Decimal | None = None

    @property
    def units_ratio(self) -> Ratio:
        """Return what one unit becomes: of a stock dividend what comes is added to it."""
        new, old = self.ratio or ONE_TO_ONE
        return (new + old, old) if self.type == STOCK_DIVIDEND and self.target_id is None else (new, old)


@dataclass(frozen=True, slots=True)
class Flow:
    """What an action moves of one instrument: cost of what is held, gain, and by broker (None: none) cash and units."""

    cost: Decimal = ZERO
    gain: Decimal = ZERO
    cash: Mapping[int | None, Decimal] = field(default_factory=dict)
    units: Mapping[int, Decimal] = field(default_factory=dict)


@dataclass(slots=True)
class _Plan:
    """What units an action moves in one account, how much of them is paid for instead, and by what brokers share cash."""

    held: Decimal
    shares: dict[int, Decimal] = field(default_factory=dict)
    units: dict[Key, Decimal] = field(default_factory=dict)
    fraction: Decimal = ZERO
    subscribed: Decimal = ZERO


class Family:
    """The holdings of an account that belong together, after all their trades and actions.

    `terms` are those of the actions applied, in any order. Raises `Conflict` where a fraction has no price, or where
    actions tie instruments in a circle.
    """

    def __init__(self, trades: Mapping[int, Sequence[LiveTrade]], terms: Iterable[Terms], policies: Policies) -> None:
        self.terms = sorted(terms, key=lambda t: (t.at, t.id))
        self.trades = {i: list(found) for i, found in trades.items()}
        self.instruments = set(trades) | {i for t in self.terms for i in (t.instrument_id, t.target_id) if i}
        self.matchings = {i: Matching((), policies) for i in self.instruments}
        self.held: dict[Key, Decimal] = defaultdict(lambda: ZERO)
        self._plans: dict[UUID, _Plan] = {}
        self._plan()
        self._match()

    def quantity(self, instrument_id: int) -> Decimal:
        """Return what is held of an instrument over all brokers."""
        return sum((q for (i, _), q in self.held.items() if i == instrument_id), ZERO)

    def held_at(self, action: UUID) -> Decimal:
        """Return what was held of its instrument when an action took effect."""
        return self._plans[action].held

    def flows(self, action: UUID) -> dict[int, Flow]:
        """Return what an action moves, by instrument; over all of them cost and cash are the gain."""
        units: dict[int, dict[int, Decimal]] = defaultdict(dict)
        for (instrument, broker), quantity in self._plans[action].units.items():
            if quantity:
                units[instrument][broker] = quantity
        found = {}
        for instrument, matching in self.matchings.items():
            closed = [c for c in matching.closures if c.trade == action]
            cash = sum((-c.value for c in closed), ZERO)
            gain = sum((c.recognized for c in closed), ZERO)
            parts = _divided(cash, self._plans[action].shares)
            flow = Flow(matching.moved.get(action, ZERO), gain, parts, units.get(instrument, {}))
            if flow.cost or flow.cash or flow.gain or flow.units:
                found[instrument] = flow
        return found

    def closures(self, instrument_id: int) -> list[Closure]:
        """Return what was closed of an instrument, in the order of time."""
        return self.matchings[instrument_id].closures

    # Units, broker by broker: each pays for the fraction that it can't deliver.

    def _plan(self) -> None:
        waiting = sorted(((t.key, i, t) for i, found in self.trades.items() for t in found), key=lambda w: w[0])
        index = 0
        for terms in self.terms:
            while index < len(waiting) and waiting[index][2].executed_at < terms.at:
                self._hold(waiting[index][1], waiting[index][2])
                index += 1
            plan = self._plans[terms.id] = self._moved(terms)
            for key, quantity in plan.units.items():
                self.held[key] += quantity
        for _, instrument, trade in waiting[index:]:
            self._hold(instrument, trade)

    def _hold(self, instrument: int, trade: LiveTrade) -> None:
        self.held[instrument, trade.broker_id] += trade.quantity

    def _moved(self, terms: Terms) -> _Plan:
        here = {b: q for (i, b), q in self.held.items() if i == terms.instrument_id and q}
        plan = _Plan(sum(here.values(), ZERO), dict(here))
        if terms.type == RETURN_OF_CAPITAL or (terms.type == DELISTING and terms.cash is None):
            return plan
        if terms.type == RIGHTS:
            return self._subscribed(terms, here, plan)
        came = {b: whole(entitled(q, terms.units_ratio), terms.step) for b, q in here.items()} if terms.ratio else {}
        if terms.target_id is None and terms.ratio:
            plan.units = {(terms.instrument_id, b): came[b] - q for b, q in here.items()}
        else:
            if terms.type in (MERGER, DELISTING):
                plan.units = {(terms.instrument_id, b): -q for b, q in here.items()}
            if terms.target_id is not None:
                plan.units |= {(terms.target_id, b): q for b, q in came.items()}
        if terms.ratio:
            plan.fraction = entitled(plan.held, terms.units_ratio) - sum(came.values(), ZERO)
            if not terms.cash:
                plan.shares = {b: entitled(q, terms.units_ratio) - came[b] for b, q in here.items()}
        return plan

    def _subscribed(self, terms: Terms, here: Mapping[int, Decimal], plan: _Plan) -> _Plan:
        left = terms.elected
        for broker, quantity in sorted(here.items()):
            may = max(ZERO, whole(entitled(quantity, terms.units_ratio), terms.step))
            taken = may if left is None else min(may, left)
            left = None if left is None else left - taken
            plan.units[terms.instrument_id, broker] = taken
            plan.subscribed += taken
            plan.shares[broker] = taken
        return plan

    # Lots: instruments that give before those that receive.

    def _match(self) -> None:
        gives: dict[int, set[int]] = {i: set() for i in self.instruments}
        for terms in self.terms:
            if terms.target_id is not None and terms.target_id != terms.instrument_id:
                gives[terms.target_id].add(terms.instrument_id)
        try:
            order = list(TopologicalSorter(gives).static_order())
        except CycleError as error:
            raise Conflict("actions_in_a_circle", "These actions hand lots back to where they came from.") from error
        received: dict[int, list[Act]] = defaultdict(list)
        for instrument in order:
            acts = [*self._acts(instrument), *received[instrument]]
            items: list[LiveTrade | Act] = [*acts, *self.trades.get(instrument, ())]
            items.sort(key=lambda i: (i.executed_at, not isinstance(i, Act), i.id))
            matching = self.matchings[instrument]
            matching.run(items)
            self._mend(matching, self.quantity(instrument))
            for terms in self.terms:
                if terms.instrument_id == instrument and terms.target_id is not None:
                    given = matching.given.get(terms.id, ())
                    received[terms.target_id].append(self._receipt(terms, given, matching.seen))

    def _acts(self, instrument: int) -> list[Act]:
        return [act for t in self.terms if t.instrument_id == instrument and (act := self._act(t, self._plans[t.id]))]

    def _act(self, terms: Terms, plan: _Plan) -> Act | None:
        ratio, cash = terms.units_ratio, terms.cash or ZERO
        match terms.type:
            case "return_of_capital":
                return CapitalReturn(terms.id, terms.at, cash)
            case "rights":
                return Subscription(terms.id, terms.at, plan.subscribed, cash) if plan.subscribed else None
            case "merger":
                return Merger(terms.id, terms.at, ratio if terms.ratio else None, cash, terms.price)
            case "delisting":
                return None if terms.cash is None else Merger(terms.id, terms.at, None, cash)
            case _ if terms.target_id is not None:
                return SpinOff(terms.id, terms.at, ratio, terms.cost_share, plan.held)
            case _:
                return Split(terms.id, terms.at, ratio, plan.fraction, self._in_lieu(terms, plan))

    def _receipt(self, terms: Terms, given: tuple[OpenLot, ...], version: UUID) -> Receipt:
        plan = self._plans[terms.id]
        return Receipt(terms.id, terms.at, given, plan.fraction, self._in_lieu(terms, plan), version)

    def _in_lieu(self, terms: Terms, plan: _Plan) -> Decimal:
        if terms.in_lieu is None and abs(plan.fraction) >= DUST:
            raise Conflict(
                "cash_in_lieu_needed", "Somebody is entitled to a fraction of a unit: tell what is paid for a whole one.",
            )  # fmt: skip
        return terms.in_lieu or ZERO

    def _mend(self, matching: Matching, quantity: Decimal) -> None:
        """Put what rounding left over, when units were scaled in two ways, on the last lot."""
        off = quantity - sum((lot.remaining for lot in matching.lots), ZERO)
        if off and matching.lots:
            last = matching.lots[-1]
            last.basis = last.cost
            last.remaining += off


def _divided(amount: Decimal, shares: Mapping[int, Decimal]) -> dict[int | None, Decimal]:
    """Divide cash among brokers by their shares, to the last digit; without any it has no broker."""
    whole = sum(shares.values(), ZERO)
    if not amount:
        return {}
    if not whole:
        return {None: amount}
    found: dict[int | None, Decimal] = {}
    left = amount
    for broker, share in sorted(shares.items()):
        part = left if share == whole else money(EXACT.divide(EXACT.multiply(left, share), whole))
        left, whole = left - part, whole - share
        if part:
            found[broker] = part
        if not whole:
            break
    return found
