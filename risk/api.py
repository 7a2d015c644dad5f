"""REST of risk: limits, exposure, releasing halts, and balances with what is held.

A halt may cancel open orders, and an approval change them, so both stand with the orders.
"""

from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.errors import DomainError, NotFound
from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    DecimalText,
    Page,
    Strict,
    body_of,
    listed,
    page_of,
    page_out,
    parse_id,
    problems,
    refuse_unknown_parameters,
    text_parameter,
    whole,
)
from oms.runtime.roles import SignedIn, acting, actor_of
from oms.runtime.sessions import require_recent_proof
from portfolio import queries as portfolio
from portfolio.models import Account
from risk import operations, queries
from risk.domain.rules import MARGINS, SELF_TRADE_MODES
from risk.domain.scopes import HALT_SCOPES, LIMIT_SCOPES, Scope, parse_scope
from risk.models import AccountRules, Approval, Limit, Locate

OFFICERS = ("risk", "ops", "auditor", "admin")


class _ScopeField(serializers.Field):
    kinds: tuple[str, ...] = ()

    def to_internal_value(self, data: Any) -> Scope:
        try:
            return parse_scope(data, self.kinds)
        except DomainError as error:
            raise serializers.ValidationError(error.detail, code=error.code) from None

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(
    {"type": "object", "minProperties": 1, "maxProperties": 1, "examples": [{"account": "MAIN"}, {"firm": True}]}
)
class LimitScope(_ScopeField):
    """Whom a limit binds: `{"account": "MAIN"}`, `{"firm": true}`."""

    kinds = LIMIT_SCOPES


@extend_schema_field(
    {"type": "object", "minProperties": 1, "maxProperties": 1, "examples": [{"account": "MAIN"}, {"all": True}]}
)
class HaltScope(_ScopeField):
    """Whom a halt binds: `{"account": "MAIN"}`, `{"all": true}`."""

    kinds = HALT_SCOPES


class LimitIn(Strict):
    """A limit asked for."""

    scope = LimitScope()
    kind = serializers.ChoiceField(choices=Limit.Kind.choices)
    value = DecimalText()
    currency = serializers.RegexField(r"^([A-Z]{3,12})?$", required=False, allow_blank=True, default="")
    soft = serializers.BooleanField(required=False, default=False)
    aggregate = serializers.BooleanField(
        required=False, default=False, help_text="Binds the sum over accounts, not each by itself."
    )
    effective_from = serializers.DateTimeField(required=False, default=None)
    reason = serializers.CharField(max_length=200)


class LimitOut(serializers.Serializer):
    """A limit; `active` binds, `proposed` waits for another person."""

    id = serializers.UUIDField()
    scope = LimitScope()
    kind = serializers.ChoiceField(choices=Limit.Kind.choices)
    value = DecimalText()
    currency = serializers.CharField(allow_null=True)
    soft = serializers.BooleanField()
    aggregate = serializers.BooleanField()
    status = serializers.ChoiceField(choices=Limit.Status.choices)
    effective_from = serializers.DateTimeField()
    reason = serializers.CharField()
    maker = serializers.CharField(allow_null=True)
    approver = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class ApprovalIn(Strict):
    """A second person's decision; `content_hash`, if given, must be that of what was shown."""

    object = serializers.UUIDField()
    decision = serializers.ChoiceField(choices=["approve", "refuse"])
    reason = serializers.CharField(max_length=200)
    content_hash = serializers.CharField(max_length=64, required=False, default="")


