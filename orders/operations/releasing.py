"""What becomes of held orders: let pass by another person, or once what they would trade with is gone, and judged again; turned
down, or lapsed."""

from datetime import datetime, timedelta
from uuid import UUID

from brokers import queries as brokers
from oms.journal import operations as journal
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict
from oms.kernel.reasons import Reason
from oms.runtime import doorbell, sql
from oms.runtime.transactions import after_commit, in_transaction
from orders.models import Order, Trigger, Wait
from orders.operations.changing import cancel_batch
from orders.operations.holding import content_of
from orders.operations.judging import Asked, intents
from orders.operations.preventing import APART, WHY, keep_apart
from orders.operations.recording import Book, close_here, lock_book, move, write
from orders.operations.slicing import begin_released
from orders.operations.triggering import route
from orders.queries import Names, resting
from orders.states import CLOSED, OrdStatus
from risk import operations as risk
from risk.domain.selftrade import Prevented
from risk.models import Approval

WAIT_SECONDS_MAX = 60.0
"""What is not gone by then leaves the new order denied: the market it was meant for has moved on."""
AGAIN_SECONDS = 5.0
"""After so long an order that works on, because its cancel was refused, is asked to end once more."""


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
    prevented = None
    approval = risk.settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=seen, shown=shown)
    if approval.status == Approval.Status.APPROVED:
        prevented = place_released(book, order, at, waived=True)
    else:
        close_here(book, order, OrdStatus.DENIED, Reason.APPROVAL_REFUSED, reason.strip(), at)
    told = {OrdStatus.DENIED: "order.denied", OrdStatus.HELD: "order.held"}.get(order.status, "order.released")
    journal.append(write(book, kinds={order.id: told}), actor=actor, at=at)
    if prevented is not None:
        keep_apart([(order, prevented)], at=at)
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


def place_released(book: Book, order: Order, at: datetime, *, waived: bool) -> Prevented | None:
    """Judge a released order by what holds now; then give it to a broker, or let the desk watch for it, or deny it.

    `waived`: another person let it pass the soft limits. Return which orders of its account it would still meet, if any:
    then it is held on, or denied.
    """
    [(intent, _)] = intents(
        book, [Asked(order, order.quantity, order.working_type, order.limit_price, order.stop_price)]
    )
    verdict = risk.judge_released(intent, at=at, waived=waived, resting=resting)
    if verdict.held and verdict.prevented is not None:
        order.quantity = order.leaves_quantity = verdict.prevented.quantity
        order.reason, order.reason_detail, order.updated_at = verdict.reason, verdict.detail, at
        book.touched.setdefault(order.id, [])
        return verdict.prevented
    if not verdict.approved:
        close_here(book, order, OrdStatus.DENIED, verdict.reason, verdict.detail, at)
        return verdict.prevented
    order.reason = order.reason_detail = ""
    if order.id in book.algos:
        begin_released(book, order, at)
    if order.id in book.algos or Trigger.objects.filter(order_id=order.id, fired_at=None).exists():
        pair = move(order, OrdStatus.NEW)
        order.updated_at = at
        book.touched[order.id] = [pair] if pair else []
        return None
    route(book, [order], {order.id: verdict}, unrouted=OrdStatus.DENIED, at=at)
    risk.resize({order.id: book.may_fill(order.id)})
    return None


_READY = """
SELECT w.order_id, bool_and((o.status = ANY(%(closed)s) OR o.leaves_quantity = 0) AND NOT o.unknown), min(w.since),
  array_agg(o.id) FILTER (WHERE NOT o.status = ANY(%(closed)s) AND o.status <> 'pending_cancel')
FROM orders_wait w JOIN orders_order o ON o.id = w.other_id GROUP BY w.order_id ORDER BY w.order_id
"""


def release_apart(*, at: datetime) -> int:
    """Let go the held orders whose others are gone, and deny those that waited too long; return how many were decided.

    Where the end of another was refused, it is asked for again. Safe to run in several places at once.
    """
    decided = 0
    for order_id, gone, since, working in sql.run(_READY, {"closed": sorted(CLOSED)}).fetchall():
        waited = at - since
        if gone or waited > timedelta(seconds=WAIT_SECONDS_MAX):
            decided += _release(order_id, gone=gone, at=at)
        elif working and waited > timedelta(seconds=AGAIN_SECONDS):
            cancel_batch(working, actor=APART, at=at, reason=WHY)
    return decided


@in_transaction
def _release(order_id: UUID, *, gone: bool, at: datetime) -> int:
    book = lock_book([order_id])
    order = book.orders[order_id]
    others = Wait.objects.filter(order_id=order_id)
    if order.status != OrdStatus.HELD:  # canceled meanwhile, or decided by another process
        others.delete()
        return 0
    if not others.exists():
        return 0
    others.delete()
    prevented = None
    if gone:
        prevented = place_released(book, order, at, waived=False)
    else:
        close_here(
            book, order, OrdStatus.DENIED, Reason.SELF_TRADE, "The orders it would trade with did not end in time.", at
        )
    told = {OrdStatus.DENIED: "order.denied", OrdStatus.HELD: "order.held"}.get(order.status, "order.released")
    journal.append(write(book, kinds={order.id: told}), actor=APART, at=at)
    if prevented is not None:
        keep_apart([(order, prevented)], at=at)
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes))
    return 1
