"""What becomes of held orders: let pass by another person and judged again, turned down, or lapsed."""

from datetime import datetime
from uuid import UUID

from brokers import queries as brokers
from oms.journal import operations as journal
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict
from oms.kernel.reasons import Reason
from oms.runtime import doorbell
from oms.runtime.transactions import after_commit, in_transaction
from orders.models import Order, Trigger
from orders.operations.holding import content_of
from orders.operations.judging import Asked, intents
from orders.operations.recording import Book, close_here, lock_book, move, write
from orders.operations.triggering import route
from orders.queries import Names
from orders.states import OrdStatus
from risk import operations as risk
from risk.models import Approval


@in_transaction
def decide_release(asked: Approval, decision: str, *, reason: str, seen: str = "", actor: Actor, at: datetime) -> Order:
    """Take a second person's decision on a held order; one let pass is judged again by the hard limits, and routed.

    Raises what `risk.operations.settle` raises, and `Conflict` (not_held) when it waits no more.
    """
    book = lock_book([asked.object_id])
    order = book.orders[asked.object_id]
    if order.status != OrdStatus.HELD:
        raise Conflict("not_held", f"The order is {order.status}; it waits for nobody.")
    shown = risk.content_hash(content_of(order, Names()))
    approval = risk.settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=seen, shown=shown)
    if approval.status == Approval.Status.APPROVED:
        _place(book, order, at)
    else:
        close_here(book, order, OrdStatus.DENIED, Reason.APPROVAL_REFUSED, reason.strip(), at)
    told = "order.denied" if order.status == OrdStatus.DENIED else "order.released"
    journal.append(write(book, kinds={order.id: told}), actor=actor, at=at)
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes))
    return order


@in_transaction
def lapse_held(*, at: datetime) -> int:
    """Deny held orders that nobody decided on in time; return how many."""
    lapsed = Approval.objects.filter(
        object_kind=Approval.Kind.ORDER, status=Approval.Status.PENDING, expires_at__lte=at
    ).values_list("object_id", flat=True)
    ids: list[UUID] = list(lapsed)
    if not ids:
        return 0
    book = lock_book(ids)
    risk.withdraw(ids)
    for order in book.orders.values():
        if order.status == OrdStatus.HELD:
            close_here(book, order, OrdStatus.DENIED, Reason.APPROVAL_EXPIRED, "", at)
    journal.append(write(book), actor=Actor.system("approvals"), at=at)
    return len(book.touched)


def _place(book: Book, order: Order, at: datetime) -> None:
    """Judge a released order by what holds now; then give it to a broker, or let the desk watch for it, or deny it."""
    [(intent, _)] = intents(
        book, [Asked(order, order.quantity, order.working_type, order.limit_price, order.stop_price)]
    )
    verdict = risk.judge_released(intent, at=at)
    if not verdict.approved:
        close_here(book, order, OrdStatus.DENIED, verdict.reason, verdict.detail, at)
        return
    order.reason = order.reason_detail = ""
    if Trigger.objects.filter(order_id=order.id, fired_at=None).exists():
        pair = move(order, OrdStatus.NEW)
        order.updated_at = at
        book.touched[order.id] = [pair] if pair else []
        return
    route(book, [order], {order.id: verdict}, unrouted=OrdStatus.DENIED, at=at)
    risk.resize({order.id: book.may_fill(order.id)})
