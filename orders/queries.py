"""Reads of orders, in the shape that REST and screens show."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from brokers import queries as brokers
from oms.journal.models import Event
from oms.kernel import json
from oms.kernel.decimals import text, text_or_none
from oms.kernel.errors import NotFound
from oms.kernel.ids import first_id
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.kernel.reasons import Reason
from oms.runtime import sql
from orders.domain.groups import Role
from orders.models import AlgoSlice, ChildOrder, Execution, GroupLeg, Order, OrderGroup, Submission
from orders.states import OPEN, OrdStatus
from portfolio.models import Account, Strategy
from risk.domain.selftrade import Resting

AVERAGE_PLACES = Decimal("0.00000001")
ACCOUNTS_APART_MAX = 20
ID_SLACK = timedelta(minutes=5)
"""An order's id is made in the request that creates it: this near to `created_at`, however long it waited for a lock."""
NOBODY = 0
"""No row has this id: what a code that nothing bears stands for."""


class _Codes(dict[int, str]):
    """Codes by id, asked for once in the life of a process: they never change."""

    def __init__(self, model: type[Account] | type[Strategy]) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, pk: int) -> str:
        self.update(self._model.objects.values_list("id", "code"))
        return self[pk] if pk in self else self._unknown(pk)

    def _unknown(self, pk: int) -> str:
        raise LookupError(f"no {self._model.__name__} has the id {pk}")


_accounts, _strategies = _Codes(Account), _Codes(Strategy)


class Names:
    """Codes of what orders point at, for a batch."""

    def __init__(self) -> None:
        self.instruments = brokers.instruments()
        self.brokers = brokers.brokers()
        self.accounts = _accounts
        self.strategies = _strategies


def forget_codes() -> None:
    """Drop the codes this process knows, for tests whose rows come and go."""
    _accounts.clear()
    _strategies.clear()


def average_price(amount: Decimal, quantity: Decimal) -> Decimal | None:
    """Return amount per unit to eight places, or None of nothing."""
    return (amount / quantity).quantize(AVERAGE_PLACES) if quantity else None


def order_out(order: Order, names: Names) -> dict[str, Any]:
    """Return an order as REST, frames and the journal show it."""
    return {
        "id": str(order.id),
        "client_order_id": order.client_order_id,
        "account": names.accounts[order.account_id],
        "symbol": names.instruments[order.instrument_id].symbol,
        "side": order.side,
        "quantity": text(order.quantity),
        "size_by": order.size_by,
        "lots": order.lots,
        "order_type": order.order_type,
        "limit_price": text_or_none(order.limit_price),
        "stop_price": text_or_none(order.stop_price),
        "time_in_force": order.time_in_force,
        "expire_at": rfc3339_or_none(order.expire_at),
        "trail_amount": order.instruction("trail_amount"),
        "trail_percent": order.instruction("trail_percent"),
        "good_after": order.instruction("good_after"),
        "display_quantity": order.instruction("display_quantity"),
        "min_quantity": order.instruction("min_quantity"),
        "reduce_only": order.instruction("reduce_only") is not None,
        "self_trade_prevention": order.instruction("self_trade_prevention"),
        "do_not_reduce": order.instruction("do_not_reduce") == "true",
        "take_profit": _asked(order, "take_profit"),
        "stop_loss": _asked(order, "stop_loss"),
        "group": _asked(order, "group"),
        "broker": names.brokers[order.directed_broker_id].code if order.directed_broker_id else None,
        "strategy": names.strategies[order.strategy_id] if order.strategy_id else None,
        "note": order.note,
        "status": str(order.status),
        "unknown": order.unknown,
        "filled_quantity": text(order.filled_quantity),
        "leaves_quantity": text(order.leaves_quantity),
        "average_price": text_or_none(average_price(order.filled_amount, order.filled_quantity)),
        "fees": text(order.fees),
        "reason": reason_out(order),
        "version": order.version,
        "parent": str(order.parent_id) if order.parent_id else None,
        "origin": order.origin,
        "triggered_at": rfc3339_or_none(order.triggered_at),
        "created_at": rfc3339(order.created_at),
        "updated_at": rfc3339(order.updated_at),
        "decided_at": rfc3339(order.decided_at),
        "arrival": _arrival(order),
        "algo": algo_out(order),
    }


