"""Proposals to bring accounts to their targets: worked out, kept, and carried from one state to the next.

What a proposal says is never changed. Whoever executes one tells its progress here; orders lie above these rows.
"""

from calendar import monthrange
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from brokers import queries as market
from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.decimals import ZERO, money, text, text_or_none
from oms.kernel.errors import Conflict, Invalid, InvalidFields, NotFound, Refused
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.constraints import refine
from oms.runtime.transactions import in_transaction, require_transaction
from portfolio.domain.lots import LiveTrade
from portfolio.domain.matching import Matching, is_long_term
from portfolio.domain.options import Options
from portfolio.domain.policies import POOLED, Policies
from portfolio.domain.rebalancing import OPTIMISE, Asset, NoPrice, Plan, TaxLot, Trade, Weigh, plan, without_taxes
from portfolio.domain.targets import Targets
from portfolio.domain.tracking import FactorModel, tracking_error
from portfolio.domain.versions import live_trades
from portfolio.loading import policies_of, trades_of
from portfolio.models import (
    Account,
    BrokerLink,
    Rebalance,
    RebalanceLine,
    RebalancePart,
    RebalanceRule,
    RiskLoading,
    RiskModel,
)

Status = Rebalance.Status
WASH_DAYS = timedelta(days=30)
ACCOUNTS_MAX = 100
LINES_MAX = 20_000
NO_OPTIMISER = "The optimiser is not installed (the extra `optimiser`): trades go all the way to the targets."
NO_RISK_MODEL = (
    "No risk model covers these names: the optimiser takes all of them as equally risky and apart from each other."
)
ENDED = frozenset({Status.DONE, Status.INCOMPLETE, Status.CANCELED, Status.REFUSED})


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: accounts by code, targets as spelled and as read, options, and the maker's key if there is one."""

    accounts: Sequence[str]
    spelled: Mapping[str, Any]
    targets: Targets
    options: Options
    key: str = ""
    reason: str = ""
    due_on: date | None = None


# ---------------------------------------------------------------- proposing


@in_transaction
def propose(
    wish: Wish, *, restricted: Collection[int], actor: Actor, at: datetime, unless_empty: bool = False
) -> tuple[Rebalance | None, bool]:
    """Work out and keep what brings accounts to their targets; return it, and whether it is new. With `unless_empty` one that
    trades nothing is not kept, and None is returned.

    A second person must approve it where the rule of any of the accounts says so. The same key of the same maker answers
    with the first proposal. Raises `InvalidFields` for what is unknown, `Refused` where what is held has no price
    (no_price), or the key asked for something else.
    """
    asked = _digest([sorted(wish.accounts), wish.spelled, wish.options.spelled])
    if wish.key and (known := Rebalance.objects.filter(made_by=actor.name, key=wish.key).first()):
        told = [sorted(p.account.code for p in known.parts.select_related("account")), known.targets, known.options]
        if _digest(told) != asked:
            raise Refused(
                "idempotency_conflict", "This key was used for another rebalance; use a new one.", field="key"
            )
        return known, False
    accounts = _accounts(wish.accounts)
    weights = _weights(wish)
    desk = _Desk(accounts, wish, weights, restricted, at)
    rebalance = Rebalance(
        id=uuid7(), key=wish.key, method=wish.options.rules.method, targets=dict(wish.spelled), options=dict(wish.options.spelled),
        second_person=RebalanceRule.objects.filter(account__in=accounts, second_person=True).exists(), due_on=wish.due_on,
        reason=wish.reason[:200], maker_id=actor.user_id, made_by=actor.name, created_at=at,
    )  # fmt: skip
    parts: list[RebalancePart] = []
    lines: list[RebalanceLine] = []
    for account in accounts:
        found, notes = desk.plan(account)
        parts.append(_part(rebalance, account, found, notes, desk.model))
        lines += _lines(rebalance, account, found, desk.assets[account.pk], first=len(lines))
    if unless_empty and not any(line.side for line in lines):
        return None, False
    if len(lines) > LINES_MAX:
        raise Refused("too_large", f"A rebalance has at most {LINES_MAX} lines; name fewer accounts.", field="accounts")
    rebalance.content_hash = _digest([_content(line) for line in lines])
    with refine(rebalance_key_unique=Conflict("idempotency_conflict", "The key is being used by another request.")):
        rebalance.save(force_insert=True)
    RebalancePart.objects.bulk_create(parts)
    sql.insert(lines)
    _tell(rebalance, "proposed", {"accounts": [a.code for a in accounts], "lines": len(lines)}, actor=actor, at=at)
    return rebalance, True


