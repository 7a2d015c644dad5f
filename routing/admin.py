"""Routing decisions, to read."""

from django.contrib import admin

from oms.runtime.facts import Facts
from routing.models import RouteLeg, RoutingDecision


@admin.register(RoutingDecision)
class RoutingDecisionAdmin(Facts):
    """Every candidate of every decision."""

    list_display = ["id", "source_id", "at", "model_version"]
    search_fields = ["source_id"]


@admin.register(RouteLeg)
class RouteLegAdmin(Facts):
    """What decisions gave to brokers."""

    list_display = ["decision", "broker", "quantity"]
    list_filter = ["broker"]
