"""Corporate actions: announced once, applied to every account that takes part, taken back by the opposite.

What an account gets follows from its trades before the ex date as they are known now. Of what changes lots a late fill, a
bust or a correction posts the difference at once (`portfolio.rematching`); of a cash dividend, applying again does.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import operations as reference_operations
from brokers import queries as reference
from brokers.domain.reference import InstrumentRef
from brokers.domain.settlement import cycle
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.decimals import EXACT, ZERO, money
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.transactions import in_transaction, require_transaction
from portfolio import rematching
from portfolio.balances import add_cash
from portfolio.domain.actions import Ratio, cost_share
from portfolio.domain.entitlement import claim, ex_date
from portfolio.domain.families import (
    CASH_DIVIDEND,
    DELISTING,
    MERGER,
    ON_LOTS,
    RETURN_OF_CAPITAL,
    REVERSE_SPLIT,
    RIGHTS,
    SPIN_OFF,
    SPLIT,
    STOCK_DIVIDEND,
    SYMBOL_CHANGE,
    TYPES,
)
from portfolio.modelling import retarget
from portfolio.models import Account, CorporateAction, Entitlement, LedgerEntry, LedgerTransaction
from portfolio.rates import rates_of
from portfolio.rematching import Kin, Lines, Posting, applied_actions, fold, lines_of, rematch, tied

SOURCE = rematching.SOURCE
RATIO_MAX = 1_000_000_000
CLAIM_DAYS = 30
"""How long before its ex date a trade may lie that is still to be delivered."""
State = CorporateAction.State


@dataclass(frozen=True, slots=True)
class Due:
    """What an account is entitled to, what it has got so far, and in which currency.

    `amount` is cash, below zero where it pays; `units` what comes and goes by symbol, `gain` what of it all is gain.
    `claims` are the trades whose delivery comes too late, or too early, for the register: the quantity by kind.
    """

    account_id: int
    account: str
    quantity: Decimal
    amount: Decimal
    posted: Decimal
    currency: str
    units: Mapping[str, Decimal] = field(default_factory=dict, compare=False)
    gain: Decimal = ZERO
    claims: Mapping[str, Decimal] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An action as it is announced; what a type needs, and what it must not have, `_judge` says."""

    type: str
    symbol: str
    ratio: Ratio | None = None
    cash: Decimal | None = None
    currency: str | None = None
    target: str = ""
    cash_in_lieu: Decimal | None = None
    cost_share: Decimal | None = None
    price: Decimal | None = None
    own_price: Decimal | None = None
    new_symbol: str = ""
    elections: Mapping[str, Decimal] = field(default_factory=dict)
    declared_on: date | None = None
    ex_date: date | None = None
    record_date: date | None = None
    pay_date: date | None = None


@in_transaction
def announce(announcement: Announcement, *, actor: Actor, at: datetime) -> CorporateAction:
    """Record what an issuer announced. Raises `Invalid` for what can't be, `Conflict` for one that stands already."""
    told = announcement
    instrument = _instrument(told.symbol, "symbol")
    target = _instrument(told.target, "target") if told.target else None
    _judge(told, instrument, target)
    ex = told.ex_date or _ex_date(told, instrument)
    if any(d is not None and d < ex for d in (told.record_date, told.pay_date)) or (told.declared_on or ex) > ex:
        raise Invalid("out_of_range", "Declared on or before the ex date; record and pay date lie on it or after.", field="ex_date")  # fmt: skip
    share = told.cost_share
    if share is None and told.price is not None and told.own_price is not None and told.ratio:
        share = cost_share(told.own_price, told.price, told.ratio).quantize(Decimal("1E-10"), context=EXACT)
    with refine(corporate_action_once=Conflict("action_exists", "This is announced already; reverse it first.")):
        action = CorporateAction.objects.create(
            id=uuid7(), type=told.type, instrument_id=instrument.id, target_id=target.id if target else None,
            ratio_new=told.ratio[0] if told.ratio else None, ratio_old=told.ratio[1] if told.ratio else None,
            cash=told.cash, currency=told.currency or instrument.currency, cash_in_lieu=told.cash_in_lieu, cost_share=share,
            price=told.price, new_symbol=told.new_symbol,
            elections={a: decimals.text(q) for a, q in told.elections.items()}, declared_on=told.declared_on, ex_date=ex,
            record_date=told.record_date, pay_date=told.pay_date or ex, created_by=actor.name, created_at=at,
        )  # fmt: skip
    more = {"ratio": list(told.ratio) if told.ratio else None, "cash": decimals.text_or_none(told.cash)}
    _tell_desk(action, "corporate_action.announced", more, actor=actor, at=at)
    return action


