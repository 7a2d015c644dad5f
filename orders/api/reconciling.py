"""REST of statements, reconciliations and breaks."""

from typing import Any

from django.contrib.auth import get_user_model
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.errors import Invalid, NotFound
from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    DecimalText,
    Parser,
    Strict,
    body_of,
    flag_parameter,
    listed,
    page_of,
    page_out,
    parse_id,
    problems,
    refuse_unknown_parameters,
    text_parameter,
)
from oms.runtime.roles import SignedIn, acting, actor_of
from orders.api.manual import WAITS, WaitingOut, WhyIn, waiting
from orders.operations import resolving
from orders.operations.reconciling import reconcile
from portfolio import breaks, statements
from portfolio.domain.breaks import CAUSES
from portfolio.domain.profiles import STANDARD
from portfolio.models import Break, Reconciliation, Statement
from risk.api import OFFICERS, rows_of


class StatementIn(Strict):
    """A broker's file of at most 1 MB, as `content` or, in a form, as `file`; larger ones are for `import_statement`.

    `profile` says how to read it; `as_of` of which time it speaks, `since` from when on it tells all fills. `partial` takes the
    good lines of a file that has bad ones.
    """

    broker = serializers.CharField(max_length=16)
    content = serializers.CharField(required=False, default="", trim_whitespace=False)
    file = serializers.FileField(required=False, default=None, allow_null=True)
    name = serializers.CharField(max_length=200, required=False, default="")
    profile = serializers.CharField(max_length=32, required=False, default=STANDARD)
    as_of = serializers.DateTimeField(required=False, default=None, allow_null=True)
    since = serializers.DateTimeField(required=False, default=None, allow_null=True)
    partial = serializers.BooleanField(required=False, default=False)


class FaultOut(serializers.Serializer):
    """A bad line that was left out."""

    line = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()


class StatementOut(serializers.Serializer):
    """What a broker says, staged: how many lines by section."""

    id = serializers.UUIDField()
    broker = serializers.CharField()
    source = serializers.ChoiceField(choices=Statement.Source.choices)
    name = serializers.CharField()
    profile = serializers.CharField(allow_null=True)
    since = serializers.DateTimeField()
    as_of = serializers.DateTimeField()
    lines = serializers.DictField(child=serializers.IntegerField())
    rejected = serializers.IntegerField()
    faults = FaultOut(many=True)
    status = serializers.ChoiceField(choices=Statement.State.choices)
    reason = serializers.CharField(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()


class ReconciliationIn(Strict):
    """A broker, and a day whose files are read; without one, or for today without files, the broker is asked.

    `override`: why an answer is believed that is empty, shrunken or stale.
    """

    broker = serializers.CharField(max_length=16)
    date = serializers.DateField(required=False, default=None, allow_null=True)
    override = serializers.CharField(max_length=150, required=False, default="")


class FailureOut(serializers.Serializer):
    """Why a run believed nothing."""

    code = serializers.CharField()
    detail = serializers.CharField()


class BreakOut(serializers.Serializer):
    """A difference. `ours` and `theirs`: quantity, cash, fees, price or what is left of an order; null where a side knows nothing.

    `proposal`: the correcting entry that fits; `resolution`: what was done about it.
    """

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Break.Kind.choices)
    broker = serializers.CharField()
    account = serializers.CharField(allow_null=True)
    symbol = serializers.CharField(allow_null=True)
    currency = serializers.CharField(allow_null=True)
    subject = serializers.CharField()
    ours = DecimalText(allow_null=True)
    theirs = DecimalText(allow_null=True)
    detail = serializers.DictField()
    cause = serializers.ChoiceField(choices=sorted(CAUSES))
    status = serializers.ChoiceField(choices=Break.State.choices)
    owner = serializers.CharField(allow_null=True)
    proposal = serializers.DictField(allow_null=True)
    resolution = serializers.DictField(allow_null=True)
    runs = serializers.IntegerField()
    age_seconds = serializers.IntegerField()
    opened_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    closed_as = serializers.CharField(allow_null=True)
    reason = serializers.CharField(allow_null=True)


