"""Addresses of the market and of brokers, under the API's prefix; adding a broker links accounts, so it is portfolio's."""

from django.urls import path

from brokers import api

urlpatterns = [
    path("instruments", api.Instruments.as_view()),
    path("quotes", api.Quotes.as_view()),
    path("brokers/<str:code>", api.BrokerDetail.as_view()),
]