def _instrument(symbol: str, name: str) -> InstrumentRef:
    found = reference.instruments_by_symbol().get(symbol)
    if found is None:
        raise Invalid("unknown_symbol", "No such instrument.", field=name)
    return found


NEEDS: dict[str, frozenset[str]] = {
    CASH_DIVIDEND: frozenset({"cash"}),
    STOCK_DIVIDEND: frozenset({"ratio"}),
    SPLIT: frozenset({"ratio"}),
    REVERSE_SPLIT: frozenset({"ratio"}),
    SPIN_OFF: frozenset({"ratio", "target"}),
    MERGER: frozenset(),
    RIGHTS: frozenset({"ratio", "cash"}),
    SYMBOL_CHANGE: frozenset({"new_symbol"}),
    DELISTING: frozenset(),
    RETURN_OF_CAPITAL: frozenset({"cash"}),
}
MAY: dict[str, frozenset[str]] = {
    STOCK_DIVIDEND: frozenset({"target", "cash_in_lieu", "cost_share", "price", "own_price"}),
    SPLIT: frozenset({"cash_in_lieu"}),
    REVERSE_SPLIT: frozenset({"cash_in_lieu"}),
    SPIN_OFF: frozenset({"cash_in_lieu", "cost_share", "price", "own_price"}),
    MERGER: frozenset({"ratio", "target", "cash", "cash_in_lieu", "price"}),
    RIGHTS: frozenset({"elections"}),
    DELISTING: frozenset({"cash"}),
}
TERMS = ("ratio", "cash", "target", "cash_in_lieu", "cost_share", "price", "own_price", "new_symbol", "elections")


def _judge(told: Announcement, instrument: InstrumentRef, target: InstrumentRef | None) -> None:
    if told.type not in TYPES:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(TYPES)}.", field="type")
    for name in TERMS:
        given = getattr(told, name) not in (None, "") and getattr(told, name) != {}
        if name in NEEDS[told.type] and not given:
            raise Invalid("required", f"A {told.type} needs `{name}`.", field=name)
        if given and name not in NEEDS[told.type] | MAY.get(told.type, frozenset()):
            raise Invalid("not_allowed", f"A {told.type} has no `{name}`.", field=name)
    for name in ("cash", "cash_in_lieu", "price", "own_price"):
        value = getattr(told, name)
        least = ZERO if told.type == DELISTING or name == "cash_in_lieu" else Decimal("1E-10")
        if value is not None and not least <= value < decimals.BOUND:
            raise Invalid("not_positive", "The amount for a unit must be above zero.", field=name)
    _judge_ratio(told)
    _judge_target(told, instrument, target)
    if told.type != CASH_DIVIDEND and (told.currency or instrument.currency) != instrument.currency:
        raise Invalid("currency_mismatch", f"What changes lots is paid in {instrument.currency}.", field="currency")
    if told.new_symbol and told.new_symbol in reference.instruments_by_symbol():
        raise Invalid("symbol_taken", "There is an instrument of that symbol.", field="new_symbol")
    if unknown := set(told.elections) - set(Account.objects.values_list("code", flat=True)):
        raise Invalid("unknown_account", f"No account {sorted(unknown)[0]}.", field="elections")


def _judge_ratio(told: Announcement) -> None:
    if told.ratio is None:
        return
    new, old = told.ratio
    if not (0 < new <= RATIO_MAX and 0 < old <= RATIO_MAX):
        raise Invalid("out_of_range", "A ratio is two whole numbers above zero: new units, old units.", field="ratio")
    if (told.type == SPLIT and new <= old) or (told.type == REVERSE_SPLIT and new >= old):
        raise Invalid(
            "out_of_range", "A split makes more units of fewer, a reverse split fewer of more.", field="ratio"
        )


