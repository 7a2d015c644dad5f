"""Writes of the books: bookings, transfers, accounts, grants, brokers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import msgspec
from django.conf import settings as production
from django.contrib.auth import get_user_model

from brokers import queries as reference
from brokers.adapters import build
from brokers.adapters.reach import HostRefused, judge_settings
from brokers.domain.fees import judge
from brokers.models import Broker, BrokerAccount, BrokerSession, FeeSchedule, Instrument, Listing
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO
from oms.kernel.errors import Conflict, Invalid, NotFound, Refused
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.logs import SECRET_NAMES
from oms.runtime.transactions import in_transaction
from portfolio.balances import add_cash
from portfolio.booking import book
from portfolio.domain.policies import COMMISSIONS, EXPENSED, FIFO, METHODS, PLAIN, POOLED, Policy
from portfolio.domain.posting import Line, transfer_lines
from portfolio.domain.valuation import MID
from portfolio.models import Account, AccountGrant, BrokerLink, LedgerEntry, LedgerTransaction, LotPolicy
from portfolio.rates import rates_of
from portfolio.valuing import equities_now, keep_flows

TRANSFER_KINDS = ("deposit", "withdrawal", "journal")
LEAVING, ARRIVING = "transfer", "transfer_in"
"""Source kinds of a transfer's transaction, and of that in the account a journal moves cash to."""
NOTE_MAX = 200
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
    broker: str = "",
    actor: Actor,
    at: datetime,
) -> UUID:
    """Move cash in, out, or between accounts; return the ledger transaction's id, the first one's on a repeat.

    `broker` tells where it is kept, so that it can be compared with what the broker says. Raises `Invalid` for an unknown account, kind, currency or amount, `Conflict` when a withdrawal exceeds the balance,
    `Refused` when the key was used for another transfer.
    """
    _judge_transfer(account, kind, currency, amount, to)
    owners = _lock_accounts(account, to)
    where = _linked_broker(owners[account], broker) if broker else None
    told = (
        f"{kind} {decimals.text(amount)} {currency}" + (f" to {to}" if to else "") + (f" at {broker}" if broker else "")
    )
    note = told + (f": {reason}" if reason else "")
    source = _source_of(account, key)
    earlier = LedgerTransaction.objects.filter(source_kind=LEAVING, source_id=source).first()
    if earlier is not None:
        if earlier.note != note[:NOTE_MAX]:
            raise Refused("idempotency_conflict", "This key was used for another transfer; use a new one.", field="key")
        return earlier.id
    signed = amount if kind == "deposit" else -amount
    if signed < 0:
        _require_cash(owners[account], currency, amount)
    against = "transfer" if kind == "journal" else "capital"
    lines = transfer_lines(amount=signed, currency=currency, against=against)
    postings = [_Posted(owners[account], LEAVING, source, note, lines, where)]
    if to:
        lines = transfer_lines(amount=amount, currency=currency, against=against)
        postings.append(_Posted(owners[to], ARRIVING, source, note, lines))
    return _post(postings, f"cash.{kind}", actor=actor, at=at)[0]


def _linked_broker(account: Account, code: str) -> int:
    link = BrokerLink.objects.filter(account=account, broker__code=code).first()
    if link is None:
        raise Invalid("no_account", "The account has nothing at a broker of this code.", field="broker")
    return link.broker_id


def _judge_transfer(account: str, kind: str, currency: str, amount: Decimal, to: str) -> None:
    if kind not in TRANSFER_KINDS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(TRANSFER_KINDS)}.", field="kind")
    if not ZERO < amount < decimals.BOUND or amount != decimals.money(amount):
        raise Invalid("not_positive", "The amount must be above zero, with at most eight decimals.", field="amount")
    if (kind == "journal") == (not to) or to == account:
        raise Invalid("unknown_account", "A journal names the other account in `to`; others have none.", field="to")
    traded = {c for i in reference.instruments().values() for c in (i.currency, i.base_currency)}
    if currency not in traded and not Account.objects.filter(base_currency=currency).exists():
        raise Invalid("unknown_currency", "No account is kept and nothing trades in this currency.", field="currency")


def _lock_accounts(account: str, to: str) -> dict[str, Account]:
    codes = {"account": account} | ({"to": to} if to else {})
    rows = Account.objects.filter(code__in=codes.values()).order_by("id").select_for_update(no_key=True)
    owners = {a.code: a for a in rows}
    for field, code in codes.items():
        if code not in owners:
            raise Invalid("unknown_account", "No such account.", field=field)
    return owners


def _require_cash(account: Account, currency: str, amount: Decimal) -> None:
    row = sql.run(
        "SELECT balance FROM portfolio_cashbalance WHERE account_id = %s AND currency = %s",
        [account.id, currency],
    ).fetchone()
    if (row[0] if row else ZERO) < amount:
        raise Conflict("insufficient_cash", f"The account holds less than that in {currency}.")


@dataclass(frozen=True, slots=True)
class _Posted:
    """A ledger transaction of cash alone, to be written."""

    account: Account
    source_kind: str
    source_id: UUID
    note: str
    lines: list[Line]
    broker_id: int | None = None  # where the cash is, as far as anybody said


