"""Reference data as plain values, for rules that must not touch the database."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class InstrumentRef:
    """An instrument; prices and settlement are in `currency`."""

    id: int
    symbol: str
    asset_class: str
    base_currency: str
    currency: str
    tick_size: Decimal
    lot_size: Decimal
    settlement_days: int
    active: bool
    calendar: str = ""
    sector: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True)
class ListingRef:
    """An instrument at one broker, by the broker's symbol."""

    instrument_id: int
    broker_id: int
    symbol: str
    tick_size: Decimal
    lot_size: Decimal
    shortable: bool
    active: bool


@dataclass(frozen=True, slots=True)
class BrokerRef:
    """A broker and how to speak to it."""

    id: int
    code: str
    adapter: str
    settings: dict[str, Any]
    enabled: bool


@dataclass(frozen=True, slots=True)
class QuoteRef:
    """The market of one instrument at a time."""

    instrument_id: int
    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None
    ask_size: Decimal | None
    last: Decimal | None
    at: datetime
    day_open: Decimal

    @property
    def mid(self) -> Decimal:
        """Return the middle between bid and ask."""
        return (self.bid + self.ask) / 2

    def side_price(self, side: str) -> Decimal:
        """Return what an order of this side pays or gets at once: the ask for a buy, else the bid."""
        return self.ask if side == "buy" else self.bid
