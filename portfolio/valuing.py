"""What accounts are worth now and were worth: live books of holdings, snapshots of days, flows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as market
from brokers.domain.rates import Rates
from oms.kernel.decimals import ZERO, money, text, text_or_none
from oms.kernel.errors import Invalid
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from portfolio.domain import performance
from portfolio.domain.valuation import ACCOUNT, BROKER, MID, STRATEGY, SYMBOL, Holding, Price, Valuation, Worth
from portfolio.models import Account, DailyValue, Flow, Strategy
from portfolio.queries import STALE_AFTER
from portfolio.rates import base_of

DAYS_MAX = 3_700


# ---------------------------------------------------------------- flows, kept as they are booked


def keep_flows(
    flows: Sequence[tuple[UUID, int, str, Decimal]], worth: Mapping[int, Decimal | None], *, at: datetime
) -> None:
    """Keep cash from or to the outside, given as (transaction, account, currency, amount), with what accounts were worth
    before it (`equities_now`)."""
    rates = Rates(market.quotes(), market.instruments()) if any(c != base_of(a) for _, a, c, _ in flows) else None
    sql.insert_values(
        Flow,
        ("transaction_id", "account_id", "at", "amount", "equity_before"),
        [
            (
                t,
                a,
                at,
                _money(rates.convert(amount, c, base_of(a)) if rates else amount),
                _money(worth.get(a)),
            )
            for t, a, c, amount in flows
        ],
    )


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else money(amount)


def equities_now(account_ids: Sequence[int], *, at: datetime) -> dict[int, Decimal | None]:
    """Return what accounts are worth in their own currency; None where a price or a rate is missing."""
    return {pk: x.equity for pk, x in values_now(account_ids, at=at).items()}


# ---------------------------------------------------------------- now


@dataclass(frozen=True, slots=True)
class Value:
    """An account at the market, in its own currency; `cash` None where a balance has no rate."""

    account: Account
    cash: Decimal | None
    worth: Worth
    unrated: tuple[str, ...]

    @property
    def equity(self) -> Decimal | None:
        """Return the whole, None where a part of it is not known."""
        if self.cash is None or self.worth.unpriced or self.worth.unrated:
            return None
        return self.cash + self.worth.value


_POSITIONS = """
SELECT p.account_id, p.instrument_id, i.currency, p.quantity, p.cost, 0, 0, a.valued_at, p.day, p.day_quantity, p.day_amount
FROM portfolio_position p JOIN brokers_instrument i ON i.id = p.instrument_id JOIN portfolio_account a ON a.id = p.account_id
WHERE p.quantity <> 0
"""
_BY_BROKER = """
SELECT b.account_id, b.instrument_id, i.currency, b.quantity,
  CASE WHEN p.quantity = 0 THEN 0 ELSE round(p.cost * b.quantity / p.quantity, 8) END, b.broker_id, 0, a.valued_at, p.day,
  CASE WHEN p.quantity = 0 THEN 0 ELSE round(p.day_quantity * b.quantity / p.quantity, 10) END,
  CASE WHEN p.quantity = 0 THEN 0 ELSE round(p.day_amount * b.quantity / p.quantity, 10) END
FROM portfolio_brokerposition b JOIN portfolio_position p ON p.account_id = b.account_id AND p.instrument_id = b.instrument_id
JOIN brokers_instrument i ON i.id = b.instrument_id JOIN portfolio_account a ON a.id = b.account_id
WHERE b.quantity <> 0
"""
_BY_STRATEGY = """
SELECT l.account_id, l.instrument_id, i.currency, sum(l.remaining), sum(coalesce(l.basis, l.remaining * l.price)), 0,
  coalesce(t.strategy_id, 0), a.valued_at, NULL::date, 0, 0
