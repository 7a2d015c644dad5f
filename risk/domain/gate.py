"""Judging a batch of orders in memory, each approved one counting for the next.

**Buying power.** In the account's base currency:

    free = cash of all currencies − amounts held − 1.5 × market value of short positions

and an order holds, per unit, what it may take from that in the worst case:

- a buy takes its worst price: the limit price, or at market the ask (or the stop price, if higher) plus the collar;
- a buy that only covers a short gives its margin back, so it takes max(0, worst price − 1.5 × mid);
- a sale of what is held takes nothing;
- a sale that opens or extends a short brings its price and ties 1.5 × the market value: 1.5 × max(mid, price) − price.

An order that crosses zero is held as if all of it opened. Cash without a rate counts for nothing if it is
ours, and stops the order if it is owed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_UP, Decimal
from hashlib import sha256

from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals
from oms.kernel.decimals import EXACT, ZERO
from risk.domain import checks
from risk.domain.intents import Intent, Verdict
from risk.domain.scopes import Scope, scopes_of

REQUIRED = ("order_quantity", "order_notional", "position")
QUOTE_AGE_DEFAULT = Decimal(60)
COLLAR_DEFAULT = Decimal("0.10")
SHORT_MARGIN = Decimal("1.5")
DEFAULT = Scope("default")
_STEP = Decimal("1E-10")


@dataclass(frozen=True, slots=True)
class LimitRef:
    """A limit in force."""

    kind: str
    value: Decimal
    currency: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class HaltRef:
    """A halt engaged."""

    mode: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Holding:
    """Units an account holds of an instrument, units working on either side, and cash held for them."""

    quantity: Decimal = ZERO
    buying: Decimal = ZERO
    selling: Decimal = ZERO
    amount: Decimal = ZERO

    def reduced_by(self, side: str, quantity: Decimal) -> bool:
        """Tell whether an order brings the position nearer to zero, whatever else is filled."""
        room = -self.quantity - self.buying if side == "buy" else self.quantity - self.selling
        return quantity <= room

    def with_order(self, side: str, quantity: Decimal, amount: Decimal) -> "Holding":
        """Return the holding with one more order working (or less, for a negative quantity)."""
        buying, selling = (quantity, ZERO) if side == "buy" else (ZERO, quantity)
        return Holding(self.quantity, self.buying + buying, self.selling + selling, self.amount + amount)

    def largest(self) -> Decimal:
        """Return the units, long or short, that the worst run of fills could leave."""
        return max(abs(self.quantity), self.quantity + self.buying, self.selling - self.quantity)


@dataclass(slots=True)
class Facts:
    """What a batch is judged by, as it stood when the accounts were locked.

    `shortable` holds (broker code, instrument id), with an empty code for any broker; `recent` the
    fingerprints of orders approved inside their duplicate window. `sessions` tells whether exchange hours are kept,
    `closed` which instruments' exchanges are closed.
    """

    at: datetime
    instruments: Mapping[int, InstrumentRef]
    quotes: Mapping[int, QuoteRef]
    rates: Rates
    limits: list[LimitRef] = field(default_factory=list)
    halts: list[HaltRef] = field(default_factory=list)
    restricted: set[int] = field(default_factory=set)
    shortable: set[tuple[str, int]] = field(default_factory=set)
    holdings: dict[tuple[int, int], Holding] = field(default_factory=dict)
    cash: dict[int, dict[str, Decimal]] = field(default_factory=dict)
    recent: set[bytes] = field(default_factory=set)
    sessions: bool = False
    closed: set[int] = field(default_factory=set)


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


def duplicate_window(intent: Intent, limits: list[LimitRef]) -> Decimal:
    """Return the seconds in which a repeat is suspect: the longest window set.

    Windows of the firm, an account, a symbol or a broker are meant for people; a program is bound only by one
    set for its own user or strategy.
    """
    windows = [x.value for x in limits if x.kind == "duplicate_window"]
    if intent.automated:
        windows = [x.value for x in limits if x.kind == "duplicate_window" and x.scope.kind in ("user", "strategy")]
    return max(windows, default=ZERO)


class Gate:
    """The facts of a batch and the orders already let through.

    A limit binds each account's own orders and positions, whoever it names: a firm's position limit is the
    one of every account, not of their sum.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._limits: dict[frozenset[tuple[str, str]], list[LimitRef]] = {}
        self._free: dict[int, Decimal | None] = {}

    def limits_for(self, intent: Intent) -> list[LimitRef]:
        """Return the limits that bind an order."""
        scopes = scopes_of(intent)
        if scopes not in self._limits:
            self._limits[scopes] = [x for x in self.facts.limits if (x.scope.kind, x.scope.key) in scopes]
        return self._limits[scopes]

    def judge(self, intent: Intent, *, working: Decimal | None = None) -> tuple[Verdict, Reservation | None]:
        """Return the verdict on one order and, if approved, what it holds; the next order sees it.

        `working` is what may still be filled of an order that is replaced, whose own hold was taken out before
        (`take_out`); a replace is no duplicate of anything.
        """
        quantity = intent.quantity if working is None else working
        done = []
        reduces = self.holding(intent).reduced_by(intent.side, quantity)
        for check in self._checks(intent, quantity, reduces, is_new=working is None):
            reason = check.judge()
            done.append(check.as_json(reason))
            if reason is not None:
                return Verdict(intent.order_id, False, reason.value, check.explain(reason)[:200], done, reduces), None
        unit = self.unit_amount(intent, quantity)
        mark = (
            fingerprint(intent) if working is None and duplicate_window(intent, self.limits_for(intent)) > 0 else None
        )
        self.let_through(intent, quantity, unit, mark)
        return Verdict(intent.order_id, True, "", "", done, reduces), Reservation(quantity, unit, mark)

    def holding(self, intent: Intent) -> Holding:
        """Return what the order's account holds of its instrument."""
        return self.facts.holdings.get(intent.pair, Holding())

    def let_through(self, intent: Intent, quantity: Decimal, unit: Decimal, mark: bytes | None) -> None:
        """Count an approved order for those after it."""
        self._count(intent, quantity, quantity * unit)
        if mark is not None:
            self.facts.recent.add(mark)

    def take_out(self, intent: Intent, quantity: Decimal, unit: Decimal) -> None:
        """Leave the order's own present hold out of what it is judged by, before a replace."""
        self._count(intent, -quantity, -quantity * unit)

    def _count(self, intent: Intent, quantity: Decimal, amount: Decimal) -> None:
        self.facts.holdings[intent.pair] = self.holding(intent).with_order(intent.side, quantity, amount)
        if amount:
            free = self._free.get(intent.account_id)
            taken = self._convert(amount, intent.instrument.currency, intent.base_currency)
            if free is not None and taken is not None:
                self._free[intent.account_id] = free - taken
            else:
                self._free.pop(intent.account_id, None)

    def _checks(self, intent: Intent, quantity: Decimal, reduces: bool, *, is_new: bool) -> Iterator[checks.Check]:
        """Yield the checks in order; each may rely on those before it having passed."""
        facts, limits = self.facts, self.limits_for(intent)
        yield checks.AccountOpen(intent.account_open)
        yield self._halts(intent, reduces)
        yield checks.NotRestricted(intent.instrument.symbol, intent.instrument.id in facts.restricted)
        if is_new and facts.sessions and intent.instrument.calendar:
            is_open = intent.instrument.id not in facts.closed
            yield checks.InSession(intent.instrument.calendar, is_open, intent.order_type, intent.time_in_force)
        yield checks.LimitsSet(", ".join(_missing(limits)))
        bound = _lowest(limits, "order_quantity")
        yield checks.OrderQuantity(intent.quantity, bound.value, str(bound.scope))
        if is_new and (window := duplicate_window(intent, limits)) > 0:
            yield checks.NotDuplicate(window, fingerprint(intent) in facts.recent)
        yield self._quote(intent, limits)
        yield self._notional(intent, limits)
        if intent.limit_price is not None:
            yield self._collar(intent, intent.limit_price, limits)
        yield self._position(intent, quantity, limits)
        if intent.side != "buy":
            yield self._short_sale(intent, quantity)
        if any(x.kind == "gross_exposure" for x in limits) and not reduces:
            yield self._gross(intent, quantity, limits)
        yield self._buying_power(intent, quantity)

    def _halts(self, intent: Intent, reduces: bool) -> checks.Check:
        scopes = scopes_of(intent)
        engaged = [h for h in self.facts.halts if (h.scope.kind, h.scope.key) in scopes]
        full = next((str(h.scope) for h in engaged if h.mode != "reduce_only"), "")
        return checks.NotHalted(full, next((str(h.scope) for h in engaged if h.mode == "reduce_only"), ""), reduces)

    def _quote(self, intent: Intent, limits: list[LimitRef]) -> checks.Check:
        quote = self.facts.quotes.get(intent.instrument.id)
        oldest = _lowest(limits, "quote_age", QUOTE_AGE_DEFAULT).value
        if quote is None:
            return checks.QuoteUsable(None, None, None, oldest)
        return checks.QuoteUsable(quote.bid, quote.ask, _seconds(self.facts.at, quote.at), oldest)

    def _notional(self, intent: Intent, limits: list[LimitRef]) -> checks.Check:
        price = value_price(intent, self.facts.quotes[intent.instrument.id])
        value = intent.quantity * price
        found: list[checks.OrderNotional] = []
        for limit in (x for x in limits if x.kind == "order_notional"):
            currency = limit.currency or intent.base_currency
            amount = self._convert(value, intent.instrument.currency, currency)
            found.append(checks.OrderNotional(price, amount, limit.value, currency, str(limit.scope)))
        return next((c for c in found if c.notional is None), None) or max(found, key=_use)

    def _collar(self, intent: Intent, price: Decimal, limits: list[LimitRef]) -> checks.Check:
        limit = _lowest(limits, "price_collar", COLLAR_DEFAULT)
        quote = self.facts.quotes[intent.instrument.id]
        return checks.PriceCollar(intent.side == "buy", price, _touch(intent, quote), limit.value, str(limit.scope))

    def _position(self, intent: Intent, quantity: Decimal, limits: list[LimitRef]) -> checks.Check:
        held, limit = self.holding(intent), _lowest(limits, "position")
        is_buy = intent.side == "buy"
        working = held.buying if is_buy else held.selling
        return checks.PositionLimit(is_buy, held.quantity, working, quantity, limit.value, str(limit.scope))

    def _short_sale(self, intent: Intent, quantity: Decimal) -> checks.Check:
        held = self.holding(intent)
        lender = (intent.directed_broker_code or "", intent.instrument.id)
        free = max(ZERO, held.quantity - held.selling)
        return checks.ShortSale(
            intent.instrument.asset_class, intent.side, quantity, free, lender in self.facts.shortable
        )

    def _gross(self, intent: Intent, quantity: Decimal, limits: list[LimitRef]) -> checks.Check:
        found = []
        for limit in (x for x in limits if x.kind == "gross_exposure"):
            currency = limit.currency or intent.base_currency
            gross = self._gross_with(intent, quantity, currency)
            found.append(checks.GrossExposure(gross, limit.value, currency, str(limit.scope)))
        return next((c for c in found if c.gross is None), None) or max(
            found, key=lambda c: (c.gross or ZERO) - c.limit
        )

    def _gross_with(self, intent: Intent, quantity: Decimal, currency: str) -> Decimal | None:
        holdings = {p: h for p, h in self.facts.holdings.items() if p[0] == intent.account_id}
        holdings[intent.pair] = self.holding(intent).with_order(intent.side, quantity, ZERO)
        gross = ZERO
        for (_, instrument_id), held in holdings.items():
            value = self._value(instrument_id, held.largest(), currency)
            if value is None:
                return None
            gross += value
        return gross

    def _buying_power(self, intent: Intent, quantity: Decimal) -> checks.Check:
        unit = self.unit_amount(intent, quantity)
        needed = self._convert(quantity * unit, intent.instrument.currency, intent.base_currency)
        available = self.free_cash(intent.account_id, intent.base_currency)
        return checks.BuyingPower(needed, available, intent.base_currency)

    def unit_amount(self, intent: Intent, quantity: Decimal) -> Decimal:
        """Return the cash, in the instrument's currency, that one unit holds; see the module for the rule."""
        quote = self.facts.quotes[intent.instrument.id]
        collar = _lowest(self.limits_for(intent), "price_collar", COLLAR_DEFAULT).value
        closes = self.holding(intent).reduced_by(intent.side, quantity)
        price = intent.limit_price or _touch(intent, quote)
        if intent.side == "buy":
            price = price if intent.limit_price else price * (1 + collar)
            unit = price - SHORT_MARGIN * quote.mid if closes else price
        else:
            unit = ZERO if closes else SHORT_MARGIN * max(quote.mid, price) - price
        return max(ZERO, unit).quantize(_STEP, ROUND_UP, EXACT)

    def free_cash(self, account_id: int, base_currency: str) -> Decimal | None:
        """Return what an account may still commit, in its base currency; None when it can't be valued."""
        if account_id not in self._free:
            self._free[account_id] = self._value_free_cash(account_id, base_currency)
        return self._free[account_id]

    def _value_free_cash(self, account_id: int, base_currency: str) -> Decimal | None:
        free = ZERO
        for currency, balance in self.facts.cash.get(account_id, {}).items():
            value = self._convert(balance, currency, base_currency)
            if value is None and balance < 0:
                return None
            free += value or ZERO
        for (owner, instrument_id), held in self.facts.holdings.items():
            if owner != account_id:
                continue
            short = self._value(instrument_id, max(ZERO, -held.quantity), base_currency)
            taken = self._convert(held.amount, self.facts.instruments[instrument_id].currency, base_currency)
            if short is None or taken is None:
                return None
            free -= SHORT_MARGIN * short + taken
        return free

    def _value(self, instrument_id: int, quantity: Decimal, currency: str) -> Decimal | None:
        if quantity == 0:
            return ZERO
        quote = self.facts.quotes.get(instrument_id)
        if quote is None:
            return None
        return self._convert(quantity * quote.mid, self.facts.instruments[instrument_id].currency, currency)

    def _convert(self, amount: Decimal, source: str, target: str) -> Decimal | None:
        return amount if source == target or amount == 0 else self.facts.rates.convert(amount, source, target)


