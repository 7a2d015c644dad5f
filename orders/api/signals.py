"""REST of signals: what strategies want, sized and placed by the desk."""

from dataclasses import replace

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from oms.runtime.rest import Api, problems
from oms.runtime.roles import acting, actor_of
from orders import operations as desk
from orders.api.orders import answer_of
from orders.domain.tickets import parse_signal
from orders.serializers import OrderOut, SignalIn


class Signals(Api):
    """POST signals."""

    permission_classes = [acting("trader")]

    @extend_schema(
        request=SignalIn,
        responses={201: OrderOut, 200: OrderOut, **problems(400, 413, 422)},
        description=(
            "201: the order that the signal makes, `denied` with a reason if risk refuses it. 200: a repeat of the key. "
            "422: no size could be worked out (`no_quote`, `no_rate`, `no_equity`, `zero_size`, `stop_on_wrong_side`)."
        ),
    )
    def post(self, request: Request) -> Response:
        """Make a market order out of a strategy's signal."""
        actor = replace(actor_of(request), automated=True)
        asked = desk.Request(parse_signal(request.data), actor, origin="signal")
        [placed] = desk.place([asked], actor=actor, at=self.now())
        return answer_of(placed)
