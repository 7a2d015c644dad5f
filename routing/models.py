"""Where an order goes, and why: every candidate with its numbers."""

from django.db import models

from brokers.models import Broker, Instrument
from oms.kernel.decimals import text
from oms.runtime.fields import ExactField, bounded


class RoutingDecision(models.Model):
    """One decision for one order; `candidates` holds every broker looked at, taken or not."""

    id = models.UUIDField(primary_key=True)
    source_id = models.UUIDField(db_index=True)  # the order's id
    at = models.DateTimeField()
    model_version = models.CharField(max_length=24)
    weights_version = models.IntegerField(default=0)  # 0: those of the code
    seed = models.BigIntegerField(null=True)  # what was drawn by, where one broker was chosen among several
    explored = models.BooleanField(default=False)  # it went where it was not expected to be cheapest, to learn
    candidates = models.JSONField()

    def __str__(self) -> str:
        return str(self.id)


class RouteLeg(models.Model):
    """What a decision gives to one broker."""

    id = models.UUIDField(primary_key=True)
    decision = models.ForeignKey(RoutingDecision, models.PROTECT, related_name="legs")
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    quantity = ExactField()

    class Meta:
        constraints = bounded("route_leg", positive=("quantity",))

    def __str__(self) -> str:
        return f"{text(self.quantity)} to {self.broker_id}"


class RoutingWeights(models.Model):
    """A version of the numbers that routing decides by, see `routing.domain.weights`. One is in force; none: those of the code."""

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        ACTIVE = "active"
        RETIRED = "retired"

    version = models.AutoField(primary_key=True)
    values = models.JSONField()
    reason = models.CharField(max_length=200)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PROPOSED)
    proposed_by = models.CharField(max_length=80)
    proposed_at = models.DateTimeField()
    promoted_by = models.CharField(max_length=80, blank=True)
    promoted_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "routing weights"
        constraints = [
            models.UniqueConstraint(fields=["status"], condition=models.Q(status="active"), name="weights_one_active"),
            models.CheckConstraint(
                condition=models.Q(status="proposed") | ~models.Q(promoted_by=models.F("proposed_by")),
                name="weights_two_persons",
            ),
        ]

    def __str__(self) -> str:
        return f"version {self.version}"


class RouteOutcome(models.Model):
    """What became of one broker order, as it was learned from. Once each; what is revised later teaches nothing anew."""

    child_id = models.UUIDField(primary_key=True)  # the broker order's
    source_id = models.UUIDField()  # the order's, as in its decision
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    size = models.CharField(max_length=8)
    at = models.DateTimeField()
    cost_bps = models.FloatField(null=True)  # beyond half the spread it was sent at; None where it can't be told
    fees_bps = models.FloatField(null=True)
    filled_share = models.FloatField()
    rejected = models.BooleanField()
    ack_ms = models.FloatField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["at"], name="outcome_time"),
            models.Index(fields=["source_id"], name="outcome_source"),
        ]

    def __str__(self) -> str:
        return str(self.child_id)


class BrokerScore(models.Model):
    """What outcomes taught of a broker at one level: sums that forget, see `routing.domain.learning`.

    Without instrument: all of them; without size: all sizes; without part: the whole day.
    """

    id = models.BigAutoField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False)
    size = models.CharField(max_length=8, blank=True)
    part = models.SmallIntegerField(null=True)  # sixth of the UTC day
    at = models.DateTimeField()
    orders = models.FloatField()
    shares = models.FloatField()
    rejects = models.FloatField()
    acks = models.FloatField()
    ack_ms = models.FloatField()
    weight = models.FloatField()
    cost = models.FloatField()
    squares = models.FloatField()
    recent_weight = models.FloatField()
    recent_cost = models.FloatField()
    recent_squares = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["broker", "instrument", "size", "part"], name="broker_score_unique", nulls_distinct=False
            )
        ]

    def __str__(self) -> str:
        return f"{self.broker_id} {self.instrument_id} {self.size} {self.part}"