class ReconciliationOut(serializers.Serializer):
    """A run: what each side had by section, and what became of the breaks. A failed one has changed nothing."""

    id = serializers.UUIDField()
    broker = serializers.CharField()
    source = serializers.ChoiceField(choices=Statement.Source.choices)
    as_of = serializers.DateTimeField()
    status = serializers.ChoiceField(choices=Reconciliation.State.choices)
    failure = FailureOut(allow_null=True)
    sections = serializers.DictField()
    opened = serializers.IntegerField()
    standing = serializers.IntegerField()
    closed = serializers.IntegerField()
    adopted = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    overridden_by = serializers.CharField(allow_null=True)
    override_reason = serializers.CharField(allow_null=True)
    created_by = serializers.CharField()
    began_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField()
    seconds = serializers.FloatField()


class ReconciliationWithBreaksOut(ReconciliationOut):
    """A run with the breaks that it saw, and those that it closed."""

    breaks = BreakOut(many=True)


class ResolveIn(Strict):
    """What is to become of a break: `adjust`, `allocate`, `adopt`, `bust`, `correct`, `fees`, `close` or `accept`, as its kind allows."""

    action = serializers.CharField(max_length=12)
    reason = serializers.CharField(max_length=150)
    price = DecimalText(positive=True, required=False, default=None, allow_null=True)


class OwnerIn(Strict):
    """Who looks after it; null for nobody."""

    owner = serializers.CharField(max_length=150, allow_null=True)


class Statements(Api):
    """GET and POST statements."""

    permission_classes = [acting("ops", reading=OFFICERS)]
    parser_classes = [Parser, MultiPartParser]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("broker"), OpenApiParameter("source", enum=Statement.Source.values)],
        responses={200: listed(StatementOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List statements, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "broker", "source"))
        page, found = page_of(request), Statement.objects.order_by("-id")
        if broker := text_parameter(request, "broker"):
            found = found.filter(broker__code=broker)
        if source := text_parameter(request, "source", choices=Statement.Source.values):
            found = found.filter(source=source)
        return Response(page_out(request, page, [breaks.statement_out(s) for s in rows_of(found, page)]))

    @extend_schema(
        request=StatementIn,
        responses={200: StatementOut, 201: StatementOut, **problems(400)},
        description="Stages a file; nothing is booked. The same file again answers 200 with the first statement. Bad lines are told "
        "by their number in `errors`, and nothing is taken.",
    )
    def post(self, request: Request) -> Response:
        """Take in a broker's file."""
        body = body_of(request, StatementIn)
        file, content = body.pop("file"), body.pop("content").encode()
        if (file is None) == (not content):
            raise Invalid("required", "Send the file once: as `content`, or as `file` of a form.", field="file")
        if file is not None:
            content, body["name"] = file.read(), body["name"] or file.name
        body["name"] = body["name"] or "sent by a program"
        taken = statements.import_file(content, **body, actor=actor_of(request), at=self.now())
        headers = {"Idempotent-Replayed": "true"} if taken.repeated else {}
        return Response(breaks.statement_out(taken.statement), status=200 if taken.repeated else 201, headers=headers)


