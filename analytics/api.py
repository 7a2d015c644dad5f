"""REST of execution quality."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import queries
from oms.kernel.errors import NotFound
from oms.runtime.rest import Api, DecimalText, parse_id, problems
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