def value_price(intent: Intent, quote: QuoteRef) -> Decimal:
    """Return the price that an order is valued at: the highest it is expected to trade at.

    A buy: its limit price, else the ask or the stop price if higher. A sale: the bid, or its own price if higher.
    """
    if intent.side == "buy":
        return intent.limit_price or max(quote.ask, intent.stop_price or ZERO)
    return max(quote.bid, intent.limit_price or intent.stop_price or ZERO)


def _touch(intent: Intent, quote: QuoteRef) -> Decimal:
    """Return the market's price for the side, or the stop price where the market must first go further."""
    if intent.side == "buy":
        return max(quote.ask, intent.stop_price or ZERO)
    return min(quote.bid, intent.stop_price or quote.bid)


def _missing(limits: list[LimitRef]) -> list[str]:
    present = {x.kind for x in limits if x.scope.kind in ("firm", "account")}
    return [kind for kind in REQUIRED if kind not in present]


def _lowest(limits: list[LimitRef], kind: str, default: Decimal | None = None) -> LimitRef:
    """Return the tightest limit of a kind, or the house default."""
    found = min((x for x in limits if x.kind == kind), key=lambda x: x.value, default=None)
    if found is None and default is None:
        raise LookupError(f"no limit of kind {kind}")
    return found or LimitRef(kind, default or ZERO, "", DEFAULT)


def _use(check: checks.OrderNotional) -> Decimal:
    return (check.notional or ZERO) / check.limit if check.limit else decimals.BOUND


def _seconds(later: datetime, earlier: datetime) -> Decimal:
    delta = later - earlier
    return Decimal(delta.days * 86_400 + delta.seconds) + Decimal(delta.microseconds) / 1_000_000