def _post(postings: Sequence[_Posted], kind: str, *, actor: Actor, at: datetime) -> list[UUID]:
    """Write transactions of cash with their entries, balances and events; return their ids.

    All of it comes from outside of the accounts, or leaves them: what they are worth just before it is kept beside.
    """
    worth = equities_now(sorted({p.account.id for p in postings}), at=at)
    transactions, entries, events = [], [], []
    changes: dict[tuple[int, str, int | None], Decimal] = defaultdict(lambda: ZERO)
    for p in postings:
        transaction = LedgerTransaction(
            id=uuid7(), account_id=p.account.id, source_kind=p.source_kind, source_id=p.source_id, at=at,
            note=p.note[:NOTE_MAX],
        )  # fmt: skip
        transactions.append(transaction)
        entries += [
            LedgerEntry(
                id=uuid7(), transaction_id=transaction.id, account_id=p.account.id, code=line.code,
                currency=line.currency, amount=line.amount, broker_id=p.broker_id if line.code == "cash" else None,
            )
            for line in p.lines
        ]  # fmt: skip
        cash = [line for line in p.lines if line.code == "cash"]
        for line in cash:
            changes[p.account.id, line.currency, p.broker_id] += line.amount
        told = [{"currency": line.currency, "amount": decimals.text(line.amount)} for line in cash]
        data = {"transfer": str(transaction.id), "source_kind": p.source_kind, "cash": told, "note": p.note}
        body = json.dumps({"data": data})
        events.append(Entry(account_stream(p.account.code), kind, str(transaction.id), body, "cash"))
    sql.insert(entries)
    sql.insert(transactions)  # behind their entries: a transaction without any is refused where it is written
    rates_of(entries, at=at)
    add_cash(changes)
    outside = [
        (t.id, p.account.id, line.currency, line.amount)
        for t, p in zip(transactions, postings, strict=True)
        for line in p.lines
        if line.code == "cash"
    ]
    keep_flows(outside, worth, at=at)
    journal.append(events, actor=actor, at=at)
    return [t.id for t in transactions]


@in_transaction
def reverse_transfer(transaction_id: UUID, *, reason: str, actor: Actor, at: datetime, account: str = "") -> UUID:
    """Undo a transfer, in both accounts of a journal, by transactions of opposite sign; return the first one's id.

    With `account`, only a transfer of that account is found. A second time raises `Conflict`.
    """
    kinds = (LEAVING, ARRIVING)
    asked = LedgerTransaction.objects.filter(id=transaction_id, source_kind__in=kinds)
    named = (asked.filter(account__code=account) if account else asked).first()
    if named is None:
        raise NotFound("not_found", "There is no such transfer.")
    legs = LedgerTransaction.objects.filter(source_id=named.source_id, source_kind__in=kinds)
    originals = list(legs.order_by("account_id").prefetch_related("entries"))
    ids = [t.account_id for t in originals]
    owners = {a.id: a for a in Account.objects.filter(id__in=ids).order_by("id").select_for_update(no_key=True)}
    originals.sort(key=lambda t: t.id != named.id)
    postings = []
    for original in originals:
        booked = list(original.entries.all())
        lines = [Line(e.code, e.currency, -e.amount) for e in booked]
        where = next((e.broker_id for e in booked if e.broker_id), None)
        postings.append(_Posted(owners[original.account_id], "reversal", original.id, reason, lines, where))
    with refine(ledger_source_unique=Conflict("already_reversed", "This transfer was reversed before.")):
        return _post(postings, "cash.reversed", actor=actor, at=at)[0]


@in_transaction
def open_account(
    *,
    code: str,
    name: str,
    base_currency: str,
    lot_method: str = FIFO,
    commissions: str = EXPENSED,
    wash_sales: bool = False,
    valued_at: str = MID,
    actor: Actor,
    at: datetime,
) -> Account:
    """Open an account and link it to every broker that takes all accounts. The code can't be used twice.

    Raises `Invalid` for rules of lots that don't go together.
    """
    policy = _judge_policy(Policy(date.min, lot_method, commissions, wash_sales))
    with refine(portfolio_account_code_key=Conflict("account_exists", "There is an account of that code.")):
        account = Account.objects.create(
            code=code, name=name, base_currency=base_currency, lot_method=lot_method, valued_at=valued_at
        )
    if policy != PLAIN:
        _keep_policy(account, policy, "opened with it")
    for broker in Broker.objects.order_by("id"):
        external = broker.settings.get("accounts") or {code: code}
        if code in external:
            _link(account, broker, external[code] or code)
    data = {"account": code, "base_currency": base_currency, **_policy_told(policy)}
    entry = Entry(account_stream(code), "account.opened", code, json.dumps({"data": data}), "account")
    journal.append([entry], actor=actor, at=at)
    return account