class ApprovalOut(serializers.Serializer):
    """What waits, or waited, for a second person."""

    id = serializers.UUIDField()
    object = serializers.UUIDField()
    object_kind = serializers.ChoiceField(choices=Approval.Kind.choices)
    action = serializers.ChoiceField(choices=["activate", "release", "bust", "correct", "book", "reverse"])
    account = serializers.CharField(allow_null=True)
    content = serializers.DictField(help_text="What would be done, as it was asked for.")
    maker = serializers.CharField(allow_null=True)
    approver = serializers.CharField(allow_null=True)
    content_hash = serializers.CharField()
    status = serializers.ChoiceField(choices=Approval.Status.choices)
    reason = serializers.CharField(allow_null=True, help_text="The approver's.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField(allow_null=True)


class HaltOut(serializers.Serializer):
    """A halt, engaged while `released_at` is null."""

    id = serializers.UUIDField()
    scope = HaltScope()
    mode = serializers.ChoiceField(choices=["halt", "reduce_only"])
    reason = serializers.CharField()
    engaged_by = serializers.CharField()
    engaged_at = serializers.DateTimeField()
    released_by = serializers.CharField(allow_null=True)
    released_at = serializers.DateTimeField(allow_null=True)
    release_reason = serializers.CharField(allow_null=True)


class ReleaseIn(Strict):
    """Why."""

    reason = serializers.CharField(max_length=200)


class ExposureOut(serializers.Serializer):
    """What is used and held of a limit, and what is left; nulls where there is no limit or no price."""

    account = serializers.CharField()
    symbol = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(choices=["position", "buying_power"])
    limit = DecimalText(allow_null=True)
    used = DecimalText(allow_null=True)
    held = DecimalText(allow_null=True)
    headroom = DecimalText(allow_null=True)
    breach = serializers.BooleanField()
    buying = DecimalText(required=False)
    selling = DecimalText(required=False)
    held_amount = DecimalText(required=False)
    currency = serializers.CharField()


class BalanceOut(serializers.Serializer):
    """Cash of one currency; `available` = ledger − held."""

    currency = serializers.CharField()
    ledger = DecimalText()
    settled = DecimalText()
    unsettled_in = DecimalText()
    unsettled_out = DecimalText()
    held = DecimalText()
    available = DecimalText()


def rows_of(found: QuerySet[Any], page: Page) -> list[Any]:
    """Return the rows of one page and one more, which tells whether there is another."""
    return list((found.filter(id__lt=page.before) if page.before else found)[: page.limit + 1])


class Limits(Api):
    """GET and POST risk/limits."""

    permission_classes = [acting("risk")]

    @extend_schema(
        parameters=[
            *PAGE_SCHEMA,
            OpenApiParameter("status", enum=Limit.Status.values),
            OpenApiParameter("kind", enum=Limit.Kind.values),
        ],
        responses={200: listed(LimitOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List limits that can bind what you may see, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "status", "kind"))
        page = page_of(request)
        found = queries.limits(status=text_parameter(request, "status", choices=Limit.Status.values) or "")
        if kind := text_parameter(request, "kind", choices=Limit.Kind.values):
            found = found.filter(kind=kind)
        found = queries.in_sight(found, request.user, at=self.now())
        return Response(page_out(request, page, [queries.limit_out(x) for x in rows_of(found, page)]))

    @extend_schema(request=LimitIn, responses={201: LimitOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Set a limit: a tighter one holds at once, a new or looser one when another person approves."""
        limit = operations.propose_limit(**body_of(request, LimitIn), actor=actor_of(request), at=self.now())
        return Response(queries.limit_out(limit), status=201)


class HaltRelease(Api):
    """POST risk/halts/{id}/release."""

    permission_classes = [acting("risk")]

    @extend_schema(request=ReleaseIn, responses={200: HaltOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Let a scope trade again, as another person than the one who stopped it."""
        reason = body_of(request, ReleaseIn)["reason"]
        require_recent_proof(request)
        halt = operations.release_halt(parse_id(id), reason=reason, actor=actor_of(request), at=self.now())
        return Response(queries.halt_out(halt))


class RulesIn(Strict):
    """Rules of an account, whole: they take the place of all before them."""

    account = serializers.CharField(max_length=16)
    margin = serializers.ChoiceField(choices=MARGINS, required=False, default="house")
    borrowing = serializers.BooleanField(required=False, default=False, help_text="A cash account may spend more.")
    haircuts = serializers.DictField(
        child=serializers.CharField(max_length=40), required=False, help_text="Fractions by asset class."
    )
    settled_only = serializers.BooleanField(required=False, default=False, help_text="Buys need settled cash.")
    locates = serializers.BooleanField(required=False, default=False, help_text="Short sales need units located.")
    day_trading = serializers.BooleanField(required=False, default=False, help_text="More margin within the day.")
    migrated_on = serializers.DateField(
        required=False, allow_null=True, default=None, help_text="When intraday margin took the pattern rule's place."
    )
    self_trade = serializers.ChoiceField(choices=SELF_TRADE_MODES, required=False, allow_null=True, default=None)
    since = serializers.DateField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=200)


class RulesOut(serializers.Serializer):
    """Rules of an account; `active` ones hold from `since` on, the newest of them."""

    id = serializers.UUIDField()
    account = serializers.CharField()
    since = serializers.DateField()
    margin = serializers.ChoiceField(choices=MARGINS)
    borrowing = serializers.BooleanField()
    haircuts = serializers.DictField(child=serializers.CharField())
    settled_only = serializers.BooleanField()
    locates = serializers.BooleanField()
    day_trading = serializers.BooleanField()
    migrated_on = serializers.DateField(allow_null=True)
    self_trade = serializers.ChoiceField(choices=SELF_TRADE_MODES, allow_null=True)
    reason = serializers.CharField()
    status = serializers.ChoiceField(choices=AccountRules.Status.choices)
    maker = serializers.CharField(allow_null=True)
    approver = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class Rules(Api):
    """GET and POST risk/account-rules."""

    permission_classes = [acting("risk")]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("account")], responses={200: listed(RulesOut), **problems(400, 404)}
    )
    def get(self, request: Request) -> Response:
        """List rules of the accounts you may see, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "account"))
        seen = portfolio.visible_accounts(request.user, at=self.now())
        found = AccountRules.objects.filter(account__in=seen).select_related("account", "maker", "approver")
        if code := text_parameter(request, "account"):
            found = found.filter(account=one_of(seen, code=code))
        page = page_of(request)
        rows = rows_of(found.order_by("-id"), page)
        return Response(page_out(request, page, [queries.rules_out(x) for x in rows]))

    @extend_schema(request=RulesIn, responses={201: RulesOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Propose rules of an account: they hold when another person approves."""
        rules = operations.propose_rules(**body_of(request, RulesIn), actor=actor_of(request), at=self.now())
        return Response(queries.rules_out(rules), status=201)


class LocateIn(Strict):
    """Units that a lender found."""

    account = serializers.CharField(max_length=16)
    symbol = serializers.CharField(max_length=32)
    quantity = DecimalText()
    lender = serializers.CharField(max_length=80)
    reference = serializers.CharField(max_length=64)
    day = serializers.DateField(required=False, allow_null=True, default=None)


class LocateOut(serializers.Serializer):
    """Units located for the short sales of a UTC day."""

    id = serializers.UUIDField()
    account = serializers.CharField()
    symbol = serializers.CharField()
    quantity = DecimalText()
    day = serializers.DateField()
    lender = serializers.CharField()
    reference = serializers.CharField()
    made_by = serializers.CharField()
    created_at = serializers.DateTimeField()


class Locates(Api):
    """GET and POST risk/locates."""

    permission_classes = [acting("risk", "ops", reading=("trader", *OFFICERS))]

    @extend_schema(parameters=PAGE_SCHEMA, responses={200: listed(LocateOut), **problems(400)})
    def get(self, request: Request) -> Response:
        """List locates of the accounts you may see, newest first."""
        refuse_unknown_parameters(request, PAGE_PARAMETERS)
        seen = portfolio.visible_accounts(request.user, at=self.now())
        found = Locate.objects.filter(account__in=seen).select_related("account", "instrument").order_by("-id")
        page = page_of(request)
        return Response(page_out(request, page, [queries.locate_out(x) for x in rows_of(found, page)]))

    @extend_schema(request=LocateIn, responses={201: LocateOut, **problems(400, 409)})
    def post(self, request: Request) -> Response:
        """Record units located; the same reference of a lender once."""
        found = operations.locate(**body_of(request, LocateIn), actor=actor_of(request), at=self.now())
        return Response(queries.locate_out(found), status=201)


class EnableIn(Strict):
    """Which strategy, where, and why."""

    strategy = serializers.CharField(max_length=32)
    account = serializers.CharField(max_length=16)
    reason = serializers.CharField(max_length=200)


class EnabledOut(serializers.Serializer):
    """A strategy that may go on, and how many automated orders it had sent."""

    account = serializers.CharField()
    strategy = serializers.CharField()
    counted = DecimalText()
    reason = serializers.CharField()


class StrategyEnable(Api):
    """POST risk/strategies/enable."""

    permission_classes = [acting("risk")]

    @extend_schema(request=EnableIn, responses={200: EnabledOut, **problems(400, 409)})
    def post(self, request: Request) -> Response:
        """Let a strategy send automated orders again after `strategy_throttled`; its count begins anew."""
        body = body_of(request, EnableIn)
        return Response(operations.enable_strategy(**body, actor=actor_of(request), at=self.now()))


class Exposures(Api):
    """GET risk/exposure."""

    permission_classes = [SignedIn]

    @extend_schema(parameters=[OpenApiParameter("account")], responses={200: listed(ExposureOut), **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """Show limit, use, holds and headroom of every account the caller may see, or of one."""
        refuse_unknown_parameters(request, ("account",))
        code, at = text_parameter(request, "account"), self.now()
        seen = portfolio.visible_accounts(request.user, at=at)
        accounts = [one_of(seen, code=code)] if code else list(seen)
        return Response(whole(queries.exposure_out(accounts, at=at)))


class Balances(Api):
    """GET accounts/{code}/balances."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: listed(BalanceOut), **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """Show an account's cash by currency, with what open orders hold of it."""
        at = self.now()
        account: Account = one_of(portfolio.visible_accounts(request.user, at=at), code=code)
        balances = portfolio.balances_of(account.pk)
        return Response(whole(queries.balances_out(account.pk, balances)))


def one_of(seen: QuerySet[Any], **key: Any) -> Any:
    """Return the row of those the caller may see, or raise `NotFound`."""
    found: Model | None = seen.filter(**key).first()
    if found is None:
        raise NotFound("not_found", "There is no such object.")
    return found
