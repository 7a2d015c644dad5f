"""REST of halts: engaging one cancels open orders, so it stands with the desk."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    Strict,
    body_of,
    flag_parameter,
    listed,
    page_of,
    page_out,
    problems,
    refuse_unknown_parameters,
)
from oms.runtime.roles import acting, actor_of
from orders.operations.halting import halt
from risk import queries
from risk.api import HaltOut, HaltScope, rows_of
from risk.models import Halt


class HaltIn(Strict):
    """A halt asked for; `cancel_open` is true by default for `halt`, false for `reduce_only`."""

    scope = HaltScope()
    mode = serializers.ChoiceField(choices=Halt.Mode.choices)
    cancel_open = serializers.BooleanField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=200)


class HaltEngagedOut(HaltOut):
    """A halt just engaged, with the number of open orders asked to end."""

    canceled = serializers.IntegerField()


class Halts(Api):
    """GET and POST risk/halts."""

    permission_classes = [acting("risk")]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("engaged", bool)], responses={200: listed(HaltOut), **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """List halts, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "engaged"))
        page = page_of(request)
        found = queries.halts(engaged=flag_parameter(request, "engaged"))
        return Response(page_out(request, page, [queries.halt_out(h) for h in rows_of(found, page)]))

    @extend_schema(request=HaltIn, responses={201: HaltEngagedOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Stop trading for a scope: nothing new leaves the house from the answer on."""
        body = body_of(request, HaltIn)
        engaged, canceled = halt(**body, actor=actor_of(request), at=self.now())
        return Response({**queries.halt_out(engaged), "canceled": canceled}, status=201)
