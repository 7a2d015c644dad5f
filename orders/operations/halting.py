"""The kill switch as a user throws it: risk keeps the halt, the desk cancels what is open."""

from datetime import datetime
from uuid import UUID

from django.db.models import Q

from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.runtime.transactions import in_transaction
from orders.models import Order
from orders.operations.changing import CANCELS_MAX, cancel_batch
from orders.operations.recording import lock_accounts
from orders.states import OPEN, OrdStatus
from portfolio.models import Account
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Halt


def halt(
    scope: Scope, *, mode: str, cancel_open: bool | None = None, reason: str, actor: Actor, at: datetime
) -> tuple[Halt, int]:
    """Engage a halt, then cancel what is open in its scope; return the halt and how many orders were asked to end.

    `cancel_open` None: a full halt cancels, a reduce-only one doesn't. The halt stands from its own commit on,
    whatever becomes of the cancels after it.
    """
    engaged = risk.engage_halt(scope, mode=mode, reason=reason, actor=actor, at=at)
    wanted = mode == Halt.Mode.HALT if cancel_open is None else cancel_open
    ids = _settled_in(scope) if wanted else []
    for batch in chunks(ids, CANCELS_MAX):
        cancel_batch(batch, actor=actor, at=at, reason=f"halt: {reason}")
    return engaged, len(ids)


@in_transaction
def _settled_in(scope: Scope) -> list[UUID]:
    """Return what is open in a scope once nobody is placing anything that was judged before the halt.

    Orders are placed under their account's lock, and whoever takes it after us sees the halt.
    """
    accounts = Account.objects.filter(code=scope.key) if scope.kind == "account" else Account.objects.all()
    lock_accounts(accounts.values_list("id", flat=True))
    return open_in(scope)


def open_in(scope: Scope) -> list[UUID]:
    """Return the open orders in the scope of a halt that no cancel is on its way for."""
    named = {
        "all": Q(),
        "account": Q(account__code=scope.key),
        "symbol": Q(instrument__symbol=scope.key),
        "strategy": Q(strategy__code=scope.key),
        "user": Q(created_by__username=scope.key),
        "broker": Q(children__broker__code=scope.key, children__leaves_quantity__gt=0),
    }
    found = Order.objects.filter(named[scope.kind], status__in=sorted(OPEN - {OrdStatus.PENDING_CANCEL}))
    return list(found.order_by("id").distinct().values_list("id", flat=True))
