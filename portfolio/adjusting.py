"""Postings that bring our books to what was agreed with somebody else: never an edit, always a transaction with its cause."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from brokers import queries as reference
from oms.journal.domain import Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.decimals import ZERO, money
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import require_transaction
from portfolio.booking import add_cash
from portfolio.models import Account, LedgerEntry, LedgerTransaction
from portfolio.rates import rates_of

SOURCE, REVERSAL = "break", "reversal"
Code = LedgerEntry.Code


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Cash to be posted for an account at a broker, above zero as coming in.

    `allocate`: it is ours already, and only its place is told: no gain, no loss.
    """

    account: Account
    broker_id: int
    currency: str
    amount: Decimal
    allocate: bool = False


def post(adjustment: Adjustment, *, source_id: UUID, note: str, at: datetime) -> tuple[UUID, list[Entry]]:
    """Post an adjustment; return its transaction and the entries that tell it, for the caller to append."""
    amount = money(adjustment.amount)
    against = Code.CASH if adjustment.allocate else Code.ADJUSTMENT
    legs = [(Code.CASH, adjustment.broker_id, amount), (against, None, -amount)]
    return _write(adjustment.account, adjustment.currency, legs, SOURCE, source_id, note, at)


def reverse(transaction_id: UUID, *, note: str, at: datetime) -> tuple[UUID, list[Entry]]:
    """Undo an adjustment by its opposite; `ledger_source_unique` refuses a second time."""
    original = LedgerTransaction.objects.select_related("account").prefetch_related("entries").get(pk=transaction_id)
    booked = list(original.entries.all())
    legs = [(e.code, e.broker_id, -e.amount) for e in booked]
    return _write(original.account, booked[0].currency, legs, REVERSAL, original.id, note, at)


def _write(
    account: Account,
    currency: str,
    legs: Sequence[tuple[str, int | None, Decimal]],
    source_kind: str,
    source_id: UUID,
    note: str,
    at: datetime,
) -> tuple[UUID, list[Entry]]:
    require_transaction()
    transaction = LedgerTransaction(
        id=uuid7(), account_id=account.pk, source_kind=source_kind, source_id=source_id, at=at, note=note[:200]
    )
    entries = [
        LedgerEntry(
            id=uuid7(), transaction_id=transaction.id, account_id=account.pk, code=code, currency=currency, amount=amount,
            broker_id=broker_id,
        )
        for code, broker_id, amount in legs
    ]  # fmt: skip
    sql.insert(entries)
    sql.insert([transaction])  # behind its entries: a transaction without any is refused where it is written
    rates_of(entries, at=at)
    moved: dict[tuple[int, str, int | None], Decimal] = defaultdict(lambda: ZERO)
    for code, broker_id, amount in legs:
        if code == Code.CASH:
            moved[account.pk, currency, broker_id] += amount
    add_cash(moved)
    brokers = reference.brokers()
    told = [
        {"code": code, "broker": brokers[b].code if b else None, "currency": currency, "amount": decimals.text(a)}
        for code, b, a in legs
    ]
    data = {"transaction": str(transaction.id), "source_kind": source_kind, "entries": told, "note": note[:200]}
    body = json.dumps({"data": data})
    return transaction.id, [Entry(account_stream(account.code), "ledger.adjusted", str(transaction.id), body, "cash")]
