"""The settlement ladder of an account: what comes and goes on which day, what is late, and what was sold too early."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from brokers import queries as reference
from oms.kernel.decimals import ZERO, text
from oms.kernel.ids import first_id
from oms.runtime import sql
from portfolio.domain.cash_rules import MEANING, YEAR, Flow, Ledger, Violation, restricted_until

LATE = ((0, "0-3 days"), (4, "4-7 days"), (8, "8-20 days"), (21, "over 20 days"))
"""How settlements that are late are told apart, by days."""
SLACK = timedelta(days=30)
"""How long before a time everything that moved then has settled."""
CURRENCY = "USD"
"""The rules of cash accounts are American: for securities in dollars."""


def ladder_of(account_id: int, *, today: date) -> dict[str, Any]:
    """Return the ladder: by currency each day's cash in and out with what will have settled by then, and what is late."""
    rows = sql.run(
        "SELECT s.currency, greatest(s.due_on, %(today)s), sum(s.amount - s.settled_amount) FILTER (WHERE s.amount > s.settled_amount), "
        "-sum(s.amount - s.settled_amount) FILTER (WHERE s.amount < s.settled_amount), count(*) "
        "FROM portfolio_settlement s WHERE s.account_id = %(account)s AND s.state IN ('pending', 'partial', 'failed') "
        "GROUP BY 1, 2 ORDER BY 1, 2",
        {"account": account_id, "today": today},
    ).fetchall()
    balances = dict(
        sql.run(
            "SELECT currency, balance FROM portfolio_cashbalance WHERE account_id = %s ORDER BY currency", [account_id]
        ).fetchall()
    )
    days: dict[str, list[Any]] = defaultdict(list)
    for currency, day, coming, going, count in rows:
        days[currency].append((day, coming or ZERO, going or ZERO, count))
    told = []
    for currency, balance in balances.items():
        settled = balance - sum((c - g for _, c, g, _ in days[currency]), ZERO)
        told.append(
            {
                "currency": currency,
                "ledger": text(balance),
                "settled": text(settled),
                "days": _steps(days[currency], settled),
            }
        )
    return {"currencies": told, "late": _late(account_id, today)}


def _steps(days: Iterable[tuple[date, Decimal, Decimal, int]], settled: Decimal) -> list[dict[str, Any]]:
    steps = []
    for day, coming, going, count in days:
        settled += coming - going
        steps.append(
            {
                "due_on": day.isoformat(), "settlements": count, "coming": text(coming), "going": text(going),
                "settled_after": text(settled),
            }
        )  # fmt: skip
    return steps


def _late(account_id: int, today: date) -> list[dict[str, Any]]:
    """Return what is late by age and state, with the money and the units that are open."""
    rows = sql.run(
        "SELECT s.state, %(today)s - s.due_on, s.currency, abs(s.amount - s.settled_amount) FROM portfolio_settlement s "
        "WHERE s.account_id = %(account)s AND s.state IN ('pending', 'partial', 'failed') AND s.due_on < %(today)s",
        {"account": account_id, "today": today},
    ).fetchall()
    sums: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [0, ZERO, 0])
    for state, days, currency, amount in rows:
        bucket = [name for least, name in LATE if days >= least][-1]
        entry = sums[bucket, state, currency]
        entry[0] += 1
        entry[1] += amount
        entry[2] = max(entry[2], days)
    return [
        {
            "age": age,
            "state": state,
            "currency": currency,
            "settlements": n,
            "amount": text(amount),
            "oldest_days": oldest,
        }
        for (age, state, currency), (n, amount, oldest) in sorted(sums.items())
    ]


# ---------------------------------------------------------------- cash accounts


def violations_of(account_id: int, *, today: date) -> dict[str, Any]:
    """Return what was sold too early within the last year by the rules of cash accounts, and what follows from it."""
    found = [v for v in _ledger(account_id, since=today - YEAR - SLACK).found if v.on > today - YEAR]
    until = restricted_until(found, today)
    return {
        "violations": [_violation_out(v) for v in found],
        "restricted_until": until.isoformat() if until else None,
    }


