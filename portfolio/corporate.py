"""Corporate actions: announced once, applied to every account that is entitled, taken back by the opposite.

What an account is entitled to follows from its trades before the ex date as they are known now; applying again posts
what a late fill, a bust or a correction has changed since, and nothing where nothing has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as reference
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import EXACT, ZERO, money
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.transactions import in_transaction
from portfolio.booking import add_cash
from portfolio.models import Account, CorporateAction, Entitlement, LedgerEntry, LedgerTransaction

NOT_YET = (
    "split",
    "reverse_split",
    "stock_dividend",
    "spin_off",
    "merger",
    "symbol_change",
    "return_of_capital",
    "rights",
    "delisting",
)
"""Types that no part of the desk carries out yet: refused, never ignored."""
TYPES = tuple(CorporateAction.Type.values)
SOURCE = "corporate"
State = CorporateAction.State


@dataclass(frozen=True, slots=True)
class Due:
    """What an account is entitled to, what it has got so far, and in which currency."""

    account_id: int
    account: str
    quantity: Decimal
    amount: Decimal
    posted: Decimal
    currency: str


@in_transaction
def announce(
    *,
    type: str,  # noqa: A002 - the field's own name
    symbol: str,
    cash: Decimal | None,
    currency: str | None,
    ex_date: date,
    record_date: date | None = None,
    pay_date: date | None = None,
    actor: Actor,
    at: datetime,
) -> CorporateAction:
    """Record what an issuer announced. Raises `Invalid` for what can't be, `Conflict` for one that stands already."""
    if type in NOT_YET:
        raise Invalid("not_supported", "The desk does not carry this out yet.", field="type")
    instrument = reference.instruments_by_symbol().get(symbol)
    if instrument is None:
        raise Invalid("unknown_symbol", "No such instrument.", field="symbol")
    if cash is None or not ZERO < cash < decimals.BOUND:
        raise Invalid("required", "A cash dividend needs its amount per unit, above zero.", field="cash")
    if any(d is not None and d < ex_date for d in (record_date, pay_date)):
        raise Invalid("out_of_range", "Record and pay date lie on the ex date or after it.", field="ex_date")
    with refine(corporate_action_once=Conflict("action_exists", "This is announced already; reverse it first.")):
        action = CorporateAction.objects.create(
            id=uuid7(), type=type, instrument_id=instrument.id, cash=cash, currency=currency or instrument.currency,
            ex_date=ex_date, record_date=record_date, pay_date=pay_date or ex_date, created_by=actor.name, created_at=at,
        )  # fmt: skip
    _tell_desk(action, "corporate_action.announced", {"cash": decimals.text(cash)}, actor=actor, at=at)
    return action


def preview(action: CorporateAction) -> list[Due]:
    """Return what every account would get, by account; also those that got something and are entitled to nothing now."""
    posted = _posted(action)
    held = _held_before(action)
    codes = dict(Account.objects.filter(id__in=held.keys() | posted.keys()).values_list("id", "code"))
    due = []
    for account_id, code in sorted(codes.items(), key=lambda c: c[1]):
        quantity = held.get(account_id, ZERO)
        amount = money(EXACT.multiply(quantity, action.cash))
        due.append(Due(account_id, code, quantity, amount, posted.get(account_id, ZERO), action.currency))
    return due


@in_transaction
def apply(action_id: UUID, *, actor: Actor, at: datetime) -> list[Due]:
    """Pay every account what it is entitled to and has not got; return what was looked at. A repeat pays nothing twice.

    Raises `NotFound`, `Conflict` for one that is reversed, or not paid before its day.
    """
    action = _locked(action_id)
    if action.state == State.REVERSED:
        raise Conflict("action_reversed", "This was reversed; announce it again.")
    if at.date() < action.pay_date:
        raise Conflict("too_early", f"It is paid on {action.pay_date}.")
    _lock_accounts(action)
    due = preview(action)
    _post(action, {d: d.amount - d.posted for d in due if d.amount != d.posted}, "", actor=actor, at=at)
    if action.state == State.ANNOUNCED:
        action.state, action.applied_at = State.APPLIED, at
        action.save(update_fields=["state", "applied_at"])
        _tell_desk(action, "corporate_action.applied", {"accounts": len(due)}, actor=actor, at=at)
    return due


