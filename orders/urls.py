"""Addresses of the desk, under the API's prefix."""

from django.urls import path

from orders.api import corporate, halts, liquidations, manual, orders, reconciling
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
    path("orders/<str:id>/pause", orders.OrderPause.as_view()),
    path("orders/<str:id>/resume", orders.OrderResume.as_view()),
    path("orders/<str:id>/slices", orders.OrderSlices.as_view()),
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
    path("statements", reconciling.Statements.as_view()),
    path("statements/<str:id>/reverse", reconciling.StatementReversal.as_view()),
    path("reconciliations", reconciling.Reconciliations.as_view()),
    path("reconciliations/<str:id>", reconciling.ReconciliationOne.as_view()),
    path("breaks", reconciling.Breaks.as_view()),
    path("breaks/<str:id>/assign", reconciling.BreakAssign.as_view()),
    path("breaks/<str:id>/resolve", reconciling.BreakResolve.as_view()),
    path("breaks/<str:id>/reverse", reconciling.BreakReversal.as_view()),
    path("corporate-actions/<str:id>/apply", corporate.CorporateActionApply.as_view()),
    path("corporate-actions/<str:id>/reverse", corporate.CorporateActionReversal.as_view()),
    path("risk/approvals", manual.Approvals.as_view()),
    path("risk/halts", halts.Halts.as_view()),
    path("risk/liquidations", liquidations.Liquidations.as_view()),
    path("risk/liquidations/<str:id>", liquidations.LiquidationOne.as_view()),
]
