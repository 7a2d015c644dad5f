"""What an order ties up and what is free for it, by the margin model of its account.

All amounts that are free are in the account's base currency, what a unit ties is in the instrument's.

**House.** free = cash of all currencies − amounts held − 1.5 × market value of short positions, and an order holds, per
unit, what it may take from that in the worst case:

- a buy takes its worst price: the limit price, or at market the ask (or the stop price, if higher) plus the collar;
- a buy that only covers a short gives its margin back, so it takes max(0, worst price − 1.5 × mid);
- a sale of what is held takes nothing;
- a sale that opens or extends a short brings its price and ties 1.5 × the market value: 1.5 × max(mid, price) − price.

**Cash.** free = cash − amounts held; a buy takes its worst price, a sale nothing: it must be covered. With borrowing
nothing is asked.

**Haircut.** free = equity − the haircut of every position's market value − amounts held; what opens ties the haircut of its
worst value and whatever it trades worse than the middle.

**Reg T.** free = equity − margin of every position − amounts held. The margin is half of the value; within the day it is a
quarter for an account that may day-trade, until ten minutes before the close. What opens a short is valued at its limit
or 3 % above the ask, if that is higher.

An order that crosses zero is held as if all of it opened. Cash without a rate counts for nothing if it is
ours, and stops the order if it is owed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING

from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel.decimals import EXACT, ZERO
from risk.domain import checks, measures, standing
from risk.domain.daytrading import PATTERN_EQUITY, pattern_rule_holds
from risk.domain.exposures import Holding
from risk.domain.intents import Intent
from risk.domain.rules import CASH, HAIRCUT, HOUSE, REG_T, Rules

if TYPE_CHECKING:
    from risk.domain.gate import Gate

COLLAR_DEFAULT = Decimal("0.10")
SHORT_MARGIN = Decimal("1.5")
INITIAL = Decimal("0.50")
MAINTENANCE = Decimal("0.25")
SHORT_MARKUP = Decimal("0.03")
WHOLE = Decimal(1)
_STEP = Decimal("1E-10")


@dataclass(frozen=True, slots=True)
class Opening:
    """An order as its margin is worked out: whether all of it closes, the worst price, and the market's middle and ask."""

    is_buy: bool
    closes: bool
    price: Decimal
    limit_price: Decimal | None
    mid: Decimal
    ask: Decimal

    @property
    def loss(self) -> Decimal:
        """Return what a unit loses against the middle at the worst price."""
        return max(ZERO, self.price - self.mid if self.is_buy else self.mid - self.price)


def opening(gate: Gate, intent: Intent, quantity: Decimal) -> Opening:
    """Return an order as its margin is worked out."""
    quote: QuoteRef = gate.facts.quotes[intent.instrument.id]
    is_buy = intent.side == "buy"
    price = intent.limit_price or measures.touch(intent, quote)
    if is_buy and intent.limit_price is None:
        price *= 1 + gate.limits_for(intent).tightest("price_collar", COLLAR_DEFAULT).value
    closes = gate.holding(intent).reduced_by(intent.side, quantity)
    return Opening(is_buy, closes, price, intent.limit_price, quote.mid, quote.ask)


class Model(ABC):
    """A margin model: what a unit ties, what is free, and the check that compares them."""

    @abstractmethod
    def tied(self, order: Opening, rate: Decimal) -> Decimal:
        """Return what a unit ties, in the instrument's currency; `rate` is the margin of its value."""

    @abstractmethod
    def free(self, gate: Gate, account_id: int, currency: str) -> Decimal | None:
        """Return what is free, None where it can't be valued."""

    def rate(self, gate: Gate, account_id: int, currency: str, instrument: InstrumentRef) -> Decimal:
        """Return the margin of an instrument's value."""
        return WHOLE

    def check(self, gate: Gate, intent: Intent, needed: Decimal | None) -> checks.Check | None:
        """Return the check of what an order takes, None where the model asks nothing."""
        available = gate.free_cash(intent.account_id, intent.base_currency)
        return checks.BuyingPower(needed, available, intent.base_currency)


class House(Model):
    """Longs are paid in full, shorts tie half of their value above what they brought."""

    def tied(self, order: Opening, rate: Decimal) -> Decimal:
        """See the module."""
        if order.is_buy:
            return order.price - SHORT_MARGIN * order.mid if order.closes else order.price
        return ZERO if order.closes else SHORT_MARGIN * max(order.mid, order.price) - order.price

    def free(self, gate: Gate, account_id: int, currency: str) -> Decimal | None:
        """See the module."""
        return _less(gate, account_id, currency, gate.cash(account_id, currency), _short_margin)


def _short_margin(gate: Gate, instrument_id: int, held: Holding, currency: str) -> Decimal | None:
    short = gate.value(instrument_id, max(ZERO, -held.quantity), currency)
    return None if short is None else SHORT_MARGIN * short


def _nothing(gate: Gate, instrument_id: int, held: Holding, currency: str) -> Decimal | None:
    return ZERO


