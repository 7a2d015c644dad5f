"""Judging again what waited: behind a halt, a backoff or a long queue the market, the limits and the account move on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import structlog

from brokers import queries as brokers
from brokers.domain.reference import BrokerRef
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO
from oms.kernel.reasons import Reason
from oms.runtime import arrays, sql
from oms.runtime.transactions import in_transaction
from orders.domain.groups import IN_SET
from orders.domain.triggers import STOPS
from orders.models import ChildOrder, Order, Submission
from orders.operations.recording import Book, lock_book
from orders.operations.reporting import Fold
from orders.queries import Names
from orders.states import BLOCK, SubmissionState
from portfolio.models import Account
from risk import operations as risk
from risk.domain.intents import Intent, Verdict
from risk.queries import HALT_PREDICATE

JUDGED_SECONDS = 60.0
"""How long a verdict is good for: nothing new is sent on an older one."""
JUDGE_MAX = 200
LATER = timedelta(seconds=1)
WAIT_FOR_QUOTE = frozenset({Reason.STALE_QUOTE, Reason.NO_QUOTE, Reason.CROSSED_QUOTE})
"""The market is not to be seen: the order waits on, as long as it is valid."""
JOINED = """
  JOIN orders_childorder c ON c.id = s.child_id
  JOIN orders_order o ON o.id = c.order_id
  JOIN portfolio_account a ON a.id = o.account_id
  JOIN brokers_broker b ON b.id = s.broker_id
  JOIN brokers_instrument i ON i.id = o.instrument_id
  LEFT JOIN portfolio_strategy st ON st.id = o.strategy_id
  LEFT JOIN auth_user u ON u.id = o.created_by_id"""
"""What the predicate of halts looks at."""
_WAITED = f"""
SELECT s.id, o.id FROM orders_submission s {JOINED}
WHERE s.broker_id = %(broker)s AND s.state = 'prepared' AND s.kind <> 'cancel' AND s.due_at <= desk_clock()
  AND (s.valid_until IS NULL OR s.valid_until > %(at)s)
  AND s.judged_at <= %(at)s - make_interval(secs => %(seconds)s) AND {HALT_PREDICATE}
ORDER BY s.due_at LIMIT %(limit)s
"""
log = structlog.get_logger(__name__)


def judge_again(broker: BrokerRef, *, at: datetime) -> int:
    """Ask risk once more about what waited too long to be sent on its first verdict; return how many were looked at.

    What risk refuses now ends here (a replace leaves its order as it was); what no quote can be had for waits on.
    """
    found = sql.run(_WAITED, {"broker": broker.id, "seconds": JUDGED_SECONDS, "at": at, "limit": JUDGE_MAX}).fetchall()
    if found:
        _judge(broker, {pk for pk, _ in found}, {order_id for _, order_id in found}, at)
    return len(found)


@in_transaction
def _judge(broker: BrokerRef, wanted: set[UUID], order_ids: set[UUID], at: datetime) -> None:
    book = lock_book(order_ids)
    waiting = [
        s
        for group in book.submissions.values()
        for s in group
        if s.id in wanted and s.state == SubmissionState.PREPARED
    ]
    verdicts = risk.judge_again(_questions(book, waiting), at=at)
    fold = Fold(broker.id, book, {}, at)
    good, later = [], []
    for submission, verdict in zip(waiting, verdicts, strict=True):
        if verdict.approved:
            good.append(submission.id)
        elif verdict.reason in WAIT_FOR_QUOTE:
            later.append(submission.id)
        else:
            _refuse(fold, book.children[submission.child_id], submission, verdict)
    sql.run(
        "UPDATE orders_submission SET judged_at = %s WHERE id = ANY(%s)",
        [at, arrays.pack("uuid", good)],
    )
    sql.run("UPDATE orders_submission SET due_at = %s WHERE id = ANY(%s)", [at + LATER, arrays.pack("uuid", later)])
    fold.finish(Actor.system("worker"))


def _refuse(fold: Fold, child: ChildOrder, submission: Submission, verdict: Verdict) -> None:
    log.warning("refused_after_waiting", submission=str(submission.id), kind=submission.kind, reason=verdict.reason)
    fold.give_up(child, submission, SubmissionState.NOT_SENT, Reason(verdict.reason), verdict.detail)


def _questions(book: Book, waiting: Sequence[Submission]) -> list[tuple[Intent, Decimal]]:
    """Return each request as an intent under the terms it asks for, and what may come of its order in the worst case."""
    return intents(book, [_asked(book, s) for s in waiting])


@dataclass(frozen=True, slots=True)
class Asked:
    """An order under the terms that are about to be sent."""

    order: Order
    quantity: Decimal
    order_type: str
    limit_price: Decimal | None
    stop_price: Decimal | None


def _asked(book: Book, submission: Submission) -> Asked:
    order = book.orders[book.children[submission.child_id].order_id]
    quantity, limit_price, stop_price = order.quantity, order.limit_price, order.stop_price
    if order.id in book.algos:
        quantity = book.children[submission.child_id].quantity
    if submission.kind == Submission.Kind.REPLACE:
        told = submission.message
        quantity += Decimal(told["quantity"]) - book.children[submission.child_id].quantity
        limit_price, stop_price = (None if told[n] is None else Decimal(told[n]) for n in ("limit_price", "stop_price"))
    return Asked(order, max(quantity, ZERO), order.working_type, limit_price, stop_price)


def intents(book: Book, asked: Sequence[Asked]) -> list[tuple[Intent, Decimal]]:
    """Return what risk is asked about orders that it holds for already, with what may come of each in the worst case."""
    accounts = Account.objects.in_bulk({a.order.account_id for a in asked})
    makers = {a.order.created_by_id for a in asked} - {None}
    users = dict(sql.run("SELECT id, username FROM auth_user WHERE id = ANY(%s)", [sorted(makers)]).fetchall())
    names, sets = Names(), _sets([a.order.id for a in asked])
    return [
        (
            replace(_intent(a, accounts[a.order.account_id], users, names), oco=sets.get(a.order.id)),
            book.may_fill(a.order.id),
        )
        for a in asked
    ]


def _sets(order_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the set in which one cancels the others, of orders that belong to one."""
    roles = sorted(r.value for r in IN_SET)
    found = sql.run(
        "SELECT order_id, group_id FROM orders_groupleg WHERE order_id = ANY(%s) AND role = ANY(%s)",
        [sql.uuids(order_ids), roles],
    )
    return dict(found.fetchall())


def _intent(asked: Asked, account: Account, users: dict[int, str], names: Names) -> Intent:
    order = asked.order
    return Intent(
        order_id=order.id,
        account_id=account.id,
        account_code=account.code,
        base_currency=account.base_currency,
        account_open=account.status == Account.Status.OPEN,
        instrument=brokers.instruments()[order.instrument_id],
        side=order.side,
        quantity=asked.quantity,
        order_type=asked.order_type,
        limit_price=asked.limit_price,
        stop_price=asked.stop_price if asked.order_type in STOPS else None,
        user_id=order.created_by_id,
        user_name=users.get(order.created_by_id or 0, ""),
        strategy_id=order.strategy_id,
        strategy_code=names.strategies[order.strategy_id] if order.strategy_id else "",
        automated=order.origin != "desk",
        directed_broker_code=names.brokers[order.directed_broker_id].code if order.directed_broker_id else None,
        time_in_force=order.time_in_force,
        reduce_only=order.instruction("reduce_only") is not None,
        liquidates=order.origin == "liquidation",
        self_trade=order.instruction("self_trade_prevention") or "",
        covered=order.origin == BLOCK,
    )
