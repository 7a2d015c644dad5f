"""Trades with their busts and corrections: which version is in force, and what a new one does to the lots."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from oms.kernel.decimals import ZERO
from portfolio.domain.lots import Holding, LiveTrade, OpenLot, notional
from portfolio.domain.matching import Matching
from portfolio.domain.policies import Policies

BUST = "bust"


@dataclass(frozen=True, slots=True)
class TradeRow:
    """A trade, its correction with the new totals, or its bust.

    All versions of one trade bear the time of the first: a correction doesn't change when it happened.
    """

    id: UUID
    kind: str
    ref_id: UUID | None
    executed_at: datetime
    quantity: Decimal
    price: Decimal
    fees: Decimal
    chosen: tuple[UUID, ...] = ()
    broker_id: int = 0

    @property
    def totals(self) -> tuple[Decimal, Decimal, Decimal]:
        """Return signed quantity, its value at the price, and fees that are in force with this version."""
        return (
            (ZERO, ZERO, ZERO) if self.kind == BUST else (self.quantity, notional(self.quantity, self.price), self.fees)
        )


def change(row: TradeRow, replaced: TradeRow | None) -> tuple[Decimal, Decimal, Decimal]:
    """Return what a row adds to quantity, value and fees over the version that it replaces."""
    quantity, value, fees = row.totals
    if replaced is None:
        return quantity, value, fees
    old_quantity, old_value, old_fees = replaced.totals
    return quantity - old_quantity, value - old_value, fees - old_fees


def live_trades(rows: Iterable[TradeRow]) -> list[LiveTrade]:
    """Return the versions in force in the order they are folded. Chains of versions must be given whole."""
    by_id = {r.id: r for r in rows}
    replaced = {r.ref_id for r in by_id.values()}
    live = [r for r in by_id.values() if r.id not in replaced and r.kind != BUST]
    found = [
        LiveTrade(_first(by_id, r).id, r.id, r.executed_at, r.quantity, r.price, r.fees, r.chosen, r.broker_id)
        for r in live
    ]
    return sorted(found, key=lambda t: t.key)


def _first(by_id: dict[UUID, TradeRow], row: TradeRow) -> TradeRow:
    while row.ref_id is not None:
        row = by_id[row.ref_id]
    return row


def generations(rows: Sequence[TradeRow]) -> Iterator[list[TradeRow]]:
    """Yield the rows in groups, so that every row comes in a later group than the one it refers to."""
    waiting = list(rows)
    while waiting:
        ids = {r.id for r in waiting}
        ready = [r for r in waiting if r.ref_id not in ids]
        if not ready:
            raise ValueError("versions of trades refer to each other in a circle")
        yield ready
        waiting = [r for r in waiting if r.ref_id in ids]


@dataclass(frozen=True, slots=True)
class Folded:
    """What new rows did to one holding: the change of its cost by row, the lots to write, and those that are gone."""

    costs: dict[UUID, Decimal]
    changed: list[OpenLot]
    dropped: set[UUID]


def fold(lots: Iterable[OpenLot], later: Sequence[TradeRow], incoming: Sequence[TradeRow]) -> Folded:
    """Fold new rows into a holding; the end is the same in whatever order and grouping they arrive.

    `later` are all rows of the holding that bear the earliest incoming time or a later one; `lots` are those that
    `Holding` asks for. Where trades that were booked before match other lots now, what that changes is told with the
    last new row.
    """
    holding, costs, known = Holding(lots), dict[UUID, Decimal](), list(later)
    for rows in generations(incoming):
        start = min(r.executed_at for r in rows)
        moved = holding.rewind(live_trades(r for r in known if r.executed_at >= start)) if known else ZERO
        known += rows
        costs |= dict.fromkeys((r.id for r in rows), ZERO)
        fresh = {r.id for r in rows}
        for trade in live_trades(r for r in known if r.executed_at >= start):
            cost = holding.apply(trade)
            if trade.version in fresh:
                costs[trade.version] = cost
            else:
                moved += cost
        costs[rows[-1].id] += moved
    return Folded(costs, list(holding.changed.values()), holding.dropped)


def add(lots: Iterable[OpenLot], incoming: Sequence[TradeRow], policies: Policies) -> Folded:
    """Match new trades by an account's policies on top of all open lots; they come after all that was matched before."""
    matching, before, trades = Matching(lots, policies), {lot.id for lot in lots}, live_trades(incoming)
    costs = {}
    for trade in trades:
        cost = matching.cost
        matching.run([trade])
        costs[trade.version] = matching.cost - cost
    return Folded(costs, matching.lots, before - {lot.id for lot in matching.lots})


def match_again(
    history: Sequence[TradeRow], incoming: Sequence[TradeRow], policies: Policies, booked: Decimal
) -> Folded:
    """Match all trades of a holding from its beginning, whose cost is `booked` so far; return all lots now open.

    What this changes for trades booked before is told with the last new row.
    """
    matching, trades = Matching((), policies), live_trades([*history, *incoming])
    matching.run(trades)
    own = matching.costs(trades)
    costs = {r.id: own.get(r.id, ZERO) for r in incoming}
    costs[incoming[-1].id] += matching.cost - booked - sum(costs.values())
    return Folded(costs, matching.lots, set())
