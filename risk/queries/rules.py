"""Rules of accounts as they are in force, and what a batch is judged by only where they ask for it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from django.conf import settings

from brokers import queries as brokers
from brokers.domain.calendars import Calendar
from oms.kernel import decimals, json
from oms.kernel.decimals import ZERO
from oms.kernel.json import rfc3339
from oms.runtime import sql
from portfolio.domain.settling import OPEN
from risk.domain.daytrading import CLOSING_SOON, Tally, tally, window_begins
from risk.domain.gate import Facts
from risk.domain.intents import Intent
from risk.domain.rules import Rules
from risk.models import AccountRules, Locate


def ask_rules(accounts: Sequence[int], at: datetime) -> Iterable[tuple[Any, ...]]:
    """Ask for the rules in force of accounts; those under the house's rules have no row."""
    return sql.run(
        "SELECT DISTINCT ON (account_id) account_id, margin, borrowing, haircuts::text, settled_only, locates, day_trading, "
        "migrated_on, self_trade FROM risk_accountrules WHERE account_id = ANY(%s) AND status = 'active' AND since <= %s "
        "ORDER BY account_id, since DESC, id DESC",
        [list(accounts), at.date()],
    )


def rules_of_row(margin: str, borrowing: bool, haircuts: str, *rest: Any) -> Rules:
    """Return the rules that a row of `ask_rules` holds."""
    found: Mapping[str, str] = json.loads(haircuts)
    fractions = {name: Decimal(value) for name, value in found.items()}
    return Rules(margin, borrowing, fractions, *rest)


def add_what_rules_ask(facts: Facts, intents: Sequence[Intent]) -> None:
    """Read receivables, locates and day trades for those accounts of a batch whose rules ask; one statement for each."""
    by_rule = {
        name: sorted(account_id for account_id, rules in facts.rules.items() if getattr(rules, name))
        for name in ("settled_only", "locates", "day_trading")
    }
    if by_rule["settled_only"]:
        for account_id, currency, amount in _ask_receivable(by_rule["settled_only"]):
            facts.receivable.setdefault(account_id, {})[currency] = amount
    if by_rule["locates"] and any(i.side == "sell_short" for i in intents):
        facts.located = dict(_located(by_rule["locates"], facts.at.date()))
        facts.borrowed = dict(_borrowed(by_rule["locates"], facts.at.date()))
    if by_rule["day_trading"]:
        _count_day_trades(facts, by_rule["day_trading"])
        facts.overnight = _overnight({i for _, i in facts.holdings} | {i.instrument.id for i in intents}, facts.at)


def _ask_receivable(accounts: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    return sql.run(
        "SELECT account_id, currency, sum(amount - settled_amount) FROM portfolio_settlement "
        "WHERE account_id = ANY(%s) AND state = ANY(%s) AND amount > 0 GROUP BY account_id, currency",
        [list(accounts), list(OPEN)],
    )


def _located(accounts: Sequence[int], day: date) -> Iterable[tuple[tuple[int, int], Decimal]]:
    found = sql.run(
        "SELECT account_id, instrument_id, sum(quantity) FROM risk_locate WHERE account_id = ANY(%s) AND day = %s GROUP BY 1, 2",
        [list(accounts), day],
    )
    return (((account_id, instrument_id), quantity) for account_id, instrument_id, quantity in found)


def _borrowed(accounts: Sequence[int], day: date) -> Iterable[tuple[tuple[int, int], Decimal]]:
    """Return what accounts were short when the UTC day began."""
    found = sql.run(
        "SELECT account_id, instrument_id, CASE WHEN day = %s THEN day_quantity - quantity ELSE -quantity END "
        "FROM portfolio_position WHERE account_id = ANY(%s)",
        [day, list(accounts)],
    )
    return (((account_id, instrument_id), max(ZERO, short)) for account_id, instrument_id, short in found)


_TRADES = """
SELECT t.account_id, t.instrument_id, (t.executed_at AT TIME ZONE 'UTC')::date, t.quantity, coalesce(p.quantity, 0)
FROM portfolio_trade t
LEFT JOIN portfolio_position p ON p.account_id = t.account_id AND p.instrument_id = t.instrument_id
WHERE t.account_id = ANY(%s) AND t.executed_at >= %s AND t.kind <> 'bust'
  AND NOT EXISTS (SELECT 1 FROM portfolio_trade u WHERE u.ref_id = t.id)
ORDER BY t.account_id, t.instrument_id, t.executed_at, t.id
"""
"""Trades in force, and what is held now."""


def _count_day_trades(facts: Facts, accounts: Sequence[int]) -> None:
    """Count by account, instrument and UTC day, from what each day began with."""
    today = facts.at.date()
    begins = datetime.combine(window_begins(today), time(), UTC)
    books: dict[tuple[int, int], list[tuple[date, Decimal]]] = {}
    held: dict[tuple[int, int], Decimal] = {}
    for account_id, instrument_id, day, quantity, position in sql.run(_TRADES, [list(accounts), begins]):
        books.setdefault((account_id, instrument_id), []).append((day, quantity))
        held[account_id, instrument_id] = position
    for pair, fills in books.items():
        carried = held[pair] - sum((quantity for _, quantity in fills), ZERO)
        for day in sorted({day for day, _ in fills}):
            mine = [quantity for on, quantity in fills if on == day]
            counted: Tally = tally(carried, mine)
            carried += sum(mine, ZERO)
            facts.day_trades[pair[0]] = facts.day_trades.get(pair[0], 0) + counted.day_trades
            if day == today:
                facts.tallies[pair] = counted


def _overnight(instrument_ids: set[int], at: datetime) -> set[int]:
    """Return the instruments whose exchange is closed or closes soon, so that what is opened now stays overnight."""
    if not settings.SESSIONS:
        return set()
    found = set()
    for pk in instrument_ids:
        instrument = brokers.instruments()[pk]
        kept = brokers.calendar(instrument.calendar)
        if instrument.calendar and not (kept and within_the_day(kept, at)):
            found.add(pk)
    return found


def within_the_day(kept: Calendar, at: datetime) -> bool:
    """Tell whether a position opened now can still be closed within the session."""
    close = kept.end_of_session(at)
    return close is not None and close - at > CLOSING_SOON


def rules_out(row: AccountRules) -> dict[str, Any]:
    """Return rules in their REST shape."""
    return {
        "id": str(row.id),
        "account": row.account.code,
        "since": row.since.isoformat(),
        "margin": row.margin,
        "borrowing": row.borrowing,
        "haircuts": dict(sorted(row.haircuts.items())),
        "settled_only": row.settled_only,
        "locates": row.locates,
        "day_trading": row.day_trading,
        "migrated_on": row.migrated_on.isoformat() if row.migrated_on else None,
        "self_trade": row.self_trade or None,
        "reason": row.reason,
        "status": row.status,
        "maker": row.maker.username if row.maker else None,
        "approver": row.approver.username if row.approver else None,
        "created_at": rfc3339(row.created_at),
    }


def locate_out(row: Locate) -> dict[str, Any]:
    """Return a locate in its REST shape."""
    return {
        "id": str(row.id),
        "account": row.account.code,
        "symbol": row.instrument.symbol,
        "quantity": decimals.text(row.quantity),
        "day": row.day.isoformat(),
        "lender": row.lender,
        "reference": row.reference,
        "made_by": row.made_by,
        "created_at": rfc3339(row.created_at),
    }
