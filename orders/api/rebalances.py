"""REST of rebalances: model portfolios, rules of accounts, proposals, and their way through approval and execution."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.actor import Actor
from oms.kernel.errors import Invalid, NotFound
from oms.runtime.rest import (
    ENDING,
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
    whole,
)
from oms.runtime.roles import SignedIn, acting, actor_of
from orders.operations import rebalancing
from portfolio import modelling
from portfolio.api import account_of
from portfolio.domain.options import KNOWN, ROUNDINGS, parse_options
from portfolio.domain.rebalancing import METHODS
from portfolio.domain.targets import parse_targets
from portfolio.models import ModelPortfolio, Rebalance, RebalanceRule
from portfolio.proposing import Wish
from portfolio.queries import visible_accounts
from portfolio.rebalances import find_model, find_rebalance, model_out, rebalance_out, rebalances, rule_out
from risk.api import rows_of

TARGETS = {
    "type": "object",
    "additionalProperties": True,
    "examples": [
        {"AAPL": "0.4", "MSFT": "0.3", "cash": "0.1"},
        {"Tech": {"weight": "0.6", "targets": {"AAPL": "2", "MSFT": "1"}}, "SPY": "0.4"},
    ],
    "description": "Weight by symbol or `cash`, or a group with a weight and targets whose weights are parts of the group.",
}


@extend_schema_field(TARGETS)
class TargetsField(serializers.DictField):
    """Targets, read by `portfolio.domain.targets`."""


class OptionsMixin(Strict):
    """How a rebalance is done; fractions are of equity, amounts in the account's currency."""

    method = serializers.ChoiceField(
        choices=METHODS,
        required=False,
        help_text="`full` (default) and `calendar`: all names to their targets, with a band only once any is outside of it; "
        "`bands`: the names that left their band (5/25 rule without one); `cash_flow`: only buys, or only sales, with the cash "
        "above or below its target; `optimise`: tracking error against cost.",
    )
    drift_band = DecimalText(required=False, help_text="Width to either side, in points of the portfolio.")
    relative_band = DecimalText(required=False, help_text="Width to either side, as a part of the target.")
    min_trade = DecimalText(required=False, help_text="Value below which a name is left as it is.")
    cash_buffer = DecimalText(required=False, help_text="Part of equity that is not invested.")
    cash_flow = DecimalText(required=False, help_text="What `cash_flow` spends, or raises where it is below zero.")
    turnover_cap = DecimalText(required=False, help_text="Most that is bought and sold together.")
    max_weight = DecimalText(required=False, help_text="Most that `optimise` gives to a name.")
    tracking_error_aversion = DecimalText(required=False, help_text="What `optimise` pays for a unit of variance; 10.")
    rounding = serializers.ChoiceField(
        choices=ROUNDINGS, required=False, help_text="To whole lots: toward zero, or nearest."
    )
    allow_short = serializers.BooleanField(required=False)
    limit_bps = DecimalText(
        required=False, help_text="How far through the market orders may trade, in basis points; 50."
    )
    tax_aware = serializers.BooleanField(required=False, help_text="Sell the lots that cost least tax.")
    short_term_tax = DecimalText(required=False)
    long_term_tax = DecimalText(required=False)
    harvest = DecimalText(required=False, help_text="Loss of a name from which on it is taken.")
    substitutes = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="What to hold in place of a name whose loss is taken."
    )
    wash_guard = serializers.BooleanField(
        required=False,
        help_text="Buy nothing that was sold at a loss within 30 days, take no loss on what was bought within.",
    )


class RebalanceIn(OptionsMixin):
    """What to bring to which targets. One of `account` and `accounts`, and one of `targets` and `model`."""

    account = serializers.CharField(max_length=16, required=False)
    accounts = serializers.ListField(child=serializers.CharField(max_length=16), required=False, max_length=100)
    targets = TargetsField(required=False)
    model = serializers.CharField(max_length=32, required=False)
    key = serializers.CharField(max_length=128, required=False, help_text="Makes a repeat harmless.")
    reason = serializers.CharField(max_length=200, required=False)


class PartOut(serializers.Serializer):
    """One account, before and after. Tracking errors are a year's, null without a risk model that covers the names."""

    account = serializers.CharField()
    currency = serializers.CharField()
    equity = DecimalText()
    cash_before = DecimalText()
    cash_after = DecimalText()
    cost = DecimalText()
    tax = DecimalText()
    turnover = DecimalText()
    active_share_before = DecimalText(allow_null=True)
    active_share_after = DecimalText(allow_null=True)
    tracking_error_before = DecimalText(allow_null=True)
    tracking_error_after = DecimalText(allow_null=True)
    notes = serializers.ListField(child=serializers.CharField())


class SaleOut(serializers.Serializer):
    """A part of a lot that a sale closes."""

    lot = serializers.UUIDField()
    quantity = DecimalText()
    gain = DecimalText()
    tax = DecimalText()
    washed = DecimalText()


