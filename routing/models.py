"""Where an order goes, and why: every candidate with its numbers."""

from django.db import models

from brokers.models import Broker
from oms.kernel.decimals import text
from oms.runtime.fields import ExactField, bounded


class RoutingDecision(models.Model):
    """One decision for one order; `candidates` holds every broker looked at, taken or not."""

    id = models.UUIDField(primary_key=True)
    source_id = models.UUIDField(db_index=True)  # the order's id
    at = models.DateTimeField()
    model_version = models.CharField(max_length=24)
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
