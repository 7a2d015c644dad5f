"""REST of compliance: rules, breaches, and copies of every execution for whoever watches the desk."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

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
from oms.runtime.roles import acting, actor_of
from portfolio import queries as portfolio
from risk import operations, queries
from risk.api import OFFICERS, LimitScope, one_of, rows_of
from risk.domain.compliance import CONTEXTS, KINDS, SEVERITIES
from risk.models import ComplianceBreach, ComplianceRule
from risk.operations.complying import DISPOSITIONS


@extend_schema_field({"type": "object", "additionalProperties": True})
class Parameters(serializers.JSONField):
    """The parameters of a kind of rule; decimals as strings."""


class ComplianceRuleIn(Strict):
    """A rule: which kind with which parameters, whom it binds, where it is written, and on which days it holds."""

    code = serializers.RegexField(r"^[A-Za-z0-9_.:\-]{1,40}$")
    kind = serializers.ChoiceField(choices=sorted(KINDS))
    parameters = Parameters()
    scope = LimitScope()
    context = serializers.ChoiceField(choices=CONTEXTS)
    severity = serializers.ChoiceField(choices=SEVERITIES)
    source = serializers.CharField(max_length=200)
    clause = serializers.CharField(max_length=80)
    effective_from = serializers.DateField()
    effective_to = serializers.DateField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=200)

    def validate_parameters(self, value: Any) -> dict[str, Any]:
        """Take an object only."""
        if not isinstance(value, dict):
            raise serializers.ValidationError("Send an object.", code="not_an_object")
        return value


class ComplianceRuleOut(serializers.Serializer):
    """A rule; `active` ones hold from their first day to their last."""

    id = serializers.UUIDField()
    code = serializers.CharField()
    kind = serializers.ChoiceField(choices=sorted(KINDS))
    parameters = Parameters()
    scope = LimitScope()
    context = serializers.ChoiceField(choices=CONTEXTS)
    severity = serializers.ChoiceField(choices=SEVERITIES)
    source = serializers.CharField()
    clause = serializers.CharField()
    effective_from = serializers.DateField()
    effective_to = serializers.DateField(allow_null=True)
    status = serializers.ChoiceField(choices=ComplianceRule.Status.choices)
    reason = serializers.CharField()
    maker = serializers.CharField(allow_null=True)
    approver = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class BreachOut(serializers.Serializer):
    """A rule that was passed, by an order or at the end of a day, and what came of it."""

    id = serializers.UUIDField()
    rule = serializers.CharField()
    clause = serializers.CharField()
    context = serializers.ChoiceField(choices=CONTEXTS)
    severity = serializers.ChoiceField(choices=SEVERITIES)
    account = serializers.CharField()
    symbol = serializers.CharField(allow_null=True)
    order = serializers.UUIDField(allow_null=True)
    day = serializers.DateField()
    figure = DecimalText(allow_null=True)
    limit = DecimalText()
    disposition = serializers.ChoiceField(choices=ComplianceBreach.Disposition.choices)
    disposed_by = serializers.CharField(allow_null=True)
    disposed_at = serializers.DateTimeField(allow_null=True)
    disposition_reason = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class DisposalIn(Strict):
    """What came of it, and why."""

    disposition = serializers.ChoiceField(choices=DISPOSITIONS)
    reason = serializers.CharField(max_length=200)


class CopyOut(serializers.Serializer):
    """One execution, bust or correction as it was booked; `seq` rises within an account."""

    account = serializers.CharField()
    seq = serializers.IntegerField()
    data = serializers.DictField()


class CopiesOut(serializers.Serializer):
    """Copies after a cursor, and the cursor to go on with."""

    copies = CopyOut(many=True)
    next_since = serializers.CharField(allow_blank=True)


class Rules(Api):
    """GET and POST risk/compliance/rules."""

    permission_classes = [acting("risk", reading=OFFICERS)]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("status", enum=ComplianceRule.Status.values)],
        responses={200: listed(ComplianceRuleOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List rules, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "status"))
        found = ComplianceRule.objects.select_related("maker", "approver").order_by("-id")
        if status := text_parameter(request, "status", choices=ComplianceRule.Status.values):
            found = found.filter(status=status)
        page = page_of(request)
        return Response(page_out(request, page, [queries.compliance_rule_out(x) for x in rows_of(found, page)]))

    @extend_schema(request=ComplianceRuleIn, responses={201: ComplianceRuleOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Propose a rule: it holds on its days when another person approves."""
        body = body_of(request, ComplianceRuleIn)
        rule = operations.propose_compliance_rule(**body, actor=actor_of(request), at=self.now())
        return Response(queries.compliance_rule_out(rule), status=201)


class Breaches(Api):
    """GET risk/compliance/breaches."""

    permission_classes = [acting("risk", reading=OFFICERS)]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("disposition", enum=ComplianceBreach.Disposition.values)],
        responses={200: listed(BreachOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List breaches, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "disposition"))
        found = ComplianceBreach.objects.select_related("rule", "account", "instrument").order_by("-id")
        if came := text_parameter(request, "disposition", choices=ComplianceBreach.Disposition.values):
            found = found.filter(disposition=came)
        page = page_of(request)
        return Response(page_out(request, page, [queries.breach_out(x) for x in rows_of(found, page)]))


class Disposal(Api):
    """POST risk/compliance/breaches/{id}/dispose."""

    permission_classes = [acting("risk")]

    @extend_schema(request=DisposalIn, responses={200: BreachOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Say what came of an open breach."""
        breach = operations.dispose(
            parse_id(id), **body_of(request, DisposalIn), actor=actor_of(request), at=self.now()
        )
        return Response(queries.breach_out(breach))


class DropCopy(Api):
    """GET risk/drop-copy."""

    permission_classes = [acting(reading=OFFICERS)]

    @extend_schema(
        parameters=[OpenApiParameter("since"), OpenApiParameter("account")],
        responses={200: CopiesOut, **problems(400, 404)},
    )
    def get(self, request: Request) -> Response:
        """Copy every execution, bust and correction since a cursor: each account's in order, none left out, as soon as it is booked."""
        refuse_unknown_parameters(request, ("since", "account"))
        seen = portfolio.visible_accounts(request.user, at=self.now())
        code = text_parameter(request, "account")
        codes = [one_of(seen, code=code).code] if code else [a.code for a in seen]
        copies, cursor = queries.drop_copy(codes, since=text_parameter(request, "since") or "")
        return Response({"copies": copies, "next_since": cursor})
