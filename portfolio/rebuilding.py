"""The books built anew from trades, corporate actions and postings alone, and compared with what is kept.

Lots, positions, what brokers hold and cash are caches: everything here is worked out without them, holding by holding, so
that a whole desk takes memory for one portion of it only.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from brokers import queries as market
from oms.kernel.batching import chunks
from oms.kernel.decimals import ZERO, text
from oms.runtime import sql
from portfolio.domain.families import Family
from portfolio.domain.lots import notional
from portfolio.domain.matching import amount
from portfolio.domain.policies import EXPENSED, Policies
from portfolio.loading import policies_of
from portfolio.rematching import MATCHED_AGAIN, SOURCE, Kin, applied_actions, fold, tied

PORTION = 200
"""Holdings that are built at once."""
DERIVED = ("execution", SOURCE, MATCHED_AGAIN)
"""Source kinds of transactions that are built anew; all others are postings of their own."""
Pair = tuple[int, int]
Row = tuple[Any, ...]

LOTS = "lots, by what is left, cost and time"
POSITIONS = "positions: quantity, cost, gain, fees"
SHARES = "what each broker holds"
CASH = "cash by currency"


def differences() -> dict[str, list[str]]:
    """Return what differs by what it is; empty lists where all is as it would be built."""
    found: dict[str, list[str]] = {LOTS: [], POSITIONS: [], SHARES: [], CASH: []}
    cash = _postings_of_cash()
    for portion in chunks(_kin(), PORTION):
        pairs = [(k.account_id, i) for k in portion for i in k.instruments]
        lots, positions, shares = _kept(pairs)
        others = _other_postings(pairs)
        built_lots: dict[Pair, list[Row]] = {}
        built_shares: dict[tuple[int, int, int], Decimal] = {}
        built: dict[Pair, Row] = {}
        policies = policies_of(sorted({k.account_id for k in portion}))
        for k, family in zip(portion, fold(portion), strict=True):
            rules = policies.get(k.account_id, Policies())
            for instrument in k.instruments:
                pair = (k.account_id, instrument)
                built_lots[pair] = _lots(family, instrument)
                built[pair] = _position(family, instrument, rules, others.get(pair, {}))
                for currency, moved in _cash(family, instrument).items():
                    cash[k.account_id, currency] += moved
            for (instrument, broker), quantity in family.held.items():
                built_shares[k.account_id, instrument, broker] = quantity
        found[LOTS] += _unlike({p: v for p, v in built_lots.items() if v}, lots)
        found[POSITIONS] += _unlike({p: v for p, v in built.items() if any(v)}, positions)
        found[SHARES] += _unlike({p: v for p, v in built_shares.items() if v}, shares)
    there = sql.run("SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE balance <> 0").fetchall()
    kept = {(account, currency): balance for account, currency, balance in there}
    found[CASH] = _unlike({k: v for k, v in cash.items() if v}, kept)
    return found


def trial_balance() -> list[dict[str, str]]:
    """Return debits and credits of the whole ledger by currency and code; over the codes of a currency they are equal."""
    rows = sql.rows(
        "SELECT currency, code, coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS debits, "
        "coalesce(-sum(amount) FILTER (WHERE amount < 0), 0) AS credits "
        "FROM portfolio_ledgerentry GROUP BY currency, code ORDER BY currency, code"
    )
    return [
        {"currency": r["currency"], "code": r["code"], "debits": text(r["debits"]), "credits": text(r["credits"])}
        for r in rows
    ]


def _kin() -> list[Kin]:
    """Return every holding that has trades, or that an action gave something to, with what actions tie to it."""
    actions = applied_actions()
    traded = sql.run("SELECT DISTINCT account_id, instrument_id FROM portfolio_trade ORDER BY 1, 2").fetchall()
    found: dict[tuple[int, frozenset[int]], Kin] = {}
    acting = {i for a in actions for i in (a.instrument_id, a.target_id) if i}
    for account, instrument in traded:
        instruments, mine = tied(instrument, actions) if instrument in acting else ({instrument}, [])
        found.setdefault((account, frozenset(instruments)), Kin(account, instruments, mine))
    return list(found.values())


def _lots(family: Family, instrument: int) -> list[Row]:
    lots = family.matchings[instrument].lots
    return sorted((lot.id, lot.opened_at, lot.remaining, lot.cost, lot.held_since) for lot in lots)


def _position(family: Family, instrument: int, rules: Policies, others: Mapping[str, tuple[Decimal, Decimal]]) -> Row:
    """Return quantity, cost, gain and fees: of trades by the rules of their day, of actions, and of other postings."""
    trades, cost = family.trades.get(instrument, []), family.matchings[instrument].cost
    flows = [f for t in family.terms for i, f in family.flows(t.id).items() if i == instrument]
    paid = sum((amount(t, rules.at(t.executed_at)) for t in trades), ZERO)
    gain = cost - paid - sum((f.cost - f.gain for f in flows), ZERO)
    fees = sum((t.fees for t in trades if rules.at(t.executed_at).commissions == EXPENSED), ZERO)
    more_cost, more_units = others.get("securities", (ZERO, ZERO))
    return (
        family.quantity(instrument) + more_units, cost + more_cost, gain - others.get("realized_pnl", (ZERO, ZERO))[0],
        fees + others.get("fees", (ZERO, ZERO))[0],
    )  # fmt: skip


def _cash(family: Family, instrument: int) -> dict[str, Decimal]:
    """Return what trades and actions of an instrument moved in cash, in its currency."""
    moved = -sum((notional(t.quantity, t.price) + t.fees for t in family.trades.get(instrument, [])), ZERO)
    for terms in family.terms:
        flow = family.flows(terms.id).get(instrument)
        moved += sum(flow.cash.values(), ZERO) if flow else ZERO
    return {market.instruments()[instrument].currency: moved}


def _postings_of_cash() -> dict[tuple[int, str], Decimal]:
    """Return cash that no trade and no action explains: transfers, dividends, corrections, fees in other currencies."""
    rows = sql.run(
        """
        SELECT e.account_id, e.currency, sum(e.amount) FROM portfolio_ledgertransaction x
        JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.code = 'cash'
        LEFT JOIN brokers_instrument i ON i.id = e.instrument_id
        LEFT JOIN portfolio_entitlement n ON n.transaction_id = x.id
        LEFT JOIN portfolio_corporateaction a ON a.id = n.action_id
        WHERE x.source_kind NOT IN ('execution', 'corporate') OR (x.source_kind = 'execution' AND e.currency <> i.currency)
          OR a.type = 'cash_dividend'
        GROUP BY e.account_id, e.currency
        """
    )
    found: dict[tuple[int, str], Decimal] = defaultdict(lambda: ZERO)
    for account, currency, total in rows:
        found[account, currency] = total
    return found


def _other_postings(pairs: Sequence[Pair]) -> dict[Pair, dict[str, tuple[Decimal, Decimal]]]:
    """Return what other postings say of holdings: amount and quantity by ledger code, in the instrument's currency."""
    rows = sql.run(
        """
        SELECT e.account_id, e.instrument_id, e.code, sum(e.amount), sum(e.quantity)
        FROM portfolio_ledgertransaction x JOIN portfolio_ledgerentry e ON e.transaction_id = x.id
        JOIN brokers_instrument i ON i.id = e.instrument_id AND i.currency = e.currency
        JOIN unnest(%s::bigint[], %s::bigint[]) u(a, i) ON e.account_id = u.a AND e.instrument_id = u.i
        WHERE NOT x.source_kind = ANY(%s) AND e.code IN ('securities', 'realized_pnl', 'fees')
        GROUP BY 1, 2, 3
        """,
        [[a for a, _ in pairs], [i for _, i in pairs], list(DERIVED)],
    )
    found: dict[Pair, dict[str, tuple[Decimal, Decimal]]] = defaultdict(dict)
    for account, instrument, code, total, quantity in rows:
        found[account, instrument][code] = total, quantity
    return found


