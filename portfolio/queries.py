"""Reads of accounts, positions, cash and the ledger."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q, QuerySet

from brokers import queries as market
from brokers.domain.fees import Done
from brokers.domain.reference import QuoteRef
from oms.kernel.decimals import EXACT, ZERO, money, text, text_or_none
from oms.kernel.errors import NotFound
from oms.kernel.ids import uuid7
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from portfolio.domain.lots import LiveTrade, OpenLot, notional
from portfolio.domain.matching import Closure, Matching, is_long_term
from portfolio.domain.policies import PLAIN, POOLED, Policies, Policy
from portfolio.domain.settling import OPEN
from portfolio.domain.valuation import MID
from portfolio.domain.versions import live_trades
from portfolio.loading import policies_of, trades_of
from portfolio.models import Account, CorporateAction, LedgerEntry, Lot, LotPolicy, Settlement
from portfolio.rematching import Kin, applied_actions, fold, tied

STALE_AFTER = timedelta(seconds=60)
READS_ALL = ("risk", "ops", "auditor", "admin")
PLACES = Decimal("0.00000001")
PNL = ("realized", "unrealized", "day", "fees", "dividends")


def visible_accounts(user: Any, *, at: datetime | None = None) -> QuerySet[Account]:
    """Return the accounts a user may see: all for risk, ops, auditors and admins, else those granted and unexpired."""
    if user.is_superuser or user.groups.filter(name__in=READS_ALL).exists():
        return Account.objects.order_by("code").prefetch_related("lot_policies")
    now = at or datetime.now(UTC)
    valid = Q(grants__expires_at=None) | Q(grants__expires_at__gt=now)
    granted = Account.objects.filter(valid, grants__user=user).order_by("code").distinct()
    return granted.prefetch_related("lot_policies")


def account_out(account: Account, *, at: datetime) -> dict[str, Any]:
    """Return an account in its REST shape, with the rules of lots that are in force."""
    policy = _in_force(account, at)
    return {
        "code": account.code,
        "name": account.name,
        "base_currency": account.base_currency,
        "lot_method": policy.method,
        "commissions": policy.commissions,
        "wash_sales": policy.wash_sales,
        "status": account.status,
        "valued_at": account.valued_at,
        "created_at": rfc3339(account.created_at),
    }


def _in_force(account: Account, at: datetime) -> Policy:
    rows = [Policy(p.since, p.method, p.commissions, p.wash_sales) for p in account.lot_policies.all()]
    return Policies(rows).at(at)


def lot_policies_of(account_id: int) -> list[dict[str, Any]]:
    """Return the rules of lots that an account had, has and will have, the first day first; none means plain."""
    return [
        {
            "since": None if p.since == date.min else p.since.isoformat(),
            "method": p.method,
            "commissions": p.commissions,
            "wash_sales": p.wash_sales,
            "reason": p.reason,
        }
        for p in LotPolicy.objects.filter(account_id=account_id).order_by("since")
    ]


_POSITION = (
    "SELECT p.account_id, p.instrument_id, p.quantity, p.cost, p.realized, p.fees, p.day, p.day_quantity, p.day_amount, "
    "a.valued_at FROM portfolio_position p JOIN portfolio_account a ON a.id = p.account_id "
)


def positions_out(pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return positions by (account id, instrument id), in that order, valued at the market."""
    rows = sql.rows(
        _POSITION + "JOIN unnest(%s::bigint[], %s::bigint[]) u(a, i) ON p.account_id = u.a AND p.instrument_id = u.i",
        [[a for a, _ in pairs], [i for _, i in pairs]],
    )
    valued = _valued(rows)
    return [valued[p] for p in pairs]


def positions_of(account_id: int) -> list[dict[str, Any]]:
    """Return all positions of an account that are or were open, by symbol."""
    valued = _valued(sql.rows(_POSITION + "WHERE p.account_id = %s", [account_id]))
    return sorted(valued.values(), key=lambda p: str(p["symbol"]))


