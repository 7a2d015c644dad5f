"""The numbers that routing decides by: kept in versions, promoted by a person."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any

from oms.kernel.decimals import text
from oms.kernel.errors import Invalid, InvalidFields


@dataclass(frozen=True, slots=True)
class Weights:
    """What a millisecond, a failure, a miss are worth in basis points, how fast is forgotten, how much is explored.

    `ms_bps`: per millisecond of expected acknowledgement. `failure_bps`: per failed call in a row; five of them for a session that is away.
    `miss_bps`: what an order costs that is not filled, times the share expected to be missed. `impact_bps`: what taking all that is
    displayed moves the price by; with the root of the share taken. `half_life_hours`: after which an observation counts half.
    `prior_orders`: how many observations the estimate of the level above counts for. `prior_bps`: how far brokers are expected to differ
    before anything was seen. `explore_share`: of orders, at most (none until somebody wants it), that may go where it is not expected to be cheapest; `explore_bps` and
    `explore_amount`: what that may be expected to cost at most, by value and in the instrument's currency. `split_share`: of what is
    displayed, above which an order may go to several brokers; `split_saving_bps`: what that must save. `drift_errors`: how many standard
    errors the last orders may lie from the older ones before these are forgotten.
    """

    ms_bps: Decimal = Decimal("0.002")
    failure_bps: Decimal = Decimal(2)
    miss_bps: Decimal = Decimal(10)
    impact_bps: Decimal = Decimal(1)
    half_life_hours: Decimal = Decimal(6)
    prior_orders: Decimal = Decimal(8)
    prior_bps: Decimal = Decimal(2)
    explore_share: Decimal = Decimal(0)
    explore_bps: Decimal = Decimal(5)
    explore_amount: Decimal = Decimal(25)
    split_share: Decimal = Decimal(1)
    split_saving_bps: Decimal = Decimal("0.1")
    drift_errors: Decimal = Decimal(3)

    def as_json(self) -> dict[str, str]:
        """Return the numbers as they are stored and shown."""
        return {name: text(value) for name, value in asdict(self).items()}


DEFAULT = Weights()
_MOST = {"explore_share": Decimal("0.5"), "half_life_hours": Decimal(8_760)}
_LEAST = {
    "half_life_hours": Decimal("0.01"),
    "prior_orders": Decimal(1),
    "prior_bps": Decimal("0.01"),
    "drift_errors": Decimal(2),
}


def parse(told: Mapping[str, Any], base: Weights = DEFAULT) -> Weights:
    """Return weights with the numbers told in place of those of `base`; raise `InvalidFields` with all that is wrong."""
    known = {f.name for f in fields(Weights)}
    faults = [Invalid("unknown_field", "There is no such weight.", field=n) for n in sorted(set(told) - known)]
    values: dict[str, Decimal] = {}
    for name in sorted(known & set(told)):
        least, most = _LEAST.get(name, Decimal(0)), _MOST.get(name, Decimal(1_000_000))
        try:
            value = Decimal(str(told[name]))
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or not least <= value <= most:
            faults.append(Invalid("out_of_range", f"Use a number from {text(least)} to {text(most)}.", field=name))
        else:
            values[name] = value
    if faults:
        raise InvalidFields(faults)
    return Weights(**{**asdict(base), **values})


def restored(stored: Mapping[str, str]) -> Weights:
    """Return weights as they were stored; one that was added since takes its default."""
    known = {f.name for f in fields(Weights)}
    return Weights(**{k: Decimal(v) for k, v in stored.items() if k in known})