@in_transaction
def reverse(action_id: UUID, *, reason: str, actor: Actor, at: datetime) -> CorporateAction:
    """Take back all that was paid. Raises `NotFound`, and `Conflict` for one that is reversed."""
    action = _locked(action_id)
    if action.state == State.REVERSED:
        raise Conflict("already_reversed", "This was reversed before.")
    _lock_accounts(action)
    paid = [d for d in preview(action) if d.posted]
    _post(action, {d: -d.posted for d in paid}, reason, actor=actor, at=at)
    action.state, action.reason = State.REVERSED, reason
    action.save(update_fields=["state", "reason"])
    _tell_desk(action, "corporate_action.reversed", {"reason": reason}, actor=actor, at=at)
    return action


def due_until(day: date) -> list[CorporateAction]:
    """Return what is announced and to be paid until a day, the earliest first."""
    return list(CorporateAction.objects.filter(state=State.ANNOUNCED, pay_date__lte=day).order_by("pay_date", "id"))


def _locked(action_id: UUID) -> CorporateAction:
    action = CorporateAction.objects.select_for_update().filter(pk=action_id).first()
    if action is None:
        raise NotFound("not_found", "There is no such corporate action.")
    return action


def _lock_accounts(action: CorporateAction) -> None:
    """Lock every account that holds or held the instrument, so that no fill comes between the look and the payment."""
    holders = "SELECT account_id FROM portfolio_position WHERE instrument_id = %s"
    sql.run(
        f"SELECT id FROM portfolio_account WHERE id IN ({holders}) ORDER BY id FOR NO KEY UPDATE",
        [action.instrument_id],
    ).fetchall()


def _held_before(action: CorporateAction) -> dict[int, Decimal]:
    """Return by account what was held when the ex date began: what is held now without the trades since."""
    rows = sql.run(
        """
        SELECT p.account_id, p.quantity - coalesce((
          SELECT sum(t.quantity) FROM portfolio_trade t
          WHERE t.account_id = p.account_id AND t.instrument_id = p.instrument_id AND t.executed_at >= %(since)s
            AND t.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)), 0)
        FROM portfolio_position p WHERE p.instrument_id = %(instrument)s
        """,
        {"instrument": action.instrument_id, "since": datetime.combine(action.ex_date, time.min, UTC)},
    )
    return {account: held for account, held in rows if held}


def _posted(action: CorporateAction) -> dict[int, Decimal]:
    rows = sql.run(
        "SELECT account_id, sum(amount) FROM portfolio_entitlement WHERE action_id = %s GROUP BY account_id",
        [action.pk],
    )
    return dict(rows.fetchall())


def _post(action: CorporateAction, amounts: Mapping[Due, Decimal], reason: str, *, actor: Actor, at: datetime) -> None:
    """Write one balanced transaction an account, with its entitlement, its cash and its event."""
    if not amounts:
        return
    entitlements, transactions, entries, events = [], [], [], []
    for due, amount in amounts.items():
        row_id, transaction_id = uuid7(), uuid7()
        note = f"{action.type} {decimals.text(action.cash)} {action.currency}" + (f": {reason}" if reason else "")
        entitlements.append(
            Entitlement(
                id=row_id, action_id=action.pk, account_id=due.account_id, quantity=due.quantity, amount=amount,
                currency=action.currency, transaction_id=transaction_id, at=at,
            )
        )  # fmt: skip
        transactions.append(
            LedgerTransaction(
                id=transaction_id,
                account_id=due.account_id,
                source_kind=SOURCE,
                source_id=row_id,
                at=at,
                note=note[:200],
            )
        )
        entries += [
            LedgerEntry(
                id=uuid7(), transaction_id=transaction_id, account_id=due.account_id, code=code,
                currency=action.currency, amount=signed, instrument_id=action.instrument_id,
            )
            for code, signed in ((LedgerEntry.Code.CASH, amount), (LedgerEntry.Code.DIVIDENDS, -amount))
        ]  # fmt: skip
        cash = [{"currency": action.currency, "amount": decimals.text(amount)}]
        data = {"corporate_action": str(action.pk), "quantity": decimals.text(due.quantity), "cash": cash, "note": note}
        body = json.dumps({"data": data})
        events.append(Entry(account_stream(due.account), "corporate_action.posted", str(action.pk), body, "cash"))
    sql.insert(entries)
    sql.insert(transactions)
    sql.insert(entitlements)
    add_cash({(due.account_id, action.currency, None): amount for due, amount in amounts.items()})
    journal.append(events, actor=actor, at=at)


def _tell_desk(action: CorporateAction, kind: str, more: dict[str, Any], *, actor: Actor, at: datetime) -> None:
    data = {"type": action.type, "instrument": action.instrument_id, "ex_date": action.ex_date.isoformat(), **more}
    journal.append([Entry(SYSTEM_STREAM, kind, str(action.pk), json.dumps({"data": data}))], actor=actor, at=at)
