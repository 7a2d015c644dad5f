"""Writing orders, what follows from it, and the facts that tell it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters.port import CancelOrder
from oms.journal.domain import Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.decimals import ZERO
from oms.kernel.ids import broker_client_id, uuid7
from oms.kernel.reasons import Reason
from oms.runtime import crash, rows, sql
from oms.runtime.http import correlation_id
from oms.runtime.transactions import after_commit
from orders import cache
from orders.domain.status import leaves, order_status, worked_status
from orders.models import Algo, ChildOrder, Execution, Order, Submission
from orders.queries import Names, execution_out, order_out, status_of
from orders.states import CLOSED, OrdStatus, SubmissionState

PENDING_SUBMISSION = frozenset(
    {SubmissionState.PREPARED, SubmissionState.SENT, SubmissionState.UNKNOWN, SubmissionState.ACCEPTED}
)
_REFUSALS = (Reason.BROKER_REJECTED, Reason.BROKER_UNREACHABLE)


@dataclass(slots=True)
class Book:
    """Orders locked for one operation, with their broker orders and submissions, and what changed."""

    orders: dict[UUID, Order] = field(default_factory=dict)
    children: dict[UUID, ChildOrder] = field(default_factory=dict)
    submissions: dict[UUID, list[Submission]] = field(default_factory=dict)  # by child
    by_order: dict[UUID, list[ChildOrder]] = field(default_factory=dict)  # the same children, oldest first
    touched: dict[UUID, list[list[str]]] = field(default_factory=dict)  # order id → status pairs
    touched_children: set[UUID] = field(default_factory=set)
    touched_submissions: dict[UUID, Submission] = field(default_factory=dict)
    new_submissions: list[Submission] = field(default_factory=list)
    new_children: list[ChildOrder] = field(default_factory=list)
    algos: dict[UUID, Algo] = field(default_factory=dict)  # of the orders that are worked, by order
    touched_algos: set[UUID] = field(default_factory=set)
    accounts: dict[int, str] = field(default_factory=dict)  # how brokers name them, by id; see `external_account`

    def children_of(self, order_id: UUID) -> list[ChildOrder]:
        """Return the broker orders of an order, oldest first."""
        return self.by_order.get(order_id, [])

    def take_in(self, child: ChildOrder, submissions: Iterable[Submission] = ()) -> None:
        """Know a broker order and its submissions from now on."""
        self.children[child.id] = child
        self.submissions[child.id] = list(submissions)
        self.by_order.setdefault(child.order_id, []).append(child)

    def add_child(self, child: ChildOrder, submission: Submission) -> None:
        """Take in a new broker order with the submission that asks for it."""
        self.take_in(child, [submission])
        self.new_children.append(child)
        self.new_submissions.append(submission)

    def pending(self, child: ChildOrder, kind: str) -> list[Submission]:
        """Return the requests of a kind that the broker has not decided yet."""
        return [
            s
            for s in self.submissions.get(child.id, [])
            if s.kind == kind and s.resolved_at is None and s.state in PENDING_SUBMISSION
        ]

    def asked_to_stop(self, child: ChildOrder) -> bool:
        """Tell whether anybody ever asked for the end of a broker order, whatever came of it."""
        return any(s.kind == Submission.Kind.CANCEL for s in self.submissions.get(child.id, []))

    def newest_name(self, child: ChildOrder) -> str:
        """Return the client id that the next request about a broker order follows: that of the last replace not refused."""
        pending = self.pending(child, Submission.Kind.REPLACE)
        return pending[-1].client_order_id if pending else child.client_order_id

    def working(self, order_id: UUID) -> Decimal:
        """Return what is at brokers and may still be filled, what nobody is sure about included."""
        return decimals.total(c.leaves_quantity for c in self.children_of(order_id))

    def may_fill(self, order_id: UUID) -> Decimal:
        """Return what may still come of an order in the worst case: what it lacks, or what works at brokers if that
        is more; under terms that are asked for and not decided, the worse of old and new."""
        working: Decimal = ZERO
        for child in self.children_of(order_id):
            asked = [Decimal(s.message["quantity"]) for s in self.pending(child, Submission.Kind.REPLACE)]
            working += max([child.leaves_quantity, *(quantity - child.filled_quantity for quantity in asked)])
        order = self.orders[order_id]
        lacking: Decimal = (
            order.leaves_quantity if order.status != OrdStatus.HELD else ZERO
        )  # nothing is held for it yet
        wanted = Decimal(order.next_terms["quantity"]) - order.filled_quantity if order.next_terms else ZERO
        return max(lacking, working, wanted)


def lock_accounts(account_ids: Iterable[int]) -> None:
    """Take the first locks of every operation: accounts, ascending."""
    sql.run(
        "SELECT 1 FROM portfolio_account WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
        [sorted(set(account_ids))],
    )


def lock_book(order_ids: Iterable[UUID]) -> Book:
    """Lock accounts, orders, children and submissions, in that order and by id, and return them."""
    wanted = sql.uuids(sorted(set(order_ids)))
    sql.run(
        "SELECT 1 FROM portfolio_account WHERE id IN (SELECT account_id FROM orders_order WHERE id = ANY(%s)) "
        "ORDER BY id FOR NO KEY UPDATE",
        [wanted],
    )
    orders = rows.load(Order, "WHERE t.id = ANY(%s) ORDER BY t.id FOR NO KEY UPDATE", [wanted])
    children = rows.load(ChildOrder, "WHERE t.order_id = ANY(%s) ORDER BY t.id FOR NO KEY UPDATE", [wanted])
    submissions = rows.load(
        Submission,
        # an array, so that whatever the planner thinks of the tables' sizes it looks up these alone
        "WHERE t.child_id = ANY(ARRAY(SELECT id FROM orders_childorder WHERE order_id = ANY(%s))) ORDER BY t.id FOR NO KEY UPDATE",
        [wanted],
        without=SUBMISSION_UNREAD,
    )
    book = Book({o.id: o for o in orders})
    if worked := [o.id for o in book.orders.values() if o.algo]:
        algos = rows.load(Algo, "WHERE t.order_id = ANY(%s) ORDER BY t.order_id FOR NO KEY UPDATE", [sql.uuids(worked)])
        book.algos = {a.order_id: a for a in algos}
    for child in children:
        book.take_in(child)
    for submission in submissions:
        book.submissions[submission.child_id].append(submission)
    return book


def move(row: Order | ChildOrder, target: OrdStatus) -> list[str] | None:
    """Run the declared transition to target; return the pair, or None when it stands there already."""
    before = str(row.status)
    if before == target:
        return None
    row.become(target)
    return [before, str(target)]


def _for_the_order(child: ChildOrder) -> OrdStatus:
    """Return a broker order's status as its order counts it: what is filled is filled, whatever the day's end adds."""
    done = child.status == OrdStatus.DONE_FOR_DAY and child.filled_quantity >= child.quantity
    return OrdStatus.FILLED if done else OrdStatus(child.status)


def refold(book: Book, order_id: UUID, *, at: datetime) -> None:
    """Derive an order's status and quantities from its broker orders."""
    order = book.orders[order_id]
    children = book.children_of(order_id)
    order.filled_quantity = sum((c.filled_quantity for c in children), ZERO)
    order.filled_amount = sum((c.filled_amount for c in children), ZERO)
    order.overfilled = order.filled_quantity > order.quantity
    order.unknown = any(
        s.state == SubmissionState.UNKNOWN and s.resolved_at is None
        for c in children
        for s in book.submissions.get(c.id, [])
    )
    if children:
        target = order_status(order.quantity, order.filled_quantity, [_for_the_order(c) for c in children])
    else:
        target = OrdStatus(order.status)  # it waits at the desk: nobody else says how it stands
    algo = book.algos.get(order_id)
    if algo:
        target = worked_status(
            order.quantity, order.filled_quantity, [OrdStatus(c.status) for c in children], works=book.working(order_id) > 0,
            ended_as=algo.ended_as, paused=algo.state == Algo.State.PAUSED,
        )  # fmt: skip
    # An unknown order may be working whatever its children say: it stays open until there is proof.
    if target == OrdStatus.PENDING_NEW and order.status == OrdStatus.NEW:
        target = OrdStatus.NEW  # who has it now need not have taken it yet: the desk has
    if order.next_terms and (algo or target == OrdStatus.PENDING_CANCEL) and target != OrdStatus.FILLED:
        target = OrdStatus.PENDING_REPLACE  # canceled at the broker so as to go on under other terms
    pair = move(order, target)
    closed = target in CLOSED
    if target == OrdStatus.FILLED or (not closed and order.reason in _REFUSALS):
        order.reason = order.reason_detail = ""  # overtaken: it was done all the same, or another broker has it
    if algo:
        _retell(book, order, algo, target)
    order.leaves_quantity = leaves(target, order.quantity, order.filled_quantity, order.time_in_force)
    order.updated_at = at
    pairs = book.touched.setdefault(order_id, [])
    if pair:
        pairs.append(pair)


