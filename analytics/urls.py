"""Addresses of execution quality, under the API's prefix."""

from django.urls import path

from analytics import api

urlpatterns = [
    path("routing/scores", api.Scores.as_view()),
    path("orders/<str:id>/quality", api.Quality.as_view()),
    path("analytics/orders/<str:id>", api.Quality.as_view()),
    path("analytics/orders/<str:id>/evidence", api.Evidence.as_view()),
    path("analytics/tca", api.Tca.as_view()),
    path("analytics/brokers", api.Scorecards.as_view()),
]
