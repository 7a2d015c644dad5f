"""Booking fills: trades, lots, ledger, positions and cash, for many fills at once."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.kernel.decimals import ZERO, money
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import require_transaction
from portfolio.balances import add_cash, add_shares
from portfolio.domain.fills import Fill
from portfolio.domain.policies import IN_COST
from portfolio.domain.posting import Line, fee_lines, trade_lines
from portfolio.domain.versions import BUST, Folded, TradeRow, add, change, fold, match_again
from portfolio.loading import State, load, trade_rows
from portfolio.models import LedgerEntry, LedgerTransaction, Lot, Trade
from portfolio.rates import keep_rates
from portfolio.rematching import Kin, applied_actions, rematch, tied
from portfolio.settlement import Instruction, instruct

Pair = tuple[int, int]
SOURCE = "execution"
TRADE = (
    "id", "source_kind", "source_id", "kind", "ref_id", "account_id", "broker_id", "instrument_id", "quantity", "price",
    "fees", "executed_at", "settle_date", "strategy_id", "chosen",
)  # fmt: skip
TRANSACTION = ("id", "account_id", "source_kind", "source_id", "at", "note")
ENTRY = (
    "id", "transaction_id", "account_id", "code", "currency", "amount", "instrument_id", "broker_id", "quantity",
)  # fmt: skip
LOT = (
    "id", "account_id", "instrument_id", "trade_id", "opened_at", "price", "quantity", "remaining", "closed_at",
)  # fmt: skip
MATCHED_LOT = (*LOT, "basis", "held_since")


@dataclass(frozen=True, slots=True)
class _Posting:
    """What one fill adds to the books; `realized` is what others' lots gain or lose by it, too.

    Fees that are `in_cost` are no expense: they are part of what the securities cost or brought.
    """

    fill: Fill
    row: TradeRow
    quantity: Decimal
    value: Decimal
    fees: Decimal
    cost: Decimal
    in_cost: bool = False

    @property
    def amount(self) -> Decimal:
        return self.value + self.fees if self.in_cost else self.value

    @property
    def expense(self) -> Decimal:
        return ZERO if self.in_cost else self.fees

    @property
    def realized(self) -> Decimal:
        return self.cost - self.amount

    def lines(self) -> list[Line]:
        lines = trade_lines(
            quantity=self.quantity,
            value=self.amount,
            realized=self.realized,
            fees=self.expense,
            currency=self.fill.currency,
        )
        return lines + fee_lines(self.fill.other_fees) if self.fill.other_fees else lines


def book(fills: Sequence[Fill], *, at: datetime) -> list[Pair]:
    """Book executions, busts and corrections; return the (account, instrument) pairs that moved, in order.

    The caller holds the accounts' locks and passes each execution once (`trade_source_unique` stands guard); what a
    fill refers to is booked already or comes with it, else `KeyError`. Whatever order they arrive in, lots, ledger,
    positions and cash end as if they had come in the order of execution. The number of statements doesn't depend on
    the number of fills.
    """
    if not fills:
        return []
    require_transaction()
    rows = _rows(fills)
    states: dict[Pair, State] = {}
    for fill in fills:
        pair = (fill.account_id, fill.instrument_id)
        states.setdefault(pair, State(*pair)).incoming.append(rows[fill.source_id])
    load(list(states.values()))
    costs = _fold([s for s in states.values() if not (s.again and s.acted)])
    acted = _kin([s for s in states.values() if s.again and s.acted])
    if acted:
        costs |= rematch(acted, at=at, note="trades that came late")[0]
    postings = [
        _posting(fill, rows, costs[fill.source_id], states[fill.account_id, fill.instrument_id]) for fill in fills
    ]
    _write_facts(postings, at)
    _write_settlements(postings)
    _write_positions(postings)
    _write_shares(postings)
    _write_cash(postings)
    return sorted(states.keys() | {(k.account_id, i) for k in acted for i in k.instruments})


def _kin(states: Sequence[State]) -> list[Kin]:
    """Return the holdings to be matched again with all that corporate actions tie to them."""
    found: dict[tuple[int, frozenset[int]], Kin] = {}
    actions = applied_actions() if states else []
    for state in states:
        instruments, mine = tied(state.instrument_id, actions)
        kin = found.setdefault((state.account_id, frozenset(instruments)), Kin(state.account_id, instruments, mine))
        kin.incoming[state.instrument_id] = state.incoming
    return list(found.values())


def _rows(fills: Sequence[Fill]) -> dict[UUID, TradeRow]:
    """Return the fills, and the booked trades that they refer to, as rows by id (a trade bears its source's id)."""
    coming = {f.source_id: f for f in fills}
    rows = trade_rows([f.ref_source_id for f in fills if f.ref_source_id and f.ref_source_id not in coming])
    for fill in fills:
        first = fill
        while first.ref_source_id in coming:
            first = coming[first.ref_source_id]
        time = rows[first.ref_source_id].executed_at if first.ref_source_id else first.executed_at
        rows[fill.source_id] = TradeRow(
            fill.source_id,
            fill.kind,
            fill.ref_source_id,
            time,
            fill.quantity,
            fill.price,
            fill.fees,
            fill.chosen,
            fill.broker_id,
        )
    return rows


def _fold(states: Iterable[State]) -> dict[UUID, Decimal]:
    """Fold every holding, write its lots, and return the change of cost by row."""
    costs: dict[UUID, Decimal] = {}
    plain: list[tuple[Any, ...]] = []
    matched: list[tuple[Any, ...]] = []
    dropped: set[UUID] = set()
    again = []
    for state in states:
        folded = _folded(state)
        costs |= folded.costs
        dropped |= folded.dropped
        rows = [
            (
                lot.id, state.account_id, state.instrument_id, lot.version, lot.opened_at, lot.price, lot.quantity,
                lot.remaining, lot.closed_at,
            )
            for lot in folded.changed
        ]  # fmt: skip
        if state.plain:
            plain += rows
        else:
            matched += [(*r, lot.basis, lot.held_since) for r, lot in zip(rows, folded.changed, strict=True)]
        if state.again:
            again.append((state.account_id, state.instrument_id))
    if again:
        sql.run(
            "DELETE FROM portfolio_lot l USING unnest(%s::bigint[], %s::bigint[]) u(a, i) "
            "WHERE l.account_id = u.a AND l.instrument_id = u.i",
            [[a for a, _ in again], [i for _, i in again]],
        )
    if dropped:
        sql.run("DELETE FROM portfolio_lot WHERE id = ANY(%s::uuid[])", [list(dropped)])
    for names, rows in ((LOT, plain), (MATCHED_LOT, matched)):
        moving = [n for n in names if n not in ("id", "account_id", "instrument_id", "opened_at")]
        sets = ", ".join(f"{c} = EXCLUDED.{c}" for c in moving)
        sql.insert_values(Lot, names, rows, on_conflict=f"ON CONFLICT (id) DO UPDATE SET {sets}")
    return costs


def _folded(state: State) -> Folded:
    if state.plain:
        return fold(state.lots.values(), state.later, state.incoming)
    if state.again:
        return match_again(state.later, state.incoming, state.policies, state.cost)
    return add(state.lots.values(), state.incoming, state.policies)


def _posting(fill: Fill, rows: Mapping[UUID, TradeRow], cost: Decimal, state: State) -> _Posting:
    row = rows[fill.source_id]
    replaced = rows[fill.ref_source_id] if fill.ref_source_id else None
    in_cost = not state.plain and state.policies.at(row.executed_at).commissions == IN_COST
    return _Posting(fill, row, *change(row, replaced), cost, in_cost)


def _write_facts(postings: Sequence[_Posting], at: datetime) -> None:
    trades, transactions, entries = [], [], []
    for posting in postings:
        fill, transaction_id = posting.fill, uuid7()
        trades.append(
            (
                fill.source_id, SOURCE, fill.source_id, fill.kind, fill.ref_source_id, fill.account_id, fill.broker_id,
                fill.instrument_id, fill.quantity, fill.price, fill.fees, posting.row.executed_at, fill.settle_date,
                fill.strategy_id, [str(i) for i in fill.chosen] or None,
            )
        )  # fmt: skip
        transactions.append((transaction_id, fill.account_id, SOURCE, fill.source_id, at, ""))
        entries += [
            (
                uuid7(), transaction_id, fill.account_id, line.code, line.currency, line.amount, fill.instrument_id,
                fill.broker_id, line.quantity,
            )
            for line in posting.lines()
        ]  # fmt: skip
    sql.insert_values(Trade, TRADE, trades)
    sql.insert_values(LedgerEntry, ENTRY, entries)
    sql.insert_values(LedgerTransaction, TRANSACTION, transactions)
    keep_rates([(e[1], e[2], e[4]) for e in entries], at=at)


def _write_settlements(postings: Sequence[_Posting]) -> None:
    wanted = []
    for p in postings:
        fill = p.fill
        if fill.kind != BUST:
            quantity, value, fees = p.row.totals
            wanted.append(
                Instruction(
                    fill.source_id, fill.account_id, fill.instrument_id, fill.currency, quantity, -value - fees,
                    p.row.executed_at.date(), fill.settle_date,
                )
            )  # fmt: skip
    instruct(wanted, undone=[p.fill.ref_source_id for p in postings if p.fill.ref_source_id])


def _write_positions(postings: Sequence[_Posting]) -> None:
    """Add to positions. Only the latest day's trades count for the day; an older day's change nothing of it."""
    sums: dict[Pair, list[Decimal]] = defaultdict(lambda: [ZERO] * 6)
    days = {(p.fill.account_id, p.fill.instrument_id): p.row.executed_at.date() for p in sorted(postings, key=_time)}
    chosen = {(p.fill.account_id, p.fill.instrument_id) for p in postings if p.fill.chosen}
    for p in postings:
        pair = (p.fill.account_id, p.fill.instrument_id)
        today = p.row.executed_at.date() == days[pair]
        added = (p.quantity, p.cost, p.realized, p.expense, p.quantity if today else ZERO, p.value if today else ZERO)
        sums[pair] = [a + b for a, b in zip(sums[pair], added, strict=True)]
    pairs = sorted(sums)
    sql.run(
        """
        INSERT INTO portfolio_position AS p
          (account_id, instrument_id, day, lots_chosen, quantity, cost, realized, fees, day_quantity, day_amount)
        SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::date[], %s::boolean[], %s::numeric[], %s::numeric[],
                             %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[])
        ON CONFLICT (account_id, instrument_id) DO UPDATE SET
          quantity = p.quantity + EXCLUDED.quantity, cost = p.cost + EXCLUDED.cost,
          realized = p.realized + EXCLUDED.realized, fees = p.fees + EXCLUDED.fees,
          day = greatest(p.day, EXCLUDED.day), lots_chosen = p.lots_chosen OR EXCLUDED.lots_chosen,
          day_quantity = CASE WHEN EXCLUDED.day > p.day OR p.day IS NULL THEN EXCLUDED.day_quantity
            WHEN EXCLUDED.day = p.day THEN p.day_quantity + EXCLUDED.day_quantity ELSE p.day_quantity END,
          day_amount = CASE WHEN EXCLUDED.day > p.day OR p.day IS NULL THEN EXCLUDED.day_amount
            WHEN EXCLUDED.day = p.day THEN p.day_amount + EXCLUDED.day_amount ELSE p.day_amount END
        """,
        [
            [a for a, _ in pairs],
            [i for _, i in pairs],
            [days[p] for p in pairs],
            [p in chosen for p in pairs],
            *map(list, zip(*(sums[p] for p in pairs), strict=True)),
        ],
    )


def _time(posting: _Posting) -> datetime:
    return posting.row.executed_at


def _write_shares(postings: Sequence[_Posting]) -> None:
    sums: dict[tuple[int, int, int], Decimal] = defaultdict(lambda: ZERO)
    for p in postings:
        sums[p.fill.account_id, p.fill.instrument_id, p.fill.broker_id] += p.quantity
    add_shares(sums)


def _write_cash(postings: Sequence[_Posting]) -> None:
    sums: dict[tuple[int, str, int | None], Decimal] = defaultdict(lambda: ZERO)
    for p in postings:
        fill = p.fill
        sums[fill.account_id, fill.currency, fill.broker_id] -= p.value + p.fees
        for currency, amount in fill.other_fees:
            sums[fill.account_id, currency, fill.broker_id] -= money(amount)
    add_cash(sums)