class Cash(Model):
    """Everything is paid in full out of cash that is there; nothing is sold that is not held."""

    def tied(self, order: Opening, rate: Decimal) -> Decimal:
        """See the module."""
        return order.price if order.is_buy else ZERO

    def free(self, gate: Gate, account_id: int, currency: str) -> Decimal | None:
        """See the module."""
        return _less(gate, account_id, currency, gate.cash(account_id, currency), _nothing)

    def check(self, gate: Gate, intent: Intent, needed: Decimal | None) -> checks.Check | None:
        """Ask nothing of an account that may borrow."""
        return None if gate.rules_of(intent).borrowing else super().check(gate, intent, needed)


class Haircut(Model):
    """Positions count with their market value less a haircut by asset class; a class without one counts for nothing."""

    def rate(self, gate: Gate, account_id: int, currency: str, instrument: InstrumentRef) -> Decimal:
        """Return the haircut."""
        return gate.facts.rules[account_id].haircuts.get(instrument.asset_class, WHOLE)

    def tied(self, order: Opening, rate: Decimal) -> Decimal:
        """See the module."""
        if order.closes:
            return order.loss - rate * order.mid
        return rate * max(order.price, order.mid) + order.loss

    def free(self, gate: Gate, account_id: int, currency: str) -> Decimal | None:
        """See the module."""
        return _less(gate, account_id, currency, gate.equity(account_id, currency), self._margin(account_id))

    def _margin(self, account_id: int) -> Margined:
        def margin(gate: Gate, instrument_id: int, held: Holding, currency: str) -> Decimal | None:
            value = gate.value(instrument_id, abs(held.quantity), currency)
            rate = self.rate(gate, account_id, currency, gate.facts.instruments[instrument_id])
            return None if value is None else rate * value

        return margin

    def check(self, gate: Gate, intent: Intent, needed: Decimal | None) -> checks.Check | None:
        """Compare with the free margin."""
        available = gate.free_cash(intent.account_id, intent.base_currency)
        return standing.Margin(needed, available, gate.rules_of(intent).margin, intent.base_currency)


class RegT(Haircut):
    """Half of the value, within the day a quarter."""

    def rate(self, gate: Gate, account_id: int, currency: str, instrument: InstrumentRef) -> Decimal:
        """Return half, or a quarter for what a day trader may close today."""
        rules = gate.facts.rules[account_id]
        if not rules.day_trading or instrument.id in gate.facts.overnight:
            return INITIAL
        if pattern_rule_holds(gate.facts.at.date(), rules.migrated_on):
            equity = gate.equity(account_id, currency)
            if equity is None or equity < PATTERN_EQUITY:
                return INITIAL
        return MAINTENANCE

    def tied(self, order: Opening, rate: Decimal) -> Decimal:
        """See the module."""
        return ZERO if order.closes else rate * opening_value(order)


def opening_value(order: Opening) -> Decimal:
    """Return what a unit that opens is valued at by Reg T brokers: a short at its limit or 3 % above the ask, if higher."""
    return order.price if order.is_buy else max(order.limit_price or ZERO, order.ask * (1 + SHORT_MARKUP))


def excess(equity: Decimal, market_value: Decimal, rate: Decimal) -> Decimal:
    """Return the equity beyond the margin of what is held, below zero where it is short of it."""
    return equity - rate * market_value


def buying_power(equity: Decimal, market_value: Decimal, rate: Decimal = INITIAL) -> Decimal:
    """Return the value that may still be bought: what the excess is the margin of, never below zero."""
    return max(ZERO, excess(equity, market_value, rate) / rate)


if TYPE_CHECKING:
    from collections.abc import Callable

    Margined = Callable[[Gate, int, Holding, str], Decimal | None]


def _less(gate: Gate, account_id: int, currency: str, worth: Decimal | None, margin: Margined) -> Decimal | None:
    """Return what is left of a worth after the margin of what is held and the amounts that open orders hold."""
    if worth is None:
        return None
    for (owner, instrument_id), held in gate.facts.holdings.items():
        if owner != account_id:
            continue
        bound = margin(gate, instrument_id, held, currency)
        taken = gate.convert(held.amount, gate.facts.instruments[instrument_id].currency, currency)
        if bound is None or taken is None:
            return None
        worth -= bound + taken
    return worth


MODELS: dict[str, Model] = {HOUSE: House(), CASH: Cash(), HAIRCUT: Haircut(), REG_T: RegT()}


def model_of(rules: Rules) -> Model:
    """Return the model that an account's rules name."""
    return MODELS[rules.margin]


def unit_amount(gate: Gate, intent: Intent, quantity: Decimal) -> Decimal:
    """Return what one unit of an order ties, in the instrument's currency, rounded up."""
    if intent.covered:
        return ZERO
    model = model_of(gate.rules_of(intent))
    rate = model.rate(gate, intent.account_id, intent.base_currency, intent.instrument)
    return max(ZERO, model.tied(opening(gate, intent, quantity), rate)).quantize(_STEP, ROUND_UP, EXACT)