def _judge_target(told: Announcement, instrument: InstrumentRef, target: InstrumentRef | None) -> None:
    if target is not None and (target.id == instrument.id or target.currency != instrument.currency):
        raise Invalid("not_allowed", "What comes is another instrument, in the same currency.", field="target")
    if told.type == MERGER:
        if (told.ratio is None) != (target is None):
            raise Invalid("required", "Units come by `ratio` of a `target`: tell both or none.", field="target")
        if told.ratio is None and told.cash is None:
            raise Invalid("required", "A merger pays `cash`, units by `ratio` of a `target`, or both.", field="cash")
        if told.ratio and told.cash and told.price is None:
            raise Invalid(
                "required", "With cash and units, the gain needs the `price` of a unit that comes.", field="price"
            )
    elif target is not None and told.cost_share is None and (told.price is None or told.own_price is None):
        raise Invalid(
            "required", "Tell `cost_share`, or `price` of what comes and `own_price` after it.", field="cost_share"
        )
    if told.cost_share is not None and not ZERO <= told.cost_share <= 1:
        raise Invalid("out_of_range", "The share of the cost lies between 0 and 1.", field="cost_share")


def _ex_date(told: Announcement, instrument: InstrumentRef) -> date:
    """Return the ex date that follows from the record date by the market's cycle."""
    if told.record_date is None:
        raise Invalid("required", "Tell the `ex_date`, or the `record_date` that it follows from.", field="ex_date")
    days = cycle(instrument.calendar, instrument.asset_class, told.record_date, instrument.settlement_days)
    calendar = reference.calendar(instrument.calendar) if instrument.calendar else None

    def business(day: date) -> bool:
        trades = calendar.trades_on(day) if calendar else None
        return day.weekday() < 5 if trades is None else trades

    return ex_date(told.record_date, told.pay_date, days, None, business)


def preview(action: CorporateAction) -> list[Due]:
    """Return what every account would get, by account; also those that got something and are entitled to nothing now.

    Raises `Conflict` where a fraction has no price.
    """
    if action.type == SYMBOL_CHANGE:
        return []
    return _cash_due(action) if action.type == CASH_DIVIDEND else _lots_due(action)


def apply(action_id: UUID, *, actor: Actor, at: datetime, cash_in_lieu: Decimal | None = None) -> list[Due]:
    """Give every account what it is entitled to and has not got; return what was looked at. A repeat gives nothing twice.

    A part of the desk's own operation, `orders.operations.restating.apply`, in its transaction.

    `cash_in_lieu` is the price of a whole unit where none was announced. Raises `NotFound`, `Conflict` for one that is
    reversed, whose day has not come, or that pays for fractions at a price nobody told.
    """
    require_transaction()
    action = locked(action_id)
    require_applicable(action, at=at)
    if cash_in_lieu is not None:
        _price_fractions(action, cash_in_lieu)
    _lock_accounts(action)
    due = preview(action)
    first = action.state == State.ANNOUNCED
    if first:
        action.state, action.applied_at = State.APPLIED, at
        action.save(update_fields=["state", "applied_at"])
    if action.type == CASH_DIVIDEND:
        _pay(action, "", actor=actor, at=at)
    elif action.type != SYMBOL_CHANGE:
        _rematch(action, "", actor=actor, at=at)
    if first:
        _change_instrument(action, actor=actor, at=at)
        _tell_desk(action, "corporate_action.applied", {"accounts": len(due)}, actor=actor, at=at)
    return due


def require_applicable(action: CorporateAction, *, at: datetime) -> None:
    """Raise `Conflict` for an action that is reversed or whose day has not come."""
    if action.state == State.REVERSED:
        raise Conflict("action_reversed", "This was reversed; announce it again.")
    day = action.pay_date if action.type == CASH_DIVIDEND else action.ex_date
    if at.date() < day:
        raise Conflict("too_early", f"Its day is {day}.")


def _price_fractions(action: CorporateAction, price: Decimal) -> None:
    if "cash_in_lieu" not in MAY.get(action.type, frozenset()):
        raise Invalid("not_allowed", f"A {action.type} has no `cash_in_lieu`.", field="cash_in_lieu")
    if action.cash_in_lieu not in (None, price):
        raise Conflict("price_told", "Fractions are paid for at another price already; reverse it first.")
    action.cash_in_lieu = price
    action.save(update_fields=["cash_in_lieu"])


