"""Keeping orders of one account apart that would trade with each other: the older ones are ended or made smaller, and a
new one that goes on waits until they are provably gone."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import structlog
from django.db import transaction

from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError
from oms.runtime import rows, sql
from orders.domain.tickets import Terms
from orders.models import Order, Wait
from orders.operations.changing import cancel_locked, replace_locked
from orders.states import OrdStatus
from risk.domain.selftrade import Prevented

APART = Actor.system("self_trade")
WHY = "It would trade with another order of the account."
log = structlog.get_logger(__name__)


def keep_apart(met: Sequence[tuple[Order, Prevented]], *, at: datetime) -> None:
    """Carry out what risk found, inside the transaction that placed the new orders."""
    waits = [
        rows.make(Wait, order_id=order.id, other_id=other, since=at)
        for order, found in met
        if order.status == OrdStatus.HELD
        for other in found.cancels
    ]
    sql.insert(waits)
    ending = sorted({other for _, found in met for other in found.cancels})
    if ending:
        cancel_locked(ending, actor=APART, at=at, reason=WHY)
    for order, found in met:
        if found.reduced is not None:
            _reduce(order, *found.reduced, at=at)


def _reduce(order: Order, other_id: UUID, left: Decimal, *, at: datetime) -> None:
    """Take a denied order's quantity off the one that it would have met; where its broker can't do that it stays whole."""
    other = Order.objects.get(pk=other_id)
    try:
        with transaction.atomic():
            replace_locked(other_id, Terms(quantity=other.filled_quantity + left), actor=APART, at=at)
    except DomainError as refusal:
        log.warning("not_decremented", order=str(order.id), other=str(other_id), detail=str(refusal))
