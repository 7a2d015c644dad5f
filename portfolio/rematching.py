"""Holdings that corporate actions changed, matched again from their first trade: lots, and what that adds to the books.

What an action moves is the difference between what follows from all trades as they are known now and what is posted for
it already. So applying it, reversing it, a late fill and a bust are one and the same step, and a repeat posts nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as market
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.ids import uuid7
from oms.runtime import sql
from portfolio.balances import add_cash, add_shares
from portfolio.domain.families import ON_LOTS, Family, Flow, Terms
from portfolio.domain.lots import LiveTrade, OpenLot
from portfolio.domain.policies import Policies
from portfolio.domain.versions import TradeRow, live_trades
from portfolio.loading import policies_of, trades_of
from portfolio.models import Account, CorporateAction, Entitlement, LedgerEntry, LedgerTransaction, Lot
from portfolio.rates import rates_of

Pair = tuple[int, int]
SOURCE, MATCHED_AGAIN = "corporate", "rematch"
"""Source kinds: what an action moved, and what it changed for trades booked since."""
Key = tuple[str, str, int, int | None]
"""Ledger code, currency, instrument and broker."""
Lines = dict[Key, tuple[Decimal, Decimal]]
"""Amount and quantity by key."""
Code = LedgerEntry.Code


@dataclass(slots=True)
class Kin:
    """The instruments of one account that actions tie together, with the trades that come in now by instrument."""

    account_id: int
    instruments: set[int]
    actions: list[CorporateAction]
    incoming: dict[int, list[TradeRow]] = field(default_factory=dict)


def applied_actions() -> list[CorporateAction]:
    """Return all actions in force that change lots."""
    return list(CorporateAction.objects.filter(state=CorporateAction.State.APPLIED, type__in=ON_LOTS).order_by("id"))


def tied(instrument_id: int, actions: Iterable[CorporateAction]) -> tuple[set[int], list[CorporateAction]]:
    """Return the instruments that actions tie to one, and those actions."""
    found, known = {instrument_id}, list(actions)
    while True:
        mine = [a for a in known if a.instrument_id in found or a.target_id in found]
        more = {i for a in mine for i in (a.instrument_id, a.target_id) if i} - found
        if not more:
            return found, mine
        found |= more


def terms_of(action: CorporateAction, account: str) -> Terms:
    """Return an action as the books read it for one account."""
    comes = market.instruments()[action.target_id or action.instrument_id]
    elected = action.elections.get(account)
    return Terms(
        id=action.pk,
        type=action.type,
        at=datetime.combine(action.ex_date, time.min, UTC),
        instrument_id=action.instrument_id,
        target_id=action.target_id,
        ratio=(action.ratio_new, action.ratio_old) if action.ratio_new and action.ratio_old else None,
        cash=action.cash,
        in_lieu=action.cash_in_lieu,
        cost_share=action.cost_share or ZERO,
        price=action.price or ZERO,
        step=comes.lot_size,
        elected=None if elected is None else Decimal(elected),
    )


def fold(kin: Sequence[Kin], *, before: datetime | None = None) -> list[Family]:
    """Return the family of each, from all trades booked and coming in, or those before a time; few statements for any number."""
    pairs = [(k.account_id, i) for k in kin for i in k.instruments]
    trades, policies = trades_of(pairs), policies_of([k.account_id for k in kin])
    codes = dict(Account.objects.filter(id__in=[k.account_id for k in kin]).values_list("id", "code"))
    found = []
    for k in kin:
        live = {i: live_trades([*trades[k.account_id, i], *k.incoming.get(i, ())]) for i in k.instruments}
        if before is not None:
            live = {i: [t for t in trades_ if t.executed_at < before] for i, trades_ in live.items()}
        terms = [terms_of(a, codes[k.account_id]) for a in k.actions]
        found.append(Family(live, terms, policies.get(k.account_id, Policies())))
    return found


def lines_of(flows: Mapping[int, Flow]) -> Lines:
    """Return the ledger lines of what an action moves: cost and units of securities, cash where it came in, the gain."""
    found: Lines = {}

    def add(code: str, instrument: int, broker: int | None, amount: Decimal, quantity: Decimal = ZERO) -> None:
        if amount or quantity:
            key = (code, market.instruments()[instrument].currency, instrument, broker)
            before = found.get(key, (ZERO, ZERO))
            found[key] = before[0] + amount, before[1] + quantity

    for instrument, flow in flows.items():
        add(Code.SECURITIES, instrument, None, flow.cost)
        add(Code.REALIZED, instrument, None, -flow.gain)
        for broker, amount in flow.cash.items():
            add(Code.CASH, instrument, broker, amount)
        for broker, quantity in flow.units.items():
            add(Code.SECURITIES, instrument, broker, ZERO, quantity)
    return found


def posted(action_ids: Iterable[UUID], account_ids: Iterable[int]) -> dict[tuple[int, UUID], Lines]:
    """Return what is posted for actions, by account and action."""
    rows = sql.run(
        """
        SELECT n.account_id, n.action_id, e.code, e.currency, e.instrument_id, e.broker_id, sum(e.amount), sum(e.quantity)
        FROM portfolio_entitlement n JOIN portfolio_ledgerentry e ON e.transaction_id = n.transaction_id
        WHERE n.action_id = ANY(%s::uuid[]) AND n.account_id = ANY(%s) GROUP BY 1, 2, 3, 4, 5, 6
        """,
        [list(action_ids), list(account_ids)],
    )
    found: dict[tuple[int, UUID], Lines] = defaultdict(dict)
    for account, action, code, currency, instrument, broker, amount, quantity in rows:
        if amount or quantity:
            found[account, action][code, currency, instrument, broker] = amount, quantity
    return found


def difference(wanted: Lines, there: Lines) -> Lines:
    """Return the lines that make what is posted into what is wanted."""
    found = {}
    for key in wanted.keys() | there.keys():
        amount, quantity = wanted.get(key, (ZERO, ZERO))
        old_amount, old_quantity = there.get(key, (ZERO, ZERO))
        if amount != old_amount or quantity != old_quantity:
            found[key] = amount - old_amount, quantity - old_quantity
    return found


@dataclass(slots=True)
class Posting:
    """A transaction to be written: of an action, or, without one, of what matching again changed."""

    account_id: int
    action: CorporateAction | None
    lines: Lines
    held: Decimal = ZERO

    def amount(self, currency: str) -> Decimal:
        """Return the cash that it moves in a currency."""
        return sum((a for (c, named, *_), (a, _) in self.lines.items() if c == Code.CASH and named == currency), ZERO)


def rematch(
    kin: Sequence[Kin], *, undone: Sequence[CorporateAction] = (), at: datetime, note: str = ""
) -> tuple[dict[UUID, Decimal], list[Posting]]:
    """Match holdings again, write their lots and what follows for actions, positions and cash.

    Return by row what incoming trades cost, which the caller posts with them, and what was posted here. `undone` are
    actions that were just reversed: nothing of them is wanted any more. The caller holds the accounts' locks.
    """
    families = fold(kin)
    accounts = {k.account_id for k in kin}
    actions = {a.pk: a for k in kin for a in k.actions} | {a.pk: a for a in undone}
    there = posted(actions, accounts)
    booked = _booked([(k.account_id, i) for k in kin for i in k.instruments])
    costs: dict[UUID, Decimal] = {}
    postings: list[Posting] = []
    for k, family in zip(kin, families, strict=True):
        own = []
        for action in [*k.actions, *(u for u in undone if u.instrument_id in k.instruments)]:
            in_force = action in k.actions
            wanted = lines_of(family.flows(action.pk)) if in_force else {}
            lines = difference(wanted, there.get((k.account_id, action.pk), {}))
            if lines:
                held = family.held_at(action.pk) if in_force else ZERO
                own.append(Posting(k.account_id, action, lines, held))
        rest: Lines = {}
        for instrument in sorted(k.instruments):
            rows, matching = k.incoming.get(instrument, []), family.matchings[instrument]
            mine = matching.costs(live_trades_in(family.trades.get(instrument, []), rows))
            costs |= {r.id: mine.get(r.id, ZERO) for r in rows}
            moved = sum(
                (
                    a
                    for p in own
                    for (c, _, i, _), (a, _) in p.lines.items()
                    if c == Code.SECURITIES and i == instrument
                ),
                ZERO,
            )
            left = matching.cost - booked.get((k.account_id, instrument), ZERO) - moved
            left -= sum((costs[r.id] for r in rows), ZERO)
            if left and rows:
                costs[rows[-1].id] += left
            elif left:
                currency = market.instruments()[instrument].currency
                rest[Code.SECURITIES, currency, instrument, None] = left, ZERO
                rest[Code.REALIZED, currency, instrument, None] = -left, ZERO
        postings += own
        if rest:
            postings.append(Posting(k.account_id, None, rest))
    _write_lots(kin, families)
    _write(postings, at=at, note=note)
    _write_positions(kin, families, postings)
    return costs, postings


def live_trades_in(trades: Iterable[LiveTrade], rows: Iterable[TradeRow]) -> list[LiveTrade]:
    """Return those of these trades that are among the rows."""
    wanted = {r.id for r in rows}
    return [t for t in trades if t.version in wanted]


def _booked(pairs: Sequence[Pair]) -> dict[Pair, Decimal]:
    rows = sql.run(
        "SELECT p.account_id, p.instrument_id, p.cost FROM unnest(%s::bigint[], %s::bigint[]) u(a, i) "
        "JOIN portfolio_position p ON p.account_id = u.a AND p.instrument_id = u.i",
        [[a for a, _ in pairs], [i for _, i in pairs]],
    )
    return {(account, instrument): cost for account, instrument, cost in rows}


LOT = (
    "id", "account_id", "instrument_id", "trade_id", "opened_at", "price", "quantity", "remaining", "closed_at", "basis",
    "held_since",
)  # fmt: skip


def lot_row(account_id: int, instrument_id: int, lot: OpenLot) -> tuple[Any, ...]:
    """Return a lot as its columns in the order of `LOT`."""
    return (
        lot.id, account_id, instrument_id, lot.version, lot.opened_at, lot.price, lot.quantity, lot.remaining,
        lot.closed_at, lot.basis, lot.held_since,
    )  # fmt: skip


def _write_lots(kin: Sequence[Kin], families: Sequence[Family]) -> None:
    pairs = [(k.account_id, i) for k in kin for i in k.instruments]
    sql.run(
        "DELETE FROM portfolio_lot l USING unnest(%s::bigint[], %s::bigint[]) u(a, i) "
        "WHERE l.account_id = u.a AND l.instrument_id = u.i",
        [[a for a, _ in pairs], [i for _, i in pairs]],
    )
    rows = [
        lot_row(k.account_id, instrument, lot)
        for k, family in zip(kin, families, strict=True)
        for instrument in k.instruments
        for lot in family.matchings[instrument].lots
    ]
    sql.insert_values(Lot, LOT, rows)


def _write(postings: Sequence[Posting], *, at: datetime, note: str) -> None:
    """Write transactions with their entries, and the entitlements of those that are an action's."""
    transactions, entries, entitlements = [], [], []
    for posting in postings:
        row_id, transaction_id, action = uuid7(), uuid7(), posting.action
        if action is not None:
            entitlements.append(
                Entitlement(
                    id=row_id, action_id=action.pk, account_id=posting.account_id, quantity=posting.held,
                    amount=posting.amount(action.currency), currency=action.currency, transaction_id=transaction_id, at=at,
                )
            )  # fmt: skip
        told = f"{action.type} of {action.ex_date}" if action else "lots matched again"
        transactions.append(
            LedgerTransaction(
                id=transaction_id, account_id=posting.account_id, source_kind=SOURCE if action else MATCHED_AGAIN,
                source_id=row_id, at=at, note=(told + (f": {note}" if note else ""))[:200],
            )
        )  # fmt: skip
        entries += [
            LedgerEntry(
                id=uuid7(), transaction_id=transaction_id, account_id=posting.account_id, code=code, currency=currency,
                amount=amount, instrument_id=instrument, broker_id=broker, quantity=quantity,
            )
            for (code, currency, instrument, broker), (amount, quantity) in sorted(posting.lines.items(), key=str)
        ]  # fmt: skip
    sql.insert(entries)
    sql.insert(transactions)
    sql.insert(entitlements)
    rates_of(entries, at=at)


