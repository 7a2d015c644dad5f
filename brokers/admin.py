"""Reference data in the admin, edited by administrators with its history kept; quotes and raw messages to read."""

from django.contrib import admin
from django.utils import timezone

from brokers.adapters.hosting import expected
from brokers.models import (
    Bar,
    Broker,
    BrokerAccount,
    BrokerHealth,
    BrokerSession,
    FeeSchedule,
    FixMessage,
    FixSession,
    Instrument,
    Listing,
    Quote,
    QuoteTick,
    RawMessage,
    TradingSession,
)
from oms.journal.edited import Edited
from oms.runtime.facts import Facts


@admin.register(Instrument)
class InstrumentAdmin(Edited):
    """What can be traded."""

    list_display = ["symbol", "name", "asset_class", "currency", "tick_size", "lot_size", "active"]
    list_filter = ["asset_class", "active"]
    search_fields = ["symbol", "name"]


@admin.register(Broker)
class BrokerAdmin(Edited):
    """Brokers. Settings hold a venue's key, so they are not shown; `broker add` changes them."""

    list_display = ["code", "name", "adapter", "enabled"]
    exclude = ["settings"]


@admin.register(Listing)
class ListingAdmin(Edited):
    """Instruments at brokers."""

    list_display = ["instrument", "broker", "symbol", "tick_size", "lot_size", "shortable", "active"]
    list_filter = ["broker", "active"]
    search_fields = ["symbol"]


@admin.register(FeeSchedule)
class FeeScheduleAdmin(Edited):
    """What brokers charge, from a date on."""

    list_display = ["broker", "asset_class", "effective_from"]
    list_filter = ["broker", "asset_class"]


@admin.register(TradingSession)
class TradingSessionAdmin(Facts):
    """When exchanges trade, as `load_calendars` found it."""

    list_display = ["calendar", "day", "opens_at", "closes_at"]
    list_filter = ["calendar"]
    ordering = ["-day"]


@admin.register(Quote)
class QuoteAdmin(Facts):
    """The market now."""

    list_display = ["instrument", "bid", "ask", "at", "source"]


@admin.register(Bar)
class BarAdmin(Facts):
    """The market minute by minute."""

    list_display = ["instrument", "at", "open", "high", "low", "close", "volume"]
    list_filter = ["instrument"]
    ordering = ["-at"]


@admin.register(RawMessage)
class RawMessageAdmin(Facts):
    """Bytes as brokers sent them."""

    list_display = ["broker", "sequence", "received_at", "error"]
    list_filter = ["broker"]


@admin.register(BrokerSession)
class BrokerSessionAdmin(Facts):
    """Sessions and who holds them."""

    list_display = ["broker", "owner", "connected", "cursor", "seen_at"]


@admin.register(FixSession)
class FixSessionAdmin(Facts):
    """FIX sessions: how they are, and their numbers; `broker numbers` sets them."""

    list_display = ["broker", "state", "detail", "next_in", "next_out", "heard_at", "wrote_at", "gaps", "garbled"]
    list_select_related = ["broker__session"]

    @admin.display(description="next in")
    def next_in(self, row: FixSession) -> int:
        """Return the MsgSeqNum of the broker's next message."""
        return expected(row.broker.session.cursor, row.epoch)


@admin.register(FixMessage)
class FixMessageAdmin(Facts):
    """What was sent over FIX sessions, as it was numbered."""

    list_display = ["broker", "epoch", "sequence", "kind", "client_order_id", "sent_at"]
    list_filter = ["broker", "kind"]
    search_fields = ["client_order_id"]


@admin.register(BrokerHealth)
class BrokerHealthAdmin(Facts):
    """How sending goes."""

    list_display = ["broker", "breaker", "failures_in_row", "open_until", "ack_ms", "updated_at"]

    @admin.display(description="breaker")
    def breaker(self, row: BrokerHealth) -> str:
        """Say how the breaker stands: half open once it has rested, until the broker answers."""
        if row.open_until is None:
            return "closed"
        return "open" if row.open_until > timezone.now() else "half open"


admin.site.register(BrokerAccount, Facts)


@admin.register(QuoteTick)
class QuoteTickAdmin(Facts):
    """What was quoted when, for as long as it is measured by."""

    list_display = ["instrument", "at", "bid", "ask"]
    list_select_related = ["instrument"]
    ordering = ["-id"]