def algo_out(order: Order) -> dict[str, Any] | None:
    """Return how an order is worked and how far that has come, None of one that goes out whole."""
    return None if order.algo is None else order.algo | _NO_WORK | (order.instructions or {}).get("progress", {})


_NO_WORK = {"state": "over", "slices_sent": 0, "slices_left": 0, "next_slice_at": None, "working_quantity": "0"}
"""What is told of an order that was denied before any work on it began."""


def _asked(order: Order, name: str) -> Any:
    return (order.instructions or {}).get(name)


def group_out(group: OrderGroup, members: Sequence[tuple[GroupLeg, Order]]) -> dict[str, Any]:
    """Return a group with its orders, the first one first. `state`: what a person has to do comes before what works; an excess
    that was undone, or left on purpose, is done with."""
    working = any(o.status in OPEN for _, o in members)
    undoing = [o for p, o in members if p.role == Role.FLATTEN]
    decided = sum(o.quantity if o.reason == Reason.APPROVAL_REFUSED else o.filled_quantity for o in undoing)
    attention = group.problem or group.excess > decided
    state = "attention" if attention else "working" if working else "done"
    return {
        "id": group.key,
        "kind": group.kind,
        "partial_fills": group.partial_fills,
        "state": state,
        "excess": text(group.excess),
        "problem": group.problem or None,
        "orders": [
            {
                "id": str(o.id),
                "role": p.role,
                "side": o.side,
                "order_type": o.order_type,
                "limit_price": text_or_none(o.limit_price),
                "stop_price": text_or_none(o.stop_price),
                "status": str(o.status),
                "quantity": text(o.quantity),
                "filled_quantity": text(o.filled_quantity),
                "leaves_quantity": text(o.leaves_quantity),
            }
            for p, o in sorted(members, key=lambda m: m[1].id)
        ],
    }


def group_of(order: Order) -> dict[str, Any] | None:
    """Return the group of an order with all its orders, None where it belongs to none."""
    place = GroupLeg.objects.select_related("group").filter(pk=order.id).first()
    if place is None:
        return None
    members = GroupLeg.objects.filter(group=place.group).select_related("order")
    return group_out(place.group, [(m, m.order) for m in members])


def reason_out(order: Order) -> dict[str, str] | None:
    """Return why an order was denied, rejected or ended, None where nothing is to tell."""
    if not order.reason:
        return None
    sentence = order.reason_detail
    if not sentence and order.reason in set(Reason):
        sentence = Reason(order.reason).sentence
    return {"code": order.reason, "detail": sentence}


def _arrival(order: Order) -> dict[str, str] | None:
    if order.arrival_at is None or order.arrival_bid is None or order.arrival_ask is None:
        return None
    return {"bid": text(order.arrival_bid), "ask": text(order.arrival_ask), "at": rfc3339(order.arrival_at)}


def execution_out(execution: Execution, names: Names, currency: str) -> dict[str, Any]:
    """Return an execution as REST and frames show it; a bust tells what it undoes, a correction the new totals."""
    return {
        "id": str(execution.id),
        "order": str(execution.order_id),
        "child": str(execution.child_id),
        "broker": names.brokers[execution.broker_id].code,
        "broker_execution_id": execution.broker_execution_id,
        "kind": execution.kind,
        "side": execution.side,
        "quantity": text(execution.quantity),
        "price": text(execution.price),
        "fees": text_or_none(execution.fees),
        "executed_at": rfc3339(execution.executed_at),
        "received_at": rfc3339(execution.received_at),
        "ref": str(execution.ref_id) if execution.ref_id else None,
        "settle_date": execution.settle_date.isoformat(),
        "fee_items": execution.fee_items,
        "currency": currency,
    }


