"""REST of routing: what it believes of brokers, the weights it decides by, and what other weights would have cost."""

from datetime import timedelta

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.errors import NotFound
from oms.runtime.rest import (
    Api,
    CsvRenderer,
    DecimalText,
    Renderer,
    Strict,
    actor_of,
    body_of,
    integer_parameter,
    listed,
    problems,
    refuse_unknown_parameters,
    whole,
)
from oms.runtime.roles import SignedIn, acting
from routing import operations, policies, queries

HOURS_DEFAULT, HOURS_MAX = 24, 24 * 366
DIGITS_MAX = 9


class BeliefOut(serializers.Serializer):
    """What is expected of a broker: in all, in an instrument, there for a size, there at hours of the UTC day.

    `cost_bps`: what fills cost beyond half the quoted spread, with its standard error and the 95 % bounds; shrunk towards the level above.
    `orders`: how many count for it, older ones for less.
    """

    broker = serializers.CharField()
    symbol = serializers.CharField(allow_null=True)
    size = serializers.CharField(allow_null=True)
    hours = serializers.CharField(allow_null=True)
    orders = serializers.FloatField()
    cost_bps = serializers.FloatField()
    error_bps = serializers.FloatField()
    low_bps = serializers.FloatField()
    high_bps = serializers.FloatField()
    fill_share = serializers.FloatField(allow_null=True)
    reject_rate = serializers.FloatField(allow_null=True)
    ack_ms = serializers.FloatField(allow_null=True)
    drifted = serializers.BooleanField()
    at = serializers.DateTimeField()


class WeightsIn(Strict):
    """Weights proposed: those in force with these numbers in their place."""

    values = serializers.DictField(child=DecimalText())
    reason = serializers.CharField(max_length=200)


class PromotionIn(Strict):
    """Nothing more is asked for."""


class WeightsOut(serializers.Serializer):
    """A version of the weights; 0 are those of the code, which nobody proposed."""

    version = serializers.IntegerField()
    status = serializers.ChoiceField(choices=["proposed", "active", "retired"])
    values = serializers.DictField(child=DecimalText())
    reason = serializers.CharField()
    proposed_by = serializers.CharField(allow_null=True)
    proposed_at = serializers.DateTimeField(allow_null=True)
    promoted_by = serializers.CharField(allow_null=True)
    promoted_at = serializers.DateTimeField(allow_null=True)


class EstimateOut(serializers.Serializer):
    """A mean cost in basis points with its 95 % interval; `effective`: the orders it really rests on."""

    mean = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    orders = serializers.IntegerField()
    effective = serializers.FloatField()


class ComparisonOut(serializers.Serializer):
    """What a policy would have cost in a period; null where nothing can be told."""

    policy = serializers.CharField()
    estimate = EstimateOut(allow_null=True)


class Beliefs(Api):
    """GET routing/beliefs."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(responses={200: listed(BeliefOut), **problems()})
    def get(self, request: Request) -> Response:
        """Show what was learned of brokers."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.scores_out(at=self.now())))


class WeightsList(Api):
    """GET and POST routing/weights."""

    permission_classes = [acting("risk", "ops", "admin")]

    @extend_schema(responses={200: listed(WeightsOut), **problems()})
    def get(self, request: Request) -> Response:
        """Show every version, the newest first; 0, the last, are those of the code."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.weights_out()))

    @extend_schema(request=WeightsIn, responses={201: WeightsOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Propose weights; another person must promote them before they decide anything."""
        told = body_of(request, WeightsIn)
        row = operations.propose_weights(told["values"], reason=told["reason"], actor=actor_of(request), at=self.now())
        return Response(queries.weights_out_of(row), status=201)


class Promotion(Api):
    """POST routing/weights/{version}/promote."""

    permission_classes = [acting("risk", "ops", "admin")]

    @extend_schema(request=PromotionIn, responses={200: WeightsOut, **problems(403, 404, 409)})
    def post(self, request: Request, version: str) -> Response:
        """Put a version in force; one that was retired too, which rolls back to it."""
        body_of(request, PromotionIn)
        if not (version.isascii() and version.isdigit() and len(version) <= DIGITS_MAX):
            raise NotFound("not_found", "There is no such version of the weights.")
        row = operations.promote_weights(int(version), actor=actor_of(request), at=self.now())
        return Response(queries.weights_out_of(row))


class Comparison(Api):
    """GET routing/comparison."""

    permission_classes = [acting(reading=("risk", "ops", "admin", "auditor"))]

    @extend_schema(
        parameters=[
            OpenApiParameter("hours", {"type": "integer", "minimum": 1, "maximum": HOURS_MAX, "default": HOURS_DEFAULT})
        ],
        responses={200: listed(ComparisonOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Tell what routing cost in the last hours, and what other policies would have cost, from decisions with known chances."""
        refuse_unknown_parameters(request, ("hours",))
        hours = integer_parameter(request, "hours", default=HOURS_DEFAULT, least=1, most=HOURS_MAX)
        at = self.now()
        return Response(whole(policies.compared(at - timedelta(hours=hours), at)))
