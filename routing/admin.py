"""Routing decisions, to read."""

from django.contrib import admin

from oms.runtime.facts import Facts
from routing.models import BrokerScore, RouteLeg, RouteOutcome, RoutingDecision, RoutingWeights


@admin.register(RoutingDecision)
class RoutingDecisionAdmin(Facts):
    """Every candidate of every decision."""

    list_display = ["id", "source_id", "at", "model_version", "weights_version", "explored"]
    list_filter = ["explored", "weights_version"]
    search_fields = ["source_id"]


@admin.register(RouteLeg)
class RouteLegAdmin(Facts):
    """What decisions gave to brokers."""

    list_display = ["decision", "broker", "quantity"]
    list_filter = ["broker"]


@admin.register(RoutingWeights)
class RoutingWeightsAdmin(Facts):
    """Versions of the weights; proposed and promoted by the API and the command, by two persons."""

    list_display = ["version", "status", "reason", "proposed_by", "proposed_at", "promoted_by", "promoted_at"]
    list_filter = ["status"]


@admin.register(RouteOutcome)
class RouteOutcomeAdmin(Facts):
    """What routing learned from."""

    list_display = ["child_id", "broker", "instrument", "size", "cost_bps", "filled_share", "rejected", "ack_ms", "at"]
    list_filter = ["broker", "rejected", "size"]
    list_select_related = ["broker", "instrument"]


@admin.register(BrokerScore)
class BrokerScoreAdmin(Facts):
    """What it learned, level by level."""

    list_display = ["broker", "instrument", "size", "part", "orders", "weight", "at"]
    list_filter = ["broker", "size"]
    list_select_related = ["broker", "instrument"]