@in_transaction
def reverse(action_id: UUID, *, reason: str, actor: Actor, at: datetime) -> CorporateAction:
    """Take back all that was given. Raises `NotFound`, and `Conflict` for one that is reversed."""
    action = locked(action_id)
    if action.state == State.REVERSED:
        raise Conflict("already_reversed", "This was reversed before.")
    _lock_accounts(action)
    was_applied = action.state == State.APPLIED
    action.state, action.reason = State.REVERSED, reason
    action.save(update_fields=["state", "reason"])
    if action.type == CASH_DIVIDEND:
        _pay(action, reason, actor=actor, at=at, nothing=True)
    elif was_applied and action.type != SYMBOL_CHANGE:
        _rematch(action, reason, actor=actor, at=at)
    if was_applied:
        _change_instrument(action, actor=actor, at=at, back=True)
    _tell_desk(action, "corporate_action.reversed", {"reason": reason}, actor=actor, at=at)
    return action


def due_until(day: date) -> list[CorporateAction]:
    """Return what is announced and has its day until one, the earliest first."""
    rows = CorporateAction.objects.filter(state=State.ANNOUNCED, ex_date__lte=day).order_by("ex_date", "id")
    return [a for a in rows if a.type != CASH_DIVIDEND or a.pay_date <= day]


def locked(action_id: UUID) -> CorporateAction:
    """Return an action, locked, or raise `NotFound`."""
    action = CorporateAction.objects.select_for_update().filter(pk=action_id).first()
    if action is None:
        raise NotFound("not_found", "There is no such corporate action.")
    return action


def _lock_accounts(action: CorporateAction) -> None:
    """Lock every account that holds or held the instruments, so that no fill comes between the look and the posting."""
    holders = "SELECT account_id FROM portfolio_position WHERE instrument_id = ANY(%s)"
    sql.run(
        f"SELECT id FROM portfolio_account WHERE id IN ({holders}) ORDER BY id FOR NO KEY UPDATE",
        [[i for i in (action.instrument_id, action.target_id) if i]],
    ).fetchall()


def _change_instrument(action: CorporateAction, *, actor: Actor, at: datetime, back: bool = False) -> None:
    """Rename what has a new symbol; let nobody trade what is gone."""
    if action.type == SYMBOL_CHANGE:
        old = action.instrument.symbol
        reference_operations.rename(action.instrument_id, to=action.new_symbol, actor=actor, at=at)
        retarget(old, action.new_symbol, actor=actor, at=at)
        action.new_symbol = old  # what it is called again if this is reversed
        action.save(update_fields=["new_symbol"])
    elif action.type in (DELISTING, MERGER):
        reference_operations.set_active(action.instrument_id, active=back, actor=actor, at=at)
        if action.target is not None and not back:
            retarget(action.instrument.symbol, action.target.symbol, actor=actor, at=at)


# What changes lots.


def _kin(action: CorporateAction, actions: list[CorporateAction]) -> list[Kin]:
    """Return the holdings of every account that an action reaches, with all that other actions tie to them."""
    instruments, mine = tied(action.instrument_id, actions)
    rows = sql.run(
        "SELECT DISTINCT account_id FROM portfolio_position WHERE instrument_id = %s ORDER BY account_id",
        [action.instrument_id],
    )
    return [Kin(account, instruments, mine) for (account,) in rows]


def _lots_due(action: CorporateAction) -> list[Due]:
    in_force = [a for a in applied_actions() if a.pk != action.pk]
    kin = _kin(action, [*in_force, action])
    families = fold(kin)
    there = rematching.posted([action.pk], [k.account_id for k in kin])
    codes, claims = _codes([k.account_id for k in kin]), _claims(action)
    due = []
    for k, family in zip(kin, families, strict=True):
        lines, posted = lines_of(family.flows(action.pk)), there.get((k.account_id, action.pk), {})
        held = family.held_at(action.pk)
        if not (lines or posted or held):
            continue
        due.append(
            Due(
                k.account_id, codes[k.account_id], held, Posting(k.account_id, action, lines).amount(action.currency),
                Posting(k.account_id, action, posted).amount(action.currency), action.currency, _units(lines),
                -sum((a for (c, *_), (a, _) in lines.items() if c == LedgerEntry.Code.REALIZED), ZERO),
                claims.get(k.account_id, {}),
            )
        )  # fmt: skip
    return sorted(due, key=lambda d: d.account)


def _units(lines: Lines) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for (_, _, instrument, _), (_, quantity) in lines.items():
        if quantity:
            found[reference.instruments()[instrument].symbol] += quantity
    return dict(found)


