"""REST of liquidations: asking for one, and following it to its proof."""

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.errors import NotFound
from oms.runtime.rest import (
    ENDING,
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    Strict,
    body_of,
    listed,
    page_of,
    page_out,
    parse_id,
    problems,
    refuse_unknown_parameters,
)
from oms.runtime.roles import acting, actor_of
from oms.runtime.sessions import require_recent_proof
from orders.operations.liquidating import SCOPES, begin, liquidation_out
from risk.api import OFFICERS, HaltScope, rows_of
from risk.models import Liquidation


@extend_schema_field({"type": "object", "minProperties": 1, "maxProperties": 1, "examples": [{"account": "MAIN"}]})
class LiquidationScope(HaltScope):
    """What is brought to zero: `{"account": "MAIN"}`, `{"symbol": "AAPL"}`, `{"all": true}`."""

    kinds = SCOPES


class LiquidationIn(Strict):
    """A liquidation."""

    scope = LiquidationScope()
    reason = serializers.CharField(max_length=200)


class StepOut(serializers.Serializer):
    """One step."""

    at = serializers.DateTimeField()
    step = serializers.CharField()
    detail = serializers.CharField()


class LiquidationOut(serializers.Serializer):
    """A liquidation; `proof` once it has ended: what was open, sent and filled, what remains and why."""

    id = serializers.UUIDField()
    scope = LiquidationScope()
    reason = serializers.CharField()
    state = serializers.ChoiceField(choices=Liquidation.State.choices)
    halt = serializers.UUIDField(allow_null=True)
    made_by = serializers.CharField()
    began_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    steps = StepOut(many=True)
    proof = serializers.DictField(allow_null=True)


class Liquidations(Api):
    """GET and POST risk/liquidations."""

    permission_classes = [acting("risk", reading=OFFICERS)]
    window = ENDING

    @extend_schema(parameters=PAGE_SCHEMA, responses={200: listed(LiquidationOut), **problems(400)})
    def get(self, request: Request) -> Response:
        """List liquidations, newest first."""
        refuse_unknown_parameters(request, PAGE_PARAMETERS)
        page = page_of(request)
        rows = rows_of(Liquidation.objects.order_by("-id"), page)
        return Response(page_out(request, page, [liquidation_out(x) for x in rows]))

    @extend_schema(request=LiquidationIn, responses={201: LiquidationOut, **problems(400, 409)})
    def post(self, request: Request) -> Response:
        """Stop a scope, cancel what is open there and bring its positions to zero; follow it until it has a proof."""
        require_recent_proof(request)
        liquidation = begin(**body_of(request, LiquidationIn), actor=actor_of(request), at=self.now())
        return Response(liquidation_out(liquidation), status=201)


class LiquidationOne(Api):
    """GET risk/liquidations/{id}."""

    permission_classes = [acting("risk", reading=OFFICERS)]

    @extend_schema(responses={200: LiquidationOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the steps taken and, at the end, the proof."""
        refuse_unknown_parameters(request, ())
        found = Liquidation.objects.filter(pk=parse_id(id)).first()
        if found is None:
            raise NotFound("not_found", "There is no such liquidation.")
        return Response(liquidation_out(found))
