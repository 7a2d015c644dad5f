"""Orders that only a soft limit stands against: held, until another person lets them pass or their time runs out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from oms.kernel.actor import Actor
from orders.models import Order
from orders.queries import Names, order_out
from portfolio.models import Account
from risk import operations as risk
from risk.models import Approval

RELEASE = "release"
_TOLD = (
    "id", "account", "symbol", "side", "quantity", "order_type", "limit_price", "stop_price", "time_in_force", "expire_at",
    "broker", "strategy", "note", "reason",
)  # fmt: skip


def content_of(order: Order, names: Names) -> dict[str, Any]:
    """Return what the approver says yes to: the order's terms, and which limit it passes by how much."""
    told = order_out(order, names)
    return {"order" if name == "id" else name: told[name] for name in _TOLD}


def ask_release(held: Sequence[tuple[Order, Account, Actor]], *, at: datetime) -> None:
    """Ask a second person about orders that were just held, in the transaction that stored them."""
    names = Names() if held else None
    for order, account, actor in held:
        assert names is not None  # noqa: S101 - there is an order
        content, kind = content_of(order, names), Approval.Kind.ORDER
        risk.ask(kind, order.id, RELEASE, content, actor=actor, at=at, account=account, expires_at=order.expire_at)