def positions_by_broker(account_id: int) -> list[dict[str, Any]]:
    """Return what each broker holds of an account, at the account's average cost; realised P&L is the account's own."""
    rows = sql.rows(
        "SELECT b.broker_id, b.quantity AS held, a.valued_at, p.* FROM portfolio_brokerposition b "
        "JOIN portfolio_position p ON p.account_id = b.account_id AND p.instrument_id = b.instrument_id "
        "JOIN portfolio_account a ON a.id = b.account_id "
        "WHERE b.account_id = %s ORDER BY b.instrument_id, b.broker_id",
        [account_id],
    )
    instruments, names = market.instruments(), market.brokers()
    quotes, now = (market.quotes({r["instrument_id"] for r in rows}) if rows else {}), datetime.now(UTC)
    found = []
    for row in rows:
        share = row | {"quantity": row["held"], "cost": _share_of_cost(row)}
        instrument_id = row["instrument_id"]
        valued = _position(share, instruments[instrument_id], quotes.get(instrument_id), now)
        found.append(
            valued | {"broker": names[row["broker_id"]].code, "realized_pnl": None, "day_pnl": None, "fees": None}
        )
    return found


def _share_of_cost(row: dict[str, Any]) -> Decimal:
    return money(EXACT.divide(row["cost"] * row["held"], row["quantity"])) if row["quantity"] else ZERO