FROM portfolio_lot l JOIN portfolio_trade t ON t.id = l.trade_id JOIN brokers_instrument i ON i.id = l.instrument_id
JOIN portfolio_account a ON a.id = l.account_id
WHERE l.closed_at IS NULL {where} GROUP BY l.account_id, l.instrument_id, i.currency, t.strategy_id, a.valued_at
"""


def holdings(
    account_ids: Sequence[int] | None = None, *, by: str = ACCOUNT, instruments: Sequence[int] = ()
) -> list[Holding]:
    """Return holdings of accounts (None: all), whole, by broker or by strategy; of some instruments where any are named.

    A broker's part of a position has its part of the cost and of the day. Lots bear the strategy of the trade that opened them;
    their day is counted from what is held now.
    """
    alias = {BROKER: "b", STRATEGY: "l"}.get(by, "p")
    conditions, values = [], dict[str, Any]()
    if account_ids is not None:
        conditions.append(f"{alias}.account_id = ANY(%(accounts)s)")
        values["accounts"] = list(account_ids)
    if instruments:
        conditions.append(f"{alias}.instrument_id = ANY(%(instruments)s)")
        values["instruments"] = list(instruments)
    where = "".join(f" AND {c}" for c in conditions)
    statement = {BROKER: _BY_BROKER + where, STRATEGY: _BY_STRATEGY.format(where=where)}.get(by, _POSITIONS + where)
    return [Holding(*row) for row in sql.run(statement, values).fetchall()]


def prices(instrument_ids: Iterable[int] | None = None) -> dict[int, Price]:
    """Return the markets of now by instrument id."""
    return {i: Price(q.bid, q.ask, q.at, q.day_open) for i, q in market.quotes(instrument_ids).items()}


def values_now(account_ids: Sequence[int], *, at: datetime) -> dict[int, Value]:
    """Return accounts at the market of now; `at` tells how old a price is."""
    accounts = Account.objects.in_bulk(list(account_ids))
    quotes = market.quotes()
    rates = Rates(quotes, market.instruments())
    book = Valuation(holdings(account_ids), {i: Price(q.bid, q.ask, q.at, q.day_open) for i, q in quotes.items()})
    cash = _cash(account_ids)
    return {
        pk: _value(account, book, cash.get(pk, {}), rates, at) for pk, account in sorted(accounts.items())
    }  # fmt: skip


def _value(account: Account, book: Valuation, cash: Mapping[str, Decimal], rates: Rates, at: datetime) -> Value:
    base = account.base_currency
    converted = {c: rates.convert(amount, c, base) for c, amount in cash.items()}
    unrated = tuple(sorted(c for c, amount in converted.items() if amount is None))
    total = None if unrated else sum((a for a in converted.values() if a is not None), ZERO)
    worth = book.worth(ACCOUNT, account.pk, base, rates, at=at, after=STALE_AFTER)
    return Value(account, total, worth, tuple(sorted({*unrated, *worth.unrated})))


def _cash(account_ids: Sequence[int]) -> dict[int, dict[str, Decimal]]:
    found: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for account, currency, balance in sql.run(
        "SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE account_id = ANY(%s) AND balance <> 0",
        [list(account_ids)],
    ):
        found[account][currency] = balance
    return found


def valuation_out(account: Account, *, by: str = "", at: datetime) -> dict[str, Any]:
    """Return an account at the market in its REST shape: what is missing or old is counted, and leaves the sums null or
    marked; with `by`, also split by broker, symbol or strategy."""
    value = values_now([account.pk], at=at)[account.pk]
    worth = value.worth
    told = {
        "account": account.code,
        "currency": account.base_currency,
        "valued_at": account.valued_at,
        "at": rfc3339(at),
        "equity": text_or_none(_money(value.equity)),
        "cash": text_or_none(_money(value.cash)),
        **_worth_out(worth),
        "realized": text_or_none(_realized(account)),
        "month": text_or_none(_money(_month(account, value.equity, at))),
        "unrated": list(value.unrated),
    }
    return told | {"parts": _parts(account, by, at) if by else []}


def _worth_out(worth: Worth) -> dict[str, Any]:
    return {
        "value": text(money(worth.value)),
        "cost": text(money(worth.cost)),
        "unrealized": text(money(worth.unrealized)),
        "day": text(money(worth.day)),
        "positions": worth.count,
        "unpriced": worth.unpriced,
        "stale": worth.stale,
    }


def _parts(account: Account, by: str, at: datetime) -> list[dict[str, Any]]:
    quotes = market.quotes()
    rates = Rates(quotes, market.instruments())
    known = {i: Price(q.bid, q.ask, q.at, q.day_open) for i, q in quotes.items()}
    book = Valuation(
        holdings([account.pk], by=BROKER if by == BROKER else STRATEGY if by == STRATEGY else ACCOUNT), known
    )
    names: Mapping[int, str] = {
        BROKER: lambda: {b.id: b.code for b in market.brokers().values()},
        STRATEGY: lambda: dict(Strategy.objects.values_list("id", "code")),
        SYMBOL: lambda: {i.id: i.symbol for i in market.instruments().values()},
    }[by]()
    ids = sorted({k[1] for k in book.totals if k[0] == by}, key=lambda i: names.get(i, ""))
    found = []
    for pk in ids:
        worth = book.worth(by, pk, account.base_currency, rates, at=at, after=STALE_AFTER)
        found.append({"key": names.get(pk), **_worth_out(worth), "unrated": list(worth.unrated)})
    return found


def _realized(account: Account) -> Decimal | None:
    """Return what was realised since the account exists, each posting at the rate of its day; None where one had none.

    Positions know it in the account's own currency; only for holdings in others the account's postings are read.
    """
    values = {"account": account.pk, "base": account.base_currency}
    held = sql.run(
        """
        SELECT sum(p.realized) FILTER (WHERE i.currency = %(base)s), bool_or(i.currency <> %(base)s)
        FROM portfolio_position p JOIN brokers_instrument i ON i.id = p.instrument_id WHERE p.account_id = %(account)s
        """,
        values,
    ).fetchone()
    own, abroad = held or (None, False)
    if not abroad:
        return money(own or ZERO)
    row = sql.run(
        """
        SELECT sum(-e.amount * r.rate), bool_or(r.rate IS NULL) FROM portfolio_ledgertransaction x
        JOIN portfolio_ledgerentry e ON e.transaction_id = x.id AND e.code = 'realized_pnl' AND e.currency <> %(base)s
        LEFT JOIN portfolio_postingrate r ON r.transaction_id = x.id AND r.currency = e.currency
        WHERE x.account_id = %(account)s
        """,
        values,
    ).fetchone()
    total, missing = row or (None, False)
    return None if missing else money((own or ZERO) + (total or ZERO))


def _month(account: Account, equity: Decimal | None, at: datetime) -> Decimal | None:
    """Return what was gained since the month (UTC) began: growth of worth less flows; None where either is not known."""
    first = at.date().replace(day=1)
    began = DailyValue.objects.filter(account=account, day__lt=first).order_by("-day").first()
    if equity is None:
        return None
    start, since = ZERO, datetime.combine(first, time.min, UTC)
    if began is not None:
        if began.equity is None:
            return None
        start, since = began.equity, began.at
    elif account.created_at < since:
        return None
    flows = list(Flow.objects.filter(account=account, at__gt=since, at__lte=at).values_list("amount", flat=True))
    if any(f is None for f in flows) or (began is None and not flows and equity != 0):
        return None
    return equity - start - sum((f for f in flows if f is not None), ZERO)


# ---------------------------------------------------------------- days


@in_transaction
def snapshot(*, at: datetime) -> int:
    """Keep what every open account is worth as its value of the day (UTC), over an earlier one of the same day; return how many.

    Called through the day; the last one stands. Safe to run twice, or in two places.
    """
    ids = list(Account.objects.filter(status=Account.Status.OPEN).values_list("id", flat=True))
    rows = [_day(v, at) for v in values_now(ids, at=at).values()]
    sql.insert(
        rows,
        on_conflict="ON CONFLICT (account_id, day) DO UPDATE SET at = EXCLUDED.at, equity = EXCLUDED.equity, cash = EXCLUDED.cash, "
        "value = EXCLUDED.value, unrealized = EXCLUDED.unrealized, unpriced = EXCLUDED.unpriced, stale = EXCLUDED.stale, "
        "unrated = EXCLUDED.unrated WHERE EXCLUDED.at >= portfolio_dailyvalue.at",
    )
    return len(rows)


def _day(value: Value, at: datetime) -> DailyValue:
    worth = value.worth
    return DailyValue(
        account_id=value.account.pk, day=at.astimezone(UTC).date(), at=at, currency=value.account.base_currency,
        equity=_money(value.equity), cash=_money(value.cash), value=money(worth.value), unrealized=money(worth.unrealized),
        unpriced=worth.unpriced, stale=worth.stale, unrated=list(value.unrated),
    )  # fmt: skip


# ---------------------------------------------------------------- performance


def performance_out(account: Account, *, start: date | None, end: date | None, at: datetime) -> dict[str, Any]:
    """Return how an account did from the end of the day before `start` until the end of `end`, today by what it is worth now.

    Without a start from its first flow on. What is not known is null, and its days are counted.
    """
    today = at.astimezone(UTC).date()
    until = min(end or today, today)
    if start is not None and (start > until or (until - start).days > DAYS_MAX):
        raise Invalid("out_of_range", f"The start lies before the end, at most {DAYS_MAX} days.", field="from")
    days = list(DailyValue.objects.filter(account=account, day__lte=until).order_by("day"))
    if start is not None:
        before = [d for d in days if d.day < start]
        days = ([before[-1]] if before else []) + [d for d in days if d.day >= start]
    rows = [f for f in Flow.objects.filter(account=account).order_by("at") if f.at.astimezone(UTC).date() <= until]
    known = [performance.Known(d.at, d.equity) for d in days if d.equity is not None]
    if until == today:
        equity = values_now([account.pk], at=at)[account.pk].equity
        known = [k for k in known if k.at < at] + ([performance.Known(at, equity)] if equity is not None else [])
    first = next((f for f in rows if start is None and f.equity_before is not None), None)
    if first is not None and (not known or first.at < known[0].at):
        known.insert(0, performance.Known(first.at - timedelta(microseconds=1), first.equity_before or ZERO))
    begin = known[0].at if known else None
    inside = [f for f in rows if begin is not None and begin < f.at <= known[-1].at]
    unknown = [f for f in inside if f.amount is None]
    flows = [performance.Flow(f.at, f.amount, f.equity_before) for f in inside if f.amount is not None]
    points = [] if unknown else performance.curve(known, flows)
    return _performance(account, start, until, known, flows, points, len(unknown), sum(d.equity is None for d in days))


def _performance(
    account: Account, start: date | None, until: date, known: Sequence[performance.Known], flows: Sequence[performance.Flow],
    points: Sequence[performance.Point], unknown: int, missing: int,
) -> dict[str, Any]:  # fmt: skip
    first, last = (known[0], known[-1]) if known else (None, None)
    rate = over = twr = annual = gain = None
    if first and last and points:
        twr = points[-1].index - 1
        annual = performance.annual(points[-1].index, first.at, last.at)
        paid = [(f.at, -f.amount) for f in flows]
        rate = performance.money_weighted([(first.at, -first.equity), *paid, (last.at, last.equity)])
        over = None if rate is None else performance.rate_over(rate, first.at, last.at)
        gain = last.equity - first.equity - sum((f.amount for f in flows), ZERO)
    fall = performance.deepest(points)
    deposits = sum((f.amount for f in flows if f.amount > 0), ZERO)
    withdrawals = -sum((f.amount for f in flows if f.amount < 0), ZERO)
    return {
        "account": account.code,
        "currency": account.base_currency,
        "from": start.isoformat() if start else (first.at.date().isoformat() if first else None),
        "to": until.isoformat(),
        "start_equity": text_or_none(first.equity if first else None),
        "end_equity": text_or_none(_money(last.equity if last else None)),
        "deposits": text(deposits),
        "withdrawals": text(withdrawals),
        "gain": text_or_none(_money(gain)),
        "time_weighted": text_or_none(_money(twr)),
        "time_weighted_annual": text_or_none(_money(annual)),
        "money_weighted": text_or_none(_money(over)),
        "money_weighted_annual": text_or_none(_money(rate if annual is not None else None)),
        "max_drawdown": {
            "depth": text(money(fall.depth)),
            "peak_at": rfc3339(fall.peak_at),
            "trough_at": rfc3339(fall.trough_at),
            "recovered_at": rfc3339_or_none(fall.recovered_at),
        }
        if fall
        else None,
        "unknown_flows": unknown,
        "missing_days": missing,
        "curve": [
            {
                "at": rfc3339(p.at),
                "equity": text(money(p.equity)),
                "index": text(money(p.index)),
                "drawdown": text(money(p.drawdown)),
            }
            for p in points
        ],
        "flows": [{"at": rfc3339(f.at), "amount": text(f.amount)} for f in flows],
    }


__all__ = [
    "MID",
    "equities_now",
    "holdings",
    "keep_flows",
    "performance_out",
    "prices",
    "snapshot",
    "valuation_out",
    "values_now",
]
