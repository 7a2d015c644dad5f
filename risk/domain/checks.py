"""The checks: each holds the numbers it judges by, so that a stored verdict can be judged again.

A check is a small frozen value. `judge` looks at nothing else than its own fields; `risk.domain.replaying` builds
checks from stored JSON and must come to the stored answer.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from oms.kernel import decimals
from oms.kernel.reasons import Reason


@dataclass(frozen=True, slots=True)
class Check(ABC):
    """One rule with its numbers."""

    name: ClassVar[str]

    @abstractmethod
    def judge(self) -> Reason | None:
        """Return why the order may not trade, or None."""

    def explain(self, reason: Reason) -> str:
        """Return a sentence with the numbers, for a person."""
        return reason.sentence

    def as_json(self, reason: Reason | None) -> dict[str, Any]:
        """Return the check as it is stored, with what it was judged."""
        numbers = {n: _spell(getattr(self, n)) for n in _field_names(type(self))}
        return {
            "check": self.name,
            "passed": reason is None,
            "reason": reason.value if reason else "",
            "numbers": numbers,
        }


@cache
def _field_names(kind: type[Check]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


def _spell(value: Any) -> Any:
    return decimals.text(value) if isinstance(value, Decimal) else value


@dataclass(frozen=True, slots=True)
class AccountOpen(Check):
    """A closed account trades nothing."""

    name = "account_open"
    is_open: bool

    def judge(self) -> Reason | None:
        """Deny in a closed account."""
        return None if self.is_open else Reason.ACCOUNT_CLOSED


@dataclass(frozen=True, slots=True)
class NotHalted(Check):
    """`halt` and `reduce_only` name the scopes engaged, empty for none; an order that reduces passes the second."""

    name = "halts"
    halt: str
    reduce_only: str
    reduces: bool

    def judge(self) -> Reason | None:
        """Deny under a halt, and what adds exposure under a reduce-only one."""
        return Reason.HALTED if self.halt or (self.reduce_only and not self.reduces) else None

    def explain(self, reason: Reason) -> str:
        """Name the scope."""
        return f"Trading is halted for {self.halt or self.reduce_only}{'' if self.halt else ' but to reduce'}."


@dataclass(frozen=True, slots=True)
class NotRestricted(Check):
    """The restricted list."""

    name = "restricted"
    symbol: str
    restricted: bool

    def judge(self) -> Reason | None:
        """Deny what stands on the list."""
        return Reason.RESTRICTED if self.restricted else None


@dataclass(frozen=True, slots=True)
class Watched(Check):
    """The watch list: the order passes, and its verdict says that somebody should look."""

    name = "watched"
    symbol: str
    since: str

    def judge(self) -> Reason | None:
        """Let it pass."""
        return None


@dataclass(frozen=True, slots=True)
class Permitted(Check):
    """A mandate: what an account, trader or strategy may trade, by asset class, currency, country or symbol.

    `allowed` has commas between its values.
    """

    name = "mandate"
    dimension: str
    value: str
    allowed: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny what is not among them, and what has no such value."""
        return None if self.value in self.allowed.split(",") else Reason.NOT_PERMITTED

    def explain(self, reason: Reason) -> str:
        """Name what is asked for and what would be allowed."""
        asked, among = self.value or "none", self.allowed.replace(",", ", ")
        return f"{self.scope} may not trade the {self.dimension.replace('_', ' ')} {asked}, only: {among}."


@dataclass(frozen=True, slots=True)
class InSession(Check):
    """Whether the instrument's exchange trades now; what may wait for the opening needs a price and a longer life."""

    name = "session"
    calendar: str
    is_open: bool
    order_type: str
    time_in_force: str

    def judge(self) -> Reason | None:
        """Deny out of session what would have to trade at once, or end today."""
        waits = self.order_type != "market" and self.time_in_force in ("gtc", "gtd")
        return None if self.is_open or waits else Reason.SESSION_CLOSED

    def explain(self, reason: Reason) -> str:
        """Name the exchange."""
        return f"{self.calendar} is closed; send a gtc or gtd order with a price, or wait until it opens."


@dataclass(frozen=True, slots=True)
class LimitsSet(Check):
    """Kinds of limits that must exist for the firm or the account; `missing` names those that don't."""

    name = "limits_set"
    missing: str

    def judge(self) -> Reason | None:
        """Deny when one is missing: no limit is no permission."""
        return Reason.LIMIT_MISSING if self.missing else None

    def explain(self, reason: Reason) -> str:
        """Name the kinds."""
        return f"Set a limit for: {self.missing}."


@dataclass(frozen=True, slots=True)
class OrderQuantity(Check):
    """Units of one order."""

    name = "order_quantity"
    quantity: Decimal
    limit: Decimal
    scope: str

    def judge(self) -> Reason | None:
        """Deny above the limit."""
        return Reason.QUANTITY_LIMIT if self.quantity > self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both numbers."""
        return f"{decimals.text(self.quantity)} units are above the {decimals.text(self.limit)} of {self.scope}."


@dataclass(frozen=True, slots=True)
class NotDuplicate(Check):
    """`seen`: the same order was approved under another id less than `window` seconds ago."""

    name = "duplicate"
    window: Decimal
    seen: bool

    def judge(self) -> Reason | None:
        """Deny a likely slip of the hand."""
        return Reason.DUPLICATE_SUSPECT if self.seen else None


@dataclass(frozen=True, slots=True)
class QuoteUsable(Check):
    """The market that the order is judged by; ages in seconds, below zero when the quote's clock runs ahead."""

    name = "quote"
    bid: Decimal | None
    ask: Decimal | None
    age: Decimal | None
    age_max: Decimal

    def judge(self) -> Reason | None:
        """Deny without a quote, or with one that is crossed, not positive or too old."""
        if self.bid is None or self.ask is None or self.age is None or min(self.bid, self.ask) <= 0:
            return Reason.NO_QUOTE
        if self.bid > self.ask:
            return Reason.CROSSED_QUOTE
        return Reason.STALE_QUOTE if self.age > self.age_max else None

    def explain(self, reason: Reason) -> str:
        """Tell the age."""
        if reason is not Reason.STALE_QUOTE or self.age is None:
            return reason.sentence
        return f"The last quote is {self.age:.1f} s old; at most {decimals.text(self.age_max)} s are allowed."


