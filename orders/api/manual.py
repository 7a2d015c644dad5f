"""REST of what needs a second person: busts, corrections and trades by hand, and the decisions on all that waits."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.errors import NotFound
from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    DecimalText,
    Strict,
    body_of,
    listed,
    page_of,
    page_out,
    parse_id,
    problems,
    refuse_unknown_parameters,
    text_parameter,
)
from oms.runtime.roles import acting, actor_of, require_role
from oms.runtime.sessions import require_recent_proof
from orders.domain.tickets import SIDES
from orders.models import Execution
from orders.operations import manual
from portfolio.api import account_of
from portfolio.queries import visible_accounts
from risk import queries as risk
from risk.api import OFFICERS, ApprovalIn, ApprovalOut, rows_of
from risk.models import Approval

WAITS = "Nothing changes until another person of the role ops approves it."


class WhyIn(Strict):
    """Why."""

    reason = serializers.CharField(max_length=150)


class CorrectIn(Strict):
    """The new totals of the execution; what is left out stays."""

    quantity = DecimalText(required=False, positive=True, default=None)
    price = DecimalText(required=False, positive=True, default=None)
    reason = serializers.CharField(max_length=150)


class TradeIn(Strict):
    """A fill done outside of the desk; `key` makes a repeat harmless. Without `fees` the broker's schedule counts."""

    broker = serializers.CharField(max_length=16)
    symbol = serializers.CharField(max_length=32)
    side = serializers.ChoiceField(choices=SIDES)
    quantity = DecimalText(positive=True)
    price = DecimalText(positive=True)
    fees = DecimalText(required=False, allow_null=True, default=None)
    executed_at = serializers.DateTimeField()
    key = serializers.CharField(max_length=128)


class WaitingOut(serializers.Serializer):
    """What waits for a second person now."""

    approval = ApprovalOut()


def waiting(approval: Approval, at: Any) -> Response:
    """Answer 202 with what waits."""
    return Response({"approval": risk.approval_out(risk.find_approval(approval.id), at=at)}, status=202)


class _Undo(Api):
    """Base of the two ways to undo an execution by hand."""

    permission_classes = [acting("ops")]

    def ask(self, request: Request, execution_id: str, action: str, form: type[Strict]) -> Response:
        """Find the execution among what the caller may see, and ask."""
        seen = Execution.objects.filter(order__account__in=visible_accounts(request.user, at=self.now()))
        found = seen.filter(pk=parse_id(execution_id)).first()
        if found is None:
            raise NotFound("not_found", "There is no such execution.")
        at = self.now()
        return waiting(manual.ask_undo(found.id, action, **body_of(request, form), actor=actor_of(request), at=at), at)


class ExecutionBust(_Undo):
    """POST executions/{id}/bust."""

    @extend_schema(request=WhyIn, responses={202: WaitingOut, **problems(400, 404, 409)}, description=WAITS)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask for an execution to be undone."""
        return self.ask(request, id, manual.BUST, WhyIn)


class ExecutionCorrect(_Undo):
    """POST executions/{id}/correct."""

    @extend_schema(request=CorrectIn, responses={202: WaitingOut, **problems(400, 404, 409)}, description=WAITS)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask for an execution to be restated."""
        return self.ask(request, id, manual.CORRECT, CorrectIn)


class ManualTrades(Api):
    """POST accounts/{code}/trades."""

    permission_classes = [acting("ops")]

    @extend_schema(
        request=TradeIn,
        responses={202: WaitingOut, **problems(400, 404, 409, 422)},
        description=f"{WAITS} Then it stands as a filled order of origin external; the approval's object is the trade's id.",
    )
    def post(self, request: Request, code: str) -> Response:
        """Ask for a trade done elsewhere to be booked."""
        account, at = account_of(request, code, self.now()), self.now()
        body = body_of(request, TradeIn)
        key = body.pop("key")
        asked = manual.ask_trade(account.code, manual.ManualTrade(**body), key=key, actor=actor_of(request), at=at)
        return waiting(asked, at)


class TradeReversal(Api):
    """POST accounts/{code}/trades/{id}/reverse."""

    permission_classes = [acting("ops")]

    @extend_schema(request=WhyIn, responses={202: WaitingOut, **problems(400, 404, 409)}, description=WAITS)
    def post(self, request: Request, code: str, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask for a booked trade to be undone by its opposite."""
        account, at = account_of(request, code, self.now()), self.now()
        found = Execution.objects.filter(order__account=account, pk=parse_id(id)).first()
        if found is None:
            raise NotFound("not_found", "There is no such trade.")
        body = body_of(request, WhyIn)
        return waiting(manual.ask_undo(found.id, manual.REVERSE, **body, actor=actor_of(request), at=at), at)


class Approvals(Api):
    """GET and POST risk/approvals."""

    permission_classes = [acting("risk", "ops", reading=OFFICERS)]

    @extend_schema(
        parameters=[
            *PAGE_SCHEMA,
            OpenApiParameter("status", enum=Approval.Status.values),
            OpenApiParameter("object_kind", enum=Approval.Kind.values),
        ],
        responses={200: listed(ApprovalOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List what waits, or waited, for a second person, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "status", "object_kind"))
        page, at, found = page_of(request), self.now(), risk.approvals()
        if status := text_parameter(request, "status", choices=Approval.Status.values):
            found = risk.approvals_of_status(found, status, at=at)
        if kind := text_parameter(request, "object_kind", choices=Approval.Kind.values):
            found = found.filter(object_kind=kind)
        return Response(page_out(request, page, [risk.approval_out(x, at=at) for x in rows_of(found, page)]))

    @extend_schema(request=ApprovalIn, responses={200: ApprovalOut, **problems(400, 404, 409)})
    def post(self, request: Request) -> Response:
        """Decide, as another person than the maker, with the maker's role; what is approved is carried out at once."""
        require_recent_proof(request)
        body, at = body_of(request, ApprovalIn), self.now()
        approval = risk.find_approval(body["object"])
        require_role(request.user, risk.DECIDED_BY[Approval.Kind(approval.object_kind)])
        decided = manual.decide(
            approval.id,
            body["decision"],
            reason=body["reason"],
            seen=body["content_hash"],
            actor=actor_of(request),
            at=at,
        )
        return Response(risk.approval_out(decided, at=at))