def _digest(content: object) -> str:
    return sha256(json.dump_bytes(content)).hexdigest()


def _content(line: RebalanceLine) -> list[Any]:
    """Return what somebody agrees to: who trades what, which way, how much, at what price at the worst, out of which lots."""
    return [
        line.number, line.account_id, line.instrument_id, line.side, text(line.quantity), text_or_none(line.limit_price),
        [s["lot"] for s in line.sales or []],
    ]  # fmt: skip


def is_as_proposed(rebalance: Rebalance) -> bool:
    """Tell whether the lines still are what the hash was made of."""
    lines = RebalanceLine.objects.filter(rebalance=rebalance).order_by("number")
    return _digest([_content(line) for line in lines]) == rebalance.content_hash


def _accounts(codes: Sequence[str]) -> list[Account]:
    if not 0 < len(set(codes)) <= ACCOUNTS_MAX or len(set(codes)) != len(codes):
        raise Invalid("not_a_list", f"Name 1 to {ACCOUNTS_MAX} accounts, each once.", field="accounts")
    found = {a.code: a for a in Account.objects.filter(code__in=codes)}
    if len(found) != len(codes):
        raise Invalid("unknown_account", "No such account, or none you may trade.", field="account")
    if closed := [a.code for a in found.values() if a.status != Account.Status.OPEN]:
        raise Conflict("account_closed", f"The account is closed: {', '.join(sorted(closed))}.")
    return sorted(found.values(), key=lambda a: a.pk)


def _weights(wish: Wish) -> dict[int, Decimal]:
    """Return the targets by instrument id, and those named as substitutes at zero."""
    symbols = market.instruments_by_symbol()
    named = {
        "targets": wish.targets.weights.keys(),
        "substitutes": {*wish.options.substitutes, *wish.options.substitutes.values()},
    }
    faults = [
        Invalid("unknown_symbol", "No such instrument.", field=f"{where}.{symbol}")
        for where, names in named.items()
        for symbol in sorted(names)
        if symbol not in symbols or not symbols[symbol].active
    ]
    if faults:
        raise InvalidFields(faults)
    return {symbols[s].id: ZERO for s in named["substitutes"]} | {
        symbols[s].id: w for s, w in wish.targets.weights.items()
    }


