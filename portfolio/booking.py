"""Booking fills: trades, lots, ledger, positions and cash, for many fills at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.kernel.batching import group_by
from oms.kernel.decimals import ZERO, money
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import require_transaction
from portfolio.domain.fills import Fill
from portfolio.domain.lots import Holding, OpenLot, Traded, fold
from portfolio.domain.posting import Line, trade_lines
from portfolio.models import LedgerEntry, LedgerTransaction, Lot, Position, Trade

Pair = tuple[int, int]
SOURCE = "execution"


@dataclass(slots=True)
class _State:
    """One instrument of one account while a batch is folded into it."""

    position: Position
    lots: list[tuple[Any, ...]] = field(default_factory=list)
    last: tuple[datetime, UUID] | None = None
    touched: dict[UUID, OpenLot] = field(default_factory=dict)


def book(fills: Sequence[Fill], *, at: datetime) -> list[Pair]:
    """Book executions, busts and corrections; return the (account, instrument) pairs that moved, in order.

    The caller holds the accounts' locks and passes each execution once (`trade_source_unique` stands guard). Whatever
    order they arrive in, lots and ledger end as if they had come in the order of execution: what comes late, and what
    undoes or corrects, folds the trades since again and posts the difference.
    """
    if not fills:
        return []
    require_transaction()
    pairs = sorted({(f.account_id, f.instrument_id) for f in fills})
    refs = {f.ref_source_id for f in fills if f.ref_source_id}
    undone = _trades_by_source(sorted(refs)) | {f.source_id: _trade(f, None) for f in fills if f.source_id in refs}
    states = _load(pairs)
    postings: list[tuple[Fill, list[Line]]] = []
    for pair, group in group_by(fills, lambda f: (f.account_id, f.instrument_id)).items():
        postings += _fold_pair(states[pair], group, undone)
    _write(postings, states, at)
    return pairs


def _trades_by_source(source_ids: Sequence[UUID]) -> dict[UUID, Trade]:
    if not source_ids:
        return {}
    return {t.source_id: t for t in Trade.objects.filter(source_kind=SOURCE, source_id__in=list(source_ids))}


def _load(pairs: Sequence[Pair]) -> dict[Pair, _State]:
    accounts, instruments = [a for a, _ in pairs], [i for _, i in pairs]
    wanted = "JOIN unnest(%s::bigint[], %s::bigint[]) u(a, i) ON t.account_id = u.a AND t.instrument_id = u.i"
    states = {p: _State(Position(account_id=p[0], instrument_id=p[1])) for p in pairs}
    rows = sql.rows(f"SELECT t.* FROM portfolio_position t {wanted}", [accounts, instruments])
    for row in rows:
        states[row["account_id"], row["instrument_id"]].position = Position(**row)
    lots = sql.run(
        "SELECT t.account_id, t.instrument_id, t.trade_id, t.opened_at, t.price, t.quantity, t.remaining "
        f"FROM portfolio_lot t {wanted} WHERE t.remaining <> 0 ORDER BY t.opened_at, t.trade_id",
        [accounts, instruments],
    )
    for account, instrument, *lot in lots:
        states[account, instrument].lots.append(tuple(lot))
    newest = sql.run(
        "SELECT u.a, u.i, t.executed_at, t.id FROM unnest(%s::bigint[], %s::bigint[]) u(a, i) CROSS JOIN LATERAL ("
        "SELECT executed_at, id FROM portfolio_trade WHERE account_id = u.a AND instrument_id = u.i "
        "ORDER BY executed_at DESC, id DESC LIMIT 1) t",
        [accounts, instruments],
    )
    for account, instrument, executed_at, pk in newest:
        states[account, instrument].last = (executed_at, pk)
    return states


def _fold_pair(state: _State, fills: list[Fill], undone: dict[UUID, Trade]) -> list[tuple[Fill, list[Line]]]:
    fills = sorted(fills, key=lambda f: (f.executed_at, f.source_id))
    in_order = all(f.kind == "trade" for f in fills) and (
        state.last is None or (fills[0].executed_at, fills[0].source_id) > state.last
    )
    effects = [_effect(f, undone) for f in fills]
    gains = _append(state, fills) if in_order else _fold_again(state, fills)
    postings = []
    for fill, (quantity, value, fees), gain in zip(fills, effects, gains, strict=True):
        lines = trade_lines(quantity=quantity, value=value, realized=gain, fees=fees, currency=fill.currency)
        postings.append((fill, lines))
        position = state.position
        position.quantity += quantity
        position.cost += money(value) + gain
        position.realized += gain
        position.fees += fees
        _count_day(position, fill, quantity, value)
    return postings


def _effect(fill: Fill, undone: dict[UUID, Trade]) -> tuple[Decimal, Decimal, Decimal]:
    """Return what a fill adds: signed quantity, signed value, fees; what it undoes is taken off."""
    quantity, value, fees = fill.quantity, money(fill.quantity * fill.price), fill.fees
    if fill.kind == "bust":
        quantity = value = fees = ZERO
    if fill.ref_source_id:
        old = undone[fill.ref_source_id]
        quantity, value, fees = (
            quantity - old.quantity,
            value - money(old.quantity * old.price),
            fees - old.fees,
        )
    return quantity, value, fees


def _traded(fill: Fill) -> Traded:
    return Traded(fill.source_id, fill.executed_at, fill.quantity, fill.price)


def _append(state: _State, fills: list[Fill]) -> list[Decimal]:
    """Fold trades that come after all others; return the gain of each."""
    holding = Holding()
    for trade_id, opened_at, price, opened, remaining in state.lots:
        holding.lots.append(OpenLot(Traded(trade_id, opened_at, opened, price), opened, remaining))
    before = {lot.trade.id: lot.remaining for lot in holding.lots}
    gains = []
    for fill in fills:
        gains.append(holding.take(_traded(fill)))
        _mark_origin(state.position, holding)
    for lot in [*holding.lots, *holding.closed]:
        if before.get(lot.trade.id) != lot.remaining:
            state.touched[lot.trade.id] = lot
    return gains


def _mark_origin(position: Position, holding: Holding) -> None:
    if not holding.lots:
        position.since = position.since_trade = None
        position.since_quantity = ZERO
    elif holding.origin is not None:
        position.since, position.since_trade = holding.origin.trade.at, holding.origin.trade.id
        position.since_quantity = holding.origin.opened


def _fold_again(state: _State, fills: list[Fill]) -> list[Decimal]:
    """Fold the live trades since the holding began, or all if something older changed; return the gains to post.

    The ledger gets the difference between the fold without and with the new facts, on the last of them.
    """
    position = state.position
    refs = {f.ref_source_id for f in fills if f.ref_source_id}
    origin: tuple[datetime, UUID] | None = None
    if position.since is not None and position.since_trade is not None and position.since_trade not in refs:
        began = (position.since, position.since_trade)
        if all((f.executed_at, f.ref_source_id or f.source_id) > began for f in fills):
            origin = began
    trades = _live_trades(position.account_id, position.instrument_id, origin[0] if origin else None)
    if origin:
        trades = [t for t in trades if t.key > origin]
    old = fold(trades, _start(position, origin))
    kept = [t for t in trades if t.id not in refs] + [
        _traded(f) for f in fills if f.kind != "bust" and f.source_id not in refs
    ]
    new = fold(kept, _start(position, origin))
    for lot in [*old.lots, *old.closed]:
        state.touched[lot.trade.id] = OpenLot(lot.trade, lot.opened, ZERO)
    for lot in [*new.closed, *new.lots]:
        state.touched[lot.trade.id] = lot
    if not new.lots:
        new.origin = None
    if origin is None or new.origin is not None or not new.lots:
        _mark_origin(position, new)
    return [ZERO] * (len(fills) - 1) + [new.realized - old.realized]


def _start(position: Position, origin: tuple[datetime, UUID] | None) -> Holding:
    holding = Holding()
    if origin:
        price = Lot.objects.values_list("price", flat=True).get(id=origin[1])
        trade = Traded(origin[1], origin[0], position.since_quantity, price)
        holding.lots.append(OpenLot(trade, position.since_quantity, position.since_quantity))
        holding.origin = OpenLot(trade, position.since_quantity, position.since_quantity)
    return holding


def _live_trades(account_id: int, instrument_id: int, since: datetime | None) -> list[Traded]:
    rows = sql.run(
        "SELECT t.id, t.executed_at, t.quantity, t.price FROM portfolio_trade t "
        "WHERE t.account_id = %s AND t.instrument_id = %s AND t.executed_at >= coalesce(%s::timestamptz, '-infinity') "
        "AND t.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)",
        [account_id, instrument_id, since],
    )
    return [Traded(*row) for row in rows]


def _count_day(position: Position, fill: Fill, quantity: Decimal, value: Decimal) -> None:
    day = fill.executed_at.date()
    if position.day is None or day > position.day:
        position.day, position.day_quantity, position.day_amount = day, ZERO, ZERO
    if day == position.day:
        position.day_quantity += quantity
        position.day_amount += value


def _write(postings: Sequence[tuple[Fill, list[Line]]], states: dict[Pair, _State], at: datetime) -> None:
    trades, transactions, entries = [], [], []
    held: dict[tuple[int, int, int], Decimal] = defaultdict(lambda: ZERO)
    cash: dict[tuple[int, str], Decimal] = defaultdict(lambda: ZERO)
    for fill, lines in postings:
        trades.append(_trade(fill, fill.ref_source_id))
        transaction = LedgerTransaction(
            id=uuid7(), account_id=fill.account_id, source_kind=SOURCE, source_id=fill.source_id, at=at
        )
        transactions.append(transaction)
        for line in lines:
            entries.append(_entry(fill, transaction, line))
            held[fill.account_id, fill.instrument_id, fill.broker_id] += line.quantity
            if line.code == "cash":
                cash[fill.account_id, line.currency] += line.amount
    sql.insert(trades)
    sql.insert(transactions)
    sql.insert(entries)
    _write_lots(states)
    _write_positions([s.position for s in states.values()])
    add_cash(cash)
    keys = sorted(held)
    sql.run(
        "INSERT INTO portfolio_brokerposition AS p (account_id, instrument_id, broker_id, quantity) "
        "SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::numeric[]) "
        "ON CONFLICT (account_id, instrument_id, broker_id) DO UPDATE SET quantity = p.quantity + EXCLUDED.quantity",
        [[k[0] for k in keys], [k[1] for k in keys], [k[2] for k in keys], [held[k] for k in keys]],
    )


def _trade(fill: Fill, ref_id: UUID | None) -> Trade:
    return Trade(
        id=fill.source_id,
        source_kind=SOURCE,
        source_id=fill.source_id,
        kind=fill.kind,
        ref_id=ref_id,
        account_id=fill.account_id,
        broker_id=fill.broker_id,
        instrument_id=fill.instrument_id,
        quantity=fill.quantity,
        price=fill.price,
        fees=fill.fees,
        executed_at=fill.executed_at,
        settle_date=fill.settle_date,
        strategy_id=fill.strategy_id,
    )


def _entry(fill: Fill, transaction: LedgerTransaction, line: Line) -> LedgerEntry:
    return LedgerEntry(
        id=uuid7(),
        transaction_id=transaction.id,
        account_id=fill.account_id,
        code=line.code,
        currency=line.currency,
        amount=line.amount,
        instrument_id=fill.instrument_id,
        broker_id=fill.broker_id,
        quantity=line.quantity,
    )


def _write_lots(states: dict[Pair, _State]) -> None:
    lots = [
        Lot(
            id=lot.trade.id, account_id=account, instrument_id=instrument, trade_id=lot.trade.id, opened_at=lot.trade.at,
            price=lot.trade.price, quantity=lot.opened, remaining=lot.remaining,
        )
        for (account, instrument), state in sorted(states.items())
        for lot in state.touched.values()
    ]  # fmt: skip
    sql.insert(
        lots,
        on_conflict="ON CONFLICT (id) DO UPDATE SET remaining = EXCLUDED.remaining, quantity = EXCLUDED.quantity",
    )


_POSITION_COLUMNS = ["account_id", "instrument_id", "quantity", "cost", "realized", "fees", "day", "day_quantity", "day_amount", "since", "since_trade", "since_quantity"]
_POSITION_TYPES = ["bigint", "bigint", "numeric", "numeric", "numeric", "numeric", "date", "numeric", "numeric", "timestamptz", "uuid", "numeric"]


def _write_positions(positions: Sequence[Position]) -> None:
    arrays = ", ".join(f"%s::{t}[]" for t in _POSITION_TYPES)
    sets = ", ".join(f"{c} = EXCLUDED.{c}" for c in _POSITION_COLUMNS[2:])
    sql.run(
        f"INSERT INTO portfolio_position ({', '.join(_POSITION_COLUMNS)}) SELECT * FROM unnest({arrays}) "
        f"ON CONFLICT (account_id, instrument_id) DO UPDATE SET {sets}",
        [[getattr(p, c) for p in positions] for c in _POSITION_COLUMNS],
    )


def add_cash(changes: dict[tuple[int, str], Decimal]) -> None:
    """Add to cash balances by (account id, currency)."""
    keys = sorted(changes)
    sql.run(
        "INSERT INTO portfolio_cashbalance AS c (account_id, currency, balance) "
        "SELECT * FROM unnest(%s::bigint[], %s::varchar[], %s::numeric[]) "
        "ON CONFLICT (account_id, currency) DO UPDATE SET balance = c.balance + EXCLUDED.balance",
        [[k[0] for k in keys], [k[1] for k in keys], [changes[k] for k in keys]],
    )