class RebalanceLineOut(serializers.Serializer):
    """One instrument of one account. `side` is null where nothing is traded, `skipped` then tells why."""

    number = serializers.IntegerField()
    account = serializers.CharField()
    symbol = serializers.CharField()
    side = serializers.ChoiceField(choices=["buy", "sell", "sell_short"], allow_null=True)
    quantity = DecimalText()
    price = DecimalText(allow_null=True)
    limit_price = DecimalText(allow_null=True)
    quantity_before = DecimalText()
    weight_before = DecimalText()
    weight_target = DecimalText()
    weight_after = DecimalText()
    value = DecimalText()
    cost = DecimalText()
    tax = DecimalText()
    sales = SaleOut(many=True)
    skipped = serializers.CharField(allow_null=True)
    order = serializers.UUIDField(allow_null=True)
    placed_quantity = DecimalText(allow_null=True)
    filled_quantity = DecimalText()
    outcome = serializers.CharField(allow_null=True)


class RebalanceHeadOut(serializers.Serializer):
    """A rebalance without its lines."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Rebalance.Status.choices)
    account = serializers.CharField(allow_null=True, help_text="Null where there are several.")
    accounts = PartOut(many=True)
    method = serializers.ChoiceField(choices=METHODS)
    targets = TargetsField()
    options = serializers.DictField()
    content_hash = serializers.CharField()
    second_person = serializers.BooleanField()
    maker = serializers.CharField(allow_null=True)
    approver = serializers.CharField(allow_null=True)
    reason = serializers.CharField(allow_null=True)
    due_on = serializers.DateField(allow_null=True)
    created_at = serializers.DateTimeField()
    approved_at = serializers.DateTimeField(allow_null=True)
    executed_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class RebalanceOut(RebalanceHeadOut):
    """A rebalance with everything it trades and leaves."""

    lines = RebalanceLineOut(many=True)


class ApproveIn(Strict):
    """What the approver looked at, and the decision; only a second person who is asked for can refuse."""

    content_hash = serializers.CharField(max_length=64, required=False, default="")
    decision = serializers.ChoiceField(choices=["approve", "refuse"], required=False, default="approve")
    reason = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)


class NothingIn(Strict):
    """No fields: the address says it all."""


class RebalanceCancelIn(Strict):
    """Why."""

    reason = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)


class ModelIn(Strict):
    """A model portfolio; a known code gets the new targets."""

    code = serializers.RegexField(r"^[A-Za-z0-9_.:-]{1,32}$")
    name = serializers.CharField(max_length=80, required=False, default="", allow_blank=True)
    targets = TargetsField()


class ModelOut(serializers.Serializer):
    """A model portfolio."""

    code = serializers.CharField()
    name = serializers.CharField()
    targets = TargetsField()


class RuleIn(OptionsMixin):
    """How an account is kept at a model portfolio. `every` with `next_on`: its calendar; `never`: when a band is left."""

    model = serializers.CharField(max_length=32, required=False, allow_null=True)
    every = serializers.ChoiceField(choices=RebalanceRule.Every.choices, required=False, default="never")
    next_on = serializers.DateField(required=False, allow_null=True, default=None)
    second_person = serializers.BooleanField(required=False, default=False)


class RuleOut(serializers.Serializer):
    """The rule of an account."""

    account = serializers.CharField()
    model = serializers.CharField(allow_null=True)
    options = serializers.DictField()
    every = serializers.ChoiceField(choices=RebalanceRule.Every.choices)
    next_on = serializers.DateField(allow_null=True)
    second_person = serializers.BooleanField()


def options_in(raw: Any) -> dict[str, Any]:
    """Return the options among the fields of a body, as they were spelled."""
    return {k: v for k, v in raw.items() if k in KNOWN and v is not None}


class Rebalances(Api):
    """GET and POST rebalances."""

    permission_classes = [acting("trader")]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("account", OpenApiTypes.STR), OpenApiParameter("status", enum=Rebalance.Status.values)],
        responses={200: listed(RebalanceHeadOut, "RebalanceList"), **problems(400)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List rebalances, newest first, without their lines."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "account", "status"))
        page, found = page_of(request), rebalances(visible_accounts(request.user, at=self.now()))
        if code := text_parameter(request, "account"):
            found = found.filter(parts__account__code=code)
        if status := text_parameter(request, "status", choices=Rebalance.Status.values):
            found = found.filter(status=status)
        return Response(page_out(request, page, [rebalance_out(r, lines=False) for r in rows_of(found, page)]))

    @extend_schema(
        request=RebalanceIn,
        responses={201: RebalanceOut, 200: RebalanceOut, **problems(400, 409, 422)},
        description="200 where the key was used for the same before.",
    )
    def post(self, request: Request) -> Response:
        """Propose what brings accounts to their targets; nothing is traded before it is approved and executed."""
        body, at = body_of(request, RebalanceIn), self.now()
        made, new = rebalancing.propose(_wish(body, request, at), actor=actor_of(request), at=at)
        return Response(rebalance_out(_seen(request, made.pk, at)), status=201 if new else 200)


def _wish(body: dict[str, Any], request: Request, at: datetime) -> Wish:
    codes = body.get("accounts") or ([body["account"]] if body.get("account") else [])
    if ("accounts" in body) == ("account" in body) or not codes:
        raise Invalid("required", "Name either an account or a list of accounts.", field="account")
    granted = set(visible_accounts(request.user, at=at).filter(code__in=codes).values_list("code", flat=True))
    if set(codes) - granted:
        raise Invalid("unknown_account", "No such account, or none you may trade.", field="account")
    if ("targets" in body) == ("model" in body):
        raise Invalid("required", "Send either targets or the code of a model portfolio.", field="targets")
    spelled = body["targets"] if "targets" in body else _model(body["model"]).targets
    raw = options_in(request.data)
    return Wish(codes, spelled, parse_targets(spelled), parse_options(raw), body.get("key", ""), body.get("reason", ""))


def _model(code: str) -> ModelPortfolio:
    try:
        return find_model(code)
    except NotFound as error:
        raise Invalid("unknown_model", "There is no such model portfolio.", field="model") from error


def _seen(request: Request, rebalance_id: UUID, at: datetime) -> Rebalance:
    return find_rebalance(visible_accounts(request.user, at=at), rebalance_id)


class RebalanceOne(Api):
    """GET rebalances/{id}."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: RebalanceOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show a rebalance with its lines and how far they are."""
        refuse_unknown_parameters(request, ())
        return Response(rebalance_out(_seen(request, parse_id(id), self.now())))