def _retell(book: Book, order: Order, algo: Algo, status: OrdStatus) -> None:
    """Bring the work on an order in line with how the order stands."""
    if status == OrdStatus.FILLED:
        stop(book, order.id, OrdStatus.CANCELED)
    elif not algo.ended_as:
        order.reason = order.reason_detail = ""  # of a slice; its quantity was given back
    tell_progress(book, order.id)


def stop(book: Book, order_id: UUID, end: OrdStatus) -> None:
    """Plan no more slices of an order; what works at brokers is the caller's. Nothing happens to one that is not worked."""
    algo = book.algos.get(order_id)
    if algo is None or algo.state == Algo.State.OVER:
        return
    algo.state = Algo.State.OVER
    algo.ended_as = OrdStatus.EXPIRED if end == OrdStatus.EXPIRED else OrdStatus.CANCELED
    book.touched_algos.add(order_id)
    tell_progress(book, order_id, slices_left=0, next_slice_at=None)


def tell_progress(book: Book, order_id: UUID, **changed: Any) -> None:
    """Write into an order how far the work on it has come: it stands in every frame and list without being asked for."""
    order, algo = book.orders[order_id], book.algos[order_id]
    told = (order.instructions or {}).get("progress", {}) | changed
    told |= {"state": algo.state, "working_quantity": decimals.text(book.working(order_id))}
    order.instructions = (order.instructions or {}) | {"progress": told}


