"""The limits that bind only where they are set, one check each; in `risk.domain.checks` stand those that always judge.

Amounts are in the currency the limit is in, fractions are of one (0.25 is a quarter).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from oms.kernel import decimals
from oms.kernel.reasons import Reason
from risk.domain.checks import Check


@dataclass(frozen=True, slots=True)
class Ceiling(Check):
    """A figure, with the order in it, that must not pass a limit; None where no price or rate gives it a value."""

    broken: ClassVar[Reason]
    what: ClassVar[str]
    """The figure in words, for the sentence."""

    figure: Decimal | None
    limit: Decimal
    currency: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny above the limit, and what can't be valued."""
        if self.figure is None:
            return Reason.NO_QUOTE
        return self.broken if self.figure > self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both numbers and whose limit it is."""
        if self.figure is None:
            return f"A price or rate is missing to work out {self.what}."
        told, most = decimals.text(round(self.figure, 6)), decimals.text(self.limit)
        return f"{self.what[0].upper()}{self.what[1:]} of {told} {self.currency} is above the {most} of {self.scope}."


class PositionLong(Ceiling):
    """Units held and working to buy, with this order."""

    name, broken, what = "position_long", Reason.POSITION_LIMIT, "a long position"


class PositionShort(Ceiling):
    """Units short and working to sell, with this order."""

    name, broken, what = "position_short", Reason.POSITION_LIMIT, "a short position"


class PositionGross(Ceiling):
    """Units held, whichever way, and all that works on both sides, with this order."""

    name, broken, what = "position_gross", Reason.POSITION_LIMIT, "units held and working"


class NetExposure(Ceiling):
    """Market values summed with their signs, as far to the order's side as the open orders could carry them."""

    name, broken, what = "net_exposure", Reason.NET_EXPOSURE_LIMIT, "a net exposure"


class OpenOrders(Ceiling):
    """Orders of the account in the limit's scope that may still be filled, with this one."""

    name, broken, what = "open_orders", Reason.OPEN_ORDERS_LIMIT, "a number of open orders"


class OrderRate(Ceiling):
    """Orders let through in the last second, with this one; what a leaky bucket of that size still holds."""

    name, broken, what = "order_rate", Reason.RATE_LIMIT, "a number of orders in a second"


class MessageRate(Ceiling):
    """Orders and replaces let through in the last second, with this one."""

    name, broken, what = "message_rate", Reason.RATE_LIMIT, "a number of messages in a second"


class ReplaceRate(Ceiling):
    """Replaces let through in the last second, with this one."""

    name, broken, what = "replace_rate", Reason.RATE_LIMIT, "a number of replaces in a second"


class AutomatedRuns(Ceiling):
    """Orders that a program sent for a strategy since a named person last enabled it, with this one."""

    name, broken, what = (
        "automated_runs",
        Reason.STRATEGY_THROTTLED,
        "a number of automated orders since it was enabled",
    )


class DailyLoss(Ceiling):
    """What the account lost since the day's open, realised and unrealised; below zero for a gain."""

    name, broken, what = "daily_loss", Reason.LOSS_LIMIT, "a loss today"


class Drawdown(Ceiling):
    """How far the account's profit lies below the highest that it was seen at."""

    name, broken, what = "drawdown", Reason.LOSS_LIMIT, "a drawdown"


@dataclass(frozen=True, slots=True)
class Share(Check):
    """An exposure as a multiple of the account's equity, both in its base currency."""

    broken: ClassVar[Reason]
    what: ClassVar[str]

    exposure: Decimal | None
    equity: Decimal | None
    limit: Decimal
    of: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny above the multiple, what can't be valued, and any exposure on an equity of nothing."""
        if self.exposure is None or self.equity is None:
            return Reason.NO_QUOTE
        return self.broken if self.exposure > self.limit * max(self.equity, decimals.ZERO) else None

    def explain(self, reason: Reason) -> str:
        """Tell exposure, equity and limit."""
        if self.exposure is None or self.equity is None:
            return f"A price or rate is missing to work out {self.what}."
        of = f" in {self.of}" if self.of else ""
        return (
            f"{self.exposure:.2f}{of} on an equity of {self.equity:.2f} is above "
            f"{decimals.text(self.limit)} times, {self.what} of {self.scope}."
        )


class Leverage(Share):
    """Gross worst-case exposure over equity."""

    name, broken, what = "leverage", Reason.LEVERAGE_LIMIT, "the leverage"


class Concentration(Share):
    """Worst-case exposure to one symbol over equity."""

    name, broken, what = "concentration", Reason.CONCENTRATION_LIMIT, "the concentration in a symbol"


class ConcentrationSector(Share):
    """Worst-case exposure to one sector over equity."""

    name, broken, what = "concentration_sector", Reason.CONCENTRATION_LIMIT, "the concentration in a sector"