class _Step(Api):
    """Base of what is done with a rebalance that the caller sees."""

    permission_classes = [acting("trader")]

    def step(
        self, request: Request, given: str, status: int, act: Callable[[UUID, Actor, datetime], object]
    ) -> Response:
        """Take the step and show what came of it."""
        at = self.now()
        found = _seen(request, parse_id(given), at)
        act(found.pk, actor_of(request), at)
        return Response(rebalance_out(_seen(request, found.pk, at)), status=status)


class RebalanceApprove(_Step):
    """POST rebalances/{id}/approve."""

    @extend_schema(request=ApproveIn, responses={200: RebalanceOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Agree to the trades as proposed; another person than the maker where `second_person` says so."""
        body = body_of(request, ApproveIn)

        def act(pk: UUID, actor: Actor, at: datetime) -> None:
            if body["decision"] == "refuse":
                rebalancing.refuse(pk, reason=body["reason"], actor=actor, at=at)
            else:
                rebalancing.approve(pk, seen=body["content_hash"], actor=actor, at=at)

        return self.step(request, id, 200, act)


class RebalanceExecute(_Step):
    """POST rebalances/{id}/execute."""

    @extend_schema(request=NothingIn, responses={202: RebalanceOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Trade it as a basket: sales first where the buys need their cash. The desk follows it to its end."""
        body_of(request, NothingIn)
        return self.step(request, id, 202, lambda pk, actor, at: rebalancing.execute(pk, actor=actor, at=at))


class RebalanceCancel(_Step):
    """POST rebalances/{id}/cancel."""

    window = ENDING

    @extend_schema(request=RebalanceCancelIn, responses={202: RebalanceOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """End it: what is open is canceled, what was traded stays."""
        why = body_of(request, RebalanceCancelIn)["reason"]
        return self.step(request, id, 202, lambda pk, actor, at: rebalancing.cancel(pk, reason=why, actor=actor, at=at))


class ModelPortfolios(Api):
    """GET and POST model-portfolios."""

    permission_classes = [acting("ops", "risk")]

    @extend_schema(responses={200: listed(ModelOut), **problems(400)})
    def get(self, request: Request) -> Response:
        """List model portfolios by code."""
        refuse_unknown_parameters(request, ())
        return Response(whole([model_out(m) for m in ModelPortfolio.objects.order_by("code")]))

    @extend_schema(request=ModelIn, responses={201: ModelOut, **problems(400)})
    def post(self, request: Request) -> Response:
        """Keep target weights under a name."""
        made = modelling.set_model(**body_of(request, ModelIn), actor=actor_of(request), at=self.now())
        return Response(model_out(made), status=201)


class AccountRebalanceRule(Api):
    """GET and POST accounts/{code}/rebalance-rule."""

    permission_classes = [acting("ops", "risk")]

    @extend_schema(responses={200: RuleOut, **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """Show how an account is kept at its model portfolio."""
        refuse_unknown_parameters(request, ())
        account = account_of(request, code, self.now())
        found = RebalanceRule.objects.select_related("account", "model").filter(account=account).first()
        if found is None:
            raise NotFound("not_found", "The account has no rule.")
        return Response(rule_out(found))

    @extend_schema(request=RuleIn, responses={201: RuleOut, **problems(400, 404)})
    def post(self, request: Request, code: str) -> Response:
        """Set the rule of an account."""
        account, body = account_of(request, code, self.now()), body_of(request, RuleIn)
        model = _model(body["model"]) if body.get("model") else None
        rule = modelling.set_rule(
            account=account, model=model, options=options_in(request.data), every=body["every"], next_on=body["next_on"],
            second_person=body["second_person"], actor=actor_of(request), at=self.now(),
        )  # fmt: skip
        return Response(rule_out(rule), status=201)
