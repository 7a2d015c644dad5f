"""What a portfolio should hold: weights in groups with cash, how far it drifted, and what quantity a weight stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any

from oms.kernel.decimals import EXACT, ZERO, parse, text
from oms.kernel.errors import DomainError, Invalid, InvalidFields

CASH = "cash"
"""The name in targets that stands for money."""
ONE = Decimal(1)
GROSS_MAX = Decimal(10)
NAMES_MAX = 10_000
DEPTH_MAX = 4
LARGE_TARGET = Decimal("0.20")
FIVE_POINTS = Decimal("0.05")
QUARTER = Decimal("0.25")


@dataclass(frozen=True, slots=True)
class Targets:
    """Weights of equity by symbol, the part that stays cash, and the groups that symbols were put in, outermost first.

    What neither symbols nor cash take stays cash, too.
    """

    weights: dict[str, Decimal]
    cash: Decimal = ZERO
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of_group(self, group: str) -> Decimal:
        """Return the weight of all symbols in a group."""
        return sum((w for s, w in self.weights.items() if group in self.groups.get(s, ())), ZERO)


def parse_targets(raw: object) -> Targets:
    """Return targets as a JSON object spells them, or raise `InvalidFields` with every fault.

    A name's value is its weight (`"AAPL": "0.4"`, `"cash": "0.05"`), or a group `{"weight": "0.6", "targets": {...}}`, whose
    inner weights are parts of the group and need not add up to one.
    """
    found = _Reader()
    found.read(raw, ONE, ())
    gross = sum(map(abs, found.weights.values()), ZERO)
    net = sum(found.weights.values(), ZERO) + found.cash
    if not found.faults and not found.weights and not found.cash:
        found.blame("required", "Name at least one symbol with its weight, or cash.")
    if not found.faults and (net > ONE and gross == net - found.cash and found.cash > 0):
        found.blame("out_of_range", "Weights with cash add up to more than one.")
    if not found.faults and gross > GROSS_MAX:
        found.blame("out_of_range", f"Weights without their signs add up to more than {GROSS_MAX}.")
    if found.faults:
        raise InvalidFields(found.faults)
    return Targets(found.weights, found.cash, found.groups)


def renamed(raw: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return targets as they are spelled with another name for a symbol; where both are named their weights add up."""
    found: dict[str, Any] = {}
    for name, value in raw.items():
        key = new if name == old else name
        inner = isinstance(value, Mapping)
        kept = dict(value) | {"targets": renamed(value["targets"], old, new)} if inner and "targets" in value else value
        if key in found and not inner:
            kept = text(parse(found[key]) + parse(kept))
        found[key] = kept
    return found


class _Reader:
    def __init__(self) -> None:
        self.weights: dict[str, Decimal] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.cash = ZERO
        self.faults: list[Invalid] = []

    def blame(self, code: str, detail: str, name: str = "") -> None:
        self.faults.append(Invalid(code, detail, field=f"targets.{name}"[:80] if name else "targets"))

    def read(self, raw: object, part: Decimal, path: tuple[str, ...]) -> None:
        if not isinstance(raw, Mapping) or len(raw) > NAMES_MAX:
            self.blame("not_an_object", f"Send an object of at most {NAMES_MAX} names.")
            return
        for name, value in raw.items():
            if not isinstance(name, str) or not 0 < len(name) <= 32:
                self.blame("not_an_identifier", "A name has 1 to 32 characters.")
            elif isinstance(value, Mapping):
                self._group(name, value, part, path)
            else:
                self._name(name, value, part, path)

    def _group(self, name: str, raw: Mapping[Any, Any], part: Decimal, path: tuple[str, ...]) -> None:
        weight = self._weight(name, raw.get("weight"))
        inner = raw.get("targets")
        if raw.keys() != {"weight", "targets"} or not isinstance(inner, Mapping) or not inner:
            self.blame("not_a_group", 'A group is {"weight": "0.6", "targets": {...}}.', name)
        elif len(path) + 1 >= DEPTH_MAX:
            self.blame("too_deep", f"Groups lie at most {DEPTH_MAX - 1} deep.", name)
        elif weight is not None:
            total = self._total(inner)
            # parts of a group are what they are to each other: 2 and 1 mean two thirds and one
            self.read(
                inner, EXACT.divide(EXACT.multiply(part, weight), total) if total else part * weight, (*path, name)
            )

    def _total(self, inner: Mapping[Any, Any]) -> Decimal:
        """Return what the parts of a group add up to; what can't be read is blamed when it is."""
        total = ZERO
        for value in inner.values():
            try:
                total += parse(value.get("weight") if isinstance(value, Mapping) else value)
            except DomainError:
                return ZERO
        return total

    def _name(self, name: str, raw: object, part: Decimal, path: tuple[str, ...]) -> None:
        weight = self._weight(name, raw)
        if weight is None:
            return
        weight = EXACT.multiply(part, weight)
        if name.lower() == CASH:
            if weight < 0:
                self.blame("out_of_range", "Cash can't be aimed for below zero.", name)
            self.cash += weight
        elif name in self.weights:
            self.blame("not_unique", "A symbol has one weight.", name)
        else:
            self.weights[name] = weight
            if path:
                self.groups[name] = path

    def _weight(self, name: str, raw: object) -> Decimal | None:
        try:
            weight = parse(raw)
        except DomainError as error:
            self.blame(error.code, 'A weight is a decimal in a string, for example "0.4".', name)
            return None
        if abs(weight) > GROSS_MAX:
            self.blame("out_of_range", f"A weight lies between -{GROSS_MAX} and {GROSS_MAX}.", name)
        return weight


