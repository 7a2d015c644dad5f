"""Second factors and tokens in the admin: to be seen, never to be read."""

from django.contrib import admin

from oms.access.models import SecondFactor, TokenTerms
from oms.runtime.facts import Facts


@admin.register(SecondFactor)
class SecondFactorAdmin(Facts):
    """Who has a second factor."""

    list_display = ["user", "confirmed_at"]
    exclude = ["sealed", "recovery"]


@admin.register(TokenTerms)
class TokenTermsAdmin(Facts):
    """What tokens may do."""

    list_display = ["user", "name", "scopes", "created_at", "replaces"]
    exclude = ["digest"]
    ordering = ["-created_at"]