def _kept(
    pairs: Sequence[Pair],
) -> tuple[dict[Pair, list[Row]], dict[Pair, Row], dict[tuple[int, int, int], Decimal]]:
    """Return lots, positions and brokers' parts as they are kept."""
    wanted = [[a for a, _ in pairs], [i for _, i in pairs]]
    join = "JOIN unnest(%s::bigint[], %s::bigint[]) u(a, i) ON t.account_id = u.a AND t.instrument_id = u.i"
    lots: dict[Pair, list[Row]] = defaultdict(list)
    for account, instrument, pk, opened, left, price, basis, since in sql.run(
        f"SELECT t.account_id, t.instrument_id, t.id, t.opened_at, t.remaining, t.price, t.basis, t.held_since "
        f"FROM portfolio_lot t {join} WHERE t.closed_at IS NULL ORDER BY t.id",
        wanted,
    ):
        cost = notional(left, price) if basis is None else basis
        lots[account, instrument].append((pk, opened, left, cost, since))
    positions = {
        (account, instrument): tuple(row)
        for account, instrument, *row in sql.run(
            f"SELECT t.account_id, t.instrument_id, t.quantity, t.cost, t.realized, t.fees FROM portfolio_position t {join}",
            wanted,
        )
        if any(row)
    }
    shares = {
        (account, instrument, broker): quantity
        for account, instrument, broker, quantity in sql.run(
            f"SELECT t.account_id, t.instrument_id, t.broker_id, t.quantity FROM portfolio_brokerposition t {join} "
            "WHERE t.quantity <> 0",
            wanted,
        )
    }
    return {p: sorted(rows) for p, rows in lots.items()}, positions, shares


def _unlike(built: Mapping[Any, Any], kept: Mapping[Any, Any]) -> list[str]:
    return [
        f"{key}: kept {kept.get(key)}, built {built.get(key)}"
        for key in sorted(built.keys() | kept.keys())
        if built.get(key) != kept.get(key)
    ]
