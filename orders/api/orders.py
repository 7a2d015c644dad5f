"""REST of the desk's orders. Each view parses, makes one call and formats."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from oms.journal.domain import account_stream
from oms.journal.publishing import frame_of
from oms.kernel.errors import DomainError, Invalid, InvalidFields, NotFound
from oms.runtime.rest import (
    ENDING,
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    CsvRenderer,
    Renderer,
    body_of,
    flag_parameter,
    integer_parameter,
    listed,
    page_of,
    page_out,
    parse_id,
    problem_of,
    problems,
    refuse_unknown_parameters,
    status_of,
    text_parameter,
    time_parameter,
    whole,
)
from oms.runtime.roles import SignedIn, acting, actor_of
from orders import cache, queries
from orders import operations as desk
from orders.domain.tickets import SIDES, Ticket, parse_terms, parse_ticket
from orders.models import Order
from orders.serializers import (
    STATUSES,
    BatchIn,
    BatchOut,
    CanceledOut,
    CancelIn,
    CancelManyIn,
    ChildOut,
    DecisionOut,
    ExecutionOut,
    GroupOut,
    OrderIn,
    OrderOut,
    PauseIn,
    PreviewOut,
    ResumeIn,
    SliceOut,
    StatusOut,
    TermsIn,
    TimelineOut,
    UpdatesOut,
)
from portfolio import queries as portfolio
from routing import queries as routing

BATCH_MAX = 1_000
FRAMES_MAX = 1_000
MINE = acting("trader")
_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="Unique to you, for good; at most 128 characters."
)
_ORDER_FILTERS = [
    OpenApiParameter("account"),
    OpenApiParameter("symbol"),
    OpenApiParameter("status", enum=STATUSES),
    OpenApiParameter("side", enum=SIDES),
    OpenApiParameter("broker"),
    OpenApiParameter("strategy"),
    OpenApiParameter("parent", OpenApiTypes.UUID),
    OpenApiParameter("client_order_id"),
    OpenApiParameter("created_after", OpenApiTypes.DATETIME),
    OpenApiParameter("created_before", OpenApiTypes.DATETIME),
    OpenApiParameter("open", bool, description="true: only what still works."),
]


# ---------------------------------------------------------------- placing


class Orders(Api):
    """GET and POST orders."""

    permission_classes = [MINE]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(
        operation_id="orders_list",
        parameters=[*PAGE_SCHEMA, *_ORDER_FILTERS],
        responses={200: listed(OrderOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List the orders of the accounts you may see, newest first. `Accept: text/csv` exports the page."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, *queries.FILTERS, "open"))
        page, filters = page_of(request), _filters(request)
        accounts = _accounts(request, filters.pop("account", None))
        rows = queries.list_orders(
            accounts, filters, before=page.before, limit=page.limit + 1, open_only=bool(flag_parameter(request, "open"))
        )
        return Response(page_out(request, page, rows))

    @extend_schema(
        parameters=[_KEY],
        request=OrderIn,
        responses={201: OrderOut, 200: OrderOut, **problems(400, 413, 422)},
        description="201: made, `denied` with a reason if risk refuses it. 200: a replay, with the first answer.",
    )
    def post(self, request: Request) -> Response:
        """Place one order."""
        actor, at = actor_of(request), self.now()
        asked = desk.Request(parse_ticket(request.data, at=at), actor, request.headers.get("Idempotency-Key", ""))
        [placed] = desk.place([asked], actor=actor, at=at)
        return answer_of(placed)


class OrderBatch(Api):
    """POST orders/batch."""

    permission_classes = [MINE]

    @extend_schema(parameters=[_KEY], request=BatchIn, responses={200: BatchOut, **problems(400, 413)})
    def post(self, request: Request) -> Response:
        """Place up to 1,000 orders; each is judged and answered alone, in the order given; under a key each place of
        the batch makes one order, however often it is sent."""
        actor, at = actor_of(request), self.now()
        parsed = [_parsed(o, at) for o in _batch(request.data)]
        key = request.headers.get("Idempotency-Key", "")
        asked = [desk.Request(t, actor, desk.key_of(key, i)) for i, t in enumerate(parsed) if isinstance(t, Ticket)]
        placed = iter(desk.place(asked, actor=actor, at=at) if asked else ())
        return Response({"results": [_part(next(placed)) if isinstance(t, Ticket) else _refusal(t) for t in parsed]})


class OrderPreview(Api):
    """POST orders/preview."""

    permission_classes = [MINE]

    @extend_schema(request=OrderIn, responses={200: PreviewOut, **problems(400, 413)})
    def post(self, request: Request) -> Response:
        """Show checks, routes, costs and holds of an order without placing it."""
        at = self.now()
        return Response(desk.preview(desk.Request(parse_ticket(request.data, at=at), actor_of(request)), at=at))


def answer_of(placed: desk.Placed) -> Response:
    """Return 201 with a new order, 200 with the first answer of a replay, or raise the problem."""
    if placed.problem:
        raise placed.problem
    headers = None if placed.created else {"Idempotent-Replayed": "true"}
    return Response(_raw(placed.body), status=201 if placed.created else 200, headers=headers)


def _raw(body: str) -> msgspec.Raw:
    return msgspec.Raw(body.encode())


def _batch(body: Any) -> list[Any]:
    orders = body.get("orders") if isinstance(body, Mapping) else None
    if not isinstance(orders, list) or not 1 <= len(orders) <= BATCH_MAX or set(body) != {"orders"}:
        raise InvalidFields([Invalid("not_a_batch", f"Send 1 to {BATCH_MAX} orders in `orders`.", field="orders")])
    return orders


def _parsed(raw: object, at: datetime) -> Ticket | DomainError:
    try:
        return parse_ticket(raw, at=at)
    except DomainError as error:
        return error


def _part(placed: desk.Placed) -> dict[str, Any]:
    if placed.problem:
        return _refusal(placed.problem)
    return {"status": 201 if placed.created else 200, "order": _raw(placed.body)}


def _refusal(error: DomainError) -> dict[str, Any]:
    return {"status": status_of(error), "problem": problem_of(error)}


def _filters(request: Request) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: text_parameter(request, name) for name in ("account", "symbol", "broker", "strategy", "client_order_id")
    }
    values["status"] = text_parameter(request, "status", choices=STATUSES)
    values["side"] = text_parameter(request, "side", choices=SIDES)
    values["created_after"] = time_parameter(request, "created_after")
    values["created_before"] = time_parameter(request, "created_before")
    parent = text_parameter(request, "parent")
    values["parent"] = parse_id(parent, field="parent") if parent else None
    return {k: v for k, v in values.items() if v is not None}


def _accounts(request: Request, code: str | None = None) -> list[int]:
    """Return the ids of the accounts the caller may see, or of the one named among them."""
    seen = portfolio.visible_accounts(request.user)
    return list((seen.filter(code=code) if code else seen).values_list("id", flat=True))


# ---------------------------------------------------------------- one order


class _OneOrder(Api):
    """Base of the views of one order: found by its id among what the caller may see."""

    permission_classes = [SignedIn]

    def order(self, request: Request, order_id: str) -> Order:
        """Return the order, or raise `NotFound` whether it is missing or not the caller's."""
        return queries.visible_order(parse_id(order_id), _accounts(request))


