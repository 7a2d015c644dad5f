"""What accounts hold at the end of a day, kept as it was known then."""

from collections import defaultdict
from datetime import date, datetime
from typing import Any

from brokers import queries as reference
from brokers.domain.rates import Rates
from oms.kernel.decimals import money, text, text_or_none
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from portfolio.equity import equities
from portfolio.models import Account, DaySnapshot


@in_transaction
def take(day: date, *, at: datetime) -> int:
    """Keep every account's cash and positions; return how many were kept. A day that has one keeps it."""
    accounts = dict(Account.objects.values_list("id", "base_currency"))
    quotes, instruments = reference.quotes(), reference.instruments()
    worth = equities(accounts, quotes, Rates(quotes, instruments))
    cash: dict[int, dict[str, str]] = defaultdict(dict)
    for account_id, currency, balance in sql.run(
        "SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE balance <> 0 ORDER BY currency"
    ):
        cash[account_id][currency] = text(balance)
    positions: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for account_id, instrument_id, quantity, cost in sql.run(
        "SELECT account_id, instrument_id, quantity, cost FROM portfolio_position WHERE quantity <> 0 ORDER BY instrument_id"
    ):
        quote, instrument = quotes.get(instrument_id), instruments[instrument_id]
        price = quote.mid if quote else None
        positions[account_id].append(
            {
                "symbol": instrument.symbol, "quantity": text(quantity), "cost": text(cost), "price": text_or_none(price),
                "value": text(money(quantity * price)) if price is not None else None, "currency": instrument.currency,
            }
        )  # fmt: skip
    rows = [
        DaySnapshot(
            day=day, account_id=a, cash=cash[a], positions=positions[a], taken_at=at,
            equity=None if (value := worth[a]) is None else money(value),
            unpriced=sum(p["price"] is None for p in positions[a]),
        )
        for a in accounts
    ]  # fmt: skip
    before = DaySnapshot.objects.filter(day=day).count()
    sql.insert(rows, on_conflict="ON CONFLICT (account_id, day) DO NOTHING")
    return DaySnapshot.objects.filter(day=day).count() - before
