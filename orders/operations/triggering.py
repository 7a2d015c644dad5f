"""Watching for brokers: what waits at the desk is let go when its price or its time has come.

Driven by the stored quotes. All of it stands in `Trigger` rows, so whoever watches may stop at any moment and another goes
on; two at once are safe. A quote that is old, crossed or empty triggers nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import structlog

from brokers import queries as brokers
from oms.journal import operations as journal
from oms.kernel.actor import Actor
from oms.kernel.batching import chunks
from oms.kernel.reasons import Reason
from oms.runtime import doorbell, rows, sql
from oms.runtime.transactions import after_commit, in_transaction
from orders.domain.triggers import WORKS_AS, WORKS_FOR
from orders.models import Order, Trigger
from orders.operations.judging import WAIT_FOR_QUOTE, Asked, intents
from orders.operations.placing import PARTS, links_of, new_child, plan_routes
from orders.operations.preventing import keep_apart
from orders.operations.recording import Book, close_here, lock_book, refold, write
from orders.queries import resting
from orders.states import OrdStatus
from portfolio.queries import Months
from risk import operations as risk
from risk.domain.intents import Verdict
from risk.queries import halted_brokers
from routing.domain.candidates import RouteRequest

QUOTE_SECONDS_MAX = 15.0
"""An older quote triggers nothing: who can't see the market waits until it can be seen again."""
FIRE_MAX = 200
ACTOR = Actor.system("pricer")
WAITS_ON = WAIT_FOR_QUOTE | {Reason.HALTED}
_SEEN = "q.at > %(at)s - make_interval(secs => %(age)s) AND q.bid > 0 AND q.bid <= q.ask"
_REACHED = f"""
SELECT t.order_id FROM orders_trigger t JOIN orders_order o ON o.id = t.order_id
LEFT JOIN brokers_quote q ON q.instrument_id = t.instrument_id
WHERE t.fired_at IS NULL AND o.status = 'new' AND coalesce(t.starts_at <= %(at)s, true)
  AND coalesce(t.valid_until > %(at)s, true)
  AND CASE t.kind WHEN 'time' THEN true
    WHEN 'touch' THEN {_SEEN} AND CASE t.side WHEN 'buy' THEN q.ask <= t.price ELSE q.bid >= t.price END
    ELSE {_SEEN} AND CASE t.side WHEN 'buy' THEN q.ask >= t.price ELSE q.bid <= t.price END END
ORDER BY t.order_id
"""
_TRAIL = f"""
WITH better AS (
  SELECT t.order_id, q.at, CASE t.side WHEN 'buy' THEN least(t.watermark, q.ask) ELSE greatest(t.watermark, q.bid) END AS best,
    CASE t.side WHEN 'buy' THEN 1 ELSE -1 END AS away, i.tick_size AS tick
  FROM orders_trigger t JOIN brokers_quote q ON q.instrument_id = t.instrument_id
  JOIN brokers_instrument i ON i.id = t.instrument_id
  WHERE t.fired_at IS NULL AND t.kind = 'trail' AND q.at > t.seen_at AND coalesce(t.starts_at <= %(at)s, true) AND {_SEEN}
    AND CASE t.side WHEN 'buy' THEN q.ask < t.watermark ELSE q.bid > t.watermark END
), priced AS (
  SELECT b.*, b.best + b.away * coalesce(t.trail_amount, b.best * t.trail_percent / 100) AS exact, t.price AS old
  FROM better b JOIN orders_trigger t ON t.order_id = b.order_id
), gridded AS (
  SELECT order_id, at, best, away, old,
    CASE WHEN tick = 0 THEN exact WHEN away > 0 THEN ceil(exact / tick) * tick ELSE floor(exact / tick) * tick END AS price
  FROM priced
)
UPDATE orders_trigger t SET watermark = g.best, seen_at = g.at,
  price = CASE WHEN g.away > 0 THEN least(g.old, g.price) ELSE greatest(g.old, g.price) END
FROM gridded g WHERE t.order_id = g.order_id AND t.fired_at IS NULL
"""
_OVER = """
SELECT t.order_id FROM orders_trigger t JOIN orders_order o ON o.id = t.order_id
WHERE t.fired_at IS NULL AND o.status = 'new' AND t.valid_until <= %(at)s ORDER BY t.order_id
"""
log = structlog.get_logger(__name__)


def watch(*, at: datetime) -> int:
    """Let go what was reached, end what waited too long, then move what trails; return how many orders were let go.

    In this order: a quote that is the best so far can't trigger what trails behind it.
    """
    seen = {"at": at, "age": QUOTE_SECONDS_MAX}
    reached = [pk for (pk,) in sql.run(_REACHED, seen).fetchall()]
    fired = sum(fire(batch, at=at) for batch in chunks(reached, FIRE_MAX))
    for batch in chunks([pk for (pk,) in sql.run(_OVER, {"at": at}).fetchall()], FIRE_MAX):
        _expire(batch, at=at)
    sql.run(_TRAIL, seen)
    return fired


