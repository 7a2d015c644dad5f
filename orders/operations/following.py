"""Bringing groups in line: children follow what is filled of their parent, siblings what is filled of each other.

One operation compares a group as it stands with what `orders.domain.groups` wants of it, and asks for the difference: it begins
waiting orders, resizes working ones, ends those that nothing is left for. It keeps nothing to itself: every change of a
member leaves the group due, the one who changed it looks at once, the sweep looks at what was left due by whoever died. What a
broker has to answer first is looked at again when it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import structlog

from brokers import queries as brokers
from oms.journal import operations as journal
from oms.journal.domain import Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO, text
from oms.kernel.ids import uuid7
from oms.kernel.reasons import Reason
from oms.runtime import doorbell, rows, sql
from oms.runtime.transactions import after_commit, each, in_transaction
from orders.domain.groups import EXITS, FOLLOWS, IN_SET, Leg, Parent, Policy, Role, excess, wanted
from orders.domain.tickets import Ticket
from orders.models import ChildOrder, GroupLeg, Order, OrderGroup, Submission, Trigger
from orders.operations import recording
from orders.operations.changing import Wanted, abilities_of, submit_replace
from orders.operations.holding import ask_release
from orders.operations.judging import WAIT_FOR_QUOTE, Asked, intents
from orders.operations.linking import Seat, leg_of
from orders.operations.placing import trigger_of, watches_for
from orders.operations.recording import (
    Book,
    close_here,
    lock_accounts,
    lock_book,
    move,
    order_entry,
    refold,
    submit_cancel,
    write,
)
from orders.operations.reporting import cancel_child, settle_child
from orders.operations.triggering import route
from orders.queries import Names, group_out
from orders.states import CLOSED, OrdStatus, SubmissionState
from portfolio.models import Account
from risk import operations as risk
from risk.domain.intents import Verdict

ACTOR = Actor.system("groups")
DUE_MAX = 200
AGAIN = timedelta(seconds=1)
"""When a group that waits for a broker's answer, for a quote or for the end of a halt is looked at again."""
WAITS_ON = WAIT_FOR_QUOTE | {Reason.HALTED}
_OURS = (Reason.SIBLING_FILLED, Reason.SIBLING_CANCELED, Reason.PARENT_ENDED)
"""Ends that came of the group itself: what ended by them may begin again."""
_UNANSWERED = (SubmissionState.SENT, SubmissionState.UNKNOWN)
log = structlog.get_logger(__name__)


def follow_groups(*, at: datetime) -> int:
    """Bring every group in line that is due; return how many were looked at."""
    due = sql.run(
        "SELECT id FROM orders_ordergroup WHERE due_at <= %s ORDER BY due_at LIMIT %s", [at, DUE_MAX]
    ).fetchall()
    return each((group_id for (group_id,) in due), lambda group_id: follow(group_id, at=at))


def _follow_now(group_id: UUID, at: datetime) -> None:
    """Look at a group right after the commit that changed it; whatever goes wrong, the sweep looks again."""
    try:
        follow(group_id, at=at)
    except Exception:
        log.exception("group_not_followed", group=str(group_id))


recording.FOLLOWERS.append(_follow_now)


@in_transaction
def follow(group_id: UUID, *, at: datetime) -> bool:
    """Bring one group in line, if it is due; tell whether anything was asked for."""
    account_id = OrderGroup.objects.values_list("account_id", flat=True).get(pk=group_id)
    lock_accounts([account_id])  # from here on nobody joins it
    group = OrderGroup.objects.select_for_update(no_key=True).get(pk=group_id)
    if group.due_at is None:
        return False
    places = {p.order_id: p for p in GroupLeg.objects.filter(group=group)}
    step = _Step(group, places, lock_book(places), at)
    step.take()
    return step.finish()


