"""The checks that judge by the rules of an account: its margin, its settled cash, locates, day trades, its own orders."""

from dataclasses import dataclass
from decimal import Decimal

from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.reasons import Reason
from risk.domain.checks import Check
from risk.domain.daytrading import PATTERN_DAY_TRADES


@dataclass(frozen=True, slots=True)
class ReducesOnly(Check):
    """An order that asks never to open a position: all of it must bring the position nearer to zero."""

    name = "reduces_only"
    quantity: Decimal
    reduces: bool

    def judge(self) -> Reason | None:
        """Deny what could open one."""
        return None if self.reduces else Reason.WOULD_NOT_REDUCE


@dataclass(frozen=True, slots=True)
class Margin(Check):
    """Margin that the order ties, and the margin free under the account's model, both in its base currency."""

    name = "margin"
    needed: Decimal | None
    available: Decimal | None
    model: str
    currency: str

    def judge(self) -> Reason | None:
        """Deny what could tie more than is free; an order that ties nothing always passes."""
        if self.needed == 0:
            return None
        if self.needed is None or self.available is None:
            return Reason.NO_QUOTE
        return Reason.BUYING_POWER if self.needed > self.available else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.needed is None or self.available is None:
            return f"Cash or a position has no price or rate to value it in {self.currency}."
        free = f"{self.available:.2f} are free under {self.model}"
        return f"Ties {self.needed:.2f} {self.currency} of margin; {free}."


@dataclass(frozen=True, slots=True)
class SettledCash(Check):
    """Cash that the order may take, and the cash that has settled and is not held for others, in the base currency."""

    name = "settled_cash"
    needed: Decimal | None
    settled: Decimal | None
    currency: str

    def judge(self) -> Reason | None:
        """Deny a buy that proceeds which are still to come would pay for."""
        if self.needed == 0:
            return None
        if self.needed is None or self.settled is None:
            return Reason.NO_QUOTE
        return Reason.UNSETTLED_CASH if self.needed > self.settled else None

    def explain(self, reason: Reason) -> str:
        """Tell both amounts."""
        if self.needed is None or self.settled is None:
            return f"Cash has no rate to value it in {self.currency}."
        return f"May take {self.needed:.2f} {self.currency}; {max(self.settled, ZERO):.2f} have settled and are free."


@dataclass(frozen=True, slots=True)
class Covered(Check):
    """A sale of a cash account: units on sale, and those held; of a pair, with the cash of the currency sold."""

    name = "covered"
    asset_class: str
    side: str
    quantity: Decimal
    free: Decimal

    def judge(self) -> Reason | None:
        """Deny what the account does not have; it lends nothing."""
        if self.side == "buy":
            return None
        if self.side == "sell_short":
            return Reason.SHORT_NOT_ALLOWED
        if self.quantity <= self.free:
            return None
        return Reason.BUYING_POWER if self.asset_class == "fx" else Reason.SHORT_NOT_ALLOWED

    def explain(self, reason: Reason) -> str:
        """Tell what is there."""
        if self.side == "sell_short":
            return "A cash account sells nothing short."
        return f"Sells {decimals.text(self.quantity)}; only {decimals.text(self.free)} are there and not yet on sale."


@dataclass(frozen=True, slots=True)
class Located(Check):
    """Units that would be short beyond those of the day before, with all that works, and units located for today."""

    name = "located"
    needed: Decimal
    located: Decimal

    def judge(self) -> Reason | None:
        """Deny a short sale of what nobody found to lend."""
        return Reason.NOT_LOCATED if self.needed > self.located else None

    def explain(self, reason: Reason) -> str:
        """Tell both."""
        return f"Needs {decimals.text(self.needed)} units located; {decimals.text(self.located)} are, for today."


@dataclass(frozen=True, slots=True)
class DayTrades(Check):
    """Day trades of five business days, whether the order could make another, and the equity that would allow it."""

    name = "day_trades"
    completes: bool
    day_trades: int
    equity: Decimal | None
    minimum: Decimal

    def judge(self) -> Reason | None:
        """Deny the fourth without the equity."""
        if not self.completes or self.day_trades < PATTERN_DAY_TRADES - 1:
            return None
        if self.equity is None:
            return Reason.NO_QUOTE
        return Reason.DAY_TRADE_LIMIT if self.equity < self.minimum else None

    def explain(self, reason: Reason) -> str:
        """Tell the numbers."""
        if self.equity is None:
            return "The account can't be valued, and the order may make a day trade too many."
        return (
            f"{self.day_trades} day trades in five business days, and the order may make another; "
            f"an equity of {self.equity:.2f} is below {decimals.text(self.minimum)}."
        )


@dataclass(frozen=True, slots=True)
class NoSelfTrade(Check):
    """What is left of an order that would meet others of its account, by the mode in force, and which of them go first.

    `cancels` has commas between ids; `reduced` names one that goes on with `reduced_to`.
    """

    name = "self_trade"
    mode: str
    quantity: Decimal
    left: Decimal
    cancels: str
    reduced: str
    reduced_to: Decimal

    def judge(self) -> Reason | None:
        """Deny what nothing is left of, and hold what waits for others to be gone."""
        return Reason.SELF_TRADE if self.left == 0 or self.cancels else None

    def explain(self, reason: Reason) -> str:
        """Tell what becomes of it."""
        if self.left == 0:
            return f"It would trade with an open order of the same account ({self.mode})."
        count = self.cancels.count(",") + 1
        return f"Waits until {count} open order(s) of the account that it would trade with are gone ({self.mode})."


@dataclass(frozen=True, slots=True)
class Together(Check):
    """Orders that were sent as one: none is placed unless all may be."""

    name = "together"
    refused: bool

    def judge(self) -> Reason | None:
        """Deny what another one of the list was denied for."""
        return Reason.LIST_REFUSED if self.refused else None
