"""What an account would win or lose if prices jumped: for information, nothing is decided by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from brokers.domain.reference import InstrumentRef
from oms.kernel.decimals import ZERO

PRICE_SHOCKS = tuple(Decimal(n) / 100 for n in (-20, -10, -5, 5, 10, 20))
FX_SHOCKS = (Decimal("-0.10"), Decimal("0.10"))
GAPS = (Decimal("-0.30"), Decimal("0.30"))


@dataclass(frozen=True, slots=True)
class Exposed:
    """A position with its market value in the account's base currency (signed), None where it has none."""

    instrument: InstrumentRef
    value: Decimal | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario would do; None where a position or cash has no value."""

    scenario: str
    shock: Decimal
    profit: Decimal | None


def outcomes(positions: Sequence[Exposed], cash: Mapping[str, Decimal | None], base: str) -> list[Outcome]:
    """Return every scenario: all prices, those of each asset class, each foreign currency, and the largest single name.

    `cash` is by currency, valued in the base currency. A currency moves what is held and what is paid in it.
    """
    found = [Outcome("all prices", s, _move(positions, s)) for s in PRICE_SHOCKS]
    for asset_class in sorted({p.instrument.asset_class for p in positions}):
        some = [p for p in positions if p.instrument.asset_class == asset_class]
        found += [Outcome(f"prices of {asset_class}", s, _move(some, s)) for s in PRICE_SHOCKS]
    foreign = {c for c, value in cash.items() if value != 0} | {p.instrument.currency for p in positions}
    for currency in sorted(foreign - {base}):
        some = [p for p in positions if p.instrument.currency == currency]
        for shock in FX_SHOCKS:
            held, moved = cash.get(currency, ZERO), _move(some, shock)
            profit = None if held is None or moved is None else moved + held * shock
            found.append(Outcome(f"{currency} against {base}", shock, profit))
    known = [p for p in positions if p.value is not None]
    if known:
        largest = max(known, key=lambda p: abs(p.value or ZERO))
        found += [Outcome(f"gap of {largest.instrument.symbol}", s, _move([largest], s)) for s in GAPS]
    return found


def _move(positions: Sequence[Exposed], shock: Decimal) -> Decimal | None:
    total = ZERO
    for position in positions:
        if position.value is None:
            return None
        total += position.value * shock
    return total