@dataclass(slots=True)
class _Step:
    """One look at a group: what stands, what is asked for."""

    group: OrderGroup
    places: dict[UUID, GroupLeg]
    book: Book
    at: datetime
    kinds: dict[UUID, str] = field(default_factory=dict)
    again: bool = False
    left: bool = False
    excess_changed: bool = False
    flatten: tuple[str, Decimal] | None = None  # side and quantity of what would undo the excess
    problems: list[str] = field(default_factory=list)

    @property
    def parent(self) -> Order | None:
        """Return the order that the others wait for, None in an oco."""
        return next((self.book.orders[i] for i, p in self.places.items() if p.role == Role.PARENT), None)

    def take(self) -> None:
        """Ask for what makes the group stand as it should."""
        parent = self.parent
        facts = None if parent is None else Parent(parent.quantity, parent.filled_quantity, parent.status not in CLOSED)
        legs = [self._leg(i, p, parent) for i, p in sorted(self.places.items()) if p.role in FOLLOWS | IN_SET]
        if not legs:
            return
        lot = brokers.instruments()[self.book.orders[legs[0].id].instrument_id].lot_size
        want = wanted(legs, Policy(self.group.partial_fills), facts, lot)
        begin = []
        for leg in legs:
            order = self.book.orders[leg.id]
            if self._wants_begun(order, leg, want[leg.id], facts):
                begin.append((order, want[leg.id]))
        _begin(self, begin)
        self._tell_excess(excess(legs, facts), legs)
        self._note_unprotected(legs, facts)

    def _leg(self, order_id: UUID, place: GroupLeg, parent: Order | None) -> Leg:
        order = self.book.orders[order_id]
        asked = parent.quantity if place.role in EXITS and parent is not None else place.quantity
        return Leg(order_id, Role(place.role), asked, order.filled_quantity, order.reason == Reason.CANCEL_REQUESTED)

    def _wants_begun(self, order: Order, leg: Leg, want: Decimal, parent: Parent | None) -> bool:
        """Do for one leg what can be done at once; tell whether it shall begin to work, or work again."""
        left = want - order.filled_quantity
        may_come = left > 0 or (parent is not None and parent.is_open)
        if may_come and order.status == OrdStatus.CANCELED and order.reason in _OURS and leg.role in FOLLOWS:
            self._wait_again(order, leg.asked)
        if order.status == OrdStatus.HELD and leg.role not in FOLLOWS:  # it waits for another person
            if left < order.leaves_quantity:
                risk.withdraw([order.id])
                self._end(order, self._why(parent))
            return False
        if order.status == OrdStatus.HELD and left <= 0:
            if parent is not None and not parent.is_open:
                self._end(order, self._why(parent))
            elif order.quantity != leg.asked:
                self._resize_here(order, leg.asked)
            return False
        if order.status not in CLOSED and order.status != OrdStatus.HELD:
            self._adjust(order, want, self._why(parent))
            return False
        return left > 0 and order.status in (OrdStatus.HELD, OrdStatus.FILLED)

    def _why(self, parent: Parent | None) -> Reason:
        """Return why nothing is left for a leg."""
        if parent is not None and parent.filled <= 0:
            return Reason.PARENT_ENDED
        given_up = any(
            self.book.orders[i].reason == Reason.CANCEL_REQUESTED for i, p in self.places.items() if p.role == Role.LEG
        )
        return Reason.SIBLING_CANCELED if given_up else Reason.SIBLING_FILLED

    def _adjust(self, order: Order, want: Decimal, why: Reason) -> None:
        """Resize a working order, or end it where nothing is left for it."""
        children = [c for c in self.book.children_of(order.id) if c.status not in CLOSED]
        if order.next_terms and want > order.filled_quantity:
            if Decimal(order.next_terms["quantity"]) != want:
                order.next_terms = {**order.next_terms, "quantity": text(want)}
                self._touch(order, "order.resized")
        elif want == order.quantity or order.status == OrdStatus.PENDING_CANCEL:
            return
        elif any(self._was_refused(c) for c in children):
            self.again = True
        elif want <= order.filled_quantity and not self._is_left_to_broker(children):
            self._end(order, why)
        elif not children:
            if not self.book.children_of(order.id):
                self._resize_here(order, want)
        elif want < order.quantity and self._is_left_to_broker(children):
            self.again = self.left = True
        elif len(children) > 1 or self._is_busy(children[0]):
            self.again = True
        else:
            self._resize_at_broker(order, children[0], want)

    def _is_left_to_broker(self, children: Sequence[ChildOrder]) -> bool:
        """Tell whether a broker reduces an order by itself and is given a moment to say so: its siblings are all there."""
        others = {
            c.broker_id for i, p in self.places.items() if p.role in IN_SET for c in self.book.children_of(i) if c.broker_order_id
        }  # fmt: skip
        if len(others) != 1 or not children or not abilities_of(children[0]).oco or self.parent_shrank:
            return False
        return self.group.left_since is None or self.group.left_since > self.at - AGAIN

    @property
    def parent_shrank(self) -> bool:
        """Tell whether less of the parent is filled than its exits ask for, whatever they filled: no broker knows of that."""
        if self.parent is None:
            return False
        working = [self.book.orders[i] for i, p in self.places.items() if p.role in EXITS]
        return any(
            o.quantity > self.parent.filled_quantity for o in working if o.status not in {*CLOSED, OrdStatus.HELD}
        )

    def _was_refused(self, child: ChildOrder) -> bool:
        """Tell whether a broker refused to end an order a moment ago: it is asked again, but not in a circle."""
        kinds = (Submission.Kind.CANCEL, SubmissionState.REJECTED)
        refused = [s.resolved_at for s in self.book.submissions[child.id] if (s.kind, s.state) == kinds]
        return any(at is not None and at > self.at - AGAIN for at in refused)

    def _is_busy(self, child: ChildOrder) -> bool:
        """Tell whether a broker must answer something about an order before it is asked for more."""
        first = self._first(child)
        pending = (Submission.Kind.CANCEL, Submission.Kind.REPLACE)
        return first.state in _UNANSWERED or any(self.book.pending(child, k) for k in pending)

    def _first(self, child: ChildOrder) -> Submission:
        return next(s for s in self.book.submissions[child.id] if s.kind == Submission.Kind.NEW)

    def _end(self, order: Order, why: Reason) -> None:
        """End an order: at once where no broker has it, else by a cancel."""
        order.reason, order.reason_detail, order.next_terms = why, "", None
        if not self.book.children_of(order.id) or order.status == OrdStatus.HELD:
            close_here(self.book, order, OrdStatus.CANCELED, why, "", self.at)
        else:
            for child in self.book.children_of(order.id):
                if child.status not in CLOSED:
                    cancel_child(self.book, child, self.at)
            refold(self.book, order.id, at=self.at)
        self.kinds[order.id] = "order.cancel_requested" if order.status not in CLOSED else "order.canceled"

    def _wait_again(self, order: Order, asked: Decimal) -> None:
        """Let an order that its siblings left nothing for wait for more of its parent."""
        pair = move(order, OrdStatus.HELD)
        order.reason = order.reason_detail = ""
        self.book.touched.setdefault(order.id, []).extend([pair] if pair else [])
        self._resize_here(order, max(asked, order.filled_quantity), kind="order.held")

    def _resize_here(self, order: Order, quantity: Decimal, *, kind: str = "order.resized") -> None:
        """Change what an order asks for where no broker has it."""
        order.quantity, order.leaves_quantity = quantity, quantity - order.filled_quantity
        self._touch(order, kind)

    def _touch(self, order: Order, kind: str) -> None:
        order.updated_at = self.at
        self.book.touched.setdefault(order.id, [])
        self.kinds[order.id] = kind

    def _resize_at_broker(self, order: Order, child: ChildOrder, want: Decimal) -> None:
        first, quantity = self._first(child), child.quantity + want - order.quantity
        if first.state == SubmissionState.PREPARED:  # nobody has seen it: it goes out as it should be
            first.message = {**first.message, "quantity": text(quantity)}
            sql.run(
                "UPDATE orders_submission SET message = jsonb_set(message, '{quantity}', to_jsonb(%s::text)) WHERE id = %s",
                [text(quantity), first.id],
            )
            order.quantity, child.quantity = want, quantity
        elif not child.broker_order_id:
            self.again = True
            return
        else:
            self._ask_to_resize(order, child, want, quantity)
        settle_child(self.book, child, at=self.at)
        refold(self.book, order.id, at=self.at)
        self.kinds[order.id] = "order.resized"

    def _ask_to_resize(self, order: Order, child: ChildOrder, want: Decimal, quantity: Decimal) -> None:
        """Ask a broker for another quantity; one that takes no replace, or refused this one, for the end and a new order."""
        terms = Wanted(want, order.limit_price, order.stop_price, order.time_in_force)
        refused = [
            s for s in self.book.submissions[child.id]
            if s.kind == Submission.Kind.REPLACE and s.state == SubmissionState.REJECTED and Decimal(s.message["quantity"]) == quantity
        ]  # fmt: skip
        if abilities_of(child).replace and not refused:
            submit_replace(self.book, order, child, terms, None, self.at)
        else:
            order.next_terms = terms.as_json() | {"unit_amount": None}
            submit_cancel(self.book, child, self.at)

    def _tell_excess(self, now: Decimal, legs: Sequence[Leg]) -> None:
        """Alert where more or less than before is filled beyond what the group may, and propose to a person what undoes it."""
        if now == self.group.excess:
            return
        log.error("group_excess", group=str(self.group.id), was=text(self.group.excess), now=text(now))
        self.group.excess, self.excess_changed = now, True
        undoing = ZERO
        for order in [self.book.orders[i] for i, p in self.places.items() if p.role == Role.FLATTEN]:
            if order.status == OrdStatus.HELD:  # for another quantity than is right now
                risk.withdraw([order.id])
                self._end(order, Reason.SIBLING_FILLED)
            undoing += order.filled_quantity + order.leaves_quantity
        sides = {self.book.orders[x.id].side for x in legs if x.role in IN_SET}
        if now > undoing and len({s == "buy" for s in sides}) == 1:
            self.flatten = "sell" if "buy" in sides else "buy", now - undoing
        elif now > undoing:
            self.problems.append("Legs on both sides were filled: look at the position.")

    def _note_unprotected(self, legs: Sequence[Leg], parent: Parent | None) -> None:
        """Note exits that ended otherwise than a person or the group wanted while there is something to protect."""
        if parent is None or parent.filled <= sum((x.filled for x in legs if x.role in EXITS), ZERO):
            return
        for leg in legs:
            order = self.book.orders[leg.id]
            ended = order.status in CLOSED - {OrdStatus.FILLED} and order.reason not in (
                *_OURS,
                Reason.CANCEL_REQUESTED,
            )
            if leg.role in EXITS and ended:
                why = order.reason_detail or order.reason
                self.problems.append(f"The {leg.role.replace('_', ' ')} is {order.status}: {why}")

    def finish(self) -> bool:
        """Write what was asked for, tell a person what one has to know, and note when to look again."""
        if self.book.touched:  # before anything is asked for: no message asks for more than is held
            risk.resize({i: self.book.may_fill(i) for i in self.book.touched})
        entries = write(self.book, kinds=self.kinds) if self.book.touched else []
        group = self.group
        was, group.problem = group.problem, " ".join(self.problems)[:200]
        group.due_at = self.at + AGAIN if self.again else None
        group.left_since = (group.left_since or self.at) if self.left else None
        group.save(update_fields=["excess", "problem", "due_at", "left_since"])
        if self.excess_changed or (group.problem and group.problem != was):
            log.error("group_alert", group=str(group.id), excess=text(group.excess), problem=group.problem)
            entries.append(self._alert())
        if entries:
            journal.append(entries, actor=ACTOR, at=self.at)
        if self.flatten is not None:
            self._propose(*self.flatten)
        codes = {brokers.brokers()[s.broker_id].code for s in self.book.new_submissions}
        if codes:
            after_commit(lambda: doorbell.ring(codes, urgent=True))
        return bool(entries) or self.flatten is not None

    def _alert(self) -> Entry:
        told = group_out(self.group, [(p, self.book.orders[i]) for i, p in self.places.items()])
        stream = account_stream(Names().accounts[self.group.account_id])
        return Entry(stream, "group.alert", str(self.group.id), json.dumps({"data": told}), "risk")

    def _propose(self, side: str, quantity: Decimal) -> None:
        """Leave an order that would undo an excess for a person to let pass, or to turn down."""
        like = self.book.orders[next(i for i, p in self.places.items() if p.role in IN_SET)]
        names, account = Names(), Account.objects.get(pk=like.account_id)
        ticket = Ticket(
            account.code, names.instruments[like.instrument_id].symbol, side, quantity,
            note=f"flattens the {self.group.kind} {self.group.key}"[:200],
        )  # fmt: skip
        order = held_order(ticket, like, Reason.GROUP_EXCESS, Seat(self.group, Role.FLATTEN), at=self.at)
        [event] = journal.append([order_entry(order, names, "order.held", [])], actor=ACTOR, at=self.at)
        order.placed_sequence = event.sequence
        sql.insert([order])
        sql.insert([leg_of(order, Seat(self.group, Role.FLATTEN))])
        ask_release([(order, account, ACTOR)], at=self.at)