def too_early(account_id: int, instrument_id: int, quantity: Decimal, *, today: date) -> dict[str, Any] | None:
    """Return what selling so many now would violate in a cash account, None for nothing."""
    if reference.instruments()[instrument_id].asset_class != "equity" or not _may_be_unpaid(account_id, instrument_id):
        return None
    parts = _ledger(account_id, since=today - SLACK).locked(instrument_id, quantity, today)
    if not parts:
        return None
    riding = any(p.free_on is None for p in parts)
    kind = "free_riding" if riding else "good_faith"
    waits = max((p.free_on for p in parts if p.free_on), default=None)
    return {
        "kind": kind,
        "detail": MEANING[kind],
        "amount": text(sum((p.cost for p in parts), ZERO)),
        "currency": CURRENCY,
        "wait_until": waits.isoformat() if waits and not riding else None,
    }


def _may_be_unpaid(account_id: int, instrument_id: int) -> bool:
    """Tell whether a purchase of it still settles, or dollars are owed: else everything held is paid for."""
    row = sql.run(
        "SELECT EXISTS (SELECT 1 FROM portfolio_settlement WHERE account_id = %(account)s AND instrument_id = %(instrument)s "
        "AND state IN ('pending', 'partial', 'failed') AND quantity > 0) "
        "OR EXISTS (SELECT 1 FROM portfolio_cashbalance WHERE account_id = %(account)s AND currency = %(currency)s AND balance < 0)",
        {"account": account_id, "instrument": instrument_id, "currency": CURRENCY},
    ).fetchone()
    return bool(row and row[0])


def _ledger(account_id: int, *, since: date) -> Ledger:
    """Run the dollars of an account that went for equities since a day, or came and went otherwise; what was there before
    counts as settled, and what was held as paid for."""
    first = datetime.combine(since, time.min, UTC)
    trades = sql.run(
        "SELECT t.id, t.executed_at, s.amount, s.due_on, t.instrument_id, t.quantity FROM portfolio_settlement s "
        "JOIN portfolio_trade t ON t.id = s.trade_id JOIN brokers_instrument i ON i.id = t.instrument_id AND i.asset_class = 'equity' "
        "WHERE s.account_id = %s AND s.currency = %s AND s.state <> 'canceled' AND s.trade_id >= %s AND t.executed_at >= %s",
        [account_id, CURRENCY, first_id(first), first],
    ).fetchall()
    cash = sql.run(
        "SELECT x.id, x.at, sum(e.amount) FROM portfolio_ledgertransaction x JOIN portfolio_ledgerentry e ON e.transaction_id = x.id "
        "LEFT JOIN brokers_instrument i ON i.id = e.instrument_id "
        "WHERE x.account_id = %s AND x.id >= %s AND e.code = 'cash' AND e.currency = %s "
        "AND NOT (x.source_kind = 'execution' AND i.asset_class = 'equity' AND i.currency = e.currency) "
        "GROUP BY x.id, x.at HAVING sum(e.amount) <> 0",
        [account_id, first_id(first), CURRENCY],
    ).fetchall()
    flows = [Flow(*t) for t in trades]
    flows += [Flow(pk, at, amount, at.astimezone(UTC).date()) for pk, at, amount in cash]
    row = sql.run(
        "SELECT balance FROM portfolio_cashbalance WHERE account_id = %s AND currency = %s", [account_id, CURRENCY]
    ).fetchone()
    ledger = Ledger(settled=(row[0] if row else ZERO) - sum((f.amount for f in flows), ZERO))
    ledger.run(sorted(flows, key=lambda f: (f.at, f.id)))
    return ledger


def _violation_out(violation: Violation) -> dict[str, Any]:
    return {
        "kind": violation.kind,
        "detail": MEANING[violation.kind],
        "symbol": reference.instruments()[violation.instrument_id].symbol,
        "sale": str(violation.sale),
        "purchase": str(violation.purchase),
        "on": violation.on.isoformat(),
        "amount": text(violation.amount),
        "currency": CURRENCY,
        "wait_until": violation.wait_until.isoformat() if violation.wait_until else None,
    }
