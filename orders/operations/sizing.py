"""Sizing tickets that name no quantity: by the market and the account as they stand when the order is placed."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from brokers import queries as brokers
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel.errors import Refused
from orders.domain.sizing import Facts, SizeBy, units
from orders.domain.tickets import Ticket
from portfolio.equity import equities
from portfolio.models import Account

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Sized:
    """A ticket to be sized, with the account and the instrument that it names."""

    ticket: Ticket
    size_by: SizeBy
    account: Account
    instrument: InstrumentRef


def size(wanted: Sequence[Sized]) -> list[Decimal | Refused]:
    """Return units in whole lots for each ticket, or why there are none; three statements for any number.

    The caller holds the accounts locked. Orders of one batch don't count for each other: each is sized by what stands.
    """
    if not wanted:
        return []
    quotes = brokers.quotes()
    rates = Rates(quotes, brokers.instruments())
    accounts = {w.account.id: w.account.base_currency for w in wanted if w.size_by.needs_equity}
    worth = equities(accounts, quotes, rates) if accounts else {}
    return [_size(w, quotes.get(w.instrument.id), rates, worth.get(w.account.id)) for w in wanted]


def _size(wanted: Sized, quote: QuoteRef | None, rates: Rates, equity: Decimal | None) -> Decimal | Refused:
    ticket, instrument = wanted.ticket, wanted.instrument
    facts = Facts(
        price=ticket.limit_price or ticket.stop_price or (quote.side_price(ticket.side) if quote else None),
        rate=rates.convert(ONE, instrument.currency, wanted.account.base_currency),
        equity=equity,
        lot=instrument.lot_size,
    )
    try:
        return units(wanted.size_by, facts, side=ticket.side)
    except Refused as refusal:
        return refusal
