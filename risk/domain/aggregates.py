"""What several accounts hold and work together, for limits that bind their sum.

A limit that is `aggregate` counts over all accounts that it may bind: the firm's over every account, a symbol's over every
account in that symbol, a user's over the accounts granted to the user, a strategy's over what was traded for it, a
group's over its members. What brings its own account's position nearer to zero always passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from oms.kernel.decimals import ZERO
from risk.domain import bounds, checks
from risk.domain.exposures import Claim, Holding
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef
from risk.domain.scopes import Scope

if TYPE_CHECKING:
    from risk.domain.gate import Gate

BY_INSTRUMENT = frozenset({"position", "position_long", "position_short", "position_gross"})
"""Kinds that look at one instrument alone."""
TOGETHER = " together"
"""Added to a scope's name where the limit binds the sum."""


@dataclass(frozen=True, slots=True)
class Total:
    """Units of one instrument over accounts: net, working on either side, regardless of sign, and in each account's worst case."""

    quantity: Decimal = ZERO
    buying: Decimal = ZERO
    selling: Decimal = ZERO
    absolute: Decimal = ZERO
    largest: Decimal = ZERO

    def with_order(self, side: str, quantity: Decimal, before: Holding) -> Total:
        """Return the total with one more order working in an account that held `before`; less for a negative quantity."""
        return self.moved(Claim(quantity, ZERO) if side == "buy" else Claim(ZERO, quantity), before)

    def moved(self, by: Claim, before: Holding) -> Total:
        """Return the total with more working on either side of an account that held `before`, or less."""
        grown = before.moved(by.buying, by.selling, ZERO).largest() - before.largest()
        return Total(
            self.quantity, self.buying + by.buying, self.selling + by.selling, self.absolute, self.largest + grown
        )


NOTHING = Total()


@dataclass(slots=True)
class Sum:
    """The totals of one scope by instrument, and how many of its orders may still be filled."""

    totals: dict[int, Total] = field(default_factory=dict)
    open_orders: int = 0

    def total(self, instrument_id: int) -> Total:
        """Return the total of an instrument."""
        return self.totals.get(instrument_id, NOTHING)


Worth = Callable[[Total], Decimal]


def _gross(total: Total) -> Decimal:
    return total.largest


def _long(total: Total) -> Decimal:
    return total.quantity + total.buying


def _short(total: Total) -> Decimal:
    return total.selling - total.quantity


def check(gate: Gate, intent: Intent, quantity: Decimal, limit: LimitRef) -> checks.Check:
    """Return the check of an order against a limit that binds a sum."""
    summed, name = gate.facts.sums[limit.scope], f"{limit.scope}{TOGETHER}"
    pk, is_buy = intent.instrument.id, intent.side == "buy"
    now = summed.total(pk)
    if limit.kind == "position":
        working = now.buying if is_buy else now.selling
        return checks.PositionLimit(is_buy, now.quantity, working, quantity, limit.value, name)
    if limit.kind == "position_gross":
        units = now.absolute + now.buying + now.selling + quantity
        return bounds.PositionGross(units, limit.value, "", name)
    if limit.kind == "position_long":
        return bounds.PositionLong(_long(now) + quantity, limit.value, "", name)
    if limit.kind == "position_short":
        return bounds.PositionShort(_short(now) + quantity, limit.value, "", name)
    if limit.kind == "open_orders":
        return bounds.OpenOrders(Decimal(summed.open_orders + 1), limit.value, "", name)
    after = dict(summed.totals)
    after[pk] = now.with_order(intent.side, quantity, gate.holding(intent))
    if limit.kind == "gross_exposure":
        return checks.GrossExposure(_value(gate, after, limit.currency, _gross), limit.value, limit.currency, name)
    net = _value(gate, after, limit.currency, _long if is_buy else _short)
    return bounds.NetExposure(net, limit.value, limit.currency, name)


def _value(gate: Gate, totals: Mapping[int, Total], currency: str, worth: Worth) -> Decimal | None:
    value = ZERO
    for pk, total in totals.items():
        units = worth(total)
        one = gate.unit_value(pk, currency) if units else ZERO
        if one is None:
            return None
        value += units * one
    return value


def count(
    sums: Mapping[Scope, Sum], limits: Sequence[LimitRef], instrument_id: int, by: Claim, before: Holding
) -> None:
    """Count what works more, or less, in every sum that it belongs to."""
    for scope in {limit.scope for limit in limits}:
        summed = sums[scope]
        summed.totals[instrument_id] = summed.total(instrument_id).moved(by, before)
