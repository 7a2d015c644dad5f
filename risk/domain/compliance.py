"""Compliance rules: dated, each a class with parameters, judged before a trade or over what is held at the end of a day.

A rule comes down to a figure that must not pass a limit, so that a stored verdict can be judged again. There is no
language of expressions: a new kind of rule is a new class here.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.errors import Invalid
from oms.kernel.reasons import Reason
from risk.domain.bands import TIERS, band
from risk.domain.checks import Check
from risk.domain.intents import Intent
from risk.domain.scopes import Scope

if TYPE_CHECKING:
    from risk.domain.gate import Gate

PRE_TRADE, END_OF_DAY = "pre_trade", "end_of_day"
CONTEXTS = (PRE_TRADE, END_OF_DAY)
BLOCK, WARN = "block", "warn"
SEVERITIES = (BLOCK, WARN)
"""A blocked order is denied; one that is warned of passes, and somebody has to look."""
ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Compliance(Check):
    """A rule's figure and its limit; None where the figure can't be worked out."""

    name = "compliance"
    rule: str
    kind: str
    clause: str
    severity: str
    figure: Decimal | None
    limit: Decimal

    def judge(self) -> Reason | None:
        """Deny past the limit where the rule blocks, and what it can't judge."""
        if self.severity != BLOCK:
            return None
        if self.figure is None:
            return Reason.NO_QUOTE
        return Reason.COMPLIANCE if self.figure > self.limit else None

    def is_breach(self) -> bool:
        """Tell whether the limit is passed, whatever follows from it."""
        return self.figure is None or self.figure > self.limit

    def explain(self, reason: Reason) -> str:
        """Name the rule and the numbers."""
        if self.figure is None:
            return f"{self.clause} ({self.rule}) can't be judged: a price or rate is missing."
        told = decimals.text(round(self.figure, 6))
        return f"{self.clause} ({self.rule}): {told} is above {decimals.text(self.limit)}."


@dataclass(frozen=True, slots=True)
class Held:
    """An account at the end of a day: units by instrument, and what values them."""

    positions: Mapping[InstrumentRef, Decimal]
    value: Callable[[InstrumentRef, Decimal], Decimal | None]
    equity: Decimal | None
    cash: Decimal | None


@dataclass(frozen=True, slots=True)
class Found:
    """A figure of one rule: of an instrument where it is about one (its id), else of the account."""

    figure: Decimal | None
    limit: Decimal
    instrument_id: int | None = None


@dataclass(frozen=True)
class Rule(ABC):
    """A kind of rule with its parameters."""

    kind: ClassVar[str]
    contexts: ClassVar[tuple[str, ...]] = CONTEXTS

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge an order, None where the rule has nothing to say about it."""
        return None

    def after(self, held: Held) -> Sequence[Found]:
        """Judge what an account holds; only what passes a limit need be told."""
        return ()


@dataclass(frozen=True, slots=True)
class IssuerShare(Rule):
    """No position above a fraction of the equity; those above another fraction together not above a third one.

    With 0.10, 0.05 and 0.40 it is the rule of article 52 of the UCITS directive.
    """

    kind = "issuer_share"
    single: Decimal
    large: Decimal = ONE
    large_total: Decimal = ONE

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge the order's own instrument, with all open orders filled."""
        if intent.side != "buy" or gate.holding(intent).reduced_by(intent.side, quantity):
            return None
        equity = gate.equity(intent.account_id, intent.base_currency)
        units = gate.holding(intent).with_order(intent.side, quantity, ZERO).largest()
        value = gate.value(intent.instrument.id, units, intent.base_currency)
        return Found(_fraction(value, equity), self.single, intent.instrument.id)

    def after(self, held: Held) -> Sequence[Found]:
        """Judge every position, and the large ones together."""
        shares = {i: _fraction(held.value(i, abs(q)), held.equity) for i, q in held.positions.items()}
        found = [Found(s, self.single, i.id) for i, s in shares.items() if s is None or s > self.single]
        total = sum((s for s in shares.values() if s is not None and s > self.large), ZERO)
        return [*found, *([Found(total, self.large_total)] if total > self.large_total else [])]


@dataclass(frozen=True, slots=True)
class OwnershipCap(Rule):
    """No more units of a symbol than a fraction of those its issuer has outstanding, as for section 13(d) or a stake to be told."""

    kind = "ownership_cap"
    symbol: str
    outstanding: Decimal
    fraction: Decimal

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge a buy of the symbol."""
        if intent.side != "buy" or intent.instrument.symbol != self.symbol:
            return None
        held = gate.holding(intent)
        return Found((held.quantity + held.buying + quantity) / self.outstanding, self.fraction, intent.instrument.id)

    def after(self, held: Held) -> Sequence[Found]:
        """Judge what is held of it."""
        return [
            Found(q / self.outstanding, self.fraction, i.id)
            for i, q in held.positions.items()
            if i.symbol == self.symbol and q / self.outstanding > self.fraction
        ]


@dataclass(frozen=True, slots=True)
class CountriesBarred(Rule):
    """Nothing of issuers from these countries, by ISO 3166 codes; what would only be sold passes."""

    kind = "countries_barred"
    countries: tuple[str, ...]

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge the instrument's country."""
        if gate.holding(intent).reduced_by(intent.side, quantity):
            return None
        return Found(Decimal(intent.instrument.country in self.countries), ZERO, intent.instrument.id)

    def after(self, held: Held) -> Sequence[Found]:
        """Judge what is held."""
        return [Found(ONE, ZERO, i.id) for i, q in held.positions.items() if q and i.country in self.countries]


