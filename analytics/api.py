"""REST of execution quality."""

from datetime import date, datetime, timedelta

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import queries
from oms.kernel.errors import Invalid, NotFound
from oms.runtime.rest import (
    Api,
    CsvRenderer,
    DecimalText,
    Renderer,
    listed,
    parse_id,
    problems,
    refuse_unknown_parameters,
    text_parameter,
    whole,
)
from oms.runtime.roles import SignedIn
from orders.models import Order
from portfolio.queries import visible_accounts


class QualityOut(serializers.Serializer):
    """How well an order was executed; costs above zero, null for what is not known (yet).

    `arrival_bps`: the average price against the mid at the decision. `shortfall`: delay (decision to sending), trading (sending
    to fill), opportunity (what stayed undone, by the mid when the order ended), fees; in `currency` and in basis points of the
    order's value at the decision. `markouts`: what fills had cost by the mid 1 s, 10 s, 1, 5 and 30 minutes later.
    `reversion_bps`: how much of the move of the first ten seconds was gone after five minutes. `moments`: the market when it
    was decided, sent, answered and filled.
    """

    order = serializers.UUIDField()
    arrival_bps = DecimalText(allow_null=True)
    shortfall = serializers.JSONField(allow_null=True)
    vwap_bps = DecimalText(allow_null=True)
    twap_bps = DecimalText(allow_null=True)
    close_bps = DecimalText(allow_null=True)
    fill_rate = DecimalText()
    ack_ms = serializers.FloatField(allow_null=True)
    fill_ms = serializers.FloatField(allow_null=True)
    effective_spread_bps = DecimalText(allow_null=True)
    price_improvement_bps = DecimalText(allow_null=True)
    markouts = serializers.JSONField()
    realized_spread_bps = DecimalText(allow_null=True)
    reversion_bps = DecimalText(allow_null=True)
    score = DecimalText(allow_null=True)
    score_parts = serializers.JSONField(allow_null=True)
    anomalies = serializers.ListField(child=serializers.CharField())
    moments = serializers.ListField(child=serializers.JSONField())


class EvidenceOut(serializers.Serializer):
    """What best execution of an order is shown by: its routing decisions with every candidate, and its quality."""

    order = serializers.UUIDField()
    routing = serializers.ListField(child=serializers.JSONField())
    quality = QualityOut()


class CostsOut(serializers.Serializer):
    """What a group of fills cost. The group's keys stand beside; sums of money are in US dollars, costs above zero.

    `mean_arrival_bps` counts each fill once, with its 95 % interval; the other basis points are weighed by value.
    `attribution` splits the cost: half the quoted spread, impact beyond it, timing (the delay), fees; it sums exactly.
    `unrated` fills had no rate into dollars and are in no sum. A group of fewer than 30 fills is not `ranked`.
    """

    broker = serializers.CharField(required=False)
    symbol = serializers.CharField(required=False)
    strategy = serializers.CharField(required=False, allow_null=True)
    algo = serializers.CharField(required=False, allow_null=True)
    day = serializers.DateField(required=False)
    hour = serializers.IntegerField(required=False)
    size = serializers.CharField(required=False)
    account = serializers.CharField(required=False)
    fills = serializers.IntegerField()
    unrated = serializers.IntegerField()
    notional = DecimalText()
    arrival_bps = DecimalText(allow_null=True)
    delay_bps = DecimalText(allow_null=True)
    trading_bps = DecimalText(allow_null=True)
    fees_bps = DecimalText(allow_null=True)
    effective_spread_bps = DecimalText(allow_null=True)
    price_improvement_bps = DecimalText(allow_null=True)
    mean_arrival_bps = serializers.JSONField()
    markouts = serializers.JSONField()
    attribution = serializers.JSONField()
    ranked = serializers.BooleanField()


class ScorecardOut(serializers.Serializer):
    """How a broker did in a period. `rank` is null below 30 measured fills: the intervals would overlap anyway.

    Rates come as {n, share, low, high} with Wilson's 95 % interval. `drift` compares the last day's mean cost with the 20 days
    before, in standard errors; null where either has too few fills.
    """

    broker = serializers.CharField()
    rank = serializers.IntegerField(allow_null=True)
    fills = serializers.IntegerField()
    notional = DecimalText(allow_null=True)
    arrival_bps = DecimalText(allow_null=True)
    fees_bps = DecimalText(allow_null=True)
    effective_spread_bps = DecimalText(allow_null=True)
    price_improvement_bps = DecimalText(allow_null=True)
    mean_arrival_bps = serializers.JSONField()
    markouts = serializers.JSONField()
    ranked = serializers.BooleanField()
    sent = serializers.IntegerField()
    rejected = serializers.JSONField()
    unknown = serializers.JSONField()
    repeated = serializers.JSONField()
    canceled_when_asked = serializers.JSONField()
    fill_rate = DecimalText(allow_null=True)
    ack_ms = serializers.JSONField()
    fill_ms = serializers.JSONField()
    drift = serializers.JSONField(allow_null=True)