def _rematch(action: CorporateAction, reason: str, *, actor: Actor, at: datetime) -> None:
    in_force = applied_actions()
    undone = [action] if action.state == State.REVERSED else []
    # The tie of an action that is undone still counts for what is to be matched again.
    kin = _kin(action, [*in_force, *undone])
    for k in kin:
        k.actions = [a for a in k.actions if a.state == State.APPLIED]
    _, postings = rematch(kin, undone=undone, at=at, note=reason)
    codes = _codes([p.account_id for p in postings])
    events = []
    for account_id, code in sorted(codes.items(), key=lambda c: c[1]):
        mine = [p for p in postings if p.account_id == account_id]
        data = {"corporate_action": str(action.pk), "type": action.type, "lines": rematching.told(mine), "note": reason}
        events.append(
            Entry(account_stream(code), "corporate_action.posted", str(action.pk), json.dumps({"data": data}), "cash")
        )
    journal.append(events, actor=actor, at=at)


# What is paid out and changes no lot.


def _cash_due(action: CorporateAction) -> list[Due]:
    held, posted = _held_before(action), _posted(action)
    accounts = {a for a, _ in held} | {a for a, _ in posted}
    codes, claims = _codes(accounts), _claims(action)
    due = []
    for account_id, code in sorted(codes.items(), key=lambda c: c[1]):
        mine = {b: q for (a, b), q in held.items() if a == account_id}
        amount = sum((_paid(action, q) for q in mine.values()), ZERO)
        got = sum((v for (a, _), v in posted.items() if a == account_id), ZERO)
        quantity = sum(mine.values(), ZERO)
        more = claims.get(account_id, {})
        due.append(Due(account_id, code, quantity, amount, got, action.currency, claims=more))
    return due


def _paid(action: CorporateAction, quantity: Decimal) -> Decimal:
    return money(EXACT.multiply(quantity, action.cash or ZERO))


def _codes(account_ids: Any) -> dict[int, str]:
    return dict(Account.objects.filter(id__in=list(account_ids)).values_list("id", "code"))


def _held_before(action: CorporateAction) -> dict[tuple[int, int], Decimal]:
    """Return by account and broker what was held when the ex date began: what is held now without the trades since.

    Where another action has changed the units since, all trades before are counted, in the units of that day.
    """
    since = datetime.combine(action.ex_date, time.min, UTC)
    changed = [
        a for a in applied_actions()
        if action.instrument_id in (a.instrument_id, a.target_id) and a.ex_date >= action.ex_date
    ]  # fmt: skip
    if changed:
        return _held_by_fold(action, since)
    rows = sql.run(
        """
        SELECT p.account_id, p.broker_id, p.quantity - coalesce((
          SELECT sum(t.quantity) FROM portfolio_trade t
          WHERE t.account_id = p.account_id AND t.instrument_id = p.instrument_id AND t.broker_id = p.broker_id
            AND t.executed_at >= %(since)s
            AND t.kind <> 'bust' AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)), 0)
        FROM portfolio_brokerposition p WHERE p.instrument_id = %(instrument)s
        """,
        {"instrument": action.instrument_id, "since": since},
    )
    return {(account, broker): held for account, broker, held in rows if held}


def _held_by_fold(action: CorporateAction, since: datetime) -> dict[tuple[int, int], Decimal]:
    kin = _kin(action, [a for a in applied_actions() if a.ex_date < action.ex_date])
    found = {}
    for k, family in zip(kin, fold(kin, before=since), strict=True):
        for (instrument, broker), quantity in family.held.items():
            if instrument == action.instrument_id and quantity:
                found[k.account_id, broker] = quantity
    return found


def _posted(action: CorporateAction) -> dict[tuple[int, int | None], Decimal]:
    """Return what was paid by account and broker."""
    rows = sql.run(
        "SELECT n.account_id, e.broker_id, sum(e.amount) FROM portfolio_entitlement n "
        "JOIN portfolio_ledgerentry e ON e.transaction_id = n.transaction_id AND e.code = 'cash' "
        "WHERE n.action_id = %s GROUP BY n.account_id, e.broker_id",
        [action.pk],
    )
    return {(account, broker): amount for account, broker, amount in rows if amount}


