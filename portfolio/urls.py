"""Addresses of the books, under the API's prefix."""

from django.urls import path

from portfolio import api

urlpatterns = [
    path("brokers", api.Brokers.as_view()),
    path("accounts", api.Accounts.as_view()),
    path("accounts/<str:code>/positions", api.Positions.as_view()),
    path("accounts/<str:code>/lots", api.Lots.as_view()),
    path("accounts/<str:code>/lot-policies", api.LotPolicies.as_view()),
    path("accounts/<str:code>/gains", api.Gains.as_view()),
    path("accounts/<str:code>/ledger", api.Ledger.as_view()),
    path("accounts/<str:code>/settlements", api.Settlements.as_view()),
    path("accounts/<str:code>/settlement-ladder", api.SettlementLadder.as_view()),
    path("accounts/<str:code>/settlements/<str:id>", api.SettlementMark.as_view()),
    path("accounts/<str:code>/valuation", api.Valuation.as_view()),
    path("accounts/<str:code>/performance", api.Performance.as_view()),
    path("accounts/<str:code>/pnl", api.Pnl.as_view()),
    path("accounts/<str:code>/transfers", api.Transfers.as_view()),
    path("accounts/<str:code>/transfers/<str:id>/reverse", api.TransferReversal.as_view()),
    path("corporate-actions", api.CorporateActions.as_view()),
    path("corporate-actions/<str:id>/preview", api.CorporateActionPreview.as_view()),
    path("accounts/<str:code>/grants", api.Grants.as_view()),
]