class OrderDetail(_OneOrder):
    """GET orders/{id}."""

    @extend_schema(responses={200: OrderOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show an order."""
        return Response(queries.order_out(self.order(request, id), queries.Names()))


class OrderStatus(_OneOrder):
    """GET orders/{id}/status."""

    @extend_schema(responses={200: StatusOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the short status: from the cache, or from the books when it is not there."""
        wanted, seen = parse_id(id), _accounts(request)
        cached = cache.get(wanted)
        if cached is not None and queries.is_visible(wanted, seen):
            return Response(cached)
        return Response(queries.status_of(queries.visible_order(wanted, seen)))


class OrderChildren(_OneOrder):
    """GET orders/{id}/children."""

    @extend_schema(responses={200: listed(ChildOut), **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """List what brokers were asked for, with every submission."""
        return Response(whole(queries.children_of(self.order(request, id).id)))


class OrderExecutions(_OneOrder):
    """GET orders/{id}/executions."""

    @extend_schema(responses={200: listed(ExecutionOut), **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """List fills, busts and corrections, as they arrived."""
        return Response(whole(queries.executions_of(self.order(request, id).id)))


class OrderEvents(_OneOrder):
    """GET orders/{id}/events."""

    @extend_schema(responses={200: listed(TimelineOut), **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the audit timeline: what happened, who did it, each attempt to send with its delay and outcome."""
        return Response(whole(queries.events_of(self.order(request, id).id)))


class OrderRouting(_OneOrder):
    """GET orders/{id}/routing."""

    @extend_schema(responses={200: listed(DecisionOut), **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the routing decisions: every candidate with its numbers, and why not."""
        return Response(whole(routing.decisions_of(self.order(request, id).id)))


class OrderCancel(_OneOrder):
    """POST orders/{id}/cancel."""

    permission_classes = [MINE]
    window = ENDING

    @extend_schema(request=CancelIn, responses={202: OrderOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask for the end of an order. A second ask while one is pending sends nothing and answers the same."""
        order = self.order(request, id)
        reason = body_of(request, CancelIn)["reason"]
        ended = desk.cancel(order.id, actor=actor_of(request), at=self.now(), reason=reason)
        return Response(queries.order_out(ended, queries.Names()), status=202)


class OrderSlices(_OneOrder):
    """GET orders/{id}/slices."""

    @extend_schema(responses={200: listed(SliceOut), **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """List the slices of a worked order: planned, sent, skipped or denied, and why. Of others there are none."""
        return Response(whole(queries.slices_of(self.order(request, id).id)))


class OrderPause(_OneOrder):
    """POST orders/{id}/pause."""

    permission_classes = [MINE]
    window = ENDING

    @extend_schema(request=PauseIn, responses={202: OrderOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Send no more slices of a worked order until it is resumed. Its time goes on."""
        order = self.order(request, id)
        asked = body_of(request, PauseIn)
        paused = desk.pause(order.id, actor=actor_of(request), at=self.now(), cancel_working=asked["cancel_working"])
        return Response(queries.order_out(paused, queries.Names()), status=202)


class OrderResume(_OneOrder):
    """POST orders/{id}/resume."""

    permission_classes = [MINE]

    @extend_schema(request=ResumeIn, responses={202: OrderOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Go on with a worked order that was paused."""
        order = self.order(request, id)
        body_of(request, ResumeIn)
        resumed = desk.resume(order.id, actor=actor_of(request), at=self.now())
        return Response(queries.order_out(resumed, queries.Names()), status=202)


class OrderGroup(_OneOrder):
    """GET orders/{id}/group."""

    @extend_schema(responses={200: GroupOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show the group that an order belongs to, with all its orders."""
        found = queries.group_of(self.order(request, id))
        if found is None:
            raise NotFound("no_group", "The order belongs to no group.")
        return Response(found)


class OrderGroupCancel(_OneOrder):
    """POST orders/{id}/group/cancel."""

    permission_classes = [MINE]
    window = ENDING

    @extend_schema(request=CancelIn, responses={202: CanceledOut, **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask for the end of every open order of the group that an order belongs to."""
        order = self.order(request, id)
        reason = body_of(request, CancelIn)["reason"]
        asked = desk.cancel_group(order.id, actor=actor_of(request), at=self.now(), reason=reason)
        return Response({"canceled": asked}, status=202)


class OrderReplace(_OneOrder):
    """POST orders/{id}/replace."""

    permission_classes = [MINE]

    @extend_schema(request=TermsIn, responses={202: OrderOut, **problems(400, 404, 409, 422)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Ask the broker to change an order; until it answers, the order stands as it was."""
        order = self.order(request, id)
        changed = desk.replace(order.id, parse_terms(request.data), actor=actor_of(request), at=self.now())
        return Response(queries.order_out(changed, queries.Names()), status=202)


# ---------------------------------------------------------------- many orders


class OrdersCancel(Api):
    """POST orders/cancel."""

    permission_classes = [MINE]
    window = ENDING

    @extend_schema(
        operation_id="orders_cancel_matching", request=CancelManyIn, responses={202: CanceledOut, **problems(400)}
    )
    def post(self, request: Request) -> Response:
        """Ask for the end of all your open orders that fit."""
        asked = body_of(request, CancelManyIn)
        code = asked.pop("account")
        accounts = _accounts(request, code or None)
        if code and not accounts:
            raise Invalid("unknown_account", "No such account, or none you may trade.", field="account")
        return Response(
            {"canceled": desk.cancel_matching(accounts, actor=actor_of(request), at=self.now(), **asked)}, status=202
        )


class OrderUpdates(Api):
    """GET orders/updates."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[
            OpenApiParameter("account", required=True),
            OpenApiParameter("since", int),
            OpenApiParameter("limit", int),
        ],
        responses={200: UpdatesOut, **problems(400, 404)},
    )
    def get(self, request: Request) -> Response:
        """Return what happened in an account after a sequence: the WebSocket's frames, for clients that poll."""
        refuse_unknown_parameters(request, ("account", "since", "limit"))
        code = text_parameter(request, "account")
        since = integer_parameter(request, "since", default=0, least=0, most=2**62)
        limit = integer_parameter(request, "limit", default=FRAMES_MAX, least=1, most=FRAMES_MAX)
        if not code or not _accounts(request, code):
            raise Invalid("unknown_account", "No such account, or none you may see.", field="account")
        stream = account_stream(code)
        events = queries.frames_since(stream, since, limit)
        frames = [_raw(frame_of(stream, e)) for e in events if e.frame]
        return Response({"frames": frames, "next_since": events[-1].sequence if events else since})


class Executions(Api):
    """GET executions."""

    permission_classes = [SignedIn]
    renderer_classes = [Renderer, CsvRenderer]

    @extend_schema(
        parameters=[*PAGE_SCHEMA, OpenApiParameter("account"), OpenApiParameter("symbol"), OpenApiParameter("broker")],
        responses={200: listed(ExecutionOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List fills, busts and corrections of the accounts you may see, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "account", "symbol", "broker"))
        page = page_of(request)
        rows = queries.list_executions(
            _accounts(request, text_parameter(request, "account")),
            symbol=text_parameter(request, "symbol"),
            broker=text_parameter(request, "broker"),
            before=page.before,
            limit=page.limit + 1,
        )
        return Response(page_out(request, page, rows))