def _valued(rows: Iterable[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    rows = list(rows)
    instruments = market.instruments()
    quotes = market.quotes({r["instrument_id"] for r in rows}) if rows else {}
    now = datetime.now(UTC)
    return {
        (r["account_id"], r["instrument_id"]): _position(
            r, instruments[r["instrument_id"]], quotes.get(r["instrument_id"]), now
        )
        for r in rows
    }


def _position(row: dict[str, Any], instrument: Any, quote: QuoteRef | None, now: datetime) -> dict[str, Any]:
    """Value one position as its account is valued; without a quote the price and what hangs on it are null, never zero."""
    quantity, cost = row["quantity"], row["cost"]
    price = _price(quote, row["valued_at"], quantity) if quote else None
    value = None if price is None else (quantity * price).quantize(PLACES)
    day = None
    if quote is not None and price is not None:
        today = row["day"] == now.date()
        traded, spent = (row["day_quantity"], row["day_amount"]) if today else (ZERO, ZERO)
        day = ((quantity - traded) * (price - quote.day_open) + traded * price - spent).quantize(PLACES)
    return {
        "symbol": instrument.symbol,
        "quantity": text(quantity),
        "average_cost": text((cost / quantity).quantize(PLACES)) if quantity else None,
        "cost": text(cost),
        "market_price": text_or_none(price),
        "market_value": text_or_none(value),
        "unrealized_pnl": text(value - cost) if value is not None else None,
        "realized_pnl": text(row["realized"]),
        "day_pnl": text_or_none(day),
        "fees": text(row["fees"]),
        "currency": instrument.currency,
        "price_at": rfc3339_or_none(quote.at if quote else None),
        "stale": quote is None or now - quote.at > STALE_AFTER,
    }


def _price(quote: QuoteRef, valued_at: str, quantity: Decimal) -> Decimal:
    """Return the middle of the market, or what closing brings: the bid of a long, the ask of a short."""
    if valued_at == MID:
        return quote.mid
    return quote.bid if quantity >= 0 else quote.ask


def balances_of(account_id: int) -> list[dict[str, Any]]:
    """Return cash by currency: ledger, settled, and what open settlements will bring or take."""
    rows = sql.rows(
        """
        WITH sums AS (
          SELECT currency, sum(amount - settled_amount) FILTER (WHERE amount > settled_amount) AS coming,
                 -sum(amount - settled_amount) FILTER (WHERE amount < settled_amount) AS going
          FROM portfolio_settlement WHERE account_id = %(account)s AND state IN ('pending', 'partial', 'failed')
          GROUP BY currency
        )
        SELECT c.currency, c.balance, coalesce(s.coming, 0) AS coming, coalesce(s.going, 0) AS going
        FROM portfolio_cashbalance c LEFT JOIN sums s USING (currency)
        WHERE c.account_id = %(account)s ORDER BY c.currency
        """,
        {"account": account_id},
    )
    return [
        {
            "currency": r["currency"],
            "ledger": text(r["balance"]),
            "settled": text(r["balance"] - r["coming"] + r["going"]),
            "unsettled_in": text(r["coming"]),
            "unsettled_out": text(r["going"]),
        }
        for r in rows
    ]


def month_so_far(account_id: int, broker_id: int, asset_class: str, at: datetime) -> tuple[Decimal, Decimal]:
    """Return the units and their value that an account traded at a broker in the month (UTC) of a time, as booked."""
    start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)
    row = sql.run(
        "SELECT coalesce(sum(abs(t.quantity)), 0), coalesce(sum(abs(t.quantity) * t.price), 0) "
        "FROM portfolio_position p JOIN brokers_instrument i ON i.id = p.instrument_id AND i.asset_class = %s "
        "JOIN portfolio_trade t ON t.account_id = p.account_id AND t.instrument_id = p.instrument_id "
        "AND t.executed_at >= %s AND t.executed_at < %s AND t.broker_id = %s AND t.kind <> 'bust' "
        "WHERE p.account_id = %s AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)",
        [asset_class, start, end, broker_id, account_id],
    ).fetchone()
    return (row[0], row[1]) if row else (ZERO, ZERO)


class Months:
    """What accounts did at brokers in the month of a time, asked for at most once each: for fees that depend on it."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self._known: dict[tuple[int, int, str], Done] = {}

    def of(self, account_id: int, asset_class: str) -> Callable[[int], Done]:
        """Return what tells of one account and asset class by broker."""

        def at_broker(broker_id: int) -> Done:
            key = (account_id, broker_id, asset_class)
            if key not in self._known:
                self._known[key] = Done(*month_so_far(account_id, broker_id, asset_class, self.at))
            return self._known[key]

        return at_broker


def settlements_of(
    account_id: int, *, today: date, state: str = "", before: UUID | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return settlements of an account, of one state if one is named, newest trade first, older than `before`."""
    rows = Settlement.objects.filter(account_id=account_id).select_related("trade__instrument", "trade__broker")
    if state:
        rows = rows.filter(state=state)
    if before:
        rows = rows.filter(pk__lt=before)
    return [settlement_out(row, today=today) for row in rows.order_by("-pk")[:limit]]


def settlement_out(row: Settlement, *, today: date) -> dict[str, Any]:
    """Return a settlement in its REST shape; `days_late` counts from the day it was due while it is open."""
    late = max(0, (today - row.due_on).days) if row.state in OPEN else 0
    return {
        "id": str(row.pk),
        "symbol": row.trade.instrument.symbol,
        "broker": row.trade.broker.code,
        "executed_at": rfc3339(row.trade.executed_at),
        "quantity": text(row.quantity),
        "amount": text(row.amount),
        "currency": row.currency,
        "due_on": row.due_on.isoformat(),
        "state": row.state,
        "settled_quantity": text(row.settled_quantity),
        "settled_amount": text(row.settled_amount),
        "settled_on": row.settled_on.isoformat() if row.settled_on else None,
        "failed_at": rfc3339_or_none(row.failed_at),
        "days_late": late,
        "reason": row.reason,
    }


def lots_of(account_id: int, *, at: datetime) -> list[dict[str, Any]]:
    """Return open lots, oldest first within a symbol."""
    instruments = market.instruments()
    rows = Lot.objects.filter(account_id=account_id, closed_at=None).order_by("instrument_id", "opened_at", "id")
    return [
        {
            "id": str(lot.id),
            "symbol": instruments[lot.instrument_id].symbol,
            "opened_at": rfc3339(lot.opened_at),
            "held_since": rfc3339(lot.held_since or lot.opened_at),
            "long_term": is_long_term(lot.held_since or lot.opened_at, at),
            "price": text(lot.price),
            "quantity": text(lot.quantity),
            "remaining": text(lot.remaining),
            "cost": text(notional(lot.remaining, lot.price) if lot.basis is None else lot.basis),
        }
        for lot in rows
    ]


class HeldLot(NamedTuple):
    """Whose an open lot is, and what is left of it."""

    account_id: int
    instrument_id: int
    remaining: Decimal


def lots_by_id(ids: Iterable[UUID]) -> dict[UUID, HeldLot]:
    """Return those of these lots that are open."""
    rows = sql.run(
        "SELECT id, account_id, instrument_id, remaining FROM portfolio_lot "
        "WHERE id = ANY(%s::uuid[]) AND closed_at IS NULL",
        [list(ids)],
    )
    return {lot: HeldLot(*held) for lot, *held in rows}


def pooled_accounts(account_ids: Iterable[int], *, at: datetime) -> set[int]:
    """Return those of these accounts that keep no lots apart now."""
    return {a for a, policies in policies_of(sorted(account_ids)).items() if policies.at(at).method in POOLED}


def lots_closed_by(
    account_id: int, instrument_id: int, side: str, quantity: Decimal, *, at: datetime, chosen: tuple[UUID, ...] = ()
) -> list[dict[str, Any]]:
    """Return the open lots that an order would consume by the account's rules, with how much of each and what it cost."""
    policies = policies_of([account_id]).get(account_id, Policies())
    plain = policies.at(at) == PLAIN and not chosen
    trade_id, signed = uuid7(), quantity if side == "buy" else -quantity
    matching = Matching(_lots_against(account_id, instrument_id, signed, enough=plain), policies)
    opened = {lot.id: lot.opened_at for lot in matching.lots}
    matching.run([LiveTrade(trade_id, trade_id, at, signed, ZERO, chosen=chosen)])
    return [
        {
            "id": str(c.lot),
            "quantity": text(abs(c.quantity)),
            "price": text(EXACT.divide(c.cost, c.quantity).quantize(PLACES)),
            "opened_at": rfc3339(opened[c.lot]),
        }
        for c in matching.closures
        if c.lot in opened
    ]


def _lots_against(account_id: int, instrument_id: int, signed: Decimal, *, enough: bool) -> list[OpenLot]:
    """Return the open lots that a trade could close, oldest first; only as many as it needs where those are `enough`."""
    against = {"remaining__lt": 0} if signed > 0 else {"remaining__gt": 0}
    rows = Lot.objects.filter(account_id=account_id, instrument_id=instrument_id, closed_at=None, **against)
    found, left = [], abs(signed)
    for lot in rows.order_by("opened_at", "id").iterator(chunk_size=100):
        if enough and left <= 0:
            break
        left -= abs(lot.remaining)
        found.append(
            OpenLot(
                lot.id, lot.trade_id, lot.opened_at, lot.price, lot.quantity, lot.remaining, None, lot.basis,
                lot.held_since,
            )
        )  # fmt: skip
    return found


def loss_washed_by(
    account_id: int,
    instrument_id: int,
    side: str,
    quantity: Decimal,
    price: Decimal,
    *,
    at: datetime,
    chosen: tuple[UUID, ...] = (),
) -> Decimal:
    """Return the loss that would not count if a trade were done now: its own, or one of the 30 days before.

    Zero where the account's rules take no wash sales; else all trades of the holding are matched again.
    """
    policies = policies_of([account_id]).get(account_id, Policies())
    if not policies.at(at).wash_sales:
        return ZERO
    trade_id, matching = uuid7(), _matched(account_id, instrument_id, policies)
    before = sum((c.disallowed for c in matching.closures), ZERO)
    signed = quantity if side == "buy" else -quantity
    matching.run([LiveTrade(trade_id, trade_id, at, signed, price, chosen=chosen)])
    return sum((c.disallowed for c in matching.closures), ZERO) - before


def gains_of(
    account_id: int, instrument_id: int | None = None, *, start: datetime | None = None, end: datetime | None = None
) -> list[dict[str, Any]]:
    """Return what sales and covers gained from `start` until before `end`, lot by lot, oldest first within a symbol.

    The trades of each holding are matched again by the account's rules, so this is as true as they are and costs as
    much as there are trades.
    """
    policies = policies_of([account_id]).get(account_id, Policies())
    held = [instrument_id] if instrument_id else [p["instrument_id"] for p in _holdings(account_id)]
    found: list[tuple[str, Closure]] = []
    for instrument in held:
        symbol = market.instruments()[instrument].symbol
        found += [(symbol, c) for c in _closures(account_id, instrument, policies)]
    found.sort(key=lambda f: (f[0], f[1].closed_at, f[1].held_since, f[1].lot))
    return [
        {"symbol": s, **_gain(c)}
        for s, c in found
        if (start is None or c.closed_at >= start) and (end is None or c.closed_at < end)
    ]


def _holdings(account_id: int) -> list[dict[str, Any]]:
    return sql.rows("SELECT instrument_id FROM portfolio_position WHERE account_id = %s", [account_id])


def _closures(account_id: int, instrument_id: int, policies: Policies) -> list[Closure]:
    return _matched(account_id, instrument_id, policies).closures


def _matched(account_id: int, instrument_id: int, policies: Policies) -> Matching:
    """Return a holding matched from its first trade, with the corporate actions that reach it."""
    instruments, actions = tied(instrument_id, applied_actions())
    if actions:
        [family] = fold([Kin(account_id, instruments, actions)])
        return family.matchings[instrument_id]
    pair, matching = (account_id, instrument_id), Matching((), policies)
    matching.run(live_trades(trades_of([pair])[pair]))
    return matching


def _gain(closure: Closure) -> dict[str, Any]:
    return {
        "lot": str(closure.lot),
        "trade": str(closure.trade),
        "held_since": rfc3339(closure.held_since),
        "closed_at": rfc3339(closure.closed_at),
        "long_term": is_long_term(closure.held_since, closure.closed_at),
        "quantity": text(closure.quantity),
        "cost": text(closure.cost),
        "proceeds": text(-closure.value),
        "gain": text(closure.recognized),
        "disallowed": text(closure.disallowed),
        "match": closure.match or None,
    }


def ledger_of(account_id: int, *, before: UUID | None, limit: int) -> list[dict[str, Any]]:
    """Return ledger lines with their transactions, newest first, older than the entry `before`."""
    rows = LedgerEntry.objects.filter(account_id=account_id).select_related("transaction", "instrument", "broker")
    if before:
        rows = rows.filter(id__lt=before)
    return [
        {
            "id": str(e.id),
            "transaction": str(e.transaction_id),
            "source_kind": e.transaction.source_kind,
            "source_id": str(e.transaction.source_id),
            "at": rfc3339(e.transaction.at),
            "account_code": e.code,
            "currency": e.currency,
            "amount": text(e.amount),
            "symbol": e.instrument.symbol if e.instrument else None,
            "broker": e.broker.code if e.broker else None,
            "quantity": text(e.quantity),
            "note": e.transaction.note,
        }
        for e in rows.order_by("-id")[:limit]
    ]


def pnl_of(account_id: int, *, start: datetime | None = None, end: datetime | None = None) -> dict[str, Any]:
    """Return an account's P&L by currency: realised and fees as booked from `start` until before `end`, unrealised and
    the day's as of now; with the number of open positions that have no price, which the sums leave out.
    """
    totals: dict[str, dict[str, Decimal]] = defaultdict(lambda: dict.fromkeys(PNL, ZERO))
    for currency, realized, fees in _booked_pnl(account_id, start, end):
        totals[currency] |= {"realized": realized, "fees": fees}
    for currency, dividends in _dividends(account_id, start, end):
        totals[currency]["dividends"] = dividends
    unpriced = 0
    for row in positions_of(account_id):
        if row["unrealized_pnl"] is None:
            unpriced += row["quantity"] != "0"
            continue
        totals[row["currency"]]["unrealized"] += Decimal(row["unrealized_pnl"])
        totals[row["currency"]]["day"] += Decimal(row["day_pnl"])
    return {
        "currencies": [{"currency": c, **{k: text(v) for k, v in b.items()}} for c, b in sorted(totals.items())],
        "unpriced_positions": unpriced,
    }


def _dividends(account_id: int, start: datetime | None, end: datetime | None) -> list[tuple[str, Decimal]]:
    return sql.run(
        "SELECT n.currency, sum(n.amount) FROM portfolio_entitlement n JOIN portfolio_corporateaction a ON a.id = n.action_id "
        "WHERE a.type = 'cash_dividend' AND n.account_id = %s "
        "AND n.at >= coalesce(%s::timestamptz, '-infinity') AND n.at < coalesce(%s::timestamptz, 'infinity') GROUP BY n.currency",
        [account_id, start, end],
    ).fetchall()


def corporate_actions(*, before: UUID | None = None, limit: int = 100) -> list[CorporateAction]:
    """Return corporate actions, the last announced first, older than `before`."""
    rows = CorporateAction.objects.select_related("instrument", "target").order_by("-id")
    return list((rows.filter(id__lt=before) if before else rows)[:limit])


def corporate_action(action_id: UUID) -> CorporateAction:
    """Return one, or raise `NotFound`."""
    found = CorporateAction.objects.select_related("instrument", "target").filter(pk=action_id).first()
    if found is None:
        raise NotFound("not_found", "There is no such corporate action.")
    return found


def corporate_action_out(action: CorporateAction) -> dict[str, Any]:
    """Return a corporate action in its REST shape."""
    return {
        "id": str(action.pk),
        "type": action.type,
        "symbol": action.instrument.symbol,
        "ratio": [action.ratio_new, action.ratio_old] if action.ratio_new else None,
        "cash": text_or_none(action.cash),
        "currency": action.currency,
        "target": action.target.symbol if action.target else None,
        "cash_in_lieu": text_or_none(action.cash_in_lieu),
        "cost_share": text_or_none(action.cost_share),
        "price": text_or_none(action.price),
        "new_symbol": action.new_symbol,
        "elections": action.elections,
        "declared_on": action.declared_on.isoformat() if action.declared_on else None,
        "ex_date": action.ex_date.isoformat(),
        "record_date": action.record_date.isoformat() if action.record_date else None,
        "pay_date": action.pay_date.isoformat(),
        "state": action.state,
        "reason": action.reason,
        "created_at": rfc3339(action.created_at),
        "applied_at": rfc3339_or_none(action.applied_at),
    }


def _booked_pnl(account_id: int, start: datetime | None, end: datetime | None) -> list[tuple[str, Decimal, Decimal]]:
    if start is None and end is None:
        statement = """
            SELECT i.currency, sum(p.realized), sum(p.fees) FROM portfolio_position p
            JOIN brokers_instrument i ON i.id = p.instrument_id WHERE p.account_id = %(account)s GROUP BY 1"""
        return sql.run(statement, {"account": account_id}).fetchall()
    statement = """
        SELECT e.currency, coalesce(-sum(e.amount) FILTER (WHERE e.code = 'realized_pnl'), 0),
               coalesce(sum(e.amount) FILTER (WHERE e.code = 'fees'), 0)
        FROM portfolio_ledgertransaction x JOIN portfolio_ledgerentry e ON e.transaction_id = x.id
        WHERE x.account_id = %(account)s AND e.code IN ('realized_pnl', 'fees')
          AND x.at >= coalesce(%(start)s::timestamptz, '-infinity') AND x.at < coalesce(%(end)s::timestamptz, 'infinity')
        GROUP BY 1"""
    return sql.run(statement, {"account": account_id, "start": start, "end": end}).fetchall()
