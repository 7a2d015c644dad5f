"""REST of fees as brokers bill them."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import (
    READ_ALL,
    Api,
    DecimalText,
    listed,
    problems,
    refuse_unknown_parameters,
    time_parameter,
    whole,
)
from oms.runtime.roles import acting
from orders import queries


class FeeVarianceOut(serializers.Serializer):
    """What a broker billed against what was accrued for the same executions; `variance` above zero: it charged more."""

    broker = serializers.CharField()
    currency = serializers.CharField()
    executions = serializers.IntegerField()
    accrued = DecimalText()
    billed = DecimalText()
    variance = DecimalText()


class FeeVariance(Api):
    """GET fees/variance."""

    permission_classes = [acting(reading=sorted(READ_ALL))]

    @extend_schema(
        parameters=[OpenApiParameter(n, OpenApiTypes.DATETIME) for n in ("from", "to")],
        responses={200: listed(FeeVarianceOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Compare billed with accrued fees by broker and currency."""
        refuse_unknown_parameters(request, ("from", "to"))
        start, end = time_parameter(request, "from"), time_parameter(request, "to")
        return Response(whole(queries.fee_variance(start=start, end=end)))
