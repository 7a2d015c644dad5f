"""How a rebalance is done, as requests, rules of accounts and people spell it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from oms.kernel.decimals import ZERO, parse
from oms.kernel.errors import DomainError, Invalid, InvalidFields
from portfolio.domain.rebalancing import FULL, METHODS, Rules
from portfolio.domain.targets import Band

FRACTIONS = (
    "drift_band", "relative_band", "cash_buffer", "turnover_cap", "max_weight", "short_term_tax", "long_term_tax",
)  # fmt: skip
"""Parts of equity, of a target, or of a gain: 0 to below 1, and turnover up to 2."""
AMOUNTS = ("min_trade", "harvest", "limit_bps")
FLAGS = ("allow_short", "tax_aware", "wash_guard")
ROUNDINGS = ("down", "nearest")
SUBSTITUTES_MAX = 1_000
KNOWN = frozenset(
    {"method", *FRACTIONS, *AMOUNTS, *FLAGS, "rounding", "cash_flow", "substitutes", "tracking_error_aversion"}
)
LIMIT_BPS = Decimal(50)
"""How far through the market an order may trade: without a bound risk must hold far more cash for it than it takes."""
AVERSION = Decimal(10)
"""What an optimiser spends to take one unit of a year's variance against the targets away: at 10, ten basis points of equity
for a tracking error of one percent."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options, read. `substitutes` go from symbol to symbol; `spelled` is what they were read from."""

    rules: Rules = field(default_factory=Rules)
    cash_flow: Decimal | None = None
    substitutes: Mapping[str, str] = field(default_factory=dict)
    aversion: Decimal = AVERSION
    weight_cap: Decimal | None = None
    spelled: Mapping[str, Any] = field(default_factory=dict)


def parse_options(raw: object) -> Options:
    """Return options as a JSON object spells them, or raise `InvalidFields` with every fault."""
    if not isinstance(raw, Mapping):
        raise InvalidFields([Invalid("not_an_object", "Send one JSON object.", field="")])
    reader = _Reader(raw)
    absolute, relative = reader.number("drift_band"), reader.number("relative_band")
    tax_aware = reader.flag("tax_aware", default=False)
    harvest = reader.number("harvest", most=None)
    rules = Rules(
        method=reader.choice("method", METHODS, FULL),
        band=None if absolute is None and relative is None else Band(absolute, relative),
        min_trade=reader.number("min_trade", most=None) or ZERO,
        cash_buffer=reader.number("cash_buffer") or ZERO,
        turnover_cap=reader.number("turnover_cap", most=Decimal(2)),
        nearest_lot=reader.choice("rounding", ROUNDINGS, "down") == "nearest",
        may_short=reader.flag("allow_short", default=False),
        limit_bps=LIMIT_BPS if (limit := reader.number("limit_bps", most=Decimal(5_000))) is None else limit,
        tax_aware=tax_aware or harvest is not None,
        short_term_tax=reader.number("short_term_tax") or ZERO,
        long_term_tax=reader.number("long_term_tax") or ZERO,
        harvest=harvest,
        wash_guard=reader.flag("wash_guard", default=tax_aware or harvest is not None),
    )
    aversion = reader.number("tracking_error_aversion", most=None)
    found = Options(
        rules, reader.number("cash_flow", least=None, most=None), reader.substitutes(),
        AVERSION if aversion is None else aversion, reader.number("max_weight"), dict(raw),
    )  # fmt: skip
    if reader.faults:
        raise InvalidFields(reader.faults)
    return found


class _Reader:
    def __init__(self, raw: Mapping[Any, Any]) -> None:
        self.raw = raw
        self.faults = [
            Invalid("unknown_field", "There is no such option.", field=str(n)[:64]) for n in raw if n not in KNOWN
        ]

    def blame(self, code: str, detail: str, name: str) -> None:
        self.faults.append(Invalid(code, detail, field=name))

    def number(self, name: str, *, least: Decimal | None = ZERO, most: Decimal | None = Decimal(1)) -> Decimal | None:
        if self.raw.get(name) is None:
            return None
        try:
            value = parse(self.raw[name], field=name)
        except DomainError as error:
            self.blame(error.code, error.detail, name)
            return None
        if (least is not None and value < least) or (most is not None and value > most):
            self.blame(
                "out_of_range", f"It lies between {least} and {most}." if most else f"It is {least} or more.", name
            )
            return None
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            self.blame("not_a_flag", "Send true or false.", name)
            return default
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.raw.get(name, default)
        if not isinstance(value, str) or value not in allowed:
            self.blame("not_a_choice", f"Use one of: {', '.join(allowed)}.", name)
            return default
        return value

    def substitutes(self) -> dict[str, str]:
        value = self.raw.get("substitutes") or {}
        pairs = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        if not pairs or len(value) > SUBSTITUTES_MAX:
            self.blame(
                "not_an_object",
                f"Send at most {SUBSTITUTES_MAX} symbols with the symbol to hold in their place.",
                "substitutes",
            )
            return {}
        return dict(value)