def child_out(child: ChildOrder, submissions: Sequence[Submission], names: Names) -> dict[str, Any]:
    """Return a broker order with its submissions."""
    return {
        "id": str(child.id),
        "broker": names.brokers[child.broker_id].code,
        "client_order_id": child.client_order_id,
        "broker_order_id": child.broker_order_id or None,
        "status": str(child.status),
        "quantity": text(child.quantity),
        "filled_quantity": text(child.filled_quantity),
        "leaves_quantity": text(child.leaves_quantity),
        "submissions": [
            {
                "kind": s.kind,
                "client_order_id": s.client_order_id,
                "state": s.state,
                "attempts": s.attempts,
                "sent_at": rfc3339_or_none(s.sent_at),
                "log": s.log,
            }
            for s in submissions
        ],
    }


FILTERS = (
    "account", "symbol", "status", "side", "broker", "strategy", "parent", "client_order_id", "created_after", "created_before",
)  # fmt: skip
"""Filters of the order list, by query parameter; the account narrows what may be seen, the rest is for `list_orders`."""
PLAIN_FILTERS = {
    "status": "status",
    "side": "side",
    "client_order_id": "client_order_id",
    "parent": "parent_id",
    "created_after": "created_at__gte",
    "created_before": "created_at__lt",
}
"""Those that compare one column."""


def list_orders(
    account_ids: Iterable[int],
    filters: dict[str, Any],
    *,
    before: UUID | None,
    limit: int,
    open_only: bool = False,
) -> list[dict[str, Any]]:
    """Return orders of the accounts, newest first, that are older than `before`."""
    names = Names()
    wanted = Order.objects.filter(_fits(filters, _ids(filters, before), open_only=open_only))
    return [order_out(o, names) for o in _newest(wanted, list(account_ids), limit)]


def _newest(wanted: QuerySet[Order], account_ids: Sequence[int], limit: int) -> QuerySet[Order]:
    """Return the newest of the accounts. Each account's are read off an index in their order, then merged: asked for
    all at once, the database would sort every order that fits."""
    if not 1 < len(account_ids) <= ACCOUNTS_APART_MAX:
        return wanted.filter(account_id__in=account_ids).order_by("-id")[:limit]
    first, *others = (wanted.filter(account_id=a).order_by("-id")[:limit] for a in account_ids)
    return first.union(*others, all=True).order_by("-id")[:limit]


def _ids(filters: dict[str, Any], before: UUID | None) -> dict[str, UUID]:
    """Return the bounds on ids. Ids tell the time of their making, so that what is out of the time asked for need not be
    read; `_fits` still judges the time itself."""
    bounds = {"gte": first_id(filters["created_after"] - ID_SLACK)} if "created_after" in filters else {}
    ends = [before] if before else []
    if "created_before" in filters:
        ends.append(first_id(filters["created_before"] + ID_SLACK))
    return bounds | ({"lt": min(ends)} if ends else {})


def _fits(filters: dict[str, Any], ids: dict[str, UUID], *, open_only: bool) -> Q:
    """Return the condition of the filters. Codes become ids first: the database plans by how common each is."""
    fits = Q(**{f"id__{bound}": value for bound, value in ids.items()})
    for name, field in PLAIN_FILTERS.items():
        if name in filters:
            fits &= Q(**{field: filters[name]})
    if "symbol" in filters:
        instrument = brokers.instruments_by_symbol().get(filters["symbol"])
        fits &= Q(instrument_id=instrument.id if instrument else NOBODY)
    if "strategy" in filters:
        strategy = Strategy.objects.filter(code=filters["strategy"]).values_list("id", flat=True).first()
        fits &= Q(strategy_id=strategy or NOBODY)
    if "broker" in filters:  # several children at one broker must not repeat their order
        broker = brokers.brokers_by_code().get(filters["broker"])
        bounds = {f"order_id__{bound}": value for bound, value in ids.items()}
        there = ChildOrder.objects.filter(broker_id=broker.id if broker else NOBODY, **bounds)
        fits &= Q(Exists(there.filter(order=OuterRef("pk"))))
    if open_only:
        fits &= Q(status__in=sorted(OPEN))
    return fits


