"""What was measured of executions. All of it is derived: it may be dropped and measured again from the orders' facts.

Its references bear no constraint in the database: what they point at is never deleted, and checking each of them would take
longer than measuring.
"""

from typing import ClassVar

from django.db import models

from analytics.domain.quality import HORIZONS
from brokers.models import Broker, Instrument
from oms.runtime.fields import ExactField
from orders.models import ChildOrder, Execution, Order
from portfolio.models import Account, Strategy


class _Keys(models.Model):
    """What executions are grouped by. `hour` is that of the fill (UTC); `size` the order's share of a usual day's volume."""

    day = models.DateField()
    hour = models.SmallIntegerField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False, db_constraint=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False, db_constraint=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False, db_constraint=False)
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, db_index=False, db_constraint=False)
    algo = models.CharField(max_length=8, blank=True)
    size = models.CharField(max_length=8)

    class Meta:
        abstract = True


class FillQuality(_Keys):
    """One execution that stands, with the mids it is measured against. Amounts are in the instrument's currency, costs above zero."""

    execution = models.OneToOneField(
        Execution, models.PROTECT, primary_key=True, related_name="quality", db_constraint=False
    )
    order = models.ForeignKey(Order, models.PROTECT, related_name="fill_qualities", db_constraint=False)
    sign = models.SmallIntegerField()
    quantity = ExactField()
    price = ExactField()
    executed_at = models.DateTimeField()
    rate = ExactField(null=True)  # of the instrument's currency in the desk's, when it was measured
    fees = ExactField()
    decision_mid = ExactField(null=True)
    sent_mid = ExactField(null=True)
    bid = ExactField(null=True)
    ask = ExactField(null=True)
    mid_1 = ExactField(null=True)
    mid_10 = ExactField(null=True)
    mid_60 = ExactField(null=True)
    mid_300 = ExactField(null=True)
    mid_1800 = ExactField(null=True)

    class Meta:
        indexes = [models.Index(fields=["executed_at"], name="fill_quality_time")]
        verbose_name_plural = "fill qualities"

    def __str__(self) -> str:
        return str(self.execution_id)


class ExecutionQuality(models.Model):
    """One order: its shortfall in the instrument's currency, its benchmarks, its marks."""

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True, related_name="quality", db_constraint=False)
    measured_at = models.DateTimeField()
    closed = models.BooleanField()
    quantity = ExactField()
    filled = ExactField()
    amount = ExactField()
    decision_mid = ExactField(null=True)
    half_spread = ExactField(null=True)  # at the decision
    end_mid = ExactField(null=True)
    twap = ExactField(null=True)
    vwap = ExactField(null=True)
    delay = ExactField(null=True)
    trading = ExactField(null=True)
    opportunity = ExactField(null=True)
    fees = ExactField(default=0)
    ack_ms = models.FloatField(null=True)
    fill_ms = models.FloatField(null=True)  # from the first sending to the first fill

    class Meta:
        verbose_name_plural = "execution qualities"

    def __str__(self) -> str:
        return str(self.order_id)


class RouteQuality(_Keys):
    """One broker order: what became of it, and how fast."""

    child = models.OneToOneField(
        ChildOrder, models.PROTECT, primary_key=True, related_name="quality", db_constraint=False
    )
    order = models.ForeignKey(Order, models.PROTECT, related_name="route_qualities", db_constraint=False)
    sent_at = models.DateTimeField()
    outcome = models.CharField(max_length=8)  # accepted, rejected, unknown
    repeated = models.BooleanField()  # it took more than one attempt to send
    quantity = ExactField()
    filled = ExactField()
    cancel_asked = models.BooleanField()
    canceled = models.BooleanField()
    over = models.BooleanField()
    ack_ms = models.FloatField(null=True)
    fill_ms = models.FloatField(null=True)

    class Meta:
        verbose_name_plural = "route qualities"

    def __str__(self) -> str:
        return str(self.child_id)


