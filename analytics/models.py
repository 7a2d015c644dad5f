"""What happened, measured: derived rows that may be dropped and rebuilt."""

from django.db import models

from oms.runtime.fields import ExactField
from orders.models import Order


class ExecutionQuality(models.Model):
    """How well one closed order was executed, against the market at its arrival."""

    order = models.OneToOneField(Order, models.CASCADE, primary_key=True, related_name="quality")
    arrival_bps = ExactField(null=True)  # cost against the arrival mid, above zero = worse
    fill_rate = ExactField(null=True)
    measured_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.arrival_bps} bps"
