"""REST of corporate actions as the desk carries them out: applying, and taking back."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import Api, DecimalText, Strict, body_of, listed, parse_id, problems
from oms.runtime.roles import acting, actor_of
from orders.operations import restating
from portfolio import corporate, queries
from portfolio.api import CorporateActionOut, EntitlementOut, ReasonIn, entitlements_out


class ApplyIn(Strict):
    """`cash_in_lieu`: what a whole unit is paid for where accounts are entitled to a fraction, if nobody announced it."""

    cash_in_lieu = DecimalText(positive=True, required=False, default=None)


class CorporateActionApply(Api):
    """POST corporate-actions/{id}/apply."""

    permission_classes = [acting("ops")]

    @extend_schema(request=ApplyIn, responses={200: listed(EntitlementOut), **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Give accounts what they are entitled to and have not got, and put open orders into the new terms; a repeat
        does nothing twice."""
        body = body_of(request, ApplyIn)
        return Response(entitlements_out(restating.apply(parse_id(id), **body, actor=actor_of(request), at=self.now())))


class CorporateActionReversal(Api):
    """POST corporate-actions/{id}/reverse."""

    permission_classes = [acting("ops")]

    @extend_schema(request=ReasonIn, responses={200: CorporateActionOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Take back what was booked; orders stay as they are."""
        reason, at = body_of(request, ReasonIn)["reason"], self.now()
        action = corporate.reverse(parse_id(id), reason=reason, actor=actor_of(request), at=at)
        return Response(queries.corporate_action_out(action))
