"""How many units an order of a value, a weight or a risk is: the position sizing of tickets and signals.

Amounts are in the account's base currency, prices in the instrument's. The answer is rounded down to whole lots,
so that what was allowed is never passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any

from oms.kernel import decimals
from oms.kernel.decimals import ZERO
from oms.kernel.errors import Invalid, InvalidFields, Refused

WHOLE = Decimal(1)
_DOWN = Context(prec=60, rounding=ROUND_DOWN)
_FORMS = "{notional}, {weight}, or {risk_fraction, stop_price}"


@dataclass(frozen=True, slots=True)
class SizeBy:
    """What the size follows from, one of three.

    `notional`: an amount of the account's currency. `weight`: that fraction of the account's equity. `risk_fraction`:
    so many units that a move from the price to `stop_price` loses that fraction of the equity.
    """

    kind: str
    value: Decimal
    stop_price: Decimal | None = None

    def as_json(self) -> dict[str, str]:
        """Return it as the API spells it."""
        spelled = {self.kind: decimals.text(self.value)}
        return spelled if self.stop_price is None else spelled | {"stop_price": decimals.text(self.stop_price)}

    @property
    def needs_equity(self) -> bool:
        """Tell whether the account must be valued for it."""
        return self.kind != "notional"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a size is worked out from; None where it is not known.

    `price` is what one unit is expected to trade at. `rate` converts the instrument's currency into the account's.
    `equity` is the account's worth.
    """

    price: Decimal | None
    rate: Decimal | None
    equity: Decimal | None
    lot: Decimal


def parse_size_by(raw: object) -> SizeBy:
    """Return the size that a JSON object spells, or raise `InvalidFields` with every fault at once."""
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", f"Send one of: {_FORMS}.", field="size_by")])
    named = [kind for kind in ("notional", "weight", "risk_fraction") if kind in raw]
    known = {*named, "stop_price"} if named == ["risk_fraction"] else set(named)
    faults = [Invalid("unknown_field", "There is no such field here.", field=_at(n)) for n in raw if n not in known]
    if len(named) != 1:
        faults.append(Invalid("not_a_size", f"Size by one of: {_FORMS}.", field="size_by"))
        raise InvalidFields(faults)
    [kind] = named
    values = {
        name: _positive(raw, name, faults) for name in (kind, *(("stop_price",) if "stop_price" in known else ()))
    }
    if kind != "notional" and values[kind] > WHOLE:
        faults.append(Invalid("out_of_range", "The fraction is at most 1.", field=_at(kind)))
    if faults:
        raise InvalidFields(faults)
    return SizeBy(kind, values[kind], values.get("stop_price"))


def _at(name: object) -> str:
    return f"size_by.{str(name)[:64]}"


def _positive(raw: Mapping[Any, Any], name: str, faults: list[Invalid]) -> Decimal:
    if raw.get(name) is None:
        faults.append(Invalid("required", "This field is required.", field=_at(name)))
        return ZERO
    try:
        value = decimals.parse(raw[name], field=_at(name))
    except Invalid as error:
        faults.append(error)
        return ZERO
    if value <= 0:
        faults.append(Invalid("not_positive", "The value must be above zero.", field=_at(name)))
    return value


def units(size_by: SizeBy, facts: Facts, *, side: str) -> Decimal:
    """Return the units to trade, in whole lots.

    Raises `Refused`: no_quote (no price), no_rate (the currencies can't be joined), no_equity (the account can't be
    valued, or is worth nothing), stop_on_wrong_side, zero_size (less than one lot).
    """
    if facts.price is None:
        raise _refused("no_quote", "There is no quote to size the order by; send a quantity.")
    if facts.rate is None:
        raise _refused("no_rate", "There is no rate between the instrument's currency and the account's.")
    amount = size_by.value
    if size_by.needs_equity:
        if facts.equity is None or facts.equity <= 0:
            raise _refused("no_equity", "The account's equity is not known, or not above zero; send a quantity.")
        amount = facts.equity * size_by.value
    unit = _loss_of_one(size_by.stop_price, facts.price, side) if size_by.stop_price is not None else facts.price
    found = decimals.floor_to(_DOWN.divide(amount, unit * facts.rate), facts.lot)
    if found <= 0:
        raise _refused("zero_size", f"That is less than one lot of {decimals.text(facts.lot)}.")
    if found >= decimals.BOUND:
        raise _refused("out_of_range", "That is more than any order can hold.")
    return found


def _loss_of_one(stop_price: Decimal, price: Decimal, side: str) -> Decimal:
    distance = price - stop_price if side == "buy" else stop_price - price
    if distance <= 0:
        where = "below" if side == "buy" else "above"
        raise _refused("stop_on_wrong_side", f"The stop price must lie {where} {decimals.text(price)}.")
    return distance


def _refused(code: str, detail: str) -> Refused:
    return Refused(code, detail, field="size_by")
