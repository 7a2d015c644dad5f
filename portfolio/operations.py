"""Writes of the books: bookings, transfers, accounts, grants, brokers."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from django.contrib.auth import get_user_model

from brokers import queries as reference
from brokers.models import Broker, BrokerAccount, FeeSchedule, Instrument, Listing
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.transactions import in_transaction
from portfolio.booking import add_cash, book
from portfolio.domain.posting import transfer_lines
from portfolio.models import Account, AccountGrant, BrokerLink, LedgerEntry, LedgerTransaction

TRANSFER_KINDS = ("deposit", "withdrawal", "journal")
_KEYS = UUID("6f3c2a9e-0d55-5b0a-9a43-0a6b7d1c2e11")


def _source_of(account: str, key: str) -> UUID:
    """Return the ledger source that a client's key stands for, so that the database refuses a second one."""
    return uuid5(_KEYS, f"{account}:{key}")


@in_transaction
def transfer(
    *,
    account: str,
    kind: str,
    currency: str,
    amount: Decimal,
    to: str,
    reason: str,
    key: str,
    actor: Actor,
    at: datetime,
) -> UUID:
    """Move cash in, out, or between accounts; return the ledger transaction's id, the first one's on a repeat.

    Raises `Invalid` for an unknown account, kind or amount, `Conflict` when a withdrawal exceeds the balance or
    the key was used for another transfer.
    """
    if kind not in TRANSFER_KINDS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(TRANSFER_KINDS)}.", field="kind")
    if amount <= 0:
        raise Invalid("not_positive", "The amount must be above zero.", field="amount")
    if (kind == "journal") == (not to) or to == account:
        raise Invalid("unknown_account", "A journal names the other account in `to`; others have none.", field="to")
    rows = {
        a.code: a for a in Account.objects.filter(code__in=[account, to]).order_by("id").select_for_update(no_key=True)
    }
    for field, code in (("account", account), ("to", to)):
        if code and code not in rows:
            raise Invalid("unknown_account", "No such account.", field=field)
    note = (
        f"{kind} {decimals.text(amount)} {currency}" + (f" to {to}" if to else "") + (f": {reason}" if reason else "")
    )
    source = _source_of(account, key)
    earlier = LedgerTransaction.objects.filter(source_kind="transfer", source_id=source).first()
    if earlier is not None:
        if earlier.note != note[:200]:
            raise Conflict("idempotency_conflict", "This key was used for another transfer; use a new one.")
        return earlier.id
    signed = amount if kind == "deposit" else -amount
    if signed < 0:
        _require_cash(rows[account], currency, amount)
    moves = [(rows[account], signed, source)]
    if to:
        moves.append((rows[to], amount, _source_of(to, f"{account}:{key}")))
    first = None
    for owner, change, origin in moves:
        against = "transfer" if kind == "journal" else "capital"
        posted = _post_cash(owner, origin, change, currency, against, note, kind, actor, at)
        first = first or posted
    assert first is not None  # noqa: S101 - there is always one move
    return first


def _require_cash(account: Account, currency: str, amount: Decimal) -> None:
    row = sql.run(
        "SELECT balance FROM portfolio_cashbalance WHERE account_id = %s AND currency = %s",
        [account.id, currency],
    ).fetchone()
    if (row[0] if row else decimals.ZERO) < amount:
        raise Conflict("insufficient_cash", f"The account holds less than that in {currency}.")


def _post_cash(
    account: Account,
    source: UUID,
    amount: Decimal,
    currency: str,
    against: str,
    note: str,
    kind: str,
    actor: Actor,
    at: datetime,
) -> UUID:
    transaction = LedgerTransaction(
        id=uuid7(), account_id=account.id, source_kind="transfer", source_id=source, at=at, note=note[:200]
    )
    sql.insert([transaction])
    sql.insert(
        [
            LedgerEntry(
                id=uuid7(), transaction_id=transaction.id, account_id=account.id, code=line.code,
                currency=line.currency, amount=line.amount,
            )
            for line in transfer_lines(amount=amount, currency=currency, against=against)
        ]
    )  # fmt: skip
    add_cash({(account.id, currency): amount})
    data = {
        "transfer": str(transaction.id),
        "kind": kind,
        "currency": currency,
        "amount": decimals.text(amount),
        "note": note,
    }
    entry = Entry(
        account_stream(account.code),
        f"cash.{kind}",
        str(transaction.id),
        json.dumps({"data": data}),
        "position",
    )
    journal.append([entry], actor=actor, at=at)
    return transaction.id


