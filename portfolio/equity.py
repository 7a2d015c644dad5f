"""What accounts are worth in their own currency: cash and positions at the mid."""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from brokers import queries as market
from brokers.domain.rates import Rates
from brokers.domain.reference import QuoteRef
from oms.kernel.decimals import ZERO
from oms.runtime import sql


def equities(currencies: Mapping[int, str], quotes: Mapping[int, QuoteRef], rates: Rates) -> dict[int, Decimal | None]:
    """Return the equity of accounts, given as account id to base currency; two statements for any number.

    None where a position has no quote or a currency no rate: a part of the worth is no worth.
    """
    worth: dict[int, Decimal | None] = dict.fromkeys(currencies, ZERO)
    for account_id, currency, amount in _amounts(list(currencies), quotes):
        value = None if amount is None else rates.convert(amount, currency, currencies[account_id])
        so_far = worth[account_id]
        worth[account_id] = None if value is None or so_far is None else so_far + value
    return worth


def _amounts(account_ids: list[int], quotes: Mapping[int, QuoteRef]) -> list[tuple[int, str, Decimal | None]]:
    """Return (account, currency, amount) of all cash and of all positions at the mid, None without a quote."""
    instruments = market.instruments()
    totals: dict[tuple[int, str], Decimal] = defaultdict(lambda: ZERO)
    cash = sql.run(
        "SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE account_id = ANY(%s) AND balance <> 0",
        [account_ids],
    ).fetchall()
    for account_id, currency, balance in cash:
        totals[account_id, currency] += balance
    held = sql.run(
        "SELECT account_id, instrument_id, quantity FROM portfolio_position WHERE account_id = ANY(%s) AND quantity <> 0",
        [account_ids],
    ).fetchall()
    unpriced: list[tuple[int, str, Decimal | None]] = []
    for account_id, instrument_id, quantity in held:
        currency, quote = instruments[instrument_id].currency, quotes.get(instrument_id)
        if quote is None:
            unpriced.append((account_id, currency, None))
        else:
            totals[account_id, currency] += quantity * quote.mid
    return [(account_id, currency, amount) for (account_id, currency), amount in totals.items()] + unpriced
