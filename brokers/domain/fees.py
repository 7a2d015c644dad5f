"""What a broker charges: one function for the estimate, the booking and the comparison with the bill.

A schedule is a list of items: {kind, basis, rate, min?, max_percent?, side?, currency?}. `kind` names the charge.
Bases: `per_share`, rate per unit traded; `percent`, rate in percent of the value; `per_order`, the rate as it is. `min` is
an amount, `max_percent` a cap in percent of the value. All of it counts once for a broker's order, however many fills
it takes: each fill is charged what it adds to the order's total. A negative rate is a rebate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from oms.kernel.decimals import ZERO, money


@dataclass(frozen=True, slots=True)
class FeeCharge:
    """One charge; below zero it is a rebate."""

    kind: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Done:
    """What the same order filled before: units, unsigned, and their value."""

    quantity: Decimal = ZERO
    value: Decimal = ZERO


NOTHING = Done()


def charge(
    items: Iterable[Mapping[str, Any]],
    *,
    side: str,
    quantity: Decimal,
    price: Decimal,
    currency: str,
    done: Done = NOTHING,
) -> list[FeeCharge]:
    """Return the charges of a fill, in the order of the schedule's items; items of another side are left out.

    They are what the order's charges grow by with it, so that all fills together are charged as one would be.
    Quantity is unsigned. An unknown basis raises `ValueError`: a fee that can't be read must not be taken as none.
    """
    charges = []
    for item in items:
        if item.get("side", side) != side:
            continue
        amount = money(_amount(item, done.quantity + quantity, done.value + quantity * price))
        amount -= money(_amount(item, done.quantity, done.value))
        if amount:
            charges.append(FeeCharge(str(item["kind"]), amount, str(item.get("currency", currency))))
    return charges


def _amount(item: Mapping[str, Any], quantity: Decimal, value: Decimal) -> Decimal:
    """Return what an order of so many units and such a value is charged, nothing for none."""
    basis, rate = item["basis"], Decimal(str(item["rate"]))
    if basis == "percent":
        amount = value * rate / 100
    elif basis == "per_share":
        amount = quantity * rate
    elif basis == "per_order":
        amount = rate
    else:
        raise ValueError(f"unknown fee basis {basis!r}")
    if not quantity:
        return ZERO
    if item.get("min") is not None:
        amount = max(amount, Decimal(str(item["min"])))
    if item.get("max_percent") is not None:
        amount = min(amount, value * Decimal(str(item["max_percent"])) / 100)
    return amount