@in_transaction
def fire(order_ids: Sequence[UUID], *, at: datetime) -> int:
    """Send orders whose time has come to brokers, judged by the market of now; return how many went.

    What risk refuses now ends; what can't be judged yet, or is halted, waits on.
    """
    book, triggers = _waiting(order_ids)
    if not triggers:
        return 0
    asked = [_asked(book.orders[t.order_id], t) for t in triggers]
    verdicts = {v.order_id: v for v in risk.judge_again(intents(book, asked), at=at, resting=resting)}
    going = [t for t in triggers if verdicts[t.order_id].approved]
    for trigger in going:
        _let_go(book.orders[trigger.order_id], trigger, at)
    refused = [v for v in verdicts.values() if not (v.approved or v.held) and v.reason not in WAITS_ON]
    for verdict in refused:
        close_here(book, book.orders[verdict.order_id], OrdStatus.CANCELED, verdict.reason, verdict.detail, at)
    route(book, [book.orders[t.order_id] for t in going], verdicts, unrouted=OrdStatus.CANCELED, at=at)
    _write(book, [t.order_id for t in going] + [v.order_id for v in refused], at)
    if met := [(book.orders[v.order_id], v.prevented) for v in verdicts.values() if v.prevented is not None]:
        keep_apart(met, at=at)  # it waits on at the desk until they are gone
    return len(going)


def _waiting(order_ids: Sequence[UUID]) -> tuple[Book, list[Trigger]]:
    """Lock orders and what they wait for; return those that still wait."""
    book = lock_book(order_ids)
    wanted = sql.uuids(sorted(order_ids))
    found = rows.load(
        Trigger, "WHERE t.order_id = ANY(%s) AND t.fired_at IS NULL ORDER BY t.order_id FOR NO KEY UPDATE", [wanted]
    )
    return book, [
        t for t in found if book.orders[t.order_id].status == OrdStatus.NEW and not book.children_of(t.order_id)
    ]


def _asked(order: Order, trigger: Trigger) -> Asked:
    return Asked(order, order.quantity, WORKS_AS.get(order.order_type, order.order_type), _limit(order, trigger), None)


def _limit(order: Order, trigger: Trigger) -> Decimal | None:
    """Return the limit that an order goes out with; one that trails keeps its distance from the price."""
    limit: Decimal | None = order.limit_price
    if trigger.limit_offset is not None and trigger.price is not None:
        limit = trigger.price + trigger.limit_offset
    return limit


def _let_go(order: Order, trigger: Trigger, at: datetime) -> None:
    order.limit_price = _limit(order, trigger)
    order.triggered_at = at
    if trigger.kind == Trigger.Kind.TRAIL:
        order.stop_price = trigger.price
    if trigger.kind != Trigger.Kind.TIME:
        order.instructions = {**(order.instructions or {}), "works_as": WORKS_AS[order.order_type]}


def route(
    book: Book, orders: Sequence[Order], verdicts: dict[UUID, Verdict], *, unrouted: OrdStatus | None, at: datetime
) -> dict[UUID, str]:
    """Give what no broker has of orders to brokers; those that nobody can take end as `unrouted`, or stay where that is None.

    Return why nobody takes them, by order.
    """
    nobody = {}
    links, halted = links_of({o.account_id for o in orders}), halted_brokers()
    months = Months(at)
    requests = [
        RouteRequest(
            order_id=o.id,
            instrument=brokers.instruments()[o.instrument_id],
            side=o.side,
            quantity=o.quantity - o.filled_quantity,
            order_type=o.working_type,
            time_in_force=WORKS_FOR.get(o.time_in_force, o.time_in_force),
            limit_price=o.limit_price,
            instructions=frozenset(n for n in PARTS if o.instruction(n) is not None),
            brokers=tuple(links[o.account_id]),
            directed=o.directed_broker_id,
            halted=halted.for_order(reduces=verdicts[o.id].reduces),
            month=months.of(o.account_id, brokers.instruments()[o.instrument_id].asset_class),
        )
        for o in orders
    ]
    for plan in plan_routes(requests, {o.id for o in orders if o.cancels_others}, at=at).values():
        order = book.orders[plan.order_id]
        for broker_id, quantity in plan.legs:
            link = links[order.account_id][broker_id]
            child, submission = new_child(order, broker_id, link, quantity, at, decided_at=at)
            submission.reduces = verdicts[order.id].reduces
            book.add_child(child, submission)
        if plan.legs:
            refold(book, order.id, at=at)
            continue
        log.error("no_route_after_waiting", order=str(order.id), detail=plan.detail)
        nobody[order.id] = plan.detail or Reason.NO_ROUTE.sentence
        if unrouted is not None:
            close_here(book, order, unrouted, Reason.NO_ROUTE, plan.detail, at)
    return nobody


def _write(book: Book, order_ids: Sequence[UUID], at: datetime) -> None:
    if not order_ids:
        return
    sql.run("UPDATE orders_trigger SET fired_at = %s WHERE order_id = ANY(%s)", [at, sql.uuids(order_ids)])
    entries = write(book, kinds={i: "order.triggered" for i in order_ids if book.children_of(i)})
    risk.resize({i: book.may_fill(i) for i in order_ids})
    journal.append(entries, actor=ACTOR, at=at)
    codes = {brokers.brokers()[s.broker_id].code for s in book.new_submissions}
    after_commit(lambda: doorbell.ring(codes))


@in_transaction
def _expire(order_ids: Sequence[UUID], *, at: datetime) -> None:
    book, triggers = _waiting(order_ids)
    for trigger in triggers:
        order = book.orders[trigger.order_id]
        close_here(book, order, OrdStatus.EXPIRED, Reason.TOO_LATE, "What it waited for did not come in time.", at)
    _write(book, [t.order_id for t in triggers], at)
