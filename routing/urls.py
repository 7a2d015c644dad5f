"""Addresses of what routing knows and decides by, under the API's prefix."""

from django.urls import path

from routing import api

urlpatterns = [
    path("routing/beliefs", api.Beliefs.as_view()),
    path("routing/weights", api.WeightsList.as_view()),
    path("routing/weights/<str:version>/promote", api.Promotion.as_view()),
    path("routing/comparison", api.Comparison.as_view()),
]
