"""What an order has to wait for at the desk, worked out from its ticket, the market and the exchange's hours."""

from datetime import datetime, timedelta
from decimal import Decimal

from brokers import queries as brokers
from brokers.domain.reference import InstrumentRef, QuoteRef
from orders.domain.tickets import Ticket
from orders.domain.triggers import AUCTIONS, Watch, kind_of, trailing_price
from orders.domain.waiting import valid_until
from orders.models import Order

CLOSE_LEAD = timedelta(minutes=2)
"""How long before the close an order for it is sent; one that comes later is for the next session's."""


def watch_for(ticket: Ticket, instrument: InstrumentRef, quote: QuoteRef | None, at: datetime) -> Watch | None:
    """Return what a ticket's order waits for if the desk watches it, None for nothing.

    A trailing order without a quote to begin from has none: risk denies it for that.
    """
    starts_at = _start(ticket, instrument, at)
    kind = kind_of(ticket.order_type)
    if kind != "trail":
        price = ticket.stop_price
        return Watch(kind, price=price, starts_at=starts_at) if price is not None or starts_at else None
    if quote is None:
        return None
    best = quote.ask if ticket.side == "buy" else quote.bid
    trailed = trailing_price(ticket.side, best, ticket.trail_amount, ticket.trail_percent, instrument.tick_size)
    price = ticket.stop_price or trailed
    offset = ticket.limit_price - price if ticket.limit_price is not None else None
    return Watch(
        kind,
        price=max(price, instrument.tick_size, Decimal("1E-10")),
        trail_amount=ticket.trail_amount,
        trail_percent=ticket.trail_percent,
        watermark=best,
        limit_offset=offset,
        starts_at=starts_at,
    )


def _start(ticket: Ticket, instrument: InstrumentRef, at: datetime) -> datetime | None:
    if ticket.time_in_force not in AUCTIONS:
        return ticket.good_after
    hours = brokers.hours(instrument.id)
    if hours is None:
        return None
    if ticket.time_in_force == "opg":
        return hours.next_open(at)
    close = hours.next_close(at + CLOSE_LEAD)
    return close - CLOSE_LEAD if close else None


def waits_until(order: Order, starts_at: datetime | None, at: datetime) -> datetime | None:
    """Return when an order that the desk watches expires unsent: a day's order with the day that it begins in."""
    if order.time_in_force in AUCTIONS:
        return None
    begins = max(starts_at or at, at)
    return valid_until(
        "limit", order.time_in_force, order.expire_at, decided_at=begins,
        closes_at=brokers.session_end(order.instrument_id, begins),
    )  # fmt: skip
