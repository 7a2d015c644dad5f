"""Addresses of risk, under the API's prefix."""

from django.urls import path

from risk import api, api_exposure
from risk import api_compliance as compliance

urlpatterns = [
    path("risk/limits", api.Limits.as_view()),
    path("risk/strategies/enable", api.StrategyEnable.as_view()),
    path("risk/account-rules", api.Rules.as_view()),
    path("risk/compliance/rules", compliance.Rules.as_view()),
    path("risk/compliance/breaches", compliance.Breaches.as_view()),
    path("risk/compliance/breaches/<str:id>/dispose", compliance.Disposal.as_view()),
    path("risk/drop-copy", compliance.DropCopy.as_view()),
    path("risk/locates", api.Locates.as_view()),
    path("risk/headroom", api_exposure.Headroom.as_view()),
    path("risk/matrix", api_exposure.Matrix.as_view()),
    path("risk/stress", api_exposure.Stress.as_view()),
    path("risk/exposure", api.Exposures.as_view()),
    path("risk/halts/<str:id>/release", api.HaltRelease.as_view()),
    path("accounts/<str:code>/balances", api.Balances.as_view()),
]
