"""Judging a batch of orders in memory, each approved one counting for the next.

What an order takes from its account, and what is free, stands in `risk.domain.margins`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.json import rfc3339
from oms.kernel.reasons import Reason
from risk.domain import aggregates, checks, margins, measures, standing
from risk.domain.compliance import RuleRef
from risk.domain.daytrading import PATTERN_EQUITY, Tally, pattern_rule_holds
from risk.domain.exposures import Claim, Exposures, Holding, Working, worst_of
from risk.domain.intents import Intent, Verdict
from risk.domain.limits import LimitRef, LimitSet
from risk.domain.margins import COLLAR_DEFAULT
from risk.domain.pacing import Pace, PaceKey, seconds_between
from risk.domain.results import Profit, Result, profit_of
from risk.domain.rules import CANCEL_NEWEST, CASH, HOUSE_RULES, Rules
from risk.domain.scopes import Scope, scopes_of
from risk.domain.selftrade import Prevented, Resting, mode_of, prevent, would_meet

QUOTE_AGE_DEFAULT = Decimal(60)


@dataclass(frozen=True, slots=True)
class HaltRef:
    """A halt engaged."""

    mode: str
    scope: Scope


OpenKey = tuple[int, int, int | None, int | None]
"""(account id, instrument id, user id, strategy id): how many orders of each may still be filled is counted."""


def open_key(intent: Intent) -> OpenKey:
    """Return what an order counts as."""
    return intent.account_id, intent.instrument.id, intent.user_id, intent.strategy_id


@dataclass(frozen=True, slots=True)
class MandateRef:
    """What the orders of a scope may trade, by one dimension of the instrument."""

    scope: Scope
    dimension: str
    allowed: str

    def value_of(self, instrument: InstrumentRef) -> str:
        """Return what an instrument is in this dimension."""
        return str(getattr(instrument, self.dimension))


@dataclass(slots=True)
class Facts:
    """What a batch is judged by, as it stood when the accounts were locked.

    `shortable` holds (broker code, instrument id), with an empty code for any broker; `recent` the
    fingerprints of orders approved inside their duplicate window; `watched` since when an instrument is looked at. `sessions` tells whether exchange hours are kept,
    `closed` which instruments' exchanges are closed. What stands after that is filled only where a limit asks for it:
    `results` and `peaks` (the highest profit seen) by account, `paces`, `open_orders` as counted, and `by_strategy` what
    a strategy holds and works in an account. And where an account has `rules` that ask: `receivable` proceeds by account
    and currency that have not settled, units `located` for today and `borrowed` (short when the day began) by account and
    instrument, `day_trades` by account and the `tallies` of today by account and instrument, instruments that would be
    held `overnight`, and the orders `resting`. `sums` are of the scopes that aggregate limits bind, `traded` and
    `traded_daily` the units of the last half hour and of an average day, `compliance` the rules for orders. `auctions` tells the seconds until those of an instrument, by time in force.
    `sets` has the working orders, by id, of each set that an order of the batch belongs to in which one cancels the others.
    """

    at: datetime
    instruments: Mapping[int, InstrumentRef]
    quotes: Mapping[int, QuoteRef]
    rates: Rates
    limits: list[LimitRef] = field(default_factory=list)
    halts: list[HaltRef] = field(default_factory=list)
    restricted: set[int] = field(default_factory=set)
    watched: dict[int, datetime] = field(default_factory=dict)
    mandates: list[MandateRef] = field(default_factory=list)
    shortable: set[tuple[str, int]] = field(default_factory=set)
    holdings: dict[tuple[int, int], Holding] = field(default_factory=dict)
    cash: dict[int, dict[str, Decimal]] = field(default_factory=dict)
    recent: set[bytes] = field(default_factory=set)
    sessions: bool = False
    closed: set[int] = field(default_factory=set)
    results: dict[int, list[Result]] = field(default_factory=dict)
    peaks: dict[int, Decimal] = field(default_factory=dict)
    paces: dict[PaceKey, Pace] = field(default_factory=dict)
    open_orders: Counter[OpenKey] = field(default_factory=Counter)
    by_strategy: dict[tuple[int, int], dict[int, Holding]] = field(default_factory=dict)
    rules: dict[int, Rules] = field(default_factory=dict)
    receivable: dict[int, dict[str, Decimal]] = field(default_factory=dict)
    located: dict[tuple[int, int], Decimal] = field(default_factory=dict)
    borrowed: dict[tuple[int, int], Decimal] = field(default_factory=dict)
    day_trades: dict[int, int] = field(default_factory=dict)
    tallies: dict[tuple[int, int], Tally] = field(default_factory=dict)
    overnight: set[int] = field(default_factory=set)
    resting: list[Resting] = field(default_factory=list)
    auctions: dict[tuple[int, str], Decimal] = field(default_factory=dict)
    sums: dict[Scope, aggregates.Sum] = field(default_factory=dict)
    sets: dict[UUID, dict[UUID, Working]] = field(default_factory=dict)
    traded: dict[int, Decimal] = field(default_factory=dict)
    traded_daily: dict[int, Decimal] = field(default_factory=dict)
    compliance: Sequence[RuleRef] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an approved order holds: units, cash per unit in the instrument's currency, and its fingerprint."""

    quantity: Decimal
    unit_amount: Decimal
    fingerprint: bytes | None


