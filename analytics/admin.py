"""Execution quality, to read."""

from django.contrib import admin

from analytics.models import ExecutionQuality
from oms.runtime.facts import Facts


@admin.register(ExecutionQuality)
class ExecutionQualityAdmin(Facts):
    """Measured orders."""

    list_display = ["order", "arrival_bps", "fill_rate", "measured_at"]
