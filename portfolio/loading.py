"""What booking must know of the holdings it changes, and no more: few rows however long the history.

Everything is asked for as "the first n by an index". A range whose bound comes as a parameter is costed as a third of
the table, which makes PostgreSQL read all of it; a limit keeps it on the index, and is raised where it fell short.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.kernel.decimals import ZERO
from oms.runtime import sql
from portfolio.domain.lots import OpenLot
from portfolio.domain.versions import TradeRow

NEWEST = 8
RAISE = 8
_ROW = "t.id, t.kind, t.ref_id, t.executed_at, t.quantity, t.price, t.fees"
_LOT = "l.account_id, l.instrument_id, l.id, l.trade_id, l.opened_at, l.price, l.quantity, l.remaining, l.closed_at"


@dataclass(slots=True)
class State:
    """One instrument of one account: what comes in, and what is booked from the earliest of it on."""

    account_id: int
    instrument_id: int
    incoming: list[TradeRow] = field(default_factory=list)
    held: Decimal = ZERO
    later: list[TradeRow] = field(default_factory=list)
    lots: dict[UUID, OpenLot] = field(default_factory=dict)

    @property
    def since(self) -> datetime:
        """Return the earliest time that comes in."""
        return min(r.executed_at for r in self.incoming)

    @property
    def closing(self) -> Decimal:
        """Return how much of the open lots can be consumed at most, unsigned."""
        if self.later:
            return sum((abs(r.quantity) for r in (*self.later, *self.incoming)), ZERO)
        against = sum((abs(r.quantity) for r in self.incoming if (r.quantity > 0) != (self.held > 0)), ZERO)
        return min(abs(self.held), against)


def trade_rows(ids: Sequence[UUID]) -> dict[UUID, TradeRow]:
    """Return booked trades by id."""
    if not ids:
        return {}
    found = sql.run(f"SELECT {_ROW} FROM portfolio_trade t WHERE t.id = ANY(%s::uuid[])", [list(ids)])
    return {r[0]: TradeRow(*r) for r in found}


def load(states: Sequence[State]) -> None:
    """Fill in quantities held, later trades and lots."""
    _load_trades(states)
    _load_open_lots([s for s in states if s.closing])
    _load_rewound_lots([s for s in states if s.later])


def _load_trades(states: Sequence[State]) -> None:
    limit, wanted = NEWEST, {(s.account_id, s.instrument_id): s for s in states}
    while wanted:
        found: dict[tuple[int, int], list[TradeRow]] = {k: [] for k in wanted}
        for account, instrument, held, *row in _newest_trades(list(wanted), limit):
            wanted[account, instrument].held = held or ZERO
            if row[0] is not None:
                found[account, instrument].append(TradeRow(*row))
        short = {
            k for k, rows in found.items() if len(rows) == limit and min(r.executed_at for r in rows) >= wanted[k].since
        }
        for key in wanted.keys() - short:
            wanted[key].later = [r for r in found[key] if r.executed_at >= wanted[key].since]
        wanted, limit = {k: wanted[k] for k in short}, limit * RAISE


def _newest_trades(keys: Sequence[tuple[int, int]], limit: int) -> list[tuple[Any, ...]]:
    return sql.run(
        f"""
        SELECT u.a, u.i, p.quantity, {_ROW} FROM unnest(%s::bigint[], %s::bigint[]) u(a, i)
        LEFT JOIN LATERAL (SELECT quantity FROM portfolio_position WHERE account_id = u.a AND instrument_id = u.i) p ON true
        LEFT JOIN LATERAL (SELECT * FROM portfolio_trade WHERE account_id = u.a AND instrument_id = u.i
                           ORDER BY executed_at DESC LIMIT %s) t ON true
        """,
        [[a for a, _ in keys], [i for _, i in keys], limit],
    ).fetchall()


def _load_open_lots(states: Sequence[State]) -> None:
    """Load the oldest open lots, as many as can be consumed; the first of them may be half consumed already."""
    wanted, factor = {(s.account_id, s.instrument_id): s for s in states}, 1
    while wanted:
        limits = [(4 + 2 * (len(s.incoming) + len(s.later))) * factor for s in wanted.values()]
        found = sql.run(
            f"""
            SELECT {_LOT} FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) u(a, i, n) CROSS JOIN LATERAL (
              SELECT * FROM portfolio_lot WHERE account_id = u.a AND instrument_id = u.i AND closed_at IS NULL
              ORDER BY closed_at, opened_at, id LIMIT u.n) l
            """,
            [[a for a, _ in wanted], [i for _, i in wanted], limits],
        )
        counts = dict.fromkeys(wanted, 0)
        for account, instrument, *lot in found:
            wanted[account, instrument].lots[lot[0]] = OpenLot(*lot)
            counts[account, instrument] += 1
        wanted = {
            key: state
            for (key, state), limit in zip(wanted.items(), limits, strict=True)
            if counts[key] == limit and sum((abs(lot.remaining) for lot in state.lots.values()), ZERO) < state.closing
        }
        factor *= RAISE


def _load_rewound_lots(states: Sequence[State]) -> None:
    """Load the lots that later trades opened, and those that they closed."""
    wanted, limit = {(s.account_id, s.instrument_id): s for s in states}, 0
    while wanted:
        limit = limit * RAISE or NEWEST + 2 * max(len(s.later) for s in states)
        opened = [r.id for s in wanted.values() for r in s.later if r.kind == "trade"]
        found = sql.run(
            f"""
            SELECT {_LOT} FROM portfolio_lot l WHERE l.id = ANY(%s::uuid[]) UNION ALL
            SELECT {_LOT} FROM unnest(%s::bigint[], %s::bigint[]) u(a, i) CROSS JOIN LATERAL (
              SELECT * FROM portfolio_lot WHERE account_id = u.a AND instrument_id = u.i AND closed_at IS NOT NULL
              ORDER BY closed_at DESC LIMIT %s) l
            """,
            [opened, [a for a, _ in wanted], [i for _, i in wanted], limit],
        )
        counts, oldest = dict.fromkeys(wanted, 0), dict[tuple[int, int], datetime]()
        for account, instrument, *lot in found:
            key, closed_at = (account, instrument), lot[-1]
            if closed_at is None or closed_at >= wanted[key].since:
                wanted[key].lots.setdefault(lot[0], OpenLot(*lot))
            if closed_at is not None:
                counts[key] += 1
                oldest[key] = min(closed_at, oldest.get(key, closed_at))
        wanted = {k: s for k, s in wanted.items() if counts[k] >= limit and oldest[k] >= s.since}
