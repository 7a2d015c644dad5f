"""REST of what is used of limits and by what, who may trade what, and what jumps of prices would do: information, no decisions."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import Api, DecimalText, listed, problems, refuse_unknown_parameters, text_parameter, whole
from oms.runtime.roles import SignedIn, acting
from portfolio import queries as portfolio
from risk import queries
from risk.api import OFFICERS, LimitScope, one_of
from risk.models import Limit


class ConsumerOut(serializers.Serializer):
    """A holding that uses a limit; `value` of its worst case with the open orders filled."""

    account = serializers.CharField(allow_null=True)
    symbol = serializers.CharField()
    quantity = DecimalText()
    buying = DecimalText()
    selling = DecimalText()
    value = DecimalText()
    currency = serializers.CharField()


class HeadroomOut(serializers.Serializer):
    """What is used of a limit where it is used the most; nulls where it can't be valued, no account where it binds a sum."""

    scope = LimitScope()
    kind = serializers.ChoiceField(choices=Limit.Kind.choices)
    aggregate = serializers.BooleanField()
    soft = serializers.BooleanField()
    account = serializers.CharField(allow_null=True)
    symbol = serializers.CharField(allow_null=True)
    limit = DecimalText()
    currency = serializers.CharField(allow_null=True)
    used = DecimalText(allow_null=True)
    headroom = DecimalText(allow_null=True)
    breach = serializers.BooleanField()
    consumers = ConsumerOut(many=True)


class MatrixOut(serializers.Serializer):
    """What a user may trade in an account, and what stands in the way of the rest."""

    user = serializers.CharField()
    account = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    halts = serializers.ListField(child=serializers.CharField())
    mandates = serializers.ListField(child=serializers.CharField())
    symbols = serializers.ListField(child=serializers.CharField())
    barred = serializers.ListField(child=serializers.CharField())


class StressOut(serializers.Serializer):
    """What a jump would win or lose an account; nulls where something has no price or rate."""

    account = serializers.CharField()
    scenario = serializers.CharField()
    shock = DecimalText()
    profit = DecimalText(allow_null=True)
    equity_after = DecimalText(allow_null=True)
    currency = serializers.CharField()


class _OfAccounts(Api):
    """Rows of every account the caller may see, or of one."""

    permission_classes = [SignedIn]

    def accounts(self, request: Request) -> list[Any]:
        """Return the accounts asked about."""
        refuse_unknown_parameters(request, ("account",))
        code, seen = text_parameter(request, "account"), portfolio.visible_accounts(request.user, at=self.now())
        return [one_of(seen, code=code)] if code else list(seen)


class Headroom(_OfAccounts):
    """GET risk/headroom."""

    permission_classes = [acting(reading=OFFICERS)]

    @extend_schema(parameters=[OpenApiParameter("account")], responses={200: listed(HeadroomOut), **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """Show every limit in force with what is used and left of it, and what uses it."""
        return Response(whole(queries.headroom_out(self.accounts(request), at=self.now())))


class Matrix(_OfAccounts):
    """GET risk/matrix."""

    permission_classes = [acting(reading=OFFICERS)]

    @extend_schema(parameters=[OpenApiParameter("account")], responses={200: listed(MatrixOut), **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """Show who may trade what."""
        return Response(whole(queries.matrix_out(self.accounts(request), at=self.now())))


class Stress(_OfAccounts):
    """GET risk/stress."""

    @extend_schema(parameters=[OpenApiParameter("account")], responses={200: listed(StressOut), **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """Show what jumps of prices, of currencies and of the largest position would win or lose; for information."""
        return Response(whole(queries.stress_out(self.accounts(request), at=self.now())))
