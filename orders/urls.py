"""Addresses of the desk, under the API's prefix."""

from django.urls import path

from orders import api

urlpatterns = [
    path("orders", api.Orders.as_view()),
    path("orders/batch", api.OrderBatch.as_view()),
    path("orders/preview", api.OrderPreview.as_view()),
    path("orders/cancel", api.OrdersCancel.as_view()),
    path("orders/updates", api.OrderUpdates.as_view()),
    path("orders/<str:id>", api.OrderDetail.as_view()),
    path("orders/<str:id>/status", api.OrderStatus.as_view()),
    path("orders/<str:id>/cancel", api.OrderCancel.as_view()),
    path("orders/<str:id>/replace", api.OrderReplace.as_view()),
    path("orders/<str:id>/children", api.OrderChildren.as_view()),
    path("orders/<str:id>/executions", api.OrderExecutions.as_view()),
    path("orders/<str:id>/events", api.OrderEvents.as_view()),
    path("orders/<str:id>/routing", api.OrderRouting.as_view()),
    path("executions", api.Executions.as_view()),
    path("risk/halts", api.Halts.as_view()),
]
