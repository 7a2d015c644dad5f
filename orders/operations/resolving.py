"""What becomes of breaks: one person proposes, another approves, and the correction is booked in the decision's transaction.

Every correction is a new fact: a report applied, a trade of origin external, a ledger transaction. Each can be reversed the
same way. Whether it was the right one, the next reconciliation tells.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters.port import FeeItem, NewOrder, Report, ReportKind
from brokers.models import Instrument
from oms.journal import operations as journal
from oms.journal.domain import Entry
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO, text
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import broker_client_id, uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.models import ChildOrder, Execution, Order, Submission
from orders.operations.external import External, book_external, undo
from orders.operations.recording import Book, lock_accounts, lock_book
from orders.operations.reporting import CLIENT_ID_MAX, apply_here
from orders.states import SubmissionState
from portfolio import adjusting
from portfolio.adjusting import Adjustment
from portfolio.models import Account, Break, BrokerLink
from portfolio.reconciling import entry
from risk import operations as risk
from risk.domain.intents import Intent
from risk.models import Approval

Kind, State = Break.Kind, Break.State
ACCEPT, REVERSE = "accept", "reverse"
ACTIONS: dict[str, tuple[str, ...]] = {
    Kind.POSITION: ("adjust", ACCEPT),
    Kind.CASH: ("adjust", "allocate", ACCEPT),
    Kind.MISSING_FILL: ("adopt", ACCEPT),
    Kind.UNKNOWN_FILL: ("bust", ACCEPT),
    Kind.FILL: ("correct", "fees", ACCEPT),
    Kind.MISSING_ORDER: ("adopt", ACCEPT),
    Kind.UNKNOWN_ORDER: ("close", ACCEPT),
    Kind.ORDER: (ACCEPT,),
    Kind.CONFIRMATION: (ACCEPT,),
}
"""What may be proposed for a break. `accept` books nothing: the difference is known, and may stand."""


def find(break_id: UUID) -> Break:
    """Return a break, or raise `NotFound`."""
    row = Break.objects.select_related("account", "owner", "instrument").filter(pk=break_id).first()
    if row is None:
        raise NotFound("not_found", "There is no such break.")
    return row


@in_transaction
def propose(
    break_id: UUID, action: str, *, reason: str, price: Decimal | None = None, actor: Actor, at: datetime
) -> Approval:
    """Propose what is to become of a break; nothing changes until a second person approves.

    `price` values the units of an adjusted position, where the proposal's own is missing or wrong. Raises `NotFound`, `Conflict`
    (break_closed, approval_pending), `Invalid` for an action that the break can't have.
    """
    row = _locked(break_id)
    if row.state in (State.CLOSED, State.RESOLVED):
        raise Conflict("break_closed", f"This break is {row.state}; nothing of it is open.")
    _require_possible(row, action, price)
    row.state, row.reason = State.PROPOSED, reason[:200]
    content = _content(row, action, reason, price)
    approval = risk.ask(Approval.Kind.BREAK, row.pk, action, content, actor=actor, at=at, account=row.account)
    row.save(update_fields=["state", "reason"])
    _tell(row, "break.proposed", actor=actor, at=at)
    return approval


@in_transaction
def propose_reversal(break_id: UUID, *, reason: str, actor: Actor, at: datetime) -> Approval:
    """Propose to take back what was booked to correct a break. Raises `NotFound`, `Conflict` where nothing was, or is any more."""
    row = _locked(break_id)
    booked = row.resolution or {}
    if not (booked.get("transactions") or booked.get("executions")) or booked.get("reversed"):
        raise Conflict("nothing_to_reverse", "Nothing that was booked for this break stands.")
    content = {"break": str(row.pk), "booked": booked, "reason": reason}
    return risk.ask(Approval.Kind.BREAK, row.pk, REVERSE, content, actor=actor, at=at, account=row.account)


@in_transaction
def assign(break_id: UUID, owner: Any, *, actor: Actor, at: datetime) -> Break:
    """Give a break to a person, or to nobody (None). Raises `NotFound`, `Conflict` for a closed one."""
    row = _locked(break_id)
    if row.state == State.CLOSED:
        raise Conflict("break_closed", "This break is closed.")
    row.owner = owner
    row.save(update_fields=["owner"])
    _tell(row, "break.assigned", actor=actor, at=at)
    return row


def _locked(break_id: UUID) -> Break:
    found = find(break_id)
    if found.account_id is not None:
        lock_accounts([found.account_id])
    return (
        Break.objects.select_for_update(of=("self",))
        .select_related("account", "owner", "instrument", "seen_by")
        .get(pk=break_id)
    )


def _require_possible(row: Break, action: str, price: Decimal | None) -> None:
    if action not in ACTIONS[row.kind]:
        raise Invalid("not_a_choice", f"For this break use one of: {', '.join(ACTIONS[row.kind])}.", field="action")
    if price is not None and (row.kind != Kind.POSITION or action != "adjust"):
        raise Invalid(
            "not_allowed", "A price values the units of an adjusted position, and nothing else.", field="price"
        )
    if action == ACCEPT:
        return
    if row.account is None or (row.kind != Kind.CASH and row.instrument is None):
        raise Invalid(
            "not_possible", "The desk doesn't know this account or instrument; it can only be accepted.", field="action"
        )
    proposal = row.proposal or {}
    if action in ("correct", "fees") and proposal.get("action") != action:
        raise Invalid("not_possible", "This is not what differs; look at the proposal.", field="action")
    if row.kind == Kind.POSITION and price is None and "price" not in proposal:
        raise Invalid(
            "required", "Say what a unit is worth: nothing of it is held, and there is no quote.", field="price"
        )
    if row.kind == Kind.POSITION and row.instrument is not None:
        more = (row.theirs or ZERO) - (row.ours or ZERO)
        if not decimals.is_multiple(more, row.instrument.lot_size):
            raise Invalid(
                "off_lot", f"Only multiples of {text(row.instrument.lot_size)} can be booked.", field="action"
            )


def _content(row: Break, action: str, reason: str, price: Decimal | None) -> dict[str, Any]:
    """Return what the approver says yes to."""
    proposal = {k: v for k, v in (row.proposal or {}).items() if k != "action"} if action != ACCEPT else {}
    if row.kind == Kind.POSITION and action == "adjust":
        proposal = {"quantity": text((row.theirs or ZERO) - (row.ours or ZERO)), "price": proposal.get("price")}
        proposal["price"] = text(price) if price is not None else proposal["price"]
    if row.kind == Kind.CASH and action != ACCEPT:
        proposal = {"amount": text((row.theirs or ZERO) - (row.ours or ZERO)), "currency": row.currency}
    return {
        "break": str(row.pk),
        "kind": row.kind,
        "broker": brokers.brokers()[row.broker_id].code,
        "symbol": row.instrument.symbol if row.instrument else None,
        "subject": row.subject,
        "ours": decimals.text_or_none(row.ours),
        "theirs": decimals.text_or_none(row.theirs),
        "books": proposal,
        "reason": reason,
    }


# ---------------------------------------------------------------- deciding


@in_transaction
def decide_break(asked: Approval, decision: str, *, reason: str, seen: str = "", actor: Actor, at: datetime) -> None:
    """Take a second person's decision on a break, and carry out what is approved.

    Raises what `risk.operations.settle` raises, and `Conflict` (break_closed) where a run was faster.
    """
    orders = _orders_of(asked)
    book = lock_book(orders) if orders else Book()
    row = _locked(asked.object_id)
    if asked.action != REVERSE and row.state != State.PROPOSED:
        raise Conflict("break_closed", f"This break is {row.state} by now; nothing waits.")
    approval = risk.settle(asked.id, decision, reason=reason, actor=actor, at=at, seen=seen)
    if approval.status != Approval.Status.APPROVED:
        row.state = State.OPEN if asked.action != REVERSE else row.state
        row.save(update_fields=["state"])
        _tell(row, "break.refused", actor=actor, at=at)
        return
    if asked.action == REVERSE:
        _reverse(book, row, approval, actor, at)
        return
    carry_out = _CARRY_OUT.get((row.kind, asked.action))
    booked = carry_out(book, row, approval, actor, at) if carry_out else {}
    row.resolution = {"action": asked.action, "approval": str(approval.id), "at": json.rfc3339(at), **booked}
    row.state = State.RESOLVED
    row.save(update_fields=["state", "resolution"])
    _tell(row, "break.resolved", actor=actor, at=at)


def _orders_of(asked: Approval) -> list[UUID]:
    """Return the orders that carrying it out would change; they are locked before anything else is."""
    row = find(asked.object_id)
    if asked.action == REVERSE:
        ids = (row.resolution or {}).get("executions", [])
    elif asked.action in ("bust", "correct"):
        ids = [row.detail["execution"]]
    else:
        return []
    return list(Execution.objects.filter(pk__in=ids).values_list("order_id", flat=True))


def _place(row: Break) -> tuple[Account, Instrument]:
    """Return where a correction is booked; that both are known was judged when it was proposed."""
    if row.account is None or row.instrument is None:
        raise Invalid("not_possible", "The desk doesn't know this account or instrument; it can only be accepted.")
    return row.account, row.instrument


def _as_of(row: Break, at: datetime) -> datetime:
    """Return the time that a correction is of: that of the statement which shows the break, so that it is right from then on."""
    return min(row.seen_by.as_of, at) if row.seen_by else at


def _adjust_position(_: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    """Book the units as a trade of origin external, and give its cash back: securities came or went, no cash did."""
    books = approval.content["books"]
    quantity, price = Decimal(books["quantity"]), Decimal(books["price"])
    (account, instrument), then = _place(row), _as_of(row, at)
    broker = brokers.brokers()[row.broker_id].code
    trade = External(
        id=uuid7(), account_id=account.pk, broker=broker, symbol=instrument.symbol,
        side="buy" if quantity > ZERO else "sell", quantity=abs(quantity), price=price, fees=ZERO, executed_at=then,
        name=f"desk-{approval.id}", label=f"break-{approval.id}", note=f"break {row.pk}",
        digest=bytes.fromhex(approval.content_hash), maker_id=approval.maker_id, settle_date=then.date(),
    )  # fmt: skip
    back = Adjustment(account, row.broker_id, instrument.currency, quantity * price)
    transaction, entries = adjusting.post(
        back, source_id=approval.id, note=f"units without cash: break {row.pk}", at=then
    )
    entries += book_external(Book(), trade, at=at)
    journal.append(entries, actor=actor, at=at)
    return {"executions": [str(trade.id)], "transactions": [str(transaction)]}


def _adjust_cash(_: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    books = approval.content["books"]
    assert row.account is not None  # noqa: S101 - judged when it was proposed
    change = Adjustment(
        row.account, row.broker_id, books["currency"], Decimal(books["amount"]), allocate=approval.action == "allocate"
    )
    note = f"{approval.action}: break {row.pk}"
    transaction, entries = adjusting.post(change, source_id=approval.id, note=note, at=_as_of(row, at))
    journal.append(entries, actor=actor, at=at)
    return {"transactions": [str(transaction)]}


def _bust(book: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    execution, reason = Execution.objects.get(pk=row.detail["execution"]), approval.content["reason"]
    undo(book, execution, name=f"desk-{approval.id}", why=reason, actor=actor, at=at)
    return {}


def _correct(book: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    execution, books = Execution.objects.get(pk=row.detail["execution"]), approval.content["books"]
    undo(
        book, execution, name=f"desk-{approval.id}", why=approval.content["reason"], quantity=Decimal(books["quantity"]),
        price=Decimal(books["price"]), actor=actor, at=at,
    )  # fmt: skip
    return {}


def _close_order(_: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    """End an order that the broker doesn't know, as if it had told that it is canceled."""
    child = _known_child(row.broker_id, row.detail["client_order_id"]) or _known_child(row.broker_id, row.subject)
    assert child is not None  # noqa: S101 - the break is about it
    apply_here(row.broker_id, [_about(child, ReportKind.CANCELED, text=approval.content["reason"])], actor=actor, at=at)
    return {}


