"""Fees as they are billed: what a broker's bill says of an execution replaces what was accrued for it.

A bill is a correction of the execution to the same quantity and price with the billed charges, so that ledger, lots, cash,
settlement and the order's fees follow as for any correction, and what was accrued stays to be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from brokers.adapters.port import FeeItem, Report, ReportKind
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.batching import group_by
from oms.kernel.errors import Invalid
from oms.runtime.transactions import in_transaction, require_transaction
from orders.models import Execution
from orders.operations.recording import Book, lock_book
from orders.operations.reporting import Fold

BILL = "bill-"
"""How the execution id of a bill begins; the rest follows from what it corrects and to what."""
BILLS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Bill:
    """What a broker charges for an execution, all of it: below zero it is a rebate."""

    execution_id: UUID
    items: tuple[FeeItem, ...]


@dataclass(frozen=True, slots=True)
class Billed:
    """What became of bills: how many changed what was accrued, and how many said what stands already."""

    changed: int
    unchanged: int


@in_transaction
def bill_fees(bills: Sequence[Bill], *, actor: Actor, at: datetime) -> Billed:
    """Replace accrued fees by billed ones; a repeat changes nothing. All of the bills count or none.

    Raises `InvalidFields` naming the bill: not_found, undone (the execution was busted), repeated.
    """
    return bill_locked(bills, actor=actor, at=at)


def bill_locked(bills: Sequence[Bill], *, actor: Actor, at: datetime) -> Billed:
    """Do what `bill_fees` does in the caller's transaction."""
    require_transaction()
    if len(bills) > BILLS_MAX:
        raise Invalid("too_many", f"At most {BILLS_MAX} bills at once.", field="bills")
    ids = [b.execution_id for b in bills]
    orders = dict(Execution.objects.filter(id__in=ids).values_list("id", "order_id"))
    if unknown := [i for i in ids if i not in orders]:
        raise Invalid("not_found", f"There is no execution {unknown[0]}.", field="bills")
    book = lock_book(orders.values())
    rows = {e.id: e for e in Execution.objects.filter(order_id__in=orders.values())}
    versions = {e.ref_id: e for e in rows.values() if e.ref_id}
    found = [(_in_force(rows[b.execution_id], versions), b) for b in bills]
    if len({e.id for e, _ in found}) < len(found):
        raise Invalid("repeated", "Two bills are for the same execution.", field="bills")
    changing = [(e, b) for e, b in found if _told(e.fee_items) != _told(_items(b))]
    for broker_id, mine in group_by(changing, lambda c: c[0].broker_id).items():
        known = {(e.broker_account_id, e.broker_execution_id): e for e in rows.values() if e.broker_id == broker_id}
        fold = Fold(broker_id, book, known, at)
        for execution, bill in mine:
            fold.take(book.children[execution.child_id], None, _report(book, execution, bill))
        fold.finish(actor)
    return Billed(len(changing), len(found) - len(changing))


def _in_force(execution: Execution, versions: Mapping[UUID, Execution]) -> Execution:
    while execution.id in versions:
        execution = versions[execution.id]
    if execution.kind == Execution.Kind.BUST:
        raise Invalid("undone", f"Execution {execution.ref_id} was busted; nothing is charged for it.", field="bills")
    return execution


def _items(bill: Bill) -> list[dict[str, str]]:
    return [
        {"kind": i.kind, "amount": decimals.text(decimals.money(i.amount)), "currency": i.currency} for i in bill.items
    ]


def _told(items: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    return sorted((i["kind"], i["currency"], decimals.text(decimals.parse(i["amount"]))) for i in items)


def _report(book: Book, execution: Execution, bill: Bill) -> Report:
    child = book.children[execution.child_id]
    digest = sha256(json.dump_bytes([str(execution.id), _told(_items(bill))])).hexdigest()[:32]
    return Report(
        kind=ReportKind.CORRECT,
        client_order_id=child.client_order_id,
        account="",
        symbol="",
        side=execution.side,
        order_status=str(child.status),
        order_quantity=child.quantity,
        cumulative_quantity=child.filled_quantity,
        leaves_quantity=child.leaves_quantity,
        execution_id=f"{BILL}{digest}",
        ref_execution_id=execution.broker_execution_id,
        last_quantity=execution.quantity,
        last_price=execution.price,
        fees=bill.items,
        text="fees as billed",
    )


__all__ = ["BILL", "Bill", "Billed", "bill_fees", "bill_locked"]