class BrokerScoreOut(serializers.Serializer):
    """What is known of a broker: its session and breaker now, and what became of new orders sent since `since`.

    `ack_ms` is the smoothed time of a whole call; `repeated` counts orders that took more than one attempt to send.
    `reject_rate` = rejected / sent, null when nothing was sent. Nothing here is learned by symbol or size yet.
    """

    broker = serializers.CharField()
    enabled = serializers.BooleanField()
    connected = serializers.BooleanField()
    failures_in_row = serializers.IntegerField()
    open_until = serializers.DateTimeField(allow_null=True)
    ack_ms = serializers.FloatField(allow_null=True)
    sent = serializers.IntegerField()
    accepted = serializers.IntegerField()
    rejected = serializers.IntegerField()
    unknown = serializers.IntegerField()
    repeated = serializers.IntegerField()
    reject_rate = DecimalText(allow_null=True)
    since = serializers.DateTimeField()


class Scores(Api):
    """GET routing/scores."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(responses={200: listed(BrokerScoreOut), **problems()})
    def get(self, request: Request) -> Response:
        """Show how each broker did in the last hour."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.broker_scores(at=self.now())))


def _seen(request: Request, id: str, at: datetime) -> Order:  # noqa: A002 - the address's own name
    seen = Order.objects.filter(account__in=visible_accounts(request.user, at=at))
    order = seen.filter(id=parse_id(id)).first()
    if order is None:
        raise NotFound("not_found", "There is no such order.")
    return order


class Quality(Api):
    """GET orders/{id}/quality and analytics/orders/{id}."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: QualityOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the quality of an order the caller may see."""
        return Response(queries.quality_of(_seen(request, id, self.now())))


class Evidence(Api):
    """GET analytics/orders/{id}/evidence."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: EvidenceOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show why an order the caller may see went where it went, and how that came out."""
        return Response(queries.evidence_of(_seen(request, id, self.now())))


PERIOD = [
    OpenApiParameter("account", str, description="Its code; without it all accounts that the caller may see."),
    OpenApiParameter("from", OpenApiTypes.DATE, description="The first day, UTC; 30 days before the last without it."),
    OpenApiParameter("to", OpenApiTypes.DATE, description="The last day, UTC; today without it."),
]
PERIOD_NAMES = ("account", "from", "to")
PERIOD_DAYS = 30


def _period(request: Request, at: datetime) -> tuple[list[int], date, date]:
    """Return the accounts asked for that the caller may see, the first day and the last."""
    visible = visible_accounts(request.user, at=at)
    code = text_parameter(request, "account")
    accounts = list(visible.filter(code=code) if code else visible)
    if code and not accounts:
        raise NotFound("not_found", "There is no such account.")
    until = _day(request, "to") or at.date()
    since = _day(request, "from") or until - timedelta(days=PERIOD_DAYS)
    if since > until:
        raise Invalid("out_of_range", "The first day is after the last.", field="from")
    return [a.id for a in accounts], since, until


def _day(request: Request, name: str) -> date | None:
    value = text_parameter(request, name)
    try:
        return date.fromisoformat(value) if value else None
    except ValueError:
        raise Invalid("not_a_date", "Use a day like 2026-01-31.", field=name) from None


class Tca(Api):
    """GET analytics/tca."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(
        parameters=[
            *PERIOD,
            OpenApiParameter(
                "group_by",
                str,
                description=f"One or two of {', '.join(queries.GROUPS)}, by comma; `broker` without it.",
            ),
        ],
        responses={200: listed(CostsOut), **problems(400, 404)},
    )
    def get(self, request: Request) -> Response:
        """Show what fills cost, by group, the largest first."""
        refuse_unknown_parameters(request, (*PERIOD_NAMES, "group_by"))
        accounts, since, until = _period(request, self.now())
        keys = queries.parse_groups(text_parameter(request, "group_by"))
        return Response(whole(queries.tca(accounts, since=since, until=until, group_by=keys)))


class Scorecards(Api):
    """GET analytics/brokers."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(parameters=PERIOD, responses={200: listed(ScorecardOut), **problems(400, 404)})
    def get(self, request: Request) -> Response:
        """Compare brokers over a period, the cheapest first."""
        refuse_unknown_parameters(request, PERIOD_NAMES)
        accounts, since, until = _period(request, self.now())
        return Response(whole(queries.scorecards(accounts, since=since, until=until)))