@dataclass(frozen=True, slots=True)
class PriceBand(Rule):
    """No price outside of the band that US exchanges let a stock of a tier trade in; the reference is the middle now, the last
    close that of the day before. A market order is judged by the side of the market that it takes."""

    kind = "price_band"
    contexts = (PRE_TRADE,)
    tier: int
    symbols: tuple[str, ...]

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge how far the price lies outside; 0 within."""
        if intent.instrument.symbol not in self.symbols:
            return None
        quote: QuoteRef = gate.facts.quotes[intent.instrument.id]
        allowed = band(self.tier, quote.day_open, quote.mid)
        price = intent.limit_price or quote.side_price(intent.side)
        return Found(max(price - allowed.upper, allowed.lower - price, ZERO), ZERO, intent.instrument.id)


@dataclass(frozen=True, slots=True)
class ShortPriceTest(Rule):
    """Regulation SHO's rule 201: once a stock has fallen by a fraction, a short sale must ask more than the best bid."""

    kind = "short_price_test"
    contexts = (PRE_TRADE,)
    symbols: tuple[str, ...]
    fallen: Decimal = Decimal("0.10")

    def before(self, gate: Gate, intent: Intent, quantity: Decimal) -> Found | None:
        """Judge a short sale: 1 where it would sell at the bid or below."""
        if intent.side != "sell_short" or intent.instrument.symbol not in self.symbols:
            return None
        quote: QuoteRef = gate.facts.quotes[intent.instrument.id]
        if quote.mid > quote.day_open * (ONE - self.fallen):
            return None
        above = intent.limit_price is not None and intent.limit_price > quote.bid
        return Found(Decimal(not above), ZERO, intent.instrument.id)


@dataclass(frozen=True, slots=True)
class CashReserve(Rule):
    """At least a fraction of the equity in cash at the end of the day; the figure is what lacks, as a fraction of the equity."""

    kind = "cash_reserve"
    contexts = (END_OF_DAY,)
    least: Decimal

    def after(self, held: Held) -> Sequence[Found]:
        """Judge the cash."""
        share = _fraction(held.cash, held.equity)
        lacking = None if share is None else self.least - share
        return [Found(lacking, ZERO)] if lacking is None or lacking > 0 else []


KINDS: dict[str, type[Rule]] = {
    kind.kind: kind for kind in (IssuerShare, OwnershipCap, CountriesBarred, PriceBand, ShortPriceTest, CashReserve)
}


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule in force: whom it binds, and what it is known by."""

    id: UUID
    code: str
    rule: Rule
    scope: Scope
    context: str
    severity: str
    clause: str

    @property
    def binds(self) -> tuple[str, str]:
        """Return the (kind, key) of the orders and accounts that it binds."""
        return self.scope.kind, self.scope.key

    def check(self, found: Found) -> Compliance:
        """Return the check that a figure makes."""
        return Compliance(self.code, self.rule.kind, self.clause, self.severity, found.figure, found.limit)


def rule_of(kind: str, parameters: Mapping[str, Any]) -> Rule:
    """Return a rule of a kind out of its JSON parameters, or raise `Invalid` naming what is wrong."""
    if kind not in KINDS:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(KINDS)}.", field="kind")
    made = KINDS[kind]
    known = {f.name: str(f.type) for f in fields(made)}
    if unknown := set(parameters) - set(known):
        raise Invalid("unknown_field", "The rule has no such parameter.", field=f"parameters.{min(unknown)}")
    values = {name: _value(name, known[name], raw) for name, raw in parameters.items()}
    try:
        rule = made(**values)
    except TypeError:
        missing = ", ".join(sorted(set(known) - set(values)))
        raise Invalid("required", f"The rule needs more of: {missing}.", field="parameters") from None
    if isinstance(rule, PriceBand) and rule.tier not in TIERS:
        raise Invalid("not_a_choice", "The plan has tiers 1 and 2.", field="parameters.tier")
    return rule


def _value(name: str, kind: str, raw: object) -> object:
    field = f"parameters.{name}"
    if kind == "Decimal":
        value = decimals.parse(raw, field=field)
        if not 0 < value < decimals.BOUND:
            raise Invalid("out_of_range", "The value must be above zero.", field=field)
        return value
    if kind == "int":
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise Invalid("not_an_integer", "Send a number.", field=field)
        return raw
    if kind == "str":
        if not isinstance(raw, str) or not raw:
            raise Invalid("not_text", "Send text.", field=field)
        return raw
    if not isinstance(raw, list) or not raw or not all(isinstance(x, str) and x for x in raw):
        raise Invalid("not_a_list", "Send a list of texts.", field=field)
    return tuple(raw)


def _fraction(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    return None if part is None or whole is None or whole <= 0 else part / whole