@in_transaction
def reverse_transfer(transaction_id: UUID, *, reason: str, actor: Actor, at: datetime) -> UUID:
    """Undo a transfer by a transaction of opposite sign; a second time raises `Conflict`."""
    original = LedgerTransaction.objects.filter(id=transaction_id, source_kind="transfer").first()
    if original is None:
        raise NotFound("not_found", "There is no such transfer.")
    account = Account.objects.select_for_update(no_key=True).get(id=original.account_id)
    entries = list(LedgerEntry.objects.filter(transaction_id=original.id))
    reversal = LedgerTransaction(
        id=uuid7(),
        account_id=account.id,
        source_kind="reversal",
        source_id=original.id,
        at=at,
        note=reason[:200],
    )
    with refine(ledger_source_unique=Conflict("already_reversed", "This transfer was reversed before.")):
        sql.insert([reversal])
    sql.insert(
        [
            LedgerEntry(
                id=uuid7(),
                transaction_id=reversal.id,
                account_id=account.id,
                code=e.code,
                currency=e.currency,
                amount=-e.amount,
            )
            for e in entries
        ]
    )
    for entry in entries:
        if entry.code == "cash":
            add_cash({(account.id, entry.currency): -entry.amount})
    body = json.dumps({"data": {"transfer": str(original.id), "reversal": str(reversal.id), "reason": reason}})
    journal.append(
        [Entry(account_stream(account.code), "cash.reversed", str(original.id), body, "position")],
        actor=actor,
        at=at,
    )
    return reversal.id


@in_transaction
def open_account(
    *, code: str, name: str, base_currency: str, lot_method: str = "fifo", actor: Actor, at: datetime
) -> Account:
    """Open an account and link it to every broker that takes all accounts. The code can't be used twice."""
    if lot_method != "fifo":
        raise Invalid("not_supported", "Only fifo is booked yet.", field="lot_method")
    with refine(portfolio_account_code_key=Conflict("account_exists", "There is an account of that code.")):
        account = Account.objects.create(code=code, name=name, base_currency=base_currency, lot_method=lot_method)
    for broker in Broker.objects.order_by("id"):
        if "accounts" not in broker.settings:
            _link(account, broker, code)
    body = json.dumps({"data": {"account": code, "base_currency": base_currency, "lot_method": lot_method}})
    journal.append([Entry(account_stream(code), "account.opened", code, body, "position")], actor=actor, at=at)
    return account


@in_transaction
def grant(*, account: str, user: str, expires_at: datetime | None, actor: Actor, at: datetime) -> AccountGrant:
    """Let a user trade an account, until a time or for good; a repeat changes the expiry."""
    owner = Account.objects.filter(code=account).first()
    trader = get_user_model().objects.filter(username=user, is_active=True).first()
    if owner is None or trader is None:
        raise Invalid("unknown_account" if owner is None else "unknown_user", "No such account or user.", field="user")
    row, _ = AccountGrant.objects.update_or_create(user=trader, account=owner, defaults={"expires_at": expires_at})
    data = {"account": account, "user": user, "expires_at": json.rfc3339_or_none(expires_at)}
    journal.append([Entry(SYSTEM_STREAM, "account.granted", account, json.dumps({"data": data}))], actor=actor, at=at)
    return row


@in_transaction
def add_broker(
    *, code: str, adapter: str, settings: Mapping[str, Any], actor: Actor, at: datetime, name: str = ""
) -> Broker:
    """Add a broker with the listings, accounts and fees that its settings imply; a known code gets the new settings."""
    kept = {k: v for k, v in settings.items() if k != "fees"}
    broker, _ = Broker.objects.update_or_create(
        code=code, defaults={"adapter": adapter, "settings": kept, "name": name or code, "enabled": True}
    )
    wanted = settings.get("listings")
    instruments = Instrument.objects.all() if wanted is None else Instrument.objects.filter(symbol__in=list(wanted))
    Listing.objects.bulk_create(
        [
            Listing(instrument=i, broker=broker, symbol=i.symbol, tick_size=i.tick_size, lot_size=i.lot_size)
            for i in instruments
        ],
        ignore_conflicts=True,
    )
    accounts = settings.get("accounts") or dict.fromkeys(Account.objects.values_list("code", flat=True))
    for account in Account.objects.filter(code__in=list(accounts)):
        _link(account, broker, accounts[account.code] or account.code)
    for asset_class, items in (settings.get("fees") or {}).items():
        FeeSchedule.objects.update_or_create(
            broker=broker,
            asset_class=asset_class,
            effective_from=at.date().replace(month=1, day=1),
            defaults={"items": items},
        )
    data = {"broker": code, "adapter": adapter}
    journal.append([Entry(SYSTEM_STREAM, "broker.added", code, json.dumps({"data": data}))], actor=actor, at=at)
    reference.forget_cache()
    return broker


def _link(account: Account, broker: Broker, external_id: str) -> None:
    there, _ = BrokerAccount.objects.get_or_create(broker=broker, external_id=external_id)
    BrokerLink.objects.get_or_create(account=account, broker=broker, defaults={"broker_account": there})


__all__ = ["add_broker", "book", "grant", "open_account", "reverse_transfer", "transfer"]