class StatementReversal(Api):
    """POST statements/{id}/reverse."""

    permission_classes = [acting("ops")]

    @extend_schema(request=WhyIn, responses={200: StatementOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Withdraw a file: no run reads it any more; what was corrected on account of it stays."""
        reason = body_of(request, WhyIn)["reason"]
        row = statements.reverse(parse_id(id), reason=reason, actor=actor_of(request), at=self.now())
        return Response(breaks.statement_out(row))


class Reconciliations(Api):
    """GET and POST reconciliations."""

    permission_classes = [acting("ops", reading=OFFICERS)]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("broker")],
        responses={200: listed(ReconciliationOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List runs, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "broker"))
        page, found = page_of(request), Reconciliation.objects.order_by("-id")
        if broker := text_parameter(request, "broker"):
            found = found.filter(broker__code=broker)
        return Response(page_out(request, page, [breaks.reconciliation_out(r) for r in rows_of(found, page)]))

    @extend_schema(
        request=ReconciliationIn,
        responses={201: ReconciliationOut, **problems(400, 409)},
        description="Runs at once. A run that can't believe the broker answers 201 with `status: failed` and why.",
    )
    def post(self, request: Request) -> Response:
        """Reconcile with a broker."""
        body = body_of(request, ReconciliationIn)
        run = reconcile(
            body["broker"], on=body["date"], override=body["override"], actor=actor_of(request), clock=self.now
        )
        return Response(breaks.reconciliation_out(run), status=201)


class ReconciliationOne(Api):
    """GET reconciliations/{id}."""

    permission_classes = [acting(reading=OFFICERS)]

    @extend_schema(responses={200: ReconciliationWithBreaksOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show a run with its breaks."""
        run = Reconciliation.objects.filter(pk=parse_id(id)).first()
        if run is None:
            raise NotFound("not_found", "There is no such reconciliation.")
        at = self.now()
        told = [breaks.break_out(b, at=at) for b in breaks.breaks_of(run)]
        return Response({**breaks.reconciliation_out(run), "breaks": told})


class Breaks(Api):
    """GET breaks."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[
            *PAGE_SCHEMA,
            *(OpenApiParameter(n) for n in ("broker", "account", "symbol")),
            OpenApiParameter("kind", enum=Break.Kind.values),
            OpenApiParameter("status", enum=Break.State.values),
            OpenApiParameter("open", OpenApiTypes.BOOL),
        ],
        responses={200: listed(BreakOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List the breaks of accounts that the caller may see, newest first."""
        names = ("broker", "account", "symbol", "kind", "status", "open")
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, *names))
        page, at = page_of(request), self.now()
        found = breaks.breaks(request.user, at=at)
        for name, column in (
            ("broker", "broker__code"),
            ("account", "account__code"),
            ("symbol", "instrument__symbol"),
        ):
            if value := text_parameter(request, name):
                found = found.filter(**{column: value})
        if kind := text_parameter(request, "kind", choices=Break.Kind.values):
            found = found.filter(kind=kind)
        if status := text_parameter(request, "status", choices=Break.State.values):
            found = found.filter(state=status)
        if (is_open := flag_parameter(request, "open")) is not None:
            closed = {"state__in": [Break.State.CLOSED, Break.State.RESOLVED]}
            found = found.exclude(**closed) if is_open else found.filter(**closed)
        return Response(page_out(request, page, [breaks.break_out(b, at=at) for b in rows_of(found, page)]))


class _OfBreak(Api):
    """What is done about one break."""

    permission_classes = [acting("ops")]

    def seen(self, request: Request, name: str) -> Break:
        """Return the break if the caller may see it, else raise `NotFound`."""
        found = breaks.breaks(request.user, at=self.now()).filter(pk=parse_id(name)).first()
        if found is None:
            raise NotFound("not_found", "There is no such break.")
        return found


class BreakResolve(_OfBreak):
    """POST breaks/{id}/resolve."""

    @extend_schema(request=ResolveIn, responses={202: WaitingOut, **problems(400, 404, 409)}, description=WAITS)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Propose what is to become of a break."""
        row, body, at = self.seen(request, id), body_of(request, ResolveIn), self.now()
        return waiting(resolving.propose(row.pk, **body, actor=actor_of(request), at=at), at)


class BreakReversal(_OfBreak):
    """POST breaks/{id}/reverse."""

    @extend_schema(request=WhyIn, responses={202: WaitingOut, **problems(400, 404, 409)}, description=WAITS)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Propose to take back what was booked for a break."""
        row, body, at = self.seen(request, id), body_of(request, WhyIn), self.now()
        return waiting(resolving.propose_reversal(row.pk, **body, actor=actor_of(request), at=at), at)


def _person(name: str) -> Any:
    found = get_user_model().objects.filter(username=name, is_active=True, groups__name__in=OFFICERS).first()
    if found is None:
        raise Invalid("unknown_user", "There is no officer of the desk of this name.", field="owner")
    return found


class BreakAssign(_OfBreak):
    """POST breaks/{id}/assign."""

    @extend_schema(request=OwnerIn, responses={200: BreakOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Give a break to a person."""
        row, body, at = self.seen(request, id), body_of(request, OwnerIn), self.now()
        owner = _person(body["owner"]) if body["owner"] else None
        return Response(breaks.break_out(resolving.assign(row.pk, owner, actor=actor_of(request), at=at), at=at))
