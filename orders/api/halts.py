"""REST of halts: risk keeps them, the desk cancels what is open."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import (
    ENDING,
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
from risk import queries as risk
from risk.api import HaltOut, HaltScope
from risk.models import Halt


class HaltIn(Strict):
    """A halt. `cancel_open` is true by default for `halt` and false for `reduce_only`."""

    scope = HaltScope()
    mode = serializers.ChoiceField(choices=Halt.Mode.choices)
    cancel_open = serializers.BooleanField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=200)


class HaltEngagedOut(HaltOut):
    """The halt, and how many open orders were asked to end."""

    canceled = serializers.IntegerField()


class Halts(Api):
    """GET and POST risk/halts."""

    permission_classes = [acting("risk")]
    window = ENDING

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("engaged", bool)], responses={200: listed(HaltOut), **problems(400)}
    )
    def get(self, request: Request) -> Response:
        """List halts that can bind what you may see, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "engaged"))
        page = page_of(request)
        halts = risk.halts(engaged=flag_parameter(request, "engaged"))
        found = risk.in_sight(halts, request.user, at=self.now())
        rows = (found.filter(id__lt=page.before) if page.before else found)[: page.limit + 1]
        return Response(page_out(request, page, [risk.halt_out(h) for h in rows]))

    @extend_schema(request=HaltIn, responses={201: HaltEngagedOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Stop a scope at once; another person must release it."""
        engaged, ended = halt(**body_of(request, HaltIn), actor=actor_of(request), at=self.now())
        return Response({**risk.halt_out(engaged), "canceled": ended}, status=201)