class FillSum(models.Model):
    """Fills added up by day, account and two more keys: a row bears the two of its `pair` and no others.

    Money is in millionths of the desk's currency, basis points in ten-thousandths, their squares too: whole numbers add up
    exactly and fast. Every pair of keys holds every fill, so a report reads one pair alone.
    """

    MONEY: ClassVar = (
        "notional", "fees", "measured_notional", "arrival", "delay", "trading", "quoted_notional", "half_spread", "effective",
        "improvement",
    )  # fmt: skip
    BPS: ClassVar = (
        "arrival_bps", "arrival_bps_squares", *(f"{name}_{h}" for h in HORIZONS for name in ("mark_bps", "mark_squares")),
    )  # fmt: skip
    COUNTS: ClassVar = ("fills", "unrated", "measured", "quoted", *(f"marks_{h}" for h in HORIZONS))

    id = models.BigAutoField(primary_key=True)
    pair = models.SmallIntegerField()  # see `analytics.domain.pairs`
    day = models.DateField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False, db_constraint=False)
    broker = models.ForeignKey(Broker, models.PROTECT, null=True, db_index=False, db_constraint=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False, db_constraint=False)
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, db_index=False, db_constraint=False)
    algo = models.CharField(max_length=8, null=True)
    hour = models.SmallIntegerField(null=True)
    size = models.CharField(max_length=8, null=True)
    fills = models.BigIntegerField(db_default=0)
    unrated = models.BigIntegerField(db_default=0)  # fills without a rate into the desk's currency: in no sum of money
    notional = models.BigIntegerField(db_default=0)
    fees = models.BigIntegerField(db_default=0)
    measured = models.BigIntegerField(db_default=0)  # fills with a decision's mid
    measured_notional = models.BigIntegerField(db_default=0)
    arrival = models.BigIntegerField(db_default=0)
    delay = models.BigIntegerField(db_default=0)
    trading = models.BigIntegerField(db_default=0)
    arrival_bps = models.BigIntegerField(db_default=0)
    arrival_bps_squares = models.BigIntegerField(db_default=0)
    quoted = models.BigIntegerField(db_default=0)  # fills with the quote of their moment
    quoted_notional = models.BigIntegerField(db_default=0)
    half_spread = models.BigIntegerField(db_default=0)
    effective = models.BigIntegerField(db_default=0)
    improvement = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pair", "account", "day", "broker", "instrument", "strategy", "algo", "hour", "size"],
                name="fill_sum_unique",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.pair}"


for _seconds in HORIZONS:
    for _name in (f"marks_{_seconds}", f"mark_bps_{_seconds}", f"mark_squares_{_seconds}"):
        FillSum.add_to_class(_name, models.BigIntegerField(db_default=0))


class RouteSum(models.Model):
    """Broker orders added up by day, account, broker and instrument."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False, db_constraint=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False, db_constraint=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False, db_constraint=False)
    sent = models.BigIntegerField(db_default=0)
    accepted = models.BigIntegerField(db_default=0)
    rejected = models.BigIntegerField(db_default=0)
    unknown = models.BigIntegerField(db_default=0)
    repeated = models.BigIntegerField(db_default=0)
    over = models.BigIntegerField(db_default=0)
    filled_share = models.BigIntegerField(db_default=0)  # of those that are over, in millionths
    cancels_asked = models.BigIntegerField(db_default=0)
    cancels_done = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "day", "broker", "instrument"], name="route_sum_unique")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.broker_id}"


class RouteTime(models.Model):
    """How long brokers took: a histogram a day and instrument, see `analytics.domain.statistics.bucket_of`."""

    class What(models.TextChoices):
        ACK = "ack"
        FILL = "fill"

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False, db_constraint=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False, db_constraint=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False, db_constraint=False)
    what = models.CharField(max_length=4, choices=What.choices)
    bucket = models.SmallIntegerField()
    count = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "account", "broker", "instrument", "what", "bucket"], name="route_time_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.what} {self.bucket}: {self.count}"


class Measured(models.Model):
    """How far measuring has come: what was told before this is in. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    until = models.DateTimeField()
    marked_until = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="measured_once")]

    def __str__(self) -> str:
        return self.until.isoformat()
