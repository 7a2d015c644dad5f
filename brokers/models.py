"""The outside world: what trades, where, at which price, and what brokers sent us."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from simple_history.models import HistoricalRecords

from brokers.domain.fees import judge
from oms.runtime.fields import ExactField, bounded


class Instrument(models.Model):
    """Something that can be traded, as the desk names it."""

    class AssetClass(models.TextChoices):
        EQUITY = "equity"
        FX = "fx"
        CRYPTO = "crypto"

    symbol = models.CharField(max_length=32, unique=True)
    name = models.CharField(max_length=120, blank=True)
    asset_class = models.CharField(max_length=12, choices=AssetClass.choices)
    base_currency = models.CharField(max_length=12, blank=True)  # what one unit is, for fx and crypto
    currency = models.CharField(max_length=12)  # what prices and settlement are in
    tick_size = ExactField()
    lot_size = ExactField()
    settlement_days = models.PositiveSmallIntegerField(default=1)
    calendar = models.CharField(max_length=12, blank=True)  # exchange calendar code; empty: never closes
    sector = models.CharField(max_length=40, blank=True)  # what its business is, for limits on concentration
    country = models.CharField(max_length=2, blank=True)  # ISO 3166 code of the issuer
    active = models.BooleanField(default=True)
    history = HistoricalRecords()

    class Meta:
        constraints = bounded("instrument", positive=("tick_size", "lot_size"))

    def __str__(self) -> str:
        return self.symbol


class TradingSession(models.Model):
    """One day on which an exchange trades; a day without a row in a loaded range is none."""

    calendar = models.CharField(max_length=12)
    day = models.DateField()
    opens_at = models.DateTimeField()
    closes_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["calendar", "day"], name="trading_session_unique"),
            models.CheckConstraint(condition=Q(opens_at__lt=F("closes_at")), name="trading_session_has_length"),
        ]

    def __str__(self) -> str:
        return f"{self.calendar} {self.day}"


class Broker(models.Model):
    """A broker: which adapter speaks to it, with which settings. Secrets are named by environment variable."""

    code = models.CharField(max_length=16, unique=True)
    name = models.CharField(max_length=80, blank=True)
    adapter = models.CharField(max_length=24)
    settings = models.JSONField(default=dict)
    enabled = models.BooleanField(default=True)
    history = HistoricalRecords(excluded_fields=["settings"])  # a key that was changed must be gone

    def __str__(self) -> str:
        return self.code


class BrokerHealth(models.Model):
    """How sending to a broker goes: written by workers, read by the router."""

    broker = models.OneToOneField(Broker, models.PROTECT, primary_key=True, related_name="health")
    failures_in_row = models.PositiveIntegerField(default=0)
    open_until = models.DateTimeField(null=True)  # breaker: nothing new is routed here before
    ack_ms = models.FloatField(null=True)  # exponentially weighted
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "broker health"

    def __str__(self) -> str:
        return f"health of {self.broker_id}"


class BrokerSession(models.Model):
    """The session that streams reports in: who holds it, and how far it has come."""

    broker = models.OneToOneField(Broker, models.PROTECT, primary_key=True, related_name="session")
    owner = models.CharField(max_length=80, blank=True)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    cursor = models.BigIntegerField(null=True)  # sequence of the last frame applied
    connected = models.BooleanField(default=False)
    seen_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"session of {self.broker_id}"


class FixSession(models.Model):
    """The numbers of a FIX session, and how it is. What came in is counted by `BrokerSession.cursor`: epoch, then MsgSeqNum."""

    broker = models.OneToOneField(Broker, models.PROTECT, primary_key=True, related_name="fix_session")
    epoch = models.BigIntegerField(default=0)  # rises each time the numbers begin anew
    next_out = models.BigIntegerField(default=1)  # MsgSeqNum of our next message
    began_at = models.DateTimeField(null=True)  # when the numbers began
    state = models.CharField(max_length=40, blank=True)
    detail = models.CharField(max_length=200, blank=True)
    noted_at = models.DateTimeField(null=True)
    heard_at = models.DateTimeField(null=True)
    wrote_at = models.DateTimeField(null=True)
    garbled = models.PositiveIntegerField(default=0)  # since the last logon, as are gaps
    gaps = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = "FIX session"
        constraints = [
            models.CheckConstraint(condition=Q(epoch__gte=0, next_out__gte=1), name="fix_numbers_start_at_1")
        ]

    def __str__(self) -> str:
        return f"FIX session of {self.broker_id}"


class FixMessage(models.Model):
    """A message to a broker, kept with its number before it was written; secrets are masked."""

    id = models.UUIDField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    epoch = models.BigIntegerField()
    sequence = models.BigIntegerField()
    kind = models.CharField(max_length=4)  # MsgType
    client_order_id = models.CharField(max_length=36, blank=True)
    raw = models.BinaryField()
    sent_at = models.DateTimeField()

    class Meta:
        verbose_name = "FIX message"
        constraints = [models.UniqueConstraint(fields=["broker", "epoch", "sequence"], name="fix_number_once")]
        indexes = [
            models.Index(
                fields=["broker", "client_order_id"], condition=~Q(client_order_id=""), name="fix_message_client_id"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.sequence} to {self.broker_id}"


class BrokerAccount(models.Model):
    """An account as the broker names it."""

    broker = models.ForeignKey(Broker, models.PROTECT, related_name="accounts")
    external_id = models.CharField(max_length=64)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["broker", "external_id"], name="broker_account_unique")]

    def __str__(self) -> str:
        return self.external_id


class Listing(models.Model):
    """An instrument at one broker."""

    instrument = models.ForeignKey(Instrument, models.PROTECT, related_name="listings")
    broker = models.ForeignKey(Broker, models.PROTECT, related_name="listings")
    symbol = models.CharField(max_length=32)
    tick_size = ExactField()
    lot_size = ExactField()
    shortable = models.BooleanField(default=True)
    active = models.BooleanField(default=True)
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["broker", "instrument"], name="listing_unique"),
            models.UniqueConstraint(fields=["broker", "symbol"], name="listing_symbol_unique"),
            *bounded("listing", positive=("tick_size", "lot_size")),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} at {self.broker_id}"


class FeeSchedule(models.Model):
    """What a broker charges for an asset class from a date on; see `brokers.domain.fees` for the items."""

    broker = models.ForeignKey(Broker, models.PROTECT, related_name="fee_schedules")
    asset_class = models.CharField(max_length=12, choices=Instrument.AssetClass.choices)
    effective_from = models.DateField()
    items = models.JSONField(default=list)
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["broker", "asset_class", "effective_from"], name="fee_schedule_unique")
        ]

    def __str__(self) -> str:
        return f"{self.broker_id} {self.asset_class} from {self.effective_from}"

    def clean(self) -> None:
        """Refuse items that the fee function couldn't read, where a person edits them."""
        try:
            judge(self.items)
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise ValidationError({"items": f"These items can't be used: {error}"[:300]}) from error


