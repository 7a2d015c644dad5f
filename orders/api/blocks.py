"""REST of block orders: one order for several accounts, and what each of them got."""

from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from oms.kernel.decimals import ZERO, text, text_or_none
from oms.kernel.errors import NotFound
from oms.kernel.json import rfc3339, rfc3339_or_none
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
)
from oms.runtime.roles import SignedIn, acting, actor_of
from orders.domain.tickets import ORDER_TYPES, SIDES, TIMES_IN_FORCE, parse_ticket
from orders.models import Allocation, Block, BlockShare
from orders.operations.allocating import SHARES_MAX, place_block
from orders.queries import average_price
from portfolio.models import Account
from portfolio.queries import visible_accounts


class ShareIn(Strict):
    """An account's part."""

    account = serializers.CharField(max_length=16)
    quantity = DecimalText(positive=True)


class BlockIn(Strict):
    """An order that trades in `account` for the accounts of its shares. Other fields are those of an order."""

    account = serializers.CharField(max_length=16)
    symbol = serializers.CharField(max_length=32)
    side = serializers.ChoiceField(choices=SIDES)
    shares = serializers.ListField(child=ShareIn(), min_length=1, max_length=SHARES_MAX)
    order_type = serializers.ChoiceField(choices=ORDER_TYPES, required=False)
    limit_price = DecimalText(positive=True, required=False)
    stop_price = DecimalText(positive=True, required=False)
    time_in_force = serializers.ChoiceField(choices=TIMES_IN_FORCE, required=False)
    client_order_id = serializers.CharField(max_length=64, required=False)
    broker = serializers.CharField(max_length=16, required=False)
    note = serializers.CharField(max_length=200, required=False)


class ShareOut(serializers.Serializer):
    """What an account asked for and got; `orders` are its orders of origin allocation."""

    account = serializers.CharField()
    quantity = DecimalText()
    allocated = DecimalText()
    orders = serializers.ListField(child=serializers.UUIDField())


class BlockOut(serializers.Serializer):
    """A block; `id` is that of its order."""

    id = serializers.UUIDField()
    account = serializers.CharField()
    client_order_id = serializers.CharField()
    symbol = serializers.CharField()
    side = serializers.CharField()
    quantity = DecimalText()
    order_status = serializers.CharField()
    filled_quantity = DecimalText()
    average_price = DecimalText(allow_null=True)
    state = serializers.ChoiceField(choices=Block.State.choices)
    allocated = DecimalText()
    shares = ShareOut(many=True)
    created_at = serializers.DateTimeField()
    allocated_at = serializers.DateTimeField(allow_null=True)


def blocks_of(visible: QuerySet[Account]) -> QuerySet[Block]:
    """Return the blocks all of whose accounts are among those visible, newest first."""
    unseen = BlockShare.objects.exclude(account__in=visible).values("block_id")
    found = Block.objects.filter(order__account__in=visible).exclude(order_id__in=unseen)
    shares = BlockShare.objects.select_related("account").order_by("number")
    allocations = Allocation.objects.order_by("order_id")
    return (
        found.select_related("order__account", "order__instrument")
        .prefetch_related(Prefetch("shares", shares), Prefetch("allocations", allocations))
        .order_by("-order_id")
    )


def block_out(block: Block) -> dict[str, Any]:
    """Return a block of `blocks_of` in its REST shape."""
    order = block.order
    orders: dict[Any, list[str]] = {}
    for made in block.allocations.all():
        orders.setdefault(made.share_id, []).append(str(made.order_id))
    return {
        "id": str(order.pk),
        "account": order.account.code,
        "client_order_id": order.client_order_id,
        "symbol": order.instrument.symbol,
        "side": order.side,
        "quantity": text(block.quantity),
        "order_status": str(order.status),
        "filled_quantity": text(order.filled_quantity),
        "average_price": text_or_none(average_price(order.filled_amount, order.filled_quantity)),
        "state": block.state,
        "allocated": text(block.allocated),
        "shares": [
            {
                "account": s.account.code,
                "quantity": text(s.quantity),
                "allocated": text(s.allocated),
                "orders": orders.get(s.pk, []),
            }
            for s in block.shares.all()
        ],
        "created_at": rfc3339(block.created_at),
        "allocated_at": rfc3339_or_none(block.allocated_at),
    }


class Blocks(Api):
    """GET and POST blocks."""

    permission_classes = [acting("trader")]

    @extend_schema(parameters=PAGE_SCHEMA, responses={200: listed(BlockOut), **problems(400)})
    def get(self, request: Request) -> Response:
        """List blocks, newest first."""
        refuse_unknown_parameters(request, PAGE_PARAMETERS)
        page, found = page_of(request), blocks_of(visible_accounts(request.user, at=self.now()))
        rows = list((found.filter(order_id__lt=page.before) if page.before else found)[: page.limit + 1])
        return Response(page_out(request, page, [block_out(b) for b in rows]))

    @extend_schema(
        request=BlockIn,
        responses={201: BlockOut, 200: BlockOut, **problems(400, 409, 422)},
        description="Each share is judged in its own account; where one is refused nothing is placed. 200 where the "
        "`client_order_id` placed the same before.",
    )
    def post(self, request: Request) -> Response:
        """Place one order for several accounts; what it fills is given to them at the average price once it is over."""
        body, at = body_of(request, BlockIn), self.now()
        shares: dict[str, Any] = {}
        for share in body["shares"]:
            shares[share["account"]] = shares.get(share["account"], ZERO) + share["quantity"]
        raw = {k: v for k, v in request.data.items() if k != "shares"}
        ticket = parse_ticket({"order_type": "market", **raw, "quantity": text(sum(shares.values(), ZERO))}, at=at)
        block, new = place_block(ticket, shares, actor=actor_of(request), at=at)
        return Response(block_out(_seen(request, block.pk, at)), status=201 if new else 200)


def _seen(request: Request, pk: Any, at: Any) -> Block:
    found = blocks_of(visible_accounts(request.user, at=at)).filter(order_id=pk).first()
    if found is None:
        raise NotFound("not_found", "There is no such block.")
    return found


class BlockOne(Api):
    """GET blocks/{id}."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: BlockOut, **problems(404)})
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show a block and what each account got. Its order is canceled by `orders/{id}/cancel`."""
        refuse_unknown_parameters(request, ())
        return Response(block_out(_seen(request, parse_id(id), self.now())))
