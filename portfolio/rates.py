"""The rates that postings in another currency than their account's own were worth, kept as they are booked."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from brokers import queries as market
from brokers.domain.rates import Rates
from oms.kernel.decimals import EXACT
from oms.runtime import sql
from oms.runtime.transactions import require_transaction
from portfolio.models import Account, LedgerEntry, PostingRate

PLACES = Decimal("0.0000000001")
_bases: dict[int, str] = {}


def forget_bases() -> None:
    """Drop the accounts' currencies that this process knows, for tests whose rows come and go."""
    _bases.clear()


def base_of(account_id: int) -> str:
    """Return an account's own currency, which never changes."""
    if account_id not in _bases:
        _bases.update(Account.objects.values_list("id", "base_currency"))
    return _bases[account_id]


def rates_of(entries: Iterable[LedgerEntry], *, at: datetime) -> None:
    """Keep the rates of ledger entries; see `keep_rates`."""
    keep_rates([(e.transaction_id, e.account_id, e.currency) for e in entries], at=at)


def keep_rates(postings: Iterable[tuple[UUID, int, str]], *, at: datetime) -> None:
    """Keep the rate of each (transaction, account, currency) whose currency is not the account's own; null where there is none.

    Nothing is asked or written where all is in the accounts' own.
    """
    require_transaction()
    foreign = sorted({(t, c, base_of(a)) for t, a, c in postings if c != base_of(a)})
    if not foreign:
        return
    rates = Rates(market.quotes(), market.instruments())
    known = {pair: _rate(rates, *pair) for pair in {(c, b) for _, c, b in foreign}}
    names = ("transaction_id", "currency", "base_currency", "rate", "at")
    sql.insert_values(PostingRate, names, [(t, c, b, known[c, b], at) for t, c, b in foreign])


def _rate(rates: Rates, source: str, target: str) -> Decimal | None:
    rate = rates.convert(Decimal(1), source, target)
    return None if rate is None else rate.quantize(PLACES, context=EXACT) or None
