"""What one account is exposed to in the worst case, valued in its base currency and kept up while orders are counted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from brokers.domain.reference import InstrumentRef
from oms.kernel.decimals import ZERO

Value = Callable[[int, Decimal], Decimal | None]
"""Values units of an instrument (its id) at the mid, in the base currency; None without a price or rate."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Units an account holds of an instrument, units working on either side, and cash held for them."""

    quantity: Decimal = ZERO
    buying: Decimal = ZERO
    selling: Decimal = ZERO
    amount: Decimal = ZERO

    def reduced_by(self, side: str, quantity: Decimal) -> bool:
        """Tell whether an order brings the position nearer to zero, whatever else is filled."""
        room = -self.quantity - self.buying if side == "buy" else self.quantity - self.selling
        return quantity <= room

    def with_order(self, side: str, quantity: Decimal, amount: Decimal) -> "Holding":
        """Return the holding with one more order working (or less, for a negative quantity)."""
        return self.moved(*((quantity, ZERO) if side == "buy" else (ZERO, quantity)), amount)

    def moved(self, buying: Decimal, selling: Decimal, amount: Decimal) -> "Holding":
        """Return the holding with more working on either side, or less."""
        return Holding(self.quantity, self.buying + buying, self.selling + selling, self.amount + amount)

    def largest(self) -> Decimal:
        """Return the units, long or short, that the worst run of fills could leave."""
        return max(abs(self.quantity), self.quantity + self.buying, self.selling - self.quantity)


@dataclass(frozen=True, slots=True)
class Working:
    """What one order may still do: units on its side and the cash held for them."""

    side: str
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Claim:
    """Units working on either side, and cash held for them."""

    buying: Decimal = ZERO
    selling: Decimal = ZERO
    amount: Decimal = ZERO

    def __sub__(self, other: "Claim") -> "Claim":
        return Claim(self.buying - other.buying, self.selling - other.selling, self.amount - other.amount)


def worst_of(legs: Iterable[Working]) -> Claim:
    """Return what orders hold of which one cancels the others: on either side, and of cash, the most that one of them may take."""
    known = list(legs)
    return Claim(
        max((w.quantity for w in known if w.side == "buy"), default=ZERO),
        max((w.quantity for w in known if w.side != "buy"), default=ZERO),
        max((w.amount for w in known), default=ZERO),
    )


@dataclass(frozen=True, slots=True)
class Worth:
    """Market values: as large as fills could make it either way, as far long, as far short, and of what is held."""

    gross: Decimal = ZERO
    long: Decimal = ZERO
    short: Decimal = ZERO
    held: Decimal = ZERO

    def moved(self, old: "Worth", new: "Worth") -> "Worth":
        """Return the total with one part replaced."""
        return Worth(
            self.gross - old.gross + new.gross,
            self.long - old.long + new.long,
            self.short - old.short + new.short,
            self.held - old.held + new.held,
        )


NOTHING = Worth()


class Exposures:
    """The worth of every holding of an account, and their total."""

    def __init__(self, holdings: Iterable[tuple[int, Holding]], value: Value) -> None:
        self._value = value
        self._unit: dict[int, Decimal | None] = {}
        self._worth: dict[int, Worth | None] = {}
        self._asked: tuple[int, Holding, Worth | None] = 0, Holding(), NOTHING
        self._total = NOTHING
        self._unvalued = 0
        for instrument_id, holding in holdings:
            self.put(instrument_id, holding)

    def put(self, instrument_id: int, holding: Holding) -> None:
        """Take in what is held and worked of an instrument now."""
        old, new = self._worth.get(instrument_id, NOTHING), self._worth_of(instrument_id, holding)
        self._unvalued += (new is None) - (old is None)
        self._worth[instrument_id] = new
        self._total = self._total.moved(old or NOTHING, new or NOTHING)

    def total(self, instrument_id: int | None = None, holding: Holding | None = None) -> Worth | None:
        """Return the total, with one holding as it would be; None if a part can't be valued."""
        if instrument_id is None or holding is None:
            return None if self._unvalued else self._total
        old, new = self._worth.get(instrument_id, NOTHING), self._worth_of(instrument_id, holding)
        if new is None or self._unvalued - (old is None):
            return None
        return self._total.moved(old or NOTHING, new)

    def gross_where(
        self,
        instruments: Mapping[int, InstrumentRef],
        belongs: Callable[[InstrumentRef], bool],
        instrument_id: int,
        holding: Holding,
    ) -> Decimal | None:
        """Return the gross worth of the instruments that belong to something, with one holding as it would be."""
        gross = ZERO
        for pk in {*self._worth, instrument_id}:
            if not belongs(instruments[pk]):
                continue
            worth = self._worth_of(pk, holding) if pk == instrument_id else self._worth[pk]
            if worth is None:
                return None
            gross += worth.gross
        return gross

    def _worth_of(self, instrument_id: int, holding: Holding) -> Worth | None:
        if self._asked[0] == instrument_id and self._asked[1] == holding:  # several limits ask about the same order
            return self._asked[2]
        worth = self._work_out(instrument_id, holding)
        self._asked = instrument_id, holding, worth
        return worth

    def _work_out(self, instrument_id: int, holding: Holding) -> Worth | None:
        largest = holding.largest()
        if largest == 0:
            return NOTHING
        if instrument_id not in self._unit:
            self._unit[instrument_id] = self._value(instrument_id, Decimal(1))
        one = self._unit[instrument_id]
        if one is None:
            return None
        up, down = holding.quantity + holding.buying, holding.selling - holding.quantity
        return Worth(largest * one, up * one, down * one, holding.quantity * one)