@dataclass(frozen=True, slots=True)
class OrderNotional(Check):
    """Value of one order in the limit's currency; None where no rate leads there."""

    name = "order_notional"
    price: Decimal
    notional: Decimal | None
    limit: Decimal
    currency: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny above the limit, and what can't be valued."""
        if self.notional is None:
            return Reason.NO_QUOTE
        return Reason.NOTIONAL_LIMIT if self.notional > self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.notional is None:
            return f"There is no rate to value the order in {self.currency}."
        return f"{self.notional:.2f} {self.currency} are above the {decimals.text(self.limit)} of {self.scope}."


@dataclass(frozen=True, slots=True)
class PriceCollar(Check):
    """How far a limit price may go through the market: `reference` is the ask for a buy, the bid for a sale,
    or the stop price where that lies further. A passive price may rest at any distance."""

    name = "price_collar"
    is_buy: bool
    price: Decimal
    reference: Decimal
    fraction: Decimal
    scope: str

    def bound(self) -> Decimal:
        """Return the last price that passes."""
        return self.reference * (1 + self.fraction if self.is_buy else 1 - self.fraction)

    def judge(self) -> Reason | None:
        """Deny a buy above, a sale below the bound."""
        through = self.price > self.bound() if self.is_buy else self.price < self.bound()
        return Reason.PRICE_COLLAR if through else None

    def explain(self, reason: Reason) -> str:
        """Tell price and bound."""
        word = "above" if self.is_buy else "below"
        return f"{decimals.text(self.price)} is {word} {self.bound():.10g}, the collar of {self.scope}."


@dataclass(frozen=True, slots=True)
class PositionLimit(Check):
    """Units held, working on the order's own side, and asked for now; sales carry the position towards short."""

    name = "position"
    is_buy: bool
    position: Decimal
    working: Decimal
    quantity: Decimal
    limit: Decimal
    scope: str

    def worst(self) -> Decimal:
        """Return the units in the order's direction once all of it is filled, below zero if still on the other side."""
        held = self.position if self.is_buy else -self.position
        return held + self.working + self.quantity

    def judge(self) -> Reason | None:
        """Deny what could carry the position past the limit; what only brings it back always passes."""
        return Reason.POSITION_LIMIT if self.worst() > self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell the worst case."""
        way = "long" if self.is_buy else "short"
        return (
            f"Up to {decimals.text(self.worst())} units {way}, above the {decimals.text(self.limit)} of {self.scope}."
        )


@dataclass(frozen=True, slots=True)
class ShortSale(Check):
    """`sell` sells what is held, `sell_short` what a broker lends; fx has no short sale."""

    name = "short_sale"
    asset_class: str
    side: str
    quantity: Decimal
    free_long: Decimal
    shortable: bool

    def judge(self) -> Reason | None:
        """Deny a sale beyond the free long position that is no permitted short sale."""
        if self.side == "sell_short":
            return None if self.shortable else Reason.SHORT_NOT_ALLOWED
        if self.side == "sell" and self.asset_class != "fx" and self.quantity > self.free_long:
            return Reason.SHORT_NOT_ALLOWED
        return None

    def explain(self, reason: Reason) -> str:
        """Tell what is free to sell."""
        if self.side == "sell_short":
            return "No broker that may take the order lends the instrument."
        return f"Only {decimals.text(self.free_long)} units are held and not yet on sale."


@dataclass(frozen=True, slots=True)
class GrossExposure(Check):
    """Sum of the worst-case market values of all positions, long and short, with this order."""

    name = "gross_exposure"
    gross: Decimal | None
    limit: Decimal
    currency: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny above the limit, and what can't be valued."""
        if self.gross is None:
            return Reason.NO_QUOTE
        return Reason.POSITION_LIMIT if self.gross > self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.gross is None:
            return f"A position has no price or rate to value it in {self.currency}."
        return f"Gross {self.gross:.2f} {self.currency} is above the {decimals.text(self.limit)} of {self.scope}."


@dataclass(frozen=True, slots=True)
class BuyingPower(Check):
    """Cash that the order may take, and the free cash, both in the account's base currency."""

    name = "buying_power"
    needed: Decimal | None
    available: Decimal | None
    currency: str

    def judge(self) -> Reason | None:
        """Deny what could take more than is free; an order that takes nothing always passes."""
        if self.needed == 0:
            return None
        if self.needed is None or self.available is None:
            return Reason.NO_QUOTE
        return Reason.BUYING_POWER if self.needed > self.available else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.needed is None or self.available is None:
            return f"Cash or a short position has no price or rate to value it in {self.currency}."
        return f"May take {self.needed:.2f} {self.currency}; {self.available:.2f} are free."
