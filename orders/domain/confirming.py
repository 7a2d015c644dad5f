"""A broker's confirmation against our execution: what must agree, and how nearly."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from oms.kernel.decimals import ZERO, money, text
from portfolio.domain.breaks import Tolerances


@dataclass(frozen=True, slots=True)
class Terms:
    """What one side says was traded, whole: of one execution, or of all that an order's confirmation stands for.

    `net` is the cash that changes hands, without its sign; None where a side says nothing.
    """

    side: str
    quantity: Decimal
    price: Decimal
    fees: Decimal | None = None
    net: Decimal | None = None
    settles: date | None = None


def net_of(side: str, quantity: Decimal, price: Decimal, fees: Decimal) -> Decimal:
    """Return the cash that changes hands for a trade: what a buyer pays with the fees, what a seller gets without them."""
    value = money(quantity * price)
    return abs(value + fees if side == "buy" else value - fees)


def differences(ours: Terms, theirs: Terms, tolerances: Tolerances) -> dict[str, dict[str, str | None]]:
    """Return each thing that is told otherwise, with both words; nothing where the trade is confirmed.

    What they don't tell differs from nothing.
    """
    told: dict[str, dict[str, str | None]] = {}
    if (ours.side == "buy") != (theirs.side == "buy"):
        told["side"] = {"ours": ours.side, "theirs": theirs.side}
    for name, mine, other, least in _numbers(ours, theirs, tolerances):
        if other is not None and (mine is None or abs(mine - other) > least):
            told[name] = {"ours": None if mine is None else text(mine), "theirs": text(other)}
    if theirs.settles is not None and ours.settles is not None and ours.settles != theirs.settles:
        told["settles"] = {"ours": ours.settles.isoformat(), "theirs": theirs.settles.isoformat()}
    return told


def _numbers(
    ours: Terms, theirs: Terms, tolerances: Tolerances
) -> Iterator[tuple[str, Decimal | None, Decimal | None, Decimal]]:
    yield "quantity", ours.quantity, theirs.quantity, tolerances.quantity
    yield "price", ours.price, theirs.price, tolerances.price
    yield "fees", ours.fees, theirs.fees, tolerances.fees
    yield "net", ours.net, theirs.net, tolerances.cash


def whole(parts: list[Terms]) -> Terms:
    """Return several executions as the one trade that a broker confirms at their average price."""
    quantity = sum((p.quantity for p in parts), ZERO)
    value = sum((p.quantity * p.price for p in parts), ZERO)
    fees = [p.fees for p in parts]
    nets = [p.net for p in parts]
    return Terms(
        side=parts[0].side,
        quantity=quantity,
        price=(value / quantity).quantize(Decimal("0.0000000001")) if quantity else ZERO,
        fees=None if None in fees else sum((f for f in fees if f is not None), ZERO),
        net=None if None in nets else sum((n for n in nets if n is not None), ZERO),
        settles=parts[0].settles if len({p.settles for p in parts}) == 1 else None,
    )


def telling(differing: Mapping[str, Mapping[str, str | None]]) -> tuple[Decimal | None, Decimal | None]:
    """Return both sides' word on the number that differs most tellingly: quantity, then price, net, fees."""
    for name in ("quantity", "price", "net", "fees"):
        if pair := differing.get(name):
            return _number(pair["ours"]), _number(pair["theirs"])
    return None, None


def _number(told: str | None) -> Decimal | None:
    return None if told is None else Decimal(told)