def _write_positions(kin: Sequence[Kin], families: Sequence[Family], postings: Sequence[Posting]) -> None:
    """Add what was posted to positions, brokers' positions and cash; mark what was matched again as adjusted."""
    totals: dict[Pair, list[Decimal]] = defaultdict(lambda: [ZERO] * 3)
    shares: dict[tuple[int, int, int], Decimal] = defaultdict(lambda: ZERO)
    cash: dict[tuple[int, str, int | None], Decimal] = defaultdict(lambda: ZERO)
    for k, family in zip(kin, families, strict=True):
        for instrument in k.instruments:
            if family.trades.get(instrument) or family.matchings[instrument].lots:
                totals[k.account_id, instrument]  # its row says from now on that it is adjusted
    for p in postings:
        for (code, currency, instrument, broker), (amount, quantity) in p.lines.items():
            if code == Code.CASH:
                cash[p.account_id, currency, broker] += amount
                continue
            place = 1 if code == Code.SECURITIES else 2
            totals[p.account_id, instrument][place] += amount if code == Code.SECURITIES else -amount
            totals[p.account_id, instrument][0] += quantity
            if broker is not None and quantity:
                shares[p.account_id, instrument, broker] += quantity
    pairs = sorted(totals)
    sql.run(
        """
        INSERT INTO portfolio_position AS p (account_id, instrument_id, adjusted, quantity, cost, realized, fees,
                                             day_quantity, day_amount)
        SELECT a, i, true, q, c, r, 0, 0, 0
        FROM unnest(%s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[]) u(a, i, q, c, r)
        ON CONFLICT (account_id, instrument_id) DO UPDATE SET adjusted = true, quantity = p.quantity + EXCLUDED.quantity,
          cost = p.cost + EXCLUDED.cost, realized = p.realized + EXCLUDED.realized
        """,
        [[a for a, _ in pairs], [i for _, i in pairs], *map(list, zip(*(totals[p] for p in pairs), strict=True))]
        if pairs
        else [[], [], [], [], []],
    )
    add_shares(shares)
    if cash:
        add_cash(cash)


def told(postings: Iterable[Posting]) -> list[dict[str, Any]]:
    """Return postings as events tell them: units and cash by symbol."""
    instruments, brokers = market.instruments(), market.brokers()
    return [
        {
            "account_code": code,
            "currency": currency,
            "symbol": instruments[instrument].symbol,
            "broker": brokers[broker].code if broker else None,
            "amount": decimals.text(amount),
            "quantity": decimals.text(quantity),
        }
        for p in postings
        for (code, currency, instrument, broker), (amount, quantity) in sorted(p.lines.items(), key=str)
    ]