def visible_order(order_id: UUID, account_ids: Iterable[int]) -> Order:
    """Return an order of one of the accounts, or raise `NotFound`: a missing one and a foreign one look the same."""
    found = Order.objects.filter(pk=order_id, account_id__in=list(account_ids)).first()
    if found is None:
        raise NotFound("not_found", "There is no such order.")
    return found


def is_visible(order_id: UUID, account_ids: Iterable[int]) -> bool:
    """Tell whether an order belongs to one of the accounts."""
    return Order.objects.filter(pk=order_id, account_id__in=list(account_ids)).exists()


def list_executions(
    account_ids: Iterable[int], *, symbol: str | None, broker: str | None, before: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return executions of the accounts, newest first, that are older than `before`."""
    rows = Execution.objects.filter(order__account_id__in=list(account_ids)).select_related("order")
    if symbol:
        rows = rows.filter(order__instrument__symbol=symbol)
    if broker:
        rows = rows.filter(broker__code=broker)
    if before:
        rows = rows.filter(id__lt=before)
    names = Names()
    return [
        execution_out(e, names, names.instruments[e.order.instrument_id].currency) for e in rows.order_by("-id")[:limit]
    ]


def children_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return the broker orders of an order, oldest first."""
    names = Names()
    children = list(ChildOrder.objects.filter(order_id=order_id).order_by("id"))
    submissions: dict[UUID, list[Submission]] = {}
    for submission in Submission.objects.filter(child__in=children).order_by("id"):
        submissions.setdefault(submission.child_id, []).append(submission)
    return [child_out(c, submissions.get(c.id, []), names) for c in children]


def slices_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return the slices of a worked order by number, with what became of each."""
    rows = AlgoSlice.objects.filter(order_id=order_id).select_related("child").order_by("number")
    return [slice_out(s) for s in rows]


def slice_out(row: AlgoSlice) -> dict[str, Any]:
    """Return a slice: what was planned, what was asked for, what is filled of it."""
    child = row.child
    return {
        "number": row.number,
        "due_at": rfc3339(row.due_at),
        "planned_quantity": text(row.planned_quantity),
        "state": row.state,
        "quantity": text_or_none(row.quantity),
        "child": str(child.id) if child else None,
        "status": str(child.status) if child else None,
        "filled_quantity": text_or_none(child.filled_quantity if child else None),
        "decided_at": rfc3339_or_none(row.decided_at),
        "detail": row.detail,
    }


def executions_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return all executions, busts and corrections of an order, in order of arrival."""
    names = Names()
    rows = Execution.objects.filter(order_id=order_id).select_related("order").order_by("id")
    return [execution_out(e, names, names.instruments[e.order.instrument_id].currency) for e in rows]


def events_of(order_id: UUID) -> list[dict[str, Any]]:
    """Return the audit timeline of an order: journal events, and each attempt to send, by time."""
    events = [
        {"at": rfc3339(e.at), "kind": e.kind, "actor": e.actor, "sequence": e.sequence, **json.loads(e.body)}
        for e in Event.objects.filter(object_id=str(order_id)).order_by("at", "sequence")
    ]
    attempts = [
        {"kind": f"submission.{s.kind}", "actor": "system:worker", "submission": str(s.id), **entry}
        for s in Submission.objects.filter(child__order_id=order_id).order_by("id")
        for entry in s.log
    ]
    return sorted(events + attempts, key=lambda e: str(e["at"]))


def status_of(order: Order) -> dict[str, Any]:
    """Return the short status that the cache also holds."""
    return {
        "id": str(order.id),
        "status": str(order.status),
        "unknown": order.unknown,
        "filled_quantity": text(order.filled_quantity),
        "leaves_quantity": text(order.leaves_quantity),
        "average_price": text_or_none(average_price(order.filled_amount, order.filled_quantity)),
        "version": order.version,
        "updated_at": rfc3339(order.updated_at),
    }


def frames_since(stream: str, after: int, limit: int) -> list[Event]:
    """Return the events of a stream after a sequence, in order."""
    return list(Event.objects.filter(stream__name=stream, sequence__gt=after).order_by("sequence")[:limit])


_RESTING = """
SELECT o.id, o.account_id, o.instrument_id, o.side, o.leaves_quantity,
  CASE WHEN coalesce(o.instructions->>'works_as', o.order_type) = 'limit' THEN
    CASE o.side WHEN 'buy' THEN greatest(o.limit_price, asked.highest) ELSE least(o.limit_price, asked.lowest) END END
FROM orders_order o LEFT JOIN LATERAL (
  SELECT max((s.message->>'limit_price')::numeric) AS highest, min((s.message->>'limit_price')::numeric) AS lowest
  FROM orders_childorder c JOIN orders_submission s ON s.child_id = c.id
  WHERE c.order_id = o.id AND s.kind = 'replace' AND s.resolved_at IS NULL AND s.state <> 'not_sent'
) asked ON true
WHERE o.account_id = ANY(%s) AND o.status = ANY(%s) AND o.leaves_quantity > 0
  AND coalesce(o.instructions->>'works_as', o.order_type) IN ('market', 'limit')
  AND NOT EXISTS (SELECT 1 FROM orders_trigger t WHERE t.order_id = o.id AND t.fired_at IS NULL)
  AND (o.instructions->'algo' IS NULL
    OR EXISTS (SELECT 1 FROM orders_childorder c WHERE c.order_id = o.id AND c.leaves_quantity > 0))
"""
_MAY_REST = sorted(OPEN - {OrdStatus.HELD})


def resting(account_ids: Sequence[int]) -> list[Resting]:
    """Return the orders of accounts that may be filled at any moment: with the price that crosses the most of what is in
    force and asked for, None at the market. What the desk still watches or holds, or works without a slice at
    a broker now, rests nowhere."""
    return [Resting(*row) for row in sql.run(_RESTING, [list(account_ids), _MAY_REST])]


_VARIANCE = """
WITH bills AS (
  SELECT e.*, r.fee_items AS old_items, r.broker_execution_id LIKE 'bill-%%' AS again,
    EXISTS (SELECT 1 FROM orders_execution n WHERE n.ref_id = e.id AND n.broker_execution_id LIKE 'bill-%%') AS overtaken
  FROM orders_execution e JOIN orders_execution r ON r.id = e.ref_id
  WHERE e.kind = 'correct' AND e.broker_execution_id LIKE 'bill-%%'
    AND e.executed_at >= coalesce(%(start)s::timestamptz, '-infinity') AND e.executed_at < coalesce(%(end)s::timestamptz, 'infinity')
), items AS (
  SELECT b.broker_id, b.id, i->>'currency' AS currency, (i->>'amount')::numeric AS billed, 0::numeric AS accrued
  FROM bills b CROSS JOIN jsonb_array_elements(b.fee_items) i WHERE NOT b.overtaken
  UNION ALL SELECT b.broker_id, NULL, i->>'currency', 0, (i->>'amount')::numeric
  FROM bills b CROSS JOIN jsonb_array_elements(b.old_items) i WHERE NOT b.again
)
SELECT broker_id, currency, sum(accrued) AS accrued, sum(billed) AS billed, count(DISTINCT id) AS executions
FROM items GROUP BY broker_id, currency ORDER BY broker_id, currency
"""


def fee_variance(*, start: datetime | None = None, end: datetime | None = None) -> list[dict[str, Any]]:
    """Return by broker and currency what was accrued for executions that were billed since, what was billed, and by how much
    that is more; of executions done from `start` until before `end`."""
    codes = brokers.brokers()
    return [
        {
            "broker": codes[r["broker_id"]].code,
            "currency": r["currency"],
            "executions": r["executions"],
            "accrued": text(r["accrued"]),
            "billed": text(r["billed"]),
            "variance": text(r["billed"] - r["accrued"]),
        }
        for r in sql.rows(_VARIANCE, {"start": start, "end": end})
    ]
