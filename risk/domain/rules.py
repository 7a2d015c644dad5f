"""By which rules an account trades: its margin model, what cash counts, who lends, day trades, and trades with itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from oms.kernel import decimals
from oms.kernel.errors import Invalid

HOUSE, CASH, HAIRCUT, REG_T = "house", "cash", "haircut", "reg_t"
MARGINS = (HOUSE, CASH, HAIRCUT, REG_T)
CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH, DECREMENT = "cancel_newest", "cancel_oldest", "cancel_both", "decrement"
SELF_TRADE_MODES = (CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH, DECREMENT)
ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one account; without any row an account is under the house rule, and nothing else is asked.

    `margin` names the model (`risk.domain.margins`); `borrowing` lets a cash account spend what it hasn't got; `haircuts`
    are fractions of the market value by asset class. `settled_only`: buys are paid from settled cash. `locates`: a short
    sale needs units that were located. `day_trading`: more margin within the day, under the pattern-day-trader
    rule until `migrated_on`, the day the account's broker moved to intraday margin. `self_trade`: what becomes of orders
    that would meet each other, empty where nobody looks.
    """

    margin: str = HOUSE
    borrowing: bool = False
    haircuts: Mapping[str, Decimal] = field(default_factory=dict)
    settled_only: bool = False
    locates: bool = False
    day_trading: bool = False
    migrated_on: date | None = None
    self_trade: str = ""


HOUSE_RULES = Rules()


def parse_haircuts(raw: Mapping[str, object]) -> dict[str, Decimal]:
    """Return fractions by asset class out of JSON, or raise `Invalid`: a haircut is from 0 to 1."""
    found = {}
    for name, value in raw.items():
        fraction = decimals.parse(value, field=f"haircuts.{name}")
        if not 0 <= fraction <= ONE:
            raise Invalid("out_of_range", "A haircut is a fraction from 0 to 1.", field=f"haircuts.{name}")
        found[name] = fraction
    return found