# ---------------------------------------------------------------- drift


@dataclass(frozen=True, slots=True)
class Band:
    """How far a weight may lie from its target: in points of the portfolio, as a part of the target, or both.

    A weight on the edge is still inside. With both it is outside once it leaves either. Without any the band is of no width.
    """

    absolute: Decimal | None = None
    relative: Decimal | None = None

    def edges(self, target: Decimal) -> tuple[Decimal, Decimal]:
        """Return the least and the greatest weight that is inside."""
        widths = [
            w for w in (self.absolute, None if self.relative is None else self.relative * abs(target)) if w is not None
        ]
        width = min(widths, default=ZERO)
        return target - width, target + width

    def breached(self, target: Decimal, weight: Decimal) -> bool:
        """Tell whether a weight lies outside."""
        lower, upper = self.edges(target)
        return not lower <= weight <= upper


def five_twenty_five(target: Decimal) -> Band:
    """Return the band of the 5/25 rule: five points for targets of 20 % and more, a quarter of the target below."""
    return Band(absolute=FIVE_POINTS) if abs(target) >= LARGE_TARGET else Band(relative=QUARTER)


def drift(target: Decimal, weight: Decimal) -> tuple[Decimal, Decimal | None]:
    """Return how far a weight lies from its target, in points and as a part of the target (None where that is zero)."""
    moved = weight - target
    return moved, None if target == 0 else EXACT.divide(moved, abs(target))


# ---------------------------------------------------------------- from weights to amounts and quantities


def amounts_to_trade(
    values: Sequence[Decimal], targets: Sequence[Decimal], *, cash_flow: Decimal = ZERO, band: Band | None = None
) -> list[Decimal]:
    """Return what to buy (above zero) or sell of each sleeve so that they stand at their targets after a cash flow.

    Without a band the amounts add up to the flow. With one only sleeves outside of it are brought to their target; as
    long as all are inside, nothing is traded.
    """
    before, whole = sum(values, ZERO), sum(values, ZERO) + cash_flow
    wanted = [t * whole - v for v, t in zip(values, targets, strict=True)]
    if band is None:
        return wanted
    out = [band.breached(t, v / before if before else ZERO) for v, t in zip(values, targets, strict=True)]
    return [w if moved else ZERO for w, moved in zip(wanted, out, strict=True)]


def flow_to_targets(values: Sequence[Decimal], targets: Sequence[Decimal], cash_flow: Decimal) -> list[Decimal]:
    """Return how a cash flow alone brings sleeves nearer to their targets: a deposit buys what is short, a withdrawal
    sells what is over, in proportion; nothing else is traded. The amounts add up to the flow."""
    whole = sum(values, ZERO) + cash_flow
    sign = ONE if cash_flow >= 0 else -ONE
    gaps = [max(sign * (t * whole - v), ZERO) for v, t in zip(values, targets, strict=True)]
    total = sum(gaps, ZERO)
    if not total:
        return [ZERO] * len(gaps)
    # gaps of one sign are never less than the flow together, as gaps of both signs add up to it
    return [EXACT.divide(EXACT.multiply(cash_flow, g), total) for g in gaps]


def towards_zero(quantity: Decimal, lot: Decimal) -> Decimal:
    """Return the whole lots in a quantity of either sign."""
    return EXACT.divide(quantity, lot).to_integral_value(ROUND_DOWN) * lot


def target_quantity(
    *,
    equity: Decimal,
    weight: Decimal,
    price: Decimal,
    lot: Decimal = ONE,
    buffer: Decimal = ZERO,
    fee: Decimal = ZERO,
    may_short: bool = True,
) -> Decimal | None:
    """Return what to hold of an instrument for a weight of equity, in whole lots, rounded toward zero.

    The fee of getting there and the buffer, a fraction, are left out of what is invested. None without a price.
    """
    if price <= 0:
        return None
    if not may_short and weight < 0:
        return ZERO
    invested = EXACT.multiply(equity - fee, ONE - buffer)
    return towards_zero(EXACT.divide(EXACT.multiply(invested, weight), price), lot)


def worth_following(weight: Decimal, *, least: Decimal, most: Decimal) -> bool:
    """Tell whether a target is neither so small nor so large that it must be a mistake; zero, a way out, always is."""
    return weight == 0 or least <= abs(weight) <= most
