"""Addresses of the books, under the API's prefix."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
