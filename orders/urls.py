"""Addresses of the desk, under the API's prefix."""

from django.urls import path

from orders.api import halts, liquidations, manual, orders
from orders.api.signals import Signals

urlpatterns = [
    path("orders", orders.Orders.as_view()),
    path("orders/batch", orders.OrderBatch.as_view()),
    path("orders/preview", orders.OrderPreview.as_view()),
    path("orders/cancel", orders.OrdersCancel.as_view()),
    path("orders/updates", orders.OrderUpdates.as_view()),
    path("orders/<str:id>", orders.OrderDetail.as_view()),
    path("orders/<str:id>/status", orders.OrderStatus.as_view()),
    path("orders/<str:id>/cancel", orders.OrderCancel.as_view()),
    path("orders/<str:id>/replace", orders.OrderReplace.as_view()),
    path("orders/<str:id>/children", orders.OrderChildren.as_view()),
    path("orders/<str:id>/executions", orders.OrderExecutions.as_view()),
    path("orders/<str:id>/events", orders.OrderEvents.as_view()),
    path("orders/<str:id>/routing", orders.OrderRouting.as_view()),
    path("signals", Signals.as_view()),
    path("executions", orders.Executions.as_view()),
    path("executions/<str:id>/bust", manual.ExecutionBust.as_view()),
    path("executions/<str:id>/correct", manual.ExecutionCorrect.as_view()),
    path("accounts/<str:code>/trades", manual.ManualTrades.as_view()),
    path("accounts/<str:code>/trades/<str:id>/reverse", manual.TradeReversal.as_view()),
    path("risk/approvals", manual.Approvals.as_view()),
    path("risk/halts", halts.Halts.as_view()),
    path("risk/liquidations", liquidations.Liquidations.as_view()),
    path("risk/liquidations/<str:id>", liquidations.LiquidationOne.as_view()),
]