class ConcentrationClass(Share):
    """Worst-case exposure to one asset class over equity."""

    name, broken, what = "concentration_class", Reason.CONCENTRATION_LIMIT, "the concentration in an asset class"


class ConcentrationStrategy(Share):
    """Worst-case exposure of one strategy over equity."""

    name, broken, what = "concentration_strategy", Reason.CONCENTRATION_LIMIT, "the concentration in a strategy"


@dataclass(frozen=True, slots=True)
class OrderQuantityMin(Check):
    """The fewest units of one order."""

    name = "order_quantity_min"
    quantity: Decimal
    limit: Decimal
    scope: str

    def judge(self) -> Reason | None:
        """Deny below the limit."""
        return Reason.QUANTITY_MINIMUM if self.quantity < self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both numbers."""
        return f"{decimals.text(self.quantity)} units are below the {decimals.text(self.limit)} of {self.scope}."


@dataclass(frozen=True, slots=True)
class OrderNotionalMin(Check):
    """The least value of one order, in the limit's currency; a sale is valued at its own price, a buy at the most it pays."""

    name = "order_notional_min"
    notional: Decimal | None
    limit: Decimal
    currency: str
    scope: str

    def judge(self) -> Reason | None:
        """Deny below the limit, and what can't be valued."""
        if self.notional is None:
            return Reason.NO_QUOTE
        return Reason.NOTIONAL_MINIMUM if self.notional < self.limit else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.notional is None:
            return f"There is no rate to value the order in {self.currency}."
        return f"{self.notional:.2f} {self.currency} are below the {decimals.text(self.limit)} of {self.scope}."


@dataclass(frozen=True, slots=True)
class PriceCollarTicks(Check):
    """How many ticks a limit price may go through the market; `reference` as in `PriceCollar`."""

    name = "price_collar_ticks"
    is_buy: bool
    price: Decimal
    reference: Decimal
    tick: Decimal
    ticks: Decimal
    scope: str

    def through(self) -> Decimal:
        """Return the ticks that the price lies past the reference, below zero for a passive one."""
        return (self.price - self.reference if self.is_buy else self.reference - self.price) / self.tick

    def judge(self) -> Reason | None:
        """Deny what goes further."""
        return Reason.PRICE_COLLAR if self.through() > self.ticks else None

    def explain(self, reason: Reason) -> str:
        """Tell the ticks."""
        return (
            f"{self.through():.0f} ticks through the market; {decimals.text(self.ticks)} are allowed by {self.scope}."
        )


@dataclass(frozen=True, slots=True)
class SpreadWidth(Check):
    """How wide the market may stand, as a fraction of its middle: in a wide one the price of a trade is anybody's guess."""

    name = "spread"
    bid: Decimal
    ask: Decimal
    limit: Decimal
    scope: str

    def judge(self) -> Reason | None:
        """Deny in a wider market."""
        return Reason.SPREAD_TOO_WIDE if (self.ask - self.bid) * 2 > self.limit * (self.bid + self.ask) else None

    def explain(self, reason: Reason) -> str:
        """Tell the width."""
        width = 2 * (self.ask - self.bid) / (self.bid + self.ask)
        return f"The market is {width:.6f} wide; {decimals.text(self.limit)} is allowed by {self.scope}."


@dataclass(frozen=True, slots=True)
class AuctionCutoff(Check):
    """Seconds left until the auction that an order is for, None where its exchange keeps no hours, and the fewest."""

    name = "auction_cutoff"
    auction: str
    left: Decimal | None
    cutoff: Decimal
    scope: str

    def judge(self) -> Reason | None:
        """Deny what comes too late to be sure of the auction."""
        return Reason.AUCTION_CUTOFF if self.left is not None and self.left < self.cutoff else None

    def explain(self, reason: Reason) -> str:
        """Tell the times."""
        return f"{self.left:.0f} s are left until the {self.auction}; {decimals.text(self.cutoff)} are the fewest of {self.scope}."


@dataclass(frozen=True, slots=True)
class Volume(Check):
    """Units of one order, and units traded; None where nobody told of any trade."""

    what: ClassVar[str]

    quantity: Decimal
    volume: Decimal | None
    limit: Decimal
    scope: str

    def judge(self) -> Reason | None:
        """Deny more than the fraction, and what nothing is known to compare with."""
        if not self.volume:
            return Reason.NO_VOLUME
        return Reason.VOLUME_LIMIT if self.quantity > self.limit * self.volume else None

    def explain(self, reason: Reason) -> str:
        """Tell the numbers."""
        if not self.volume:
            return f"Nothing is known to have been traded in {self.what}, to compare the order with."
        share = self.quantity / self.volume
        return f"{share:.4f} of the {self.volume:.0f} traded in {self.what}; {decimals.text(self.limit)} is allowed by {self.scope}."


class VolumeRecent(Volume):
    """Against the last half hour."""

    name, what = "volume_recent", "the last half hour"


class VolumeDaily(Volume):
    """Against an average day."""

    name, what = "volume_daily", "an average day"
