"""What was measured, to read."""

from django.contrib import admin

from analytics.models import ExecutionQuality, FillQuality, FillSum, RouteQuality, RouteSum
from oms.runtime.facts import Facts


@admin.register(ExecutionQuality)
class ExecutionQualityAdmin(Facts):
    """Orders: shortfall by parts."""

    list_display = ["order", "closed", "filled", "delay", "trading", "opportunity", "fees", "ack_ms", "measured_at"]
    list_filter = ["closed"]
    search_fields = ["order__id", "order__client_order_id"]
    list_select_related = ["order"]


@admin.register(FillQuality)
class FillQualityAdmin(Facts):
    """Fills with the mids they are measured against."""

    list_display = [
        "execution",
        "broker",
        "instrument",
        "quantity",
        "price",
        "decision_mid",
        "sent_mid",
        "mid_60",
        "executed_at",
    ]
    list_filter = ["broker", "algo", "size"]
    list_select_related = ["execution", "broker", "instrument"]


@admin.register(RouteQuality)
class RouteQualityAdmin(Facts):
    """Broker orders: outcome and times."""

    list_display = ["child", "broker", "outcome", "quantity", "filled", "ack_ms", "fill_ms", "sent_at"]
    list_filter = ["broker", "outcome", "size"]
    list_select_related = ["child", "broker"]


@admin.register(FillSum)
class FillSumAdmin(Facts):
    """Sums of fills."""

    list_display = [
        "day",
        "pair",
        "account",
        "broker",
        "instrument",
        "strategy",
        "algo",
        "hour",
        "size",
        "fills",
        "notional",
    ]
    list_filter = ["pair", "broker"]
    list_select_related = ["account", "instrument", "broker", "strategy"]


@admin.register(RouteSum)
class RouteSumAdmin(Facts):
    """Sums of broker orders."""

    list_display = ["day", "account", "broker", "instrument", "sent", "accepted", "rejected", "unknown"]
    list_filter = ["broker"]
    list_select_related = ["account", "instrument", "broker"]