@in_transaction
def set_lot_policy(
    *,
    account: str,
    since: date,
    method: str,
    commissions: str,
    wash_sales: bool,
    reason: str,
    actor: Actor,
    at: datetime,
) -> LotPolicy:
    """Let an account match its trades by other rules from a UTC day on; what was executed before keeps the rules it had.

    Raises `Invalid` for rules that don't go together, `Conflict` for a day that has begun or was traded on.
    """
    policy = _judge_policy(Policy(since, method, commissions, wash_sales))
    owner = _lock_accounts(account, "")[account]
    if since <= at.date():
        raise Conflict("too_late", "Rules can change from tomorrow (UTC) on: what is booked keeps those it had.")
    begun = datetime.combine(since, time.min, UTC)
    if sql.run(
        "SELECT 1 FROM portfolio_trade WHERE account_id = %s AND executed_at >= %s LIMIT 1", [owner.pk, begun]
    ).fetchone():
        raise Conflict("too_late", "Trades of that day are booked already; choose a later one.")
    kept = _keep_policy(owner, policy, reason)
    data = {"account": account, "since": since.isoformat(), "reason": reason, **_policy_told(policy)}
    entry = Entry(account_stream(account), "account.lot_policy_set", account, json.dumps({"data": data}), "account")
    journal.append([entry], actor=actor, at=at)
    return kept


def _judge_policy(policy: Policy) -> Policy:
    if policy.method not in METHODS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(METHODS)}.", field="lot_method")
    if policy.commissions not in COMMISSIONS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(COMMISSIONS)}.", field="commissions")
    if policy.wash_sales and policy.method in POOLED:
        raise Invalid("not_allowed", "A pool has no lots that the loss of a wash sale could go to.", field="wash_sales")
    return policy


def _keep_policy(account: Account, policy: Policy, reason: str) -> LotPolicy:
    kept, _ = LotPolicy.objects.update_or_create(
        account=account,
        since=policy.since,
        defaults={
            "method": policy.method,
            "commissions": policy.commissions,
            "wash_sales": policy.wash_sales,
            "reason": reason,
        },
    )
    return kept


def _policy_told(policy: Policy) -> dict[str, Any]:
    return {"lot_method": policy.method, "commissions": policy.commissions, "wash_sales": policy.wash_sales}


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
    *,
    code: str,
    adapter: str,
    settings: Mapping[str, Any],
    actor: Actor,
    at: datetime,
    name: str = "",
    known: bool = True,
) -> Broker:
    """Add a broker with the listings, accounts and fees that its settings imply; a known code gets the new settings.

    Raises `Invalid` for settings that can't be used, `Conflict` for a known code unless it may be `known`.
    """
    require_usable(adapter, settings)
    if not known and Broker.objects.filter(code=code).exists():
        raise Conflict("broker_exists", "There is a broker of that code.")
    kept = {k: v for k, v in settings.items() if k != "fees"}
    BrokerSession.objects.filter(broker__code=code).exclude(broker__adapter=adapter).update(cursor=None)
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


def require_usable(adapter: str, settings: Mapping[str, Any]) -> None:
    """Raise `Invalid` unless the adapter can be built, its host may be reached, and all that the settings name exists and can be read."""
    if production.PRODUCTION:
        _require_no_secret(settings)
    try:
        judge_settings(settings)
        build(adapter, dict(settings)).close()
        _require_known("listings", settings.get("listings"), Instrument.objects.values_list("symbol", flat=True))
        _require_known("accounts", settings.get("accounts"), Account.objects.values_list("code", flat=True))
        for asset_class, items in dict(settings.get("fees") or {}).items():
            if asset_class not in Instrument.AssetClass.values:
                raise ValueError(f"fees: no asset class {asset_class!r}")
            judge(items)
    except Invalid:
        raise
    except HostRefused as error:
        raise Invalid("host_refused", f"{error}.", field="settings") from error
    except KeyError as error:
        raise Invalid("bad_settings", f"The setting {error} is missing.", field="settings") from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, msgspec.MsgspecError) as error:
        raise Invalid("bad_settings", f"These settings can't be used: {error}"[:300], field="settings") from error


def _require_no_secret(settings: Mapping[str, Any]) -> None:
    """Refuse settings that hold a secret themselves: no table keeps one, they name the variable that does."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and set(value) != {"env"}:
            _require_no_secret(value)
        elif isinstance(value, str) and value and SECRET_NAMES.search(str(name)):
            detail = f'{name}: put the secret into the environment and write {{"env": "ITS_NAME"}} here.'
            raise Invalid("secret_in_settings", detail, field="settings")


def _require_known(name: str, wanted: Any, there: Iterable[str]) -> None:
    if unknown := set(wanted or ()) - set(there):
        raise ValueError(f"{name}: nothing named {', '.join(sorted(map(str, unknown))[:5])}")


def _link(account: Account, broker: Broker, external_id: str) -> None:
    there, _ = BrokerAccount.objects.get_or_create(broker=broker, external_id=external_id)
    BrokerLink.objects.get_or_create(account=account, broker=broker, defaults={"broker_account": there})


__all__ = [
    "add_broker",
    "book",
    "grant",
    "open_account",
    "require_usable",
    "reverse_transfer",
    "set_lot_policy",
    "transfer",
]