def _about(child: ChildOrder, kind: ReportKind, **more: Any) -> Report:
    fields: dict[str, Any] = {
        "kind": kind, "client_order_id": child.client_order_id, "account": "", "symbol": "", "side": "",
        "order_status": str(child.status), "order_quantity": child.quantity, "cumulative_quantity": child.filled_quantity,
        "leaves_quantity": child.leaves_quantity, "broker_order_id": child.broker_order_id or None,
    }  # fmt: skip
    return Report(**(fields | more))


# ---------------------------------------------------------------- adopting


def _adopt_fill(_: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    """Apply the broker's fill as the report that we missed; an order that we know nothing of is taken in for it."""
    told, instrument = row.detail, _place(row)[1]
    quantity = Decimal(told["quantity"])
    child = _known_child(row.broker_id, told.get("order_reference", ""))
    if child is None:
        child = _take_in(row, told, approval, quantity, at=at)
    else:
        _make_room(child, quantity)
    fees = (FeeItem("billed", Decimal(told["fees"]), instrument.currency),) if "fees" in told else None
    report = _about(
        child, ReportKind.TRADE, execution_id=row.subject, last_quantity=quantity, last_price=Decimal(told["price"]),
        executed_at=datetime.fromisoformat(told["at"]), side=told["side"], fees=fees, text="adopted",
    )  # fmt: skip
    apply_here(row.broker_id, [report], actor=actor, at=at)
    booked = Execution.objects.filter(broker_account_id=child.broker_account_id, broker_execution_id=row.subject)
    return {"executions": [str(pk) for pk in booked.values_list("id", flat=True)]}


def _adopt_order(_: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> dict[str, Any]:
    """Take in an order that works at the broker: it is held for, shown, and can be canceled like any other."""
    told = row.detail
    assert row.theirs is not None  # noqa: S101 - it works there with so much left
    child = _take_in(row, {**told, "reference": ""}, approval, row.theirs, at=at, works=True)
    apply_here(row.broker_id, [_about(child, ReportKind.NEW, side=told["side"])], actor=actor, at=at)
    return {"order": str(child.order_id)}


def _known_child(broker_id: int, name: str) -> ChildOrder | None:
    if not name:
        return None
    by_request = ChildOrder.objects.filter(broker_id=broker_id, submissions__client_order_id=name).first()
    return by_request or ChildOrder.objects.filter(broker_id=broker_id, broker_order_id=name).first()


def _make_room(child: ChildOrder, quantity: Decimal) -> None:
    """Let an order that was itself taken in grow by what the broker has filled of it since."""
    order = Order.objects.get(pk=child.order_id)
    more = child.filled_quantity + quantity - child.quantity
    if order.origin == "external" and more > ZERO:
        for table, pk in (("orders_order", order.pk), ("orders_childorder", child.pk)):
            sql.run(f"UPDATE {table} SET quantity = quantity + %s WHERE id = %s", [more, pk])
        child.quantity += more


def _take_in(
    row: Break, told: Mapping[str, Any], approval: Approval, quantity: Decimal, *, at: datetime, works: bool = False
) -> ChildOrder:
    """Write an order of origin external as the broker has it, so that its reports find their owner."""
    account, instrument = _place(row)
    link = BrokerLink.objects.select_related("broker_account").get(account=account, broker_id=row.broker_id)
    price = Decimal(told["price"]) if works and told.get("price") else None
    began = datetime.fromisoformat(told["at"]) if told.get("at") else at
    submission_id, name = uuid7(), str(told.get("order_reference") or "")
    client_id = name if 0 < len(name) <= CLIENT_ID_MAX else broker_client_id(submission_id)
    order = Order(
        id=uuid7(), account_id=account.pk, client_order_id=f"adopted-{approval.id}",
        body_hash=bytes.fromhex(approval.content_hash), instrument_id=instrument.pk, side=told["side"],
        quantity=quantity, leaves_quantity=quantity, order_type="limit" if price else "market", limit_price=price,
        time_in_force="gtc" if works else "day", note=f"adopted: break {row.pk}", origin="external",
        created_by_id=approval.maker_id, created_at=at, updated_at=at, decided_at=at,
    )  # fmt: skip
    child = ChildOrder(
        id=uuid7(), order_id=order.pk, broker_id=row.broker_id, broker_account_id=link.broker_account_id,
        client_order_id=client_id, broker_order_id=row.subject[:64] if works else "", quantity=quantity,
        leaves_quantity=quantity, limit_price=price, time_in_force=order.time_in_force, created_at=at, updated_at=at,
    )  # fmt: skip
    message = NewOrder(
        client_order_id=client_id, account=link.broker_account.external_id, side=order.side, quantity=quantity,
        symbol=brokers.listings()[row.broker_id, instrument.pk].symbol, order_type=order.order_type,
        time_in_force=order.time_in_force, limit_price=price,
    )  # fmt: skip
    submission = Submission(
        id=submission_id, child_id=child.pk, broker_id=row.broker_id, account_id=order.account_id,
        kind=Submission.Kind.NEW, client_order_id=client_id, message=json.dumps(message), state=SubmissionState.ACCEPTED,
        created_at=min(began, at), sent_at=min(began, at), due_at=at, judged_at=at, resolved_at=at, denials=[], log=[],
        detail="adopted: the broker had it",
    )  # fmt: skip
    for made in (order, child, submission):
        sql.insert([made])
    if works:
        risk.take_over(_intent(row, order, price), quantity=quantity, at=at)
    return child


def _intent(row: Break, order: Order, price: Decimal | None) -> Intent:
    assert row.account is not None  # noqa: S101 - judged when it was proposed
    return Intent(
        order_id=order.pk, account_id=row.account.pk, account_code=row.account.code, account_open=True,
        base_currency=row.account.base_currency, instrument=brokers.instruments()[order.instrument_id], side=order.side,
        quantity=order.quantity, order_type=order.order_type, limit_price=price, user_id=order.created_by_id,
        time_in_force=order.time_in_force,
    )  # fmt: skip


def _reverse(book: Book, row: Break, approval: Approval, actor: Actor, at: datetime) -> None:
    booked: dict[str, Any] = row.resolution or {}
    entries: list[Entry] = []
    for transaction in booked.get("transactions", []):
        entries += adjusting.reverse(UUID(transaction), note=f"reversed: break {row.pk}", at=at)[1]
    for number, execution in enumerate(Execution.objects.filter(pk__in=booked.get("executions", [])).order_by("id")):
        name = f"desk-{approval.id}-{number}"
        undo(book, execution, name=name, why=approval.content["reason"], actor=actor, at=at)
    row.resolution = {**booked, "reversed": str(approval.id)}
    row.state = State.OPEN if row.state == State.RESOLVED else row.state
    row.save(update_fields=["state", "resolution"])
    journal.append(entries, actor=actor, at=at)
    _tell(row, "break.reversed", actor=actor, at=at)


_CARRY_OUT: dict[tuple[str, str], Callable[[Book, Break, Approval, Actor, datetime], dict[str, Any]]] = {
    (Kind.POSITION, "adjust"): _adjust_position,
    (Kind.CASH, "adjust"): _adjust_cash,
    (Kind.CASH, "allocate"): _adjust_cash,
    (Kind.FILL, "fees"): _adjust_cash,
    (Kind.FILL, "correct"): _correct,
    (Kind.UNKNOWN_FILL, "bust"): _bust,
    (Kind.MISSING_FILL, "adopt"): _adopt_fill,
    (Kind.MISSING_ORDER, "adopt"): _adopt_order,
    (Kind.UNKNOWN_ORDER, "close"): _close_order,
}


def _tell(row: Break, kind: str, *, actor: Actor, at: datetime) -> None:
    codes = {row.account_id: row.account.code} if row.account_id and row.account else {}
    journal.append([entry(row, kind, codes, at=at)], actor=actor, at=at)


__all__ = ["ACTIONS", "assign", "decide_break", "find", "propose", "propose_reversal"]