def held_order(ticket: Ticket, like: Order, reason: Reason, seat: Seat, *, at: datetime) -> Order:
    """Return an order that waits for a person, for the account, instrument and strategy of another one."""
    order_id = uuid7()
    order = rows.make(
        Order, id=order_id, account_id=like.account_id, client_order_id=str(order_id), body_hash=ticket.digest(),
        instrument_id=like.instrument_id, side=ticket.side, quantity=ticket.quantity, leaves_quantity=ticket.quantity,
        order_type=ticket.order_type, time_in_force=ticket.time_in_force, strategy_id=like.strategy_id, note=ticket.note,
        origin=like.origin, correlation_id=like.correlation_id, instructions={"group": seat.told()}, reason=reason,
        created_at=at, updated_at=at, decided_at=at,
    )  # fmt: skip
    order.hold()
    return order


def _begin(step: _Step, begin: Sequence[tuple[Order, Decimal]]) -> None:
    """Have orders work for what they may now: judged by risk where they begin, then at a broker, or watched by the desk."""
    if not begin:
        return
    verdicts = _judge(step, [(o, w) for o, w in begin if o.status == OrdStatus.HELD])
    exits = {i for i, p in step.places.items() if p.role in EXITS}
    verdicts |= {o.id: Verdict(o.id, True, reduces=o.id in exits) for o, _ in begin if o.status == OrdStatus.FILLED}
    going = [(o, w) for o, w in begin if verdicts[o.id].approved]
    watches = watches_for([o for o, _ in going if o.status == OrdStatus.HELD], at=step.at) if going else {}
    waiting = set(Trigger.objects.filter(pk__in=[o.id for o, _ in going], fired_at=None).values_list("pk", flat=True))
    leaving, before = [], {o.id: o.quantity for o, _ in going}
    for order, want in going:
        order.quantity = want
        if order.id in waiting or (order.id in watches and order.triggered_at is None):
            pair = move(order, OrdStatus.NEW)
            step.book.touched.setdefault(order.id, []).extend([pair] if pair else [])
            step._resize_here(order, want, kind="order.activated")
            if order.id not in waiting:
                sql.insert([trigger_of(order, watches[order.id], step.at)])
        else:
            leaving.append(order)
    nobody = route(step.book, leaving, verdicts, unrouted=None, at=step.at)
    risk.resize(dict.fromkeys(nobody, ZERO))
    for order in leaving:
        if order.id in nobody:
            order.quantity, step.again = before[order.id], True
            step.problems.append(f"The {_words(step, order)} waits: {nobody[order.id]}")
        else:
            step.kinds[order.id] = "order.activated"


def _judge(step: _Step, begin: Sequence[tuple[Order, Decimal]]) -> dict[UUID, Verdict]:
    """Ask risk about orders that begin; one that it refuses ends, one that can't be judged now waits on."""
    if not begin:
        return {}
    units = [w - o.filled_quantity for o, w in begin]
    asked = [Asked(o, n, o.working_type, o.limit_price, o.stop_price) for (o, _), n in zip(begin, units, strict=True)]
    questions = [(i, n) for (i, _), n in zip(intents(step.book, asked), units, strict=True)]
    verdicts = risk.judge_legs(questions, waits_on=WAITS_ON, at=step.at)
    for (order, _), verdict in zip(begin, verdicts, strict=True):
        if verdict.approved:
            continue
        if verdict.reason in WAITS_ON:
            step.again = True
            step.problems.append(f"The {_words(step, order)} waits: {verdict.detail or verdict.reason}")
        else:
            close_here(step.book, order, OrdStatus.DENIED, verdict.reason, verdict.detail, step.at)
            step.kinds[order.id] = "order.denied"
    return {v.order_id: v for v in verdicts}


def _words(step: _Step, order: Order) -> str:
    return str(step.places[order.id].role).replace("_", " ")