class Quote(models.Model):
    """The market now: one row an instrument, newer times only."""

    instrument = models.OneToOneField(Instrument, models.PROTECT, primary_key=True, related_name="quote")
    bid = ExactField()
    ask = ExactField()
    bid_size = ExactField(null=True)
    ask_size = ExactField(null=True)
    last = ExactField(null=True)
    at = models.DateTimeField()
    source = models.CharField(max_length=12)  # market, posted, replay
    source_at = models.DateTimeField(null=True)  # a replayed quote's own time
    day_open = ExactField()  # mid of the day's first quote: what day P&L starts from

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(bid__lte=F("ask")), name="quote_not_crossed"),
            *bounded("quote", positive=("bid", "ask", "day_open")),
        ]

    def __str__(self) -> str:
        return f"{self.instrument_id} {self.bid}/{self.ask}"


class QuoteTick(models.Model):
    """What was quoted when, sampled a few times a second: what fills are measured against. Old ones are pruned."""

    id = models.BigAutoField(primary_key=True)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    at = models.DateTimeField()
    bid = ExactField()
    ask = ExactField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["instrument", "at"], name="tick_unique")]

    def __str__(self) -> str:
        return f"{self.instrument_id} {self.bid}/{self.ask} at {self.at}"


class Bar(models.Model):
    """A minute of an instrument's market: the mid as it was quoted, and what was traded as far as anybody told."""

    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    at = models.DateTimeField()  # when the minute began
    open = ExactField()
    high = ExactField()
    low = ExactField()
    close = ExactField()
    volume = ExactField(default=0)  # units

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instrument", "at"], name="bar_unique"),
            models.CheckConstraint(
                condition=Q(open__range=(F("low"), F("high")), close__range=(F("low"), F("high"))),
                name="bar_within_its_range",
            ),
            *bounded("bar", positive=("open", "high", "low", "close"), not_negative=("volume",)),
        ]

    def __str__(self) -> str:
        return f"{self.instrument_id} {self.at:%Y-%m-%d %H:%M}"


class RawMessage(models.Model):
    """Bytes as a broker sent them, kept before anything is read out of them."""

    id = models.UUIDField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    sequence = models.BigIntegerField(null=True)
    digest = models.BinaryField(max_length=32)
    raw = models.BinaryField()
    error = models.TextField(blank=True)  # why it could not be read; empty when it could
    received_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["broker", "digest"], name="raw_message_unique")]

    def __str__(self) -> str:
        return f"{self.broker_id} #{self.sequence}"