def close_here(book: Book, order: Order, end: OrdStatus, reason: str, detail: str, at: datetime) -> None:
    """End an order that no broker has seen."""
    stop(book, order.id, end)
    pair = move(order, end)
    order.leaves_quantity = ZERO
    order.reason, order.reason_detail = reason, detail[:200]
    order.updated_at = at
    book.touched.setdefault(order.id, []).extend([pair] if pair else [])


def write(book: Book, *, executions: Sequence[Execution] = (), kinds: dict[UUID, str] | None = None) -> list[Entry]:
    """Write all that changed, one statement a table, and return the journal entries that tell it."""
    sql.update([book.orders[i] for i in book.touched], ORDER_FIELDS)
    if book.touched_algos:
        _write_algos([book.algos[i] for i in sorted(book.touched_algos)])
    sql.update([book.children[i] for i in book.touched_children], CHILD_FIELDS)
    sql.insert(book.new_children)  # after what the old ones gave back: the ceiling counts both
    sql.insert(book.new_submissions)
    sql.insert(executions)
    sql.update(list(book.touched_submissions.values()), SUBMISSION_FIELDS)
    names = Names()
    entries = []
    for execution in executions:
        order = book.orders[execution.order_id]
        instrument = names.instruments[order.instrument_id]
        data = execution_out(execution, names, instrument.currency) | {"symbol": instrument.symbol}
        stream = account_stream(names.accounts[order.account_id])
        entries.append(
            Entry(stream, f"execution.{execution.kind}", str(order.id), json.dumps({"data": data}), "execution")
        )
    for order_id, pairs in book.touched.items():
        order = book.orders[order_id]
        kind = (kinds or {}).get(order_id) or f"order.{order.status}"
        entries.append(order_entry(order, names, kind, pairs))
    if grouped := [book.orders[i] for i in book.touched if book.orders[i].group_told]:
        note_groups([o.id for o in grouped], at=max(o.updated_at for o in grouped))
    remember([book.orders[i] for i in book.touched])
    return entries


def _write_algos(algos: Sequence[Algo]) -> None:
    """Write what became of the work on orders; where it is over, no slice waits any more."""
    sql.update(algos, ALGO_FIELDS)
    over = [a.order_id for a in algos if a.state == Algo.State.OVER]
    sql.run(
        "UPDATE orders_algoslice SET state = 'skipped', detail = 'the work was over before' "
        "WHERE order_id = ANY(%s) AND state IN ('planned', 'claimed')",
        [sql.uuids(over)],
    )


FOLLOWERS: list[Callable[[UUID, datetime], object]] = []
"""Who brings a group in line once one of its orders has changed; `orders.operations.following` puts itself here."""
_NOTE = """
UPDATE orders_ordergroup g SET due_at = %s FROM orders_groupleg l WHERE l.group_id = g.id AND l.order_id = ANY(%s)
RETURNING g.id
"""


