"""Settlements: one for each trade that is in force, from its booking until securities and cash have changed hands."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from oms.journal import operations as journal
from oms.journal.domain import Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import text
from oms.kernel.errors import Invalid, NotFound
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from portfolio.domain.settling import CANCELED, FAILED, MARKS, OPEN, PENDING, SETTLED, Progress, mark
from portfolio.models import Account, Settlement

COLUMNS = (
    "trade_id", "account_id", "instrument_id", "currency", "quantity", "amount", "due_on", "state", "settled_quantity",
    "settled_amount", "settled_on",
)  # fmt: skip
REASON_MAX = 150


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a trade in force will move: signed quantity, and cash with the fees of its currency."""

    trade_id: UUID
    account_id: int
    instrument_id: int
    currency: str
    quantity: Decimal
    amount: Decimal
    traded_on: date
    due_on: date


def instruct(instructions: Iterable[Instruction], *, undone: Iterable[UUID]) -> None:
    """Write the settlements of trades just booked, and cancel those of the trades that are `undone`.

    What is due on the day of the trade has settled with it.
    """
    rows: list[tuple[Any, ...]] = []
    for i in instructions:
        plain = (i.trade_id, i.account_id, i.instrument_id, i.currency, i.quantity, i.amount, i.due_on)
        if i.due_on <= i.traded_on:
            rows.append((*plain, SETTLED, i.quantity, i.amount, i.due_on))
        else:
            rows.append((*plain, PENDING, 0, 0, None))
    sql.insert_values(Settlement, COLUMNS, rows)
    if ids := list(undone):
        sql.run("UPDATE portfolio_settlement SET state = %s WHERE trade_id = ANY(%s::uuid[])", [CANCELED, ids])


def due(on: date) -> dict[str, int]:
    """Return by account how many settlements are due until a day."""
    rows = sql.run(
        "SELECT a.code, count(*) FROM portfolio_settlement s JOIN portfolio_account a ON a.id = s.account_id "
        "WHERE s.state = %s AND s.due_on <= %s GROUP BY a.code ORDER BY a.code",
        [PENDING, on],
    )
    return dict(rows.fetchall())


def settle(on: date, *, actor: Actor, at: datetime) -> dict[str, int]:
    """Settle what is due until a day and nobody told to have failed; return by account how many did.

    An account at a time, each in its own transaction; a second run finds nothing left. Raises `Invalid` for a day that
    has not come yet.
    """
    if on > at.date():
        raise Invalid("out_of_range", "Nothing settles before its day.", field="date")
    done = {code: _settle_account(code, on, actor=actor, at=at) for code in due(on)}
    return {code: count for code, count in done.items() if count}


@in_transaction
def _settle_account(code: str, on: date, *, actor: Actor, at: datetime) -> int:
    account = Account.objects.select_for_update(no_key=True).get(code=code)
    moved = sql.run(
        "WITH moved AS (UPDATE portfolio_settlement SET state = %s, settled_quantity = quantity, settled_amount = amount, "
        "settled_on = %s WHERE account_id = %s AND state = %s AND due_on <= %s RETURNING currency, amount) "
        "SELECT currency, count(*), sum(amount) FROM moved GROUP BY currency ORDER BY currency",
        [SETTLED, on, account.pk, PENDING, on],
    ).fetchall()
    if moved:
        cash = [{"currency": currency, "amount": text(amount)} for currency, _, amount in moved]
        data = {"account": code, "date": on.isoformat(), "settled": sum(n for _, n, _ in moved), "cash": cash}
        _tell(code, "settlement.settled", code, data, actor=actor, at=at)
    return sum(n for _, n, _ in moved)


@in_transaction
def mark_settlement(
    trade_id: UUID,
    *,
    account: str,
    state: str,
    reason: str,
    actor: Actor,
    at: datetime,
    quantity: Decimal | None = None,
) -> Settlement:
    """Record what a broker or a custodian told of a settlement: failed, delivered in part, or settled after all.

    Raises `NotFound`, `Conflict` when nothing of it is open, `Invalid` for what doesn't fit.
    """
    if state not in MARKS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(MARKS)}.", field="state")
    Account.objects.select_for_update(no_key=True).filter(code=account).first()
    row = Settlement.objects.select_for_update().filter(pk=trade_id, account__code=account).first()
    if row is None:
        raise NotFound("not_found", "There is no such settlement.")
    before = row.state
    done = mark(
        Progress(row.state, row.settled_quantity, row.settled_amount),
        whole=row.quantity, amount=row.amount, state=state, quantity=quantity,
    )  # fmt: skip
    row.state, row.settled_quantity, row.settled_amount = done.state, done.quantity, done.amount
    row.settled_on = at.date() if state == SETTLED else None
    row.failed_at = (row.failed_at or at) if state == FAILED else row.failed_at
    row.reason = reason[:REASON_MAX]
    row.save()
    data = {
        "trade": str(trade_id), "before": before, "state": row.state, "settled_quantity": text(row.settled_quantity),
        "settled_amount": text(row.settled_amount), "currency": row.currency, "reason": row.reason,
    }  # fmt: skip
    _tell(account, "settlement.marked", str(trade_id), data, actor=actor, at=at)
    return row


def _tell(account: str, kind: str, about: str, data: dict[str, Any], *, actor: Actor, at: datetime) -> None:
    entry = Entry(account_stream(account), kind, about, json.dumps({"data": data}), "settlement")
    journal.append([entry], actor=actor, at=at)


__all__ = ["OPEN", "Instruction", "due", "instruct", "mark_settlement", "settle"]
