"""How well an order was executed. Every cost is above zero when the market took it from us, for buys and sells alike.

Prices are per unit, amounts in the instrument's currency, `_bps` in basis points. Shortfall follows Perold (1988) as split by
Wagner: delay from the decision to the sending, trading from the sending to the fill, opportunity of what stayed undone, fees.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from oms.kernel.decimals import ZERO, total

BPS = Decimal(10_000)
PLACES = Decimal("0.0001")
HORIZONS = (1, 10, 60, 300, 1800)
"""Seconds after a fill that its mark-outs are taken at."""


def sign_of(side: str) -> int:
    """Return 1 for what buys, -1 for what sells: a higher price costs the one and pays the other."""
    return 1 if side == "buy" else -1


@dataclass(frozen=True, slots=True)
class Filled:
    """A part of an order that was executed, with the mid when its broker order was sent, None where nobody knows."""

    quantity: Decimal
    price: Decimal
    sent_mid: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Implementation shortfall in the instrument's currency, against the mid at the decision.

    `opportunity` is None while something is undone and nobody knows what it would have cost. `paper` is what the whole order
    was worth at the decision: the denominator of the basis points.
    """

    delay: Decimal
    trading: Decimal
    opportunity: Decimal | None
    fees: Decimal
    paper: Decimal

    @property
    def total(self) -> Decimal | None:
        """Return the exact sum of the parts, or None while one is unknown."""
        return None if self.opportunity is None else self.delay + self.trading + self.opportunity + self.fees

    def parts(self) -> dict[str, Decimal | None]:
        """Return the parts and their sum by name."""
        return {
            "delay": self.delay, "trading": self.trading, "opportunity": self.opportunity, "fees": self.fees, "total": self.total,
        }  # fmt: skip

    def bps(self) -> dict[str, Decimal | None]:
        """Return the parts in basis points of the paper value."""
        return {k: None if v is None else (v / self.paper * BPS).quantize(PLACES) for k, v in self.parts().items()}


def shortfall(
    side: str, quantity: Decimal, fills: Sequence[Filled], *, decision: Decimal, end: Decimal | None, fees: Decimal
) -> Shortfall:
    """Return what an order of `quantity` decided at `decision` cost: its fills, and what was undone when it ended at `end`."""
    sign = sign_of(side)
    undone = quantity - total(f.quantity for f in fills)
    delay = total(sign * ((f.sent_mid or decision) - decision) * f.quantity for f in fills)
    trading = total(sign * (f.price - (f.sent_mid or decision)) * f.quantity for f in fills)
    if undone <= 0:
        opportunity: Decimal | None = ZERO
    else:
        opportunity = None if end is None else sign * (end - decision) * undone
    return Shortfall(delay, trading, opportunity, fees, decision * quantity)


def slippage_bps(side: str, average: Decimal, benchmark: Decimal) -> Decimal:
    """Return what an average price cost against a benchmark (arrival, VWAP, TWAP, close), in basis points of it."""
    return (sign_of(side) * (average - benchmark) / benchmark * BPS).quantize(PLACES)


def effective_spread(side: str, price: Decimal, mid: Decimal) -> Decimal:
    """Return twice the distance of a price from the mid of its moment: the whole spread that was paid."""
    return 2 * sign_of(side) * (price - mid)


def realized_spread(side: str, price: Decimal, mid_after: Decimal) -> Decimal:
    """Return what of the effective spread was left once the market had moved on: the effective spread less the impact."""
    return 2 * sign_of(side) * (price - mid_after)


def price_impact(side: str, mid: Decimal, mid_after: Decimal) -> Decimal:
    """Return twice how far the mid moved with the trade."""
    return 2 * sign_of(side) * (mid_after - mid)


def price_improvement(side: str, price: Decimal, bid: Decimal, ask: Decimal) -> Decimal:
    """Return by how much a price beat what was quoted to its side, per unit; below zero it was worse."""
    return ask - price if side == "buy" else price - bid


def markout(side: str, price: Decimal, mid_after: Decimal) -> Decimal:
    """Return in basis points what a fill has cost by the mid some time after it; above zero the market went against it."""
    return (sign_of(side) * (price - mid_after) / price * BPS).quantize(PLACES)


@dataclass(frozen=True, slots=True)
class Version:
    """An execution as it was told: a trade, or the bust or correction of an earlier one by its id."""

    id: Any
    kind: str
    ref: Any
    quantity: Decimal
    price: Decimal


def standing(versions: Iterable[Version]) -> list[Version]:
    """Return the executions that stand: trades and corrections that nothing later undid."""
    told = list(versions)
    undone = {v.ref for v in told if v.ref is not None}
    return [v for v in told if v.kind != "bust" and v.id not in undone]


def average_price(executions: Sequence[Version] | Sequence[Filled]) -> Decimal | None:
    """Return amount by quantity, None of nothing."""
    quantity = total(e.quantity for e in executions)
    return total(e.quantity * e.price for e in executions) / quantity if quantity else None


COST_WEIGHT, FILL_WEIGHT, SPEED_WEIGHT = Decimal("0.5"), Decimal("0.3"), Decimal("0.2")


def score(
    *, arrival_bps: Decimal | None, half_spread_bps: Decimal | None, fill_rate: Decimal, ack_ms: float | None
) -> tuple[Decimal, dict[str, Decimal]] | None:
    """Return a mark from 0 to 100 and the parts it is made of, each from 0 to 1; None where nothing tells the cost.

    Cost: 1 at the mid of the arrival or better, one half at the quoted price, 0 at a whole spread beyond the mid. Fill: the
    share that was done. Speed: 1 for an answer at once, one half after a second.
    """
    if arrival_bps is None or half_spread_bps is None:
        return None
    wide = max(half_spread_bps, PLACES)
    parts = {
        "cost": min(max(1 - arrival_bps / (2 * wide), ZERO), Decimal(1)).quantize(PLACES),
        "fill": min(fill_rate, Decimal(1)).quantize(PLACES),
        "speed": (1 / (1 + Decimal(repr(round(ack_ms or 0.0, 3))) / 1000)).quantize(PLACES),
    }
    mark = 100 * (COST_WEIGHT * parts["cost"] + FILL_WEIGHT * parts["fill"] + SPEED_WEIGHT * parts["speed"])
    return mark.quantize(Decimal("0.1")), parts


SLOW_ACK_MS = 1_000.0
MANY_SPREADS = 3


def anomalies(
    side: str,
    fills: Iterable[Mapping[str, Any]],
    *,
    ack_ms: float | None,
    spread_bps: Decimal | None,
    arrival_bps: Decimal | None,
) -> list[str]:
    """Return what a person should look at, as codes.

    `outside_quote`: a fill worse than what its side was quoted in its moment. `far_from_arrival`: it cost more than three
    whole spreads of the arrival. `slow_answer`: the broker took more than a second to answer.
    """
    found = set()
    for fill in fills:
        if fill["bid"] is not None and price_improvement(side, fill["price"], fill["bid"], fill["ask"]) < 0:
            found.add("outside_quote")
    if arrival_bps is not None and spread_bps is not None and arrival_bps > MANY_SPREADS * max(spread_bps, PLACES):
        found.add("far_from_arrival")
    if ack_ms is not None and ack_ms > SLOW_ACK_MS:
        found.add("slow_answer")
    return sorted(found)