def note_groups(order_ids: Collection[UUID], *, at: datetime) -> None:
    """Leave the groups of changed orders due, and have them looked at as soon as the change stands.

    Whoever dies in between leaves them due: the sweep finds them.
    """
    if order_ids:
        found = sql.run(_NOTE, [at, sql.uuids(sorted(order_ids))])
        after_commit(lambda: _follow(found, at))


def _follow(found: Iterable[tuple[UUID]], at: datetime) -> None:
    for (group_id,) in found:
        crash.point("before_groups")
        for follow in FOLLOWERS:
            follow(group_id, at)


def order_entry(order: Order, names: Names, kind: str, transitions: list[list[str]]) -> Entry:
    """Return the journal entry that tells an order as it stands now."""
    body = json.dumps({"data": order_out(order, names), "transitions": transitions})
    return Entry(account_stream(names.accounts[order.account_id]), kind, str(order.id), body, "order")


def remember(orders: Sequence[Order]) -> None:
    """Put the statuses into the cache once the transaction stands."""
    statuses = [status_of(o) for o in orders]
    after_commit(lambda: cache.put(statuses))


ORDER_FIELDS = [
    "status",
    "quantity",
    "limit_price",
    "stop_price",
    "time_in_force",
    "unknown",
    "overfilled",
    "filled_quantity",
    "leaves_quantity",
    "filled_amount",
    "fees",
    "reason",
    "reason_detail",
    "updated_at",
    "triggered_at",
    "instructions",
    "next_terms",
]
CHILD_FIELDS = [
    "status",
    "client_order_id",
    "broker_order_id",
    "quantity",
    "limit_price",
    "stop_price",
    "time_in_force",
    "filled_quantity",
    "leaves_quantity",
    "filled_amount",
    "overfilled",
    "ended_as",
    "standing",
    "updated_at",
]
ALGO_FIELDS = ["state", "end_at", "stop_at", "completing", "ended_as", "refusals", "volume_from", "volume_before"]
SUBMISSION_FIELDS = ["state", "resolved_at", "detail"]
SUBMISSION_UNREAD = ("message", "denials", "log")
"""Documents that only few operations look at; those read them one by one."""


def external_account(book: Book, child: ChildOrder) -> str:
    """Return how the child's broker names the account that it was placed in; those of the whole book are asked for once."""
    if child.broker_account_id not in book.accounts:
        wanted = sorted({c.broker_account_id for c in book.children.values()})
        book.accounts = dict(
            sql.run("SELECT id, external_id FROM brokers_brokeraccount WHERE id = ANY(%s)", [wanted]).fetchall()
        )
    return book.accounts[child.broker_account_id]


def submit_cancel(book: Book, child: ChildOrder, at: datetime, *, due_at: datetime | None = None) -> None:
    """Leave a cancel of a broker order to be sent, at once or when it is due."""
    order = book.orders[child.order_id]
    identifier = uuid7()
    message = CancelOrder(
        client_order_id=broker_client_id(identifier),
        orig_client_order_id=book.newest_name(child),
        broker_order_id=child.broker_order_id or None,
        account=external_account(book, child),
        symbol=brokers.listings()[(child.broker_id, order.instrument_id)].symbol,
        side=order.side,
        quantity=child.quantity,
    )
    submit(book, child, Submission.Kind.CANCEL, identifier, asdict(message), at, reduces=True, due_at=due_at)


def withdraw(book: Book, submission: Submission, at: datetime, detail: str) -> None:
    """Take back a request that was not sent."""
    submission.state, submission.resolved_at, submission.detail = SubmissionState.NOT_SENT, at, detail
    book.touched_submissions[submission.id] = submission


def submit(
    book: Book,
    child: ChildOrder,
    kind: str,
    identifier: UUID,
    message: dict[str, Any],
    at: datetime,
    *,
    reduces: bool,
    due_at: datetime | None = None,
    unit_amount: Decimal | None = None,
) -> None:
    """Leave a request about a broker order to be sent."""
    submission = Submission(
        id=identifier,
        child_id=child.id,
        broker_id=child.broker_id,
        account_id=book.orders[child.order_id].account_id,
        kind=kind,
        client_order_id=message["client_order_id"],
        message=message,
        unit_amount=unit_amount,
        reduces=reduces,
        correlation_id=correlation_id() or book.orders[child.order_id].correlation_id,
        created_at=at,
        judged_at=at,
        due_at=due_at or at,
    )
    book.submissions.setdefault(child.id, []).append(submission)
    book.new_submissions.append(submission)