class _Desk:
    """What the accounts of a proposal hold, what it is worth, and what trading it takes; loaded once for all of them."""

    def __init__(
        self,
        accounts: Sequence[Account],
        wish: Wish,
        weights: Mapping[int, Decimal],
        restricted: Collection[int],
        at: datetime,
    ) -> None:
        self.wish, self.weights, self.restricted, self.at = wish, weights, frozenset(restricted), at
        ids = [a.pk for a in accounts]
        self.instruments = market.instruments()
        self.held = _held(ids)
        self.cash = _cash(ids)
        self.policies = policies_of(ids)
        self.quotes = market.quotes()
        self.rates = Rates(self.quotes, self.instruments)
        self.links = _links(ids)
        rules = wish.options.rules
        taxed = rules.tax_aware or any(p.at(at).wash_sales for p in self.policies.values())
        self.lots = _open_lots(ids) if taxed else {}
        self.bought = _bought_lately(ids, at) if taxed and rules.wash_guard else {}
        self.lost = _lost_lately(ids, self.policies, at) if taxed and rules.wash_guard else set()
        self.model = latest_model()
        self.assets: dict[int, dict[int, Asset]] = {}

    def plan(self, account: Account) -> tuple[Plan, list[str]]:
        held = self.held.get(account.pk, {})
        assets = {i: self._asset(account, i, held.get(i, ZERO)) for i in sorted(held.keys() | self.weights.keys())}
        self.assets[account.pk] = assets
        options, symbols = self.wish.options, market.instruments_by_symbol()
        rules = replace(
            options.rules, substitutes={symbols[a].id: symbols[b].id for a, b in options.substitutes.items()}
        )
        pooled = self.policies.get(account.pk, Policies()).at(self.at).method in POOLED
        notes: list[str] = (
            ["The account keeps no lots apart: taxes are not looked at."] if pooled and rules.tax_aware else []
        )
        try:
            found = plan(
                assets, self._worth(account), self.weights, without_taxes(rules) if pooled else rules, targets=self.wish.targets,
                weigh=self._weigh(assets, notes), cash_flow=options.cash_flow,
            )  # fmt: skip
        except NoPrice as error:
            raise Refused("no_price", f"There is no price or rate for {error}, which {account.code} holds.") from error
        return found, notes

    def _worth(self, account: Account) -> Decimal:
        """Return the cash of an account in its own currency."""
        total = ZERO
        for currency, balance in self.cash.get(account.pk, {}).items():
            value = self.rates.convert(balance, currency, account.base_currency)
            if value is None:
                raise Refused("no_rate", f"There is no rate from {currency} to {account.base_currency}.")
            total += value
        return total

    def _asset(self, account: Account, i: int, quantity: Decimal) -> Asset:
        instrument, quote = self.instruments[i], self.quotes.get(i)
        lots = self.lots.get((account.pk, i), [])
        return Asset(
            instrument, quantity, quote,
            self.rates.convert(Decimal(1), instrument.currency, account.base_currency),
            self._schedules(account, instrument),
            tuple(self._lot(lot) for lot in lots),
            restricted=i in self.restricted,
            buying_washes=i in self.lost,
        )  # fmt: skip

    def _schedules(self, account: Account, instrument: InstrumentRef) -> tuple[Sequence[Mapping[str, Any]], ...]:
        known = market.listings()
        ids = [b for b in self.links.get(account.pk, ()) if (b, instrument.id) in known]
        return tuple(market.fee_items(b, instrument.asset_class, self.at.date()) for b in ids)

    def _lot(self, row: tuple[Any, ...]) -> TaxLot:
        pk, _, instrument_id, opened_at, held_since, remaining, cost = row
        others = [b for b, _ in self.bought.get(instrument_id, ()) if b != pk]
        return TaxLot(
            pk, remaining, cost / remaining, is_long_term(held_since or opened_at, self.at), washes=bool(others)
        )

    def _weigh(self, assets: Mapping[int, Asset], notes: list[str]) -> Weigh | None:
        if self.wish.options.rules.method != OPTIMISE:
            return None
        from portfolio import optimising  # noqa: PLC0415 - the extra is looked for only where it is asked for

        if not optimising.available():
            notes.append(NO_OPTIMISER)
            return None
        model = self.model
        if model is None or not model.knows(list(assets)):
            notes.append(NO_RISK_MODEL)
            model = None
        return optimising.weigher(assets, self.wish.options, model)


def _held(account_ids: Sequence[int]) -> dict[int, dict[int, Decimal]]:
    found: dict[int, dict[int, Decimal]] = defaultdict(dict)
    for account, instrument, quantity in sql.run(
        "SELECT account_id, instrument_id, quantity FROM portfolio_position WHERE account_id = ANY(%s) AND quantity <> 0",
        [list(account_ids)],
    ):
        found[account][instrument] = quantity
    return found


def _cash(account_ids: Sequence[int]) -> dict[int, dict[str, Decimal]]:
    found: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for account, currency, balance in sql.run(
        "SELECT account_id, currency, balance FROM portfolio_cashbalance WHERE account_id = ANY(%s) AND balance <> 0",
        [list(account_ids)],
    ):
        found[account][currency] = balance
    return found