def _pay(action: CorporateAction, reason: str, *, actor: Actor, at: datetime, nothing: bool = False) -> None:
    """Pay what is due and not paid, by one balanced transaction an account, its entitlement and its event."""
    held, posted = _held_before(action), _posted(action)
    wanted = {} if nothing else {key: _paid(action, quantity) for key, quantity in held.items()}
    changes: dict[int, dict[int | None, Decimal]] = defaultdict(dict)
    for key in sorted(wanted.keys() | posted.keys(), key=lambda k: (k[0], k[1] or 0)):
        if change := wanted.get(key, ZERO) - posted.get(key, ZERO):
            changes[key[0]][key[1]] = change
    if not changes:
        return
    entitlements, transactions, entries, events = [], [], [], []
    codes = _codes(changes)
    note = f"{action.type} {decimals.text(action.cash or ZERO)} {action.currency}" + (f": {reason}" if reason else "")
    for account_id, parts in changes.items():
        row_id, transaction_id, amount = uuid7(), uuid7(), sum(parts.values(), ZERO)
        quantity = sum((q for (a, _), q in held.items() if a == account_id), ZERO)
        entitlements.append(
            Entitlement(
                id=row_id, action_id=action.pk, account_id=account_id, quantity=quantity, amount=amount,
                currency=action.currency, transaction_id=transaction_id, at=at,
            )
        )  # fmt: skip
        transactions.append(
            LedgerTransaction(
                id=transaction_id, account_id=account_id, source_kind=SOURCE, source_id=row_id, at=at, note=note[:200],
            )
        )  # fmt: skip
        lines = [(LedgerEntry.Code.CASH, broker, part) for broker, part in parts.items()]
        entries += [
            LedgerEntry(
                id=uuid7(), transaction_id=transaction_id, account_id=account_id, code=code, currency=action.currency,
                amount=signed, instrument_id=action.instrument_id, broker_id=broker,
            )
            for code, broker, signed in (*lines, (LedgerEntry.Code.DIVIDENDS, None, -amount))
        ]  # fmt: skip
        cash = [{"currency": action.currency, "amount": decimals.text(amount)}]
        data = {"corporate_action": str(action.pk), "quantity": decimals.text(quantity), "cash": cash, "note": note}
        stream = account_stream(codes[account_id])
        events.append(Entry(stream, "corporate_action.posted", str(action.pk), json.dumps({"data": data}), "cash"))
    sql.insert(entries)
    sql.insert(transactions)
    sql.insert(entitlements)
    rates_of(entries, at=at)
    add_cash({(a, action.currency, b): v for a, parts in changes.items() for b, v in parts.items()})
    journal.append(events, actor=actor, at=at)


def _claims(action: CorporateAction) -> dict[int, dict[str, Decimal]]:
    """Return by account the quantity of trades around the ex date that the register of the record date misses, by claim."""
    if action.record_date is None:
        return {}
    start = datetime.combine(action.ex_date - timedelta(days=CLAIM_DAYS), time.min, UTC)
    rows = sql.run(
        "SELECT t.account_id, t.executed_at, t.settle_date, t.quantity FROM portfolio_trade t "
        "WHERE t.instrument_id = %s AND t.executed_at >= %s AND t.executed_at < %s AND t.kind <> 'bust' "
        "AND NOT EXISTS (SELECT 1 FROM portfolio_trade r WHERE r.ref_id = t.id)",
        [action.instrument_id, start, datetime.combine(action.record_date + timedelta(days=1), time.min, UTC)],
    )
    found: dict[int, dict[str, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    for account, executed_at, settles, quantity in rows:
        kind = claim(
            traded=executed_at.astimezone(UTC).date(), settles=settles, ex=action.ex_date, record=action.record_date
        )
        if kind:
            found[account][kind] += quantity
    return {account: dict(kinds) for account, kinds in found.items()}


def _tell_desk(action: CorporateAction, kind: str, more: dict[str, Any], *, actor: Actor, at: datetime) -> None:
    data = {"type": action.type, "instrument": action.instrument_id, "ex_date": action.ex_date.isoformat(), **more}
    journal.append([Entry(SYSTEM_STREAM, kind, str(action.pk), json.dumps({"data": data}))], actor=actor, at=at)


__all__ = [
    "ON_LOTS",
    "TYPES",
    "Announcement",
    "Due",
    "announce",
    "apply",
    "due_until",
    "locked",
    "preview",
    "require_applicable",
    "reverse",
]
