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

from oms.kernel import json
from oms.kernel.decimals import ZERO
from oms.runtime import sql
from portfolio.domain.lots import OpenLot
from portfolio.domain.policies import Policies, Policy
from portfolio.domain.versions import TradeRow

NONE = Policies()
NEWEST = 8
RAISE = 8
_ROW = "t.id, t.kind, t.ref_id, t.executed_at, t.quantity, t.price, t.fees, t.chosen, t.broker_id"
_LOT = "l.account_id, l.instrument_id, l.id, l.trade_id, l.opened_at, l.price, l.quantity, l.remaining, l.closed_at"


@dataclass(slots=True)
class State:
    """One instrument of one account: what comes in, and what is booked from the earliest of it on.

    `plain` holdings are matched first in, first out and nothing else: no policy was ever set, no lot chosen, and no
    corporate action has changed them. Of the others all trades are loaded into `later` where they are to be matched
    `again`, else all open lots. What is `acted` on and matched again is left to `portfolio.rematching`.
    """

    account_id: int
    instrument_id: int
    incoming: list[TradeRow] = field(default_factory=list)
    held: Decimal = ZERO
    cost: Decimal = ZERO
    plain: bool = True
    again: bool = False
    acted: bool = False
    policies: Policies = NONE
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
    return {r[0]: row_of(r) for r in found}


def row_of(values: Sequence[Any]) -> TradeRow:
    """Return a trade as `_ROW` spells it."""
    *plain, chosen, broker = values
    return TradeRow(*plain, tuple(UUID(i) for i in json.loads(chosen)) if chosen else (), broker)


def load(states: Sequence[State]) -> None:
    """Fill in quantities held, later trades and lots."""
    _load_trades(states)
    plain = [s for s in states if s.plain]
    _load_open_lots([s for s in plain if s.closing])
    _load_rewound_lots([s for s in plain if s.later])
    if others := [s for s in states if not s.plain]:
        _load_policies(others)
        _load_all_trades([s for s in others if s.again and not s.acted])
        _load_all_open_lots([s for s in others if not s.again])


def policies_of(account_ids: Sequence[int]) -> dict[int, Policies]:
    """Return the policies of accounts by id, those that have any."""
    found: dict[int, list[Policy]] = {}
    rows = sql.run(
        "SELECT account_id, since, method, commissions, wash_sales FROM portfolio_lotpolicy WHERE account_id = ANY(%s)",
        [list(account_ids)],
    )
    for account, *policy in rows:
        found.setdefault(account, []).append(Policy(*policy))
    return {account: Policies(policies) for account, policies in found.items()}


def _load_policies(states: Sequence[State]) -> None:
    """Give states their policies, and tell which must be matched again: where anything but new trades on top comes in."""
    policies = policies_of(sorted({s.account_id for s in states}))
    for state in states:
        state.policies = policies.get(state.account_id, NONE)
        state.again = (
            state.again
            or bool(state.later)
            or any(r.kind != "trade" or state.policies.at(r.executed_at).looks_around for r in state.incoming)
        )


def trades_of(pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[TradeRow]]:
    """Return all booked trades of holdings by (account id, instrument id)."""
    found: dict[tuple[int, int], list[TradeRow]] = {p: [] for p in pairs}
    rows = sql.run(
        f"SELECT t.account_id, t.instrument_id, {_ROW} FROM unnest(%s::bigint[], %s::bigint[]) u(a, i) "
        "JOIN portfolio_trade t ON t.account_id = u.a AND t.instrument_id = u.i",
        [[a for a, _ in pairs], [i for _, i in pairs]],
    )
    for account, instrument, *row in rows:
        found[account, instrument].append(row_of(row))
    return found


def _load_all_trades(states: Sequence[State]) -> None:
    if not states:
        return
    found = trades_of([(s.account_id, s.instrument_id) for s in states])
    for state in states:
        state.later = found[state.account_id, state.instrument_id]


def _load_all_open_lots(states: Sequence[State]) -> None:
    if not states:
        return
    wanted = {(s.account_id, s.instrument_id): s for s in states}
    found = sql.run(
        f"SELECT {_LOT}, l.basis, l.held_since FROM unnest(%s::bigint[], %s::bigint[]) u(a, i) JOIN portfolio_lot l "
        "ON l.account_id = u.a AND l.instrument_id = u.i AND l.closed_at IS NULL",
        [[a for a, _ in wanted], [i for _, i in wanted]],
    )
    for account, instrument, *lot in found:
        wanted[account, instrument].lots[lot[0]] = OpenLot(*lot)


def _load_trades(states: Sequence[State]) -> None:
    limit, wanted = NEWEST, {(s.account_id, s.instrument_id): s for s in states}
    while wanted:
        found: dict[tuple[int, int], list[TradeRow]] = {k: [] for k in wanted}
        for account, instrument, held, cost, ruled, adjusted, acted_on, *row in _newest_trades(list(wanted), limit):
            state = wanted[account, instrument]
            state.held, state.cost = held or ZERO, cost or ZERO
            late = acted_on is not None and state.since.date() < acted_on
            state.acted = bool(adjusted) or late
            state.again = late
            state.plain = not ruled and not state.acted and not any(r.chosen for r in state.incoming)
            if row[0] is not None:
                found[account, instrument].append(row_of(row))
        short = {
            k for k, rows in found.items() if len(rows) == limit and min(r.executed_at for r in rows) >= wanted[k].since
        }
        for key in wanted.keys() - short:
            wanted[key].later = [r for r in found[key] if r.executed_at >= wanted[key].since]
        wanted, limit = {k: wanted[k] for k in short}, limit * RAISE


def _newest_trades(keys: Sequence[tuple[int, int]], limit: int) -> list[tuple[Any, ...]]:
    return sql.run(
        f"""
        SELECT u.a, u.i, p.quantity, p.cost,
          p.lots_chosen OR ruled.found, p.adjusted, acted.day, {_ROW}
        FROM unnest(%s::bigint[], %s::bigint[]) u(a, i)
        LEFT JOIN LATERAL (SELECT quantity, cost, lots_chosen, adjusted FROM portfolio_position WHERE account_id = u.a AND instrument_id = u.i) p ON true
        LEFT JOIN LATERAL (SELECT true AS found FROM portfolio_lotpolicy WHERE account_id = u.a LIMIT 1) ruled ON true
        LEFT JOIN LATERAL (SELECT max(ex_date) AS day FROM portfolio_corporateaction WHERE (instrument_id = u.i OR target_id = u.i)
                           AND state = 'applied' AND type NOT IN ('cash_dividend', 'symbol_change')) acted ON true
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
