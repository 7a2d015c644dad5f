"""REST of the market and of brokers: instruments, quotes, brokers."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from brokers import operations, queries
from brokers.domain.reference import QuoteRef
from oms.kernel.decimals import text, text_or_none
from oms.kernel.errors import Invalid, InvalidFields, NotFound
from oms.kernel.json import rfc3339
from oms.runtime.rest import (
    Api,
    DecimalText,
    Strict,
    listed,
    problems,
    refuse_unknown_parameters,
    text_parameter,
    whole,
)
from oms.runtime.roles import SignedIn, acting

AHEAD_MAX = timedelta(seconds=5)
"""How far a posted quote's time may lie in the future: clocks differ, but not by more."""


class InstrumentOut(serializers.Serializer):
    """What can be traded."""

    symbol = serializers.CharField()
    asset_class = serializers.ChoiceField(choices=["equity", "fx", "crypto"])
    base_currency = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    tick_size = DecimalText()
    lot_size = DecimalText()
    settlement_days = serializers.IntegerField()
    active = serializers.BooleanField()


class QuoteIn(Strict):
    """A market as seen by whoever posts it."""

    symbol = serializers.CharField(max_length=32)
    bid = DecimalText(positive=True)
    ask = DecimalText(positive=True)
    bid_size = DecimalText(required=False, allow_null=True, default=None)
    ask_size = DecimalText(required=False, allow_null=True, default=None)
    last = DecimalText(required=False, allow_null=True, default=None)
    volume = DecimalText(
        required=False, allow_null=True, default=None, help_text="Units traded since the quote before, if known."
    )
    at = serializers.DateTimeField()


class QuoteOut(serializers.Serializer):
    """The latest market of an instrument."""

    symbol = serializers.CharField()
    bid = DecimalText()
    ask = DecimalText()
    bid_size = DecimalText(allow_null=True)
    ask_size = DecimalText(allow_null=True)
    last = DecimalText(allow_null=True)
    at = serializers.DateTimeField()


class StoredOut(serializers.Serializer):
    """How many instruments moved; older quotes than those stored move none."""

    stored = serializers.IntegerField()


class SessionOut(serializers.Serializer):
    """A FIX session: how it is, and the numbers of the next message in and out."""

    state = serializers.CharField()
    detail = serializers.CharField()
    next_in = serializers.IntegerField()
    next_out = serializers.IntegerField()
    heard_at = serializers.DateTimeField(allow_null=True)
    wrote_at = serializers.DateTimeField(allow_null=True)
    gaps = serializers.IntegerField()
    garbled = serializers.IntegerField()


class BrokerOut(serializers.Serializer):
    """A broker and how it does."""

    code = serializers.CharField()
    name = serializers.CharField()
    adapter = serializers.CharField()
    enabled = serializers.BooleanField()
    connected = serializers.BooleanField()
    failures_in_row = serializers.IntegerField()
    breaker = serializers.ChoiceField(choices=["closed", "open", "half_open"])
    open_until = serializers.DateTimeField(allow_null=True)
    ack_ms = serializers.FloatField(allow_null=True)
    session = SessionOut(allow_null=True)


def quote_out(quote: QuoteRef) -> dict[str, Any]:
    """Return a quote in its REST shape."""
    return {
        "symbol": quote.symbol,
        "bid": text(quote.bid),
        "ask": text(quote.ask),
        "bid_size": text_or_none(quote.bid_size),
        "ask_size": text_or_none(quote.ask_size),
        "last": text_or_none(quote.last),
        "at": rfc3339(quote.at),
    }


class Instruments(Api):
    """GET instruments."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: listed(InstrumentOut), **problems()})
    def get(self, request: Request) -> Response:
        """List what can be traded, by symbol."""
        refuse_unknown_parameters(request, ())
        rows = [
            {
                "symbol": i.symbol,
                "asset_class": i.asset_class,
                "base_currency": i.base_currency or None,
                "currency": i.currency,
                "tick_size": text(i.tick_size),
                "lot_size": text(i.lot_size),
                "settlement_days": i.settlement_days,
                "active": i.active,
            }
            for i in sorted(queries.instruments().values(), key=lambda i: i.symbol)
        ]
        return Response(whole(rows))


class Quotes(Api):
    """GET and POST quotes."""

    permission_classes = [acting("ops", "admin")]

    @extend_schema(
        parameters=[OpenApiParameter("symbol", description="One symbol; all when absent.")],
        responses={200: listed(QuoteOut), **problems(404)},
    )
    def get(self, request: Request) -> Response:
        """Show the latest quotes."""
        refuse_unknown_parameters(request, ("symbol",))
        symbol = text_parameter(request, "symbol")
        known = queries.instruments_by_symbol()
        if symbol and symbol not in known:
            raise NotFound("unknown_symbol", "No such instrument.", field="symbol")
        found = queries.quotes([known[symbol].id] if symbol else None)
        return Response(whole([quote_out(q) for q in sorted(found.values(), key=lambda q: q.symbol)]))

    @extend_schema(request=QuoteIn(many=True), responses={200: StoredOut, **problems(400, 413)})
    def post(self, request: Request) -> Response:
        """Store quotes; the demo market leaves a symbol alone for a minute after."""
        rows, at = request.data, self.now()
        if not isinstance(rows, list) or not 1 <= len(rows) <= operations.QUOTES_MAX:
            raise Invalid("not_a_list", f"Send a list of 1 to {operations.QUOTES_MAX} quotes.")
        form = QuoteIn(data=rows, many=True)
        form.is_valid(raise_exception=True)
        updates = [operations.QuoteUpdate(**row) for row in form.validated_data]
        early = [i for i, u in enumerate(updates) if u.at and u.at > at + AHEAD_MAX]
        if early:
            raise InvalidFields([Invalid("in_the_future", "The time lies ahead.", field=f"{i}.at") for i in early])
        return Response({"stored": operations.record_quotes(updates, source="posted", at=at)})


class Brokers(Api):
    """GET brokers; `portfolio.api` adds the POST."""

    permission_classes = [SignedIn]

    @extend_schema(operation_id="brokers_list", responses={200: listed(BrokerOut), **problems()})
    def get(self, request: Request) -> Response:
        """List brokers with their health. Settings are never shown: they may name secrets."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.health()))


class BrokerDetail(Api):
    """GET brokers/{code}."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: BrokerOut, **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """Show one broker with its health."""
        return Response(queries.health_of(code))
