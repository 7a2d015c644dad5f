"""Journal lines of a booking. Debits above zero, credits below; every booking sums to zero in each currency."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from oms.kernel.decimals import ZERO, money


@dataclass(frozen=True, slots=True)
class Line:
    """One ledger line; `quantity` rides on the securities line."""

    code: str
    currency: str
    amount: Decimal
    quantity: Decimal = ZERO


def trade_lines(*, quantity: Decimal, value: Decimal, realized: Decimal, fees: Decimal, currency: str) -> list[Line]:
    """Return the lines of a trade: securities at cost against cash, the gain, the fees.

    `quantity` and `value` (quantity times price) are signed, buys above zero. Securities carry cost, so a sale takes
    out what the lots had cost and the gain is the difference to the cash.
    """
    value = money(value)
    lines = [Line("securities", currency, value + realized, quantity), Line("cash", currency, -value)]
    if realized:
        lines.append(Line("realized_pnl", currency, -realized))
    if fees:
        lines += [Line("fees", currency, fees), Line("cash", currency, -fees)]
    return lines


def fee_lines(fees: Iterable[tuple[str, Decimal]]) -> list[Line]:
    """Return the lines of fees in currencies of their own: paid out of the account's cash in each."""
    paid = [(currency, money(amount)) for currency, amount in fees]
    return [
        line for currency, amount in paid for line in (Line("fees", currency, amount), Line("cash", currency, -amount))
    ]


def transfer_lines(*, amount: Decimal, currency: str, against: str) -> list[Line]:
    """Return the lines of cash coming in (above zero) or going out, against capital or a transfer."""
    return [Line("cash", currency, amount), Line(against, currency, -amount)]