def fingerprint(intent: Intent) -> bytes:
    """Return a hash of what makes two orders the same to the eye: account, user, symbol, side, quantity, prices."""
    parts = (
        intent.account_id, intent.user_id, intent.instrument.id, intent.side, intent.order_type, decimals.text(intent.quantity),
        decimals.text_or_none(intent.limit_price), decimals.text_or_none(intent.stop_price),
    )  # fmt: skip
    return sha256(repr(parts).encode()).digest()[:16]


class Gate:
    """The facts of a batch and the orders already let through.

    A limit binds each account's own orders and positions, whoever it names: a firm's position limit is the
    one of every account, unless it is `aggregate` and binds their sum.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.paced: set[PaceKey] = set()
        """The buckets that approved orders filled, to be stored."""
        self._limits: dict[frozenset[tuple[str, str]], LimitSet] = {}
        self._free: dict[int, Decimal | None] = {}
        self._exposures: dict[int, Exposures] = {}
        self._equity: dict[int, Decimal | None] = {}
        self._profits: dict[int, Profit] = {}
        self._unit_values: dict[tuple[int, str], Decimal | None] = {}

    def limits_for(self, intent: Intent) -> LimitSet:
        """Return the limits that bind an order."""
        scopes = scopes_of(intent)
        if scopes not in self._limits:
            self._limits[scopes] = LimitSet(x for x in self.facts.limits if x.binds in scopes)
        return self._limits[scopes]

    def rules_of(self, intent: Intent) -> Rules:
        """Return the rules of the order's account."""
        return self.facts.rules.get(intent.account_id, HOUSE_RULES)

    def judge(
        self, intent: Intent, *, working: Decimal | None = None, waived: bool = False
    ) -> tuple[Verdict, Reservation | None]:
        """Return the verdict on one order and, if approved, what it holds; the next order sees it.

        `working` is what may still be filled of an order that is replaced, whose own hold was taken out before
        (`take_out`); a replace is no duplicate of anything. `waived`: it was let through before, by
        the desk or by another person, so neither soft limits nor rates have a say.

        One of a set in which one cancels the others is judged as if it were alone, and counts for what it adds to their worst.
        """
        if intent.oco is None:
            return self._judge(intent, working=working, waived=waived)
        others = self.facts.sets.setdefault(intent.oco, {})
        apart = worst_of(others.values())
        self._move(intent, Claim() - apart)
        verdict, reservation = self._judge(intent, working=working, waived=waived)
        alone = Claim()
        if reservation is not None:
            own = Working(intent.side, reservation.quantity, reservation.quantity * reservation.unit_amount)
            others[intent.order_id], alone = own, worst_of([own])
        self._move(intent, worst_of(others.values()) - alone)
        return verdict, reservation

    def _judge(self, intent: Intent, *, working: Decimal | None, waived: bool) -> tuple[Verdict, Reservation | None]:
        quantity, is_new = (intent.quantity, True) if working is None else (working, False)
        done: list[dict[str, Any]] = []
        reduces = self.holding(intent).reduced_by(intent.side, quantity)
        for check in self._checks(intent, quantity, reduces, is_new=is_new, paced=not waived):
            reason = check.judge()
            done.append(check.as_json(reason))
            if reason is not None:
                return Verdict(intent.order_id, False, reason.value, check.explain(reason)[:200], done, reduces), None
        mine = self._prevented(intent, quantity, done, can_wait=is_new or waived)
        if mine is not None and mine[0].quantity == 0:
            told = Reason.SELF_TRADE.value, mine[1], done, reduces
            return Verdict(intent.order_id, False, *told, prevented=mine[0]), None
        if not waived and (breach := self._soft_breach(intent, quantity, reduces, done, is_new=is_new)):
            reason, detail = breach
            return Verdict(intent.order_id, False, reason.value, detail, done, reduces, held=True), None
        if mine is not None:
            told = Reason.SELF_TRADE.value, mine[1], done, reduces
            return Verdict(intent.order_id, False, *told, held=True, prevented=mine[0]), None
        unit = self.unit_amount(intent, quantity)
        window = self.limits_for(intent).duplicate_window(intent) if is_new else ZERO
        mark = fingerprint(intent) if window > 0 else None
        self.let_through(intent, quantity, unit, mark, is_new=is_new, paced=not waived)
        return Verdict(intent.order_id, True, "", "", done, reduces), Reservation(quantity, unit, mark)

    def _prevented(
        self, intent: Intent, quantity: Decimal, done: list[dict[str, Any]], *, can_wait: bool
    ) -> tuple[Prevented, str] | None:
        """Return what becomes of an order that would meet others of its account, in words too; None of one that meets none.

        What can't wait for anything, as other terms of an order that works, is refused instead.
        """
        mode = mode_of(intent.self_trade, self.rules_of(intent).self_trade)
        if not mode or intent.waits:
            return None
        mine = [r for r in self.facts.resting if (r.account_id, r.instrument_id) == intent.pair]
        met = would_meet(intent.side, intent.limit_price, [r for r in mine if r.order_id != intent.order_id])
        found = prevent(mode if can_wait else CANCEL_NEWEST, quantity, met)
        cancels, reduced = ",".join(map(str, found.cancels)), found.reduced or ("", ZERO)
        check = standing.NoSelfTrade(mode, quantity, found.quantity, cancels, str(reduced[0]), reduced[1])
        reason = check.judge()
        waits = {"soft": True} if reason is not None and found.quantity else {}
        done.append(check.as_json(reason) | waits)
        return None if reason is None else (found, check.explain(reason))

    def _soft_breach(
        self, intent: Intent, quantity: Decimal, reduces: bool, done: list[dict[str, Any]], *, is_new: bool
    ) -> tuple[Reason, str] | None:
        """Judge by the soft limits, all of them, and return the first that is passed."""
        breach = None
        limits = self.limits_for(intent)
        asked = self._measured(limits.soft, intent, quantity, reduces, is_new=is_new)
        for check in (*asked, *self._summed(limits, intent, quantity, reduces, is_new=is_new, soft=True)):
            reason = check.judge()
            done.append(check.as_json(reason) | {"soft": True})
            if reason is not None and breach is None:
                breach = reason, check.explain(reason)[:200]
        return breach

    def holding(self, intent: Intent) -> Holding:
        """Return what the order's account holds of its instrument."""
        return self.facts.holdings.get(intent.pair, Holding())

    def let_through(
        self,
        intent: Intent,
        quantity: Decimal,
        unit: Decimal,
        mark: bytes | None,
        *,
        is_new: bool = True,
        paced: bool = True,
    ) -> None:
        """Count an approved order for those after it."""
        self._count(intent, quantity, quantity * unit)
        if mark is not None:
            self.facts.recent.add(mark)
        if paced:
            self._pace(intent, is_new=is_new)
        if is_new and (intent.self_trade or self.rules_of(intent).self_trade) and not intent.waits:
            mine = intent.order_id, *intent.pair, intent.side, quantity, intent.limit_price
            self.facts.resting.append(Resting(*mine))
        limits = self.limits_for(intent)
        if is_new and "open_orders" in limits.kinds:
            self.facts.open_orders[open_key(intent)] += 1
        if is_new and limits.sums:
            for scope in {x.scope for x in limits.sums}:
                self.facts.sums[scope].open_orders += 1

    def _pace(self, intent: Intent, *, is_new: bool) -> None:
        """Put one more into every bucket that a limit keeps for the order."""
        limits = self.limits_for(intent)
        filled: dict[PaceKey, Pace] = {}
        for kind in measures.PACED & limits.kinds:
            if measures.applies(kind, intent, reduces=False, is_new=is_new):
                for limit in limits.hard[kind]:
                    level = self.paced_level(intent, limit) + 1
                    filled[measures.pace_key(intent, limit)] = Pace(level, self.facts.at)
        self.facts.paces.update(filled)
        self.paced.update(filled)

    def take_out(self, intent: Intent, quantity: Decimal, unit: Decimal) -> None:
        """Leave the order's own present hold out of what it is judged by, before a replace."""
        if intent.oco is None:
            self._count(intent, -quantity, -quantity * unit)
            return
        legs = self.facts.sets.get(intent.oco, {})
        before = worst_of(legs.values())
        legs.pop(intent.order_id, None)
        self._move(intent, worst_of(legs.values()) - before)

    def _count(self, intent: Intent, quantity: Decimal, amount: Decimal) -> None:
        buys = intent.side == "buy"
        self._move(intent, Claim(quantity if buys else ZERO, ZERO if buys else quantity, amount))

    def _move(self, intent: Intent, by: Claim) -> None:
        """Change what works in the order's account and instrument, for those judged after it."""
        if by == Claim():
            return
        amount, before = by.amount, self.holding(intent)
        if aggregate := self.limits_for(intent).sums:
            aggregates.count(self.facts.sums, aggregate, intent.instrument.id, by, before)
        holding = before.moved(by.buying, by.selling, amount)
        self.facts.holdings[intent.pair] = holding
        if book := self._exposures.get(intent.account_id):
            book.put(intent.instrument.id, holding)
        if intent.strategy_id and "concentration_strategy" in self.limits_for(intent).kinds:
            mine = self.facts.by_strategy.setdefault((intent.account_id, intent.strategy_id), {})
            held = mine.get(intent.instrument.id, Holding())
            mine[intent.instrument.id] = held.moved(by.buying, by.selling, ZERO)
        if amount:
            free = self._free.get(intent.account_id)
            taken = self.convert(amount, intent.instrument.currency, intent.base_currency)
            if free is not None and taken is not None:
                self._free[intent.account_id] = free - taken
            else:
                self._free.pop(intent.account_id, None)

    def _checks(
        self, intent: Intent, quantity: Decimal, reduces: bool, *, is_new: bool, paced: bool
    ) -> Iterator[checks.Check]:
        """Yield the checks in order; each may rely on those before it having passed."""
        facts, limits = self.facts, self.limits_for(intent)
        yield checks.AccountOpen(intent.account_open)
        yield self._halts(intent, reduces)
        yield checks.NotRestricted(intent.instrument.symbol, intent.instrument.id in facts.restricted)
        if intent.instrument.id in facts.watched:
            yield checks.Watched(intent.instrument.symbol, rfc3339(facts.watched[intent.instrument.id]))
        if facts.mandates:
            yield from self._mandates(intent)
        if is_new and facts.sessions and intent.instrument.calendar and not intent.begins_later:
            is_open = intent.instrument.id not in facts.closed
            yield checks.InSession(intent.instrument.calendar, is_open, intent.order_type, intent.time_in_force)
        yield checks.LimitsSet(", ".join(limits.missing()))
        if is_new and (window := limits.duplicate_window(intent)) > 0:
            yield checks.NotDuplicate(window, fingerprint(intent) in facts.recent)
        yield self._quote(intent, limits)
        hard = limits.hard if paced else {k: v for k, v in limits.hard.items() if k not in measures.PACED}
        yield from self._measured(hard, intent, quantity, reduces, is_new=is_new)
        yield from self._summed(limits, intent, quantity, reduces, is_new=is_new, soft=False)
        if intent.limit_price is not None and "price_collar" not in limits.hard:
            house = [limits.tightest("price_collar", COLLAR_DEFAULT)]
            yield measures.MEASURES["price_collar"](self, intent, quantity, house)
        if facts.compliance:
            yield from self._compliance(intent, quantity)
        if intent.reduce_only:
            yield standing.ReducesOnly(quantity, reduces)
        if intent.covered:
            return
        rules = self.rules_of(intent)
        if intent.side != "buy" and (rules.margin != CASH or rules.borrowing):
            yield self._short_sale(intent, quantity)
        if rules is not HOUSE_RULES:
            yield from self._by_rules(intent, quantity, rules)
        unit = self.unit_amount(intent, quantity)
        needed = self.convert(quantity * unit, intent.instrument.currency, intent.base_currency)
        if check := margins.model_of(rules).check(self, intent, needed):
            yield check
        if rules.settled_only:
            yield self._settled_cash(intent, needed)

    def _measured(
        self, limits: Mapping[str, list[LimitRef]], intent: Intent, quantity: Decimal, reduces: bool, *, is_new: bool
    ) -> Iterator[checks.Check]:
        """Yield one check for each kind of limit that is set and has anything to say about the order."""
        for kind, measure in measures.MEASURES.items():
            if kind in limits and measures.applies(kind, intent, reduces=reduces, is_new=is_new):
                yield measure(self, intent, quantity, limits[kind])

    def _summed(
        self, limits: LimitSet, intent: Intent, quantity: Decimal, reduces: bool, *, is_new: bool, soft: bool
    ) -> Iterator[checks.Check]:
        """Yield one check for each limit on a sum; what reduces its own account's position is not asked."""
        for limit in () if reduces else limits.sums:
            if limit.soft == soft and measures.applies(limit.kind, intent, reduces=reduces, is_new=is_new):
                yield aggregates.check(self, intent, quantity, limit)

    def _compliance(self, intent: Intent, quantity: Decimal) -> Iterator[checks.Check]:
        scopes = scopes_of(intent)
        for ref in self.facts.compliance:
            if ref.binds in scopes and (found := ref.rule.before(self, intent, quantity)) is not None:
                yield ref.check(found)

    def _mandates(self, intent: Intent) -> Iterator[checks.Check]:
        scopes = scopes_of(intent)
        for mandate in self.facts.mandates:
            if (mandate.scope.kind, mandate.scope.key) in scopes:
                value = mandate.value_of(intent.instrument)
                yield checks.Permitted(mandate.dimension, value, mandate.allowed, str(mandate.scope))

    def _halts(self, intent: Intent, reduces: bool) -> checks.Check:
        scopes = scopes_of(intent)
        engaged = [h for h in self.facts.halts if (h.scope.kind, h.scope.key) in scopes]
        flattens = intent.liquidates and reduces  # a halt stops what trades, not what brings an account to zero
        full = next(
            (str(h.scope) for h in engaged if h.mode != "reduce_only" and (h.scope.kind == "broker" or not flattens)),
            "",
        )
        return checks.NotHalted(full, next((str(h.scope) for h in engaged if h.mode == "reduce_only"), ""), reduces)

    def _quote(self, intent: Intent, limits: LimitSet) -> checks.Check:
        quote = self.facts.quotes.get(intent.instrument.id)
        oldest = limits.tightest("quote_age", QUOTE_AGE_DEFAULT).value
        if quote is None:
            return checks.QuoteUsable(None, None, None, oldest)
        return checks.QuoteUsable(quote.bid, quote.ask, seconds_between(quote.at, self.facts.at), oldest)

    def _short_sale(self, intent: Intent, quantity: Decimal) -> checks.Check:
        held = self.holding(intent)
        lender = (intent.directed_broker_code or "", intent.instrument.id)
        free = max(ZERO, held.quantity - held.selling)
        return checks.ShortSale(
            intent.instrument.asset_class, intent.side, quantity, free, lender in self.facts.shortable
        )

    def _by_rules(self, intent: Intent, quantity: Decimal, rules: Rules) -> Iterator[checks.Check]:
        """Yield what the account's own rules ask besides its margin."""
        held = self.holding(intent)
        if rules.margin == CASH and not rules.borrowing and intent.side != "buy":
            free = held.quantity - held.selling
            if intent.instrument.asset_class == "fx":
                free += self.facts.cash.get(intent.account_id, {}).get(intent.instrument.base_currency, ZERO)
            yield standing.Covered(intent.instrument.asset_class, intent.side, quantity, max(ZERO, free))
        if rules.locates and intent.side == "sell_short":
            short = max(ZERO, held.selling + quantity - held.quantity)
            needed = max(ZERO, short - self.facts.borrowed.get(intent.pair, ZERO))
            yield standing.Located(needed, self.facts.located.get(intent.pair, ZERO))
        if rules.day_trading and pattern_rule_holds(self.facts.at.date(), rules.migrated_on):
            yield self._day_trades(intent, held)

    def _day_trades(self, intent: Intent, held: Holding) -> checks.Check:
        """Ask whether the order could close what was opened today, or meet an open order of the other side."""
        is_buy = intent.side == "buy"
        opened = self.facts.tallies.get(intent.pair, Tally()).opened
        pending = held.selling if is_buy else held.buying
        completes = pending > 0 or (opened < 0 if is_buy else opened > 0)
        equity = self.equity(intent.account_id, intent.base_currency)
        return standing.DayTrades(completes, self.facts.day_trades.get(intent.account_id, 0), equity, PATTERN_EQUITY)

    def _settled_cash(self, intent: Intent, needed: Decimal | None) -> checks.Check:
        currency = intent.base_currency
        settled = self.free_cash(intent.account_id, currency)
        for owed_in, amount in self.facts.receivable.get(intent.account_id, {}).items():
            unsettled = self.convert(amount, owed_in, currency)
            settled = None if settled is None or unsettled is None else settled - unsettled
        return standing.SettledCash(needed, settled, currency)

    def unit_amount(self, intent: Intent, quantity: Decimal) -> Decimal:
        """Return what one unit ties, in the instrument's currency."""
        return margins.unit_amount(self, intent, quantity)

    def free_cash(self, account_id: int, base_currency: str) -> Decimal | None:
        """Return what an account may still commit, in its base currency; None when it can't be valued."""
        if account_id not in self._free:
            model = margins.model_of(self.facts.rules.get(account_id, HOUSE_RULES))
            self._free[account_id] = model.free(self, account_id, base_currency)
        return self._free[account_id]

    def cash(self, account_id: int, base_currency: str) -> Decimal | None:
        """Return the cash of all currencies in one; None where a debt has no rate."""
        cash = ZERO
        for currency, balance in self.facts.cash.get(account_id, {}).items():
            value = self.convert(balance, currency, base_currency)
            if value is None and balance < 0:
                return None
            cash += value or ZERO
        return cash

    def value(self, instrument_id: int, quantity: Decimal, currency: str) -> Decimal | None:
        """Return what units are worth at the mid, in a currency; None without a price or rate."""
        if quantity == 0:
            return ZERO
        quote = self.facts.quotes.get(instrument_id)
        if quote is None:
            return None
        return self.convert(quantity * quote.mid, self.facts.instruments[instrument_id].currency, currency)

    def unit_value(self, instrument_id: int, currency: str) -> Decimal | None:
        """Return what one unit is worth at the mid, in a currency; None without a price or rate."""
        key = instrument_id, currency
        if key not in self._unit_values:
            self._unit_values[key] = self.value(instrument_id, Decimal(1), currency)
        return self._unit_values[key]

    def convert(self, amount: Decimal, source: str, target: str) -> Decimal | None:
        """Return an amount in another currency; None when no rate leads there."""
        return amount if source == target or amount == 0 else self.facts.rates.convert(amount, source, target)

    def exposures(self, intent: Intent) -> Exposures:
        """Return the worst-case values of the order's account, those approved before it included."""
        account_id, currency = intent.account_id, intent.base_currency
        if account_id not in self._exposures:
            held = [(pk, h) for (owner, pk), h in self.facts.holdings.items() if owner == account_id]
            self._exposures[account_id] = Exposures(held, lambda pk, units: self.value(pk, units, currency))
        return self._exposures[account_id]

    def equity(self, account_id: int, base_currency: str) -> Decimal | None:
        """Return cash and positions at the mid, in the base currency; None when it can't be valued.

        Cash without a rate counts for nothing if it is ours, and leaves no value if it is owed.
        """
        if account_id not in self._equity:
            self._equity[account_id] = self._value_equity(account_id, base_currency)
        return self._equity[account_id]

    def _value_equity(self, account_id: int, base_currency: str) -> Decimal | None:
        equity = self.cash(account_id, base_currency)
        for (owner, instrument_id), held in self.facts.holdings.items():
            if owner == account_id and equity is not None:
                value = self.value(instrument_id, held.quantity, base_currency)
                equity = None if value is None else equity + value
        return equity

    def profit(self, account_id: int, base_currency: str) -> Profit:
        """Return what the account won or lost today and altogether, in its base currency."""
        if account_id not in self._profits:
            self._profits[account_id] = profit_of(
                self.facts.results.get(account_id, ()),
                self.facts.quotes,
                lambda amount, pk: self.convert(amount, self.facts.instruments[pk].currency, base_currency),
            )
        return self._profits[account_id]

    def open_orders(self, intent: Intent, limit: LimitRef) -> int:
        """Count the account's orders that may still be filled: all, or those of the user, strategy or symbol limited."""
        place = {"symbol": 1, "user": 2, "strategy": 3}.get(limit.binds[0], 0)
        mine = open_key(intent)
        counts = self.facts.open_orders.items()
        return sum(n for key, n in counts if key[0] == mine[0] and key[place] == mine[place])

    def paced_level(self, intent: Intent, limit: LimitRef) -> Decimal:
        """Return what the bucket of a limit holds now, without this order; one of runs never runs out."""
        pace = self.facts.paces.get(measures.pace_key(intent, limit))
        if pace is None:
            return ZERO
        return pace.level_at(self.facts.at, ZERO if limit.kind == "automated_runs" else limit.value)


def together(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts on orders of which all are to be placed or none: with one refused, all are.

    One that would only wait, for a person or for others to be gone, stands in the way of all as well.
    """
    if all(v.approved for v in verdicts):
        return list(verdicts)
    check = standing.Together(refused=True)
    told = check.as_json(Reason.LIST_REFUSED)
    found = []
    for verdict in verdicts:
        if verdict.approved or verdict.held:
            checks_ = [*verdict.checks, told]
            found.append(
                Verdict(verdict.order_id, False, Reason.LIST_REFUSED.value, check.explain(Reason.LIST_REFUSED), checks_)
            )
        else:
            found.append(verdict)
    return found