def _links(account_ids: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    rows = BrokerLink.objects.filter(account_id__in=account_ids, broker__enabled=True).order_by("broker_id")
    for account, broker in rows.values_list("account_id", "broker_id"):
        found[account].append(broker)
    return found


def _open_lots(account_ids: Sequence[int]) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    found: dict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
    for row in sql.run(
        "SELECT id, account_id, instrument_id, opened_at, held_since, remaining, coalesce(basis, remaining * price) "
        "FROM portfolio_lot WHERE account_id = ANY(%s) AND closed_at IS NULL AND remaining > 0 ORDER BY opened_at, id",
        [list(account_ids)],
    ):
        found[row[1], row[2]].append(row)
    return found


def _bought_lately(account_ids: Sequence[int], at: datetime) -> dict[int, list[tuple[UUID, int]]]:
    """Return what the accounts together bought within the days of a wash sale and still have, by instrument."""
    found: dict[int, list[tuple[UUID, int]]] = defaultdict(list)
    for pk, account, instrument in sql.run(
        "SELECT id, account_id, instrument_id FROM portfolio_lot "
        "WHERE account_id = ANY(%s) AND closed_at IS NULL AND remaining > 0 AND opened_at > %s",
        [list(account_ids), at - WASH_DAYS],
    ):
        found[instrument].append((pk, account))
    return found


def _lost_lately(account_ids: Sequence[int], policies: Mapping[int, Policies], at: datetime) -> set[int]:
    """Return the instruments that any of the accounts sold at a loss within the days of a wash sale."""
    since = at - WASH_DAYS
    pairs = sql.run(
        "SELECT DISTINCT account_id, instrument_id FROM portfolio_trade "
        "WHERE account_id = ANY(%s) AND executed_at > %s AND quantity < 0 AND kind <> 'bust'",
        [list(account_ids), since],
    ).fetchall()
    trades: Mapping[tuple[int, int], Any] = trades_of(pairs) if pairs else {}
    lost = set()
    for pair in pairs:
        matching = Matching((), policies.get(pair[0], Policies()))
        live: list[LiveTrade] = live_trades(trades[pair])
        matching.run(live)
        if any(c.closed_at > since and c.gain < 0 and c.quantity > 0 for c in matching.closures):
            lost.add(pair[1])
    return lost


def latest_model() -> FactorModel | None:
    """Return the newest risk model, None where none was ever loaded."""
    row = RiskModel.objects.order_by("-as_of", "-id").first()
    if row is None:
        return None
    rows = RiskLoading.objects.filter(model=row).values_list("instrument_id", "loadings", "specific_variance")
    found = list(rows)
    return FactorModel(row.covariance, {i: x for i, x, _ in found}, {i: v for i, _, v in found})


def _part(
    rebalance: Rebalance, account: Account, found: Plan, notes: list[str], model: FactorModel | None
) -> RebalancePart:
    return RebalancePart(
        rebalance=rebalance, account=account, equity=money(found.equity), cash_before=money(found.cash_before),
        cash_after=found.cash_after, cost=found.cost, tax=found.tax, turnover=money(found.turnover), notes=[*notes, *found.notes],
        tracking_error_before=tracking_error(model, found.before, found.target) if model else None,
        tracking_error_after=tracking_error(model, found.after, found.target) if model else None,
    )  # fmt: skip


def _lines(
    rebalance: Rebalance, account: Account, found: Plan, assets: Mapping[int, Asset], *, first: int
) -> list[RebalanceLine]:
    traded = {t.instrument_id for t in found.trades}
    left = [i for i in found.before if i not in traded and (found.before[i] or found.target[i] or i in found.skipped)]
    rows: list[tuple[int, Trade | None]] = [(t.instrument_id, t) for t in found.trades]
    rows += [(i, None) for i in sorted(left, key=lambda i: assets[i].instrument.symbol)]
    return [
        RebalanceLine(
            id=uuid7(), rebalance=rebalance, number=first + n, account=account, instrument_id=i,
            quantity_before=assets[i].quantity, weight_before=found.before[i], weight_target=found.target[i],
            weight_after=found.after.get(i, found.before[i]), skipped=found.skipped.get(i, ""), **(_traded(t) if t else {}),
        )
        for n, (i, t) in enumerate(rows, start=1)
    ]  # fmt: skip


def _traded(trade: Trade) -> dict[str, Any]:
    sales = [
        {
            "lot": str(s.id),
            "quantity": text(s.quantity),
            "gain": text(s.gain),
            "tax": text(s.tax),
            "washed": text(s.washed),
        }
        for s in trade.sales
    ]
    return {
        "side": trade.side, "quantity": trade.quantity, "price": trade.price, "limit_price": trade.limit_price,
        "value": money(trade.value), "cost": trade.cost, "tax": trade.tax, "sales": sales or None,
    }  # fmt: skip


# ---------------------------------------------------------------- from state to state


def locked(rebalance_id: UUID) -> Rebalance:
    """Return a rebalance, locked before any account is, or raise `NotFound`."""
    require_transaction()
    found = Rebalance.objects.select_for_update(no_key=True, of=("self",)).filter(pk=rebalance_id).first()
    if found is None:
        raise NotFound("not_found", "There is no such rebalance.")
    return found


def approve(rebalance: Rebalance, *, actor: Actor, at: datetime) -> None:
    """Write that somebody agreed to what was proposed."""
    rebalance.approver_id, rebalance.approved_at, rebalance.approved_hash = actor.user_id, at, rebalance.content_hash
    move(rebalance, Status.APPROVED, actor=actor, at=at)


def begin(rebalance: Rebalance, *, actor: Actor, at: datetime) -> None:
    """Let a rebalance have its accounts. Raises `Conflict` (rebalance_running) while another trades in one of them."""
    rebalance.executor_id, rebalance.executed_by, rebalance.executed_at = actor.user_id, actor.name, at
    with refine(
        rebalance_one_at_a_time=Conflict("rebalance_running", "Another rebalance trades in one of the accounts.")
    ):
        RebalancePart.objects.filter(rebalance=rebalance).update(trading=True)
    move(rebalance, Status.EXECUTING, actor=actor, at=at)


def move(rebalance: Rebalance, status: str, *, actor: Actor, at: datetime, reason: str = "") -> None:
    """Write a new status; at its end a rebalance gives its accounts free."""
    require_transaction()
    rebalance.status = status
    if reason:
        rebalance.reason = reason[:200]
    if status in ENDED:
        rebalance.ended_at = at
        RebalancePart.objects.filter(rebalance=rebalance).update(trading=False)
    rebalance.save()
    _tell(rebalance, status, {"reason": reason} if reason else {}, actor=actor, at=at)


def note(lines: Iterable[RebalanceLine]) -> None:
    """Write how far the orders of lines have come."""
    sql.update(list(lines), ("order_id", "placed_quantity", "filled_quantity", "outcome"))


def moved_since(rebalance: Rebalance) -> list[str]:
    """Return the symbols of which an account now holds something else than the proposal was made for."""
    rows = sql.run(
        """
        SELECT DISTINCT i.symbol FROM portfolio_rebalanceline l JOIN brokers_instrument i ON i.id = l.instrument_id
        LEFT JOIN portfolio_position p ON p.account_id = l.account_id AND p.instrument_id = l.instrument_id
        WHERE l.rebalance_id = %s AND coalesce(p.quantity, 0) <> l.quantity_before ORDER BY 1
        """,
        [rebalance.pk],
    )
    return [r[0] for r in rows]


def _tell(rebalance: Rebalance, what: str, more: Mapping[str, Any], *, actor: Actor, at: datetime) -> None:
    data = {"rebalance": str(rebalance.pk), "content_hash": rebalance.content_hash, **more}
    entry = Entry(SYSTEM_STREAM, f"rebalance.{what}", str(rebalance.pk), json.dumps({"data": data}))
    journal.append([entry], actor=actor, at=at)


# ---------------------------------------------------------------- rules of accounts


def turn_page(rule: RebalanceRule, *, at: datetime) -> None:
    """Move a rule on to its next day; days that were missed are not made up for."""
    day = rule.next_on
    while day is not None and day <= at.date():
        day = next_day(rule.every, day)
    RebalanceRule.objects.filter(pk=rule.pk).update(next_on=day)
    rule.next_on = day


def next_day(every: str, after: date) -> date:
    """Return the day that follows one by the calendar of a rule; after the last day of a month comes the last of another."""
    days = {RebalanceRule.Every.DAY: 1, RebalanceRule.Every.WEEK: 7}
    if every in days:
        return after + timedelta(days=days[RebalanceRule.Every(every)])
    months = {RebalanceRule.Every.MONTH: 1, RebalanceRule.Every.QUARTER: 3, RebalanceRule.Every.YEAR: 12}[
        RebalanceRule.Every(every)
    ]
    year, month = divmod(after.year * 12 + after.month - 1 + months, 12)
    last = monthrange(year, month + 1)[1]
    at_the_end = after.day == monthrange(after.year, after.month)[1]
    return date(year, month + 1, last if at_the_end else min(after.day, last))
