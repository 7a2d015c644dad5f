"""REST of execution quality."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import queries
from oms.kernel.errors import NotFound
from oms.runtime.rest import (
    Api,
    CsvRenderer,
    DecimalText,
    Renderer,
    listed,
    parse_id,
    problems,
    refuse_unknown_parameters,
    whole,
)
from oms.runtime.roles import SignedIn
from orders.models import Order
from portfolio.queries import visible_accounts


class QualityOut(serializers.Serializer):  # type: ignore[type-arg]
    """How well an order was executed; costs above zero, null for what is not known."""

    order = serializers.UUIDField()
    arrival_bps = DecimalText(allow_null=True)
    shortfall = serializers.JSONField(allow_null=True)
    fill_rate = DecimalText()
    ack_ms = serializers.FloatField(allow_null=True)
    vwap_bps = DecimalText(allow_null=True)
    markouts = serializers.JSONField()
    score = DecimalText(allow_null=True)


class BrokerScoreOut(serializers.Serializer):  # type: ignore[type-arg]
    """What is known of a broker: its session and breaker now, and what became of new orders sent since `since`.

    `ack_ms` is the smoothed time of a whole call; `repeated` counts orders that took more than one attempt to send.
    `reject_rate` = rejected / sent, null when nothing was sent. Nothing here is learned by symbol or size yet.
    """

    broker = serializers.CharField()
    enabled = serializers.BooleanField()
    connected = serializers.BooleanField()
    failures_in_row = serializers.IntegerField()
    open_until = serializers.DateTimeField(allow_null=True)
    ack_ms = serializers.FloatField(allow_null=True)
    sent = serializers.IntegerField()
    accepted = serializers.IntegerField()
    rejected = serializers.IntegerField()
    unknown = serializers.IntegerField()
    repeated = serializers.IntegerField()
    reject_rate = DecimalText(allow_null=True)
    since = serializers.DateTimeField()


class Scores(Api):
    """GET routing/scores."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(responses={200: listed(BrokerScoreOut), **problems()})
    def get(self, request: Request) -> Response:
        """Show how each broker did in the last hour."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.broker_scores(at=self.now())))


class Quality(Api):
    """GET orders/{id}/quality and analytics/orders/{id}."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: QualityOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the quality of an order the caller may see."""
        seen = Order.objects.filter(account__in=visible_accounts(request.user, at=self.now()))
        order = seen.filter(id=parse_id(id)).first()
        if order is None:
            raise NotFound("not_found", "There is no such order.")
        return Response(queries.quality_of(order))
