"""Which brokers could take an order, what each would cost, and why the others can't."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.domain.fees import NOTHING, Done
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals
from routing.domain.learning import Belief
from routing.domain.weights import Weights

MODEL_VERSION = "cost-2"
BPS = Decimal(10_000)
UNKNOWN = Belief()
AWAY = 5
"""A session that is away counts as so many failed calls."""


def nothing_before(broker_id: int) -> Done:
    """Return that an account did nothing at a broker this month."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """One order to be placed somewhere; `brokers` are those the account may use, by id."""

    order_id: Any
    instrument: InstrumentRef
    side: str
    quantity: Decimal
    order_type: str
    time_in_force: str
    limit_price: Decimal | None
    brokers: tuple[int, ...]
    directed: int | None = None
    excluded: frozenset[int] = frozenset()
    instructions: frozenset[str] = (
        frozenset()
    )  # what a broker must be able to do besides: display_quantity, min_quantity
    may_split: bool = False  # several brokers may take parts of it
    halted: frozenset[str] = frozenset()  # codes of brokers that nothing of this kind may be sent to now
    month: Callable[[int], Done] = (
        nothing_before  # what the account did this month at a broker, asked where its fees depend on it
    )


@dataclass(frozen=True, slots=True)
class Venue:
    """What is known of one broker for one instrument, at one moment."""

    broker_id: int
    code: str
    enabled: bool
    listed: bool
    shortable: bool
    tick_size: Decimal
    lot_size: Decimal
    order_types: frozenset[str]
    times_in_force: frozenset[str]
    takes: Callable[[str, str], bool]  # order type and time in force, together, for this instrument now
    instructions: frozenset[str]
    connected: bool
    open_until: datetime | None
    failures: int
    ack_ms: float | None


@dataclass(slots=True)
class Candidate:
    """One broker looked at: taken or not, with every number that counted."""

    broker_id: int
    code: str
    reasons: list[str] = field(default_factory=list)
    parts: dict[str, Decimal] = field(default_factory=dict)
    belief: Belief = UNKNOWN
    quantity: Decimal = decimals.ZERO
    weight: Decimal = decimals.ZERO  # its share of the order
    propensity: float | None = None  # how likely it was to be chosen, over all seeds
    drawn_bps: float | None = None  # its cost as drawn, where the choice was drawn

    @property
    def cost_bps(self) -> Decimal:
        """Return the expected cost in basis points of the order's value."""
        return decimals.total(self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """Return the candidate as it is stored and shown."""
        eligible = not self.reasons
        return {
            "broker": self.code,
            "eligible": eligible,
            "reasons": self.reasons,
            "cost_bps": decimals.text(self.cost_bps) if eligible else None,
            "parts": {k: decimals.text(v) for k, v in self.parts.items()},
            "score": decimals.text(-self.cost_bps) if eligible else None,
            "weight": decimals.text(self.weight),
            "quantity": decimals.text(self.quantity),
            "error_bps": round(self.belief.error_bps, 4) if eligible else None,
            "orders": round(self.belief.orders, 1) if eligible else None,
            "propensity": None if self.propensity is None else round(self.propensity, 6),
            "drawn_bps": None if self.drawn_bps is None else round(self.drawn_bps, 4),
        }


def judge(
    request: RouteRequest,
    venue: Venue,
    quote: QuoteRef | None,
    fee: Decimal | None,
    *,
    belief: Belief,
    weights: Weights,
    at: datetime,
) -> Candidate:
    """Return a candidate with the reasons against it, or with its expected cost.

    `fee` is the broker's for the whole quantity, in the instrument's currency; None where nothing tells.
    """
    candidate = Candidate(venue.broker_id, venue.code, _reasons(request, venue, at), belief=belief)
    if not candidate.reasons:
        candidate.parts = _cost(request, venue, quote, fee, belief, weights)
    return candidate


def _reasons(request: RouteRequest, venue: Venue, at: datetime) -> list[str]:
    rules = [
        (venue.enabled, "disabled"),
        (venue.code not in request.halted, "halted"),
        (venue.broker_id in request.brokers, "no_account"),
        (venue.listed, "not_listed"),
        (request.directed in (None, venue.broker_id), "directed_elsewhere"),
        (venue.broker_id not in request.excluded, "already_refused"),
        (request.order_type in venue.order_types, "order_type"),
        (request.time_in_force in venue.times_in_force, "time_in_force"),
        (venue.takes(request.order_type, request.time_in_force), "combination"),
        (request.instructions <= venue.instructions, "instructions"),
        (request.side != "sell_short" or venue.shortable, "not_shortable"),
        (venue.open_until is None or venue.open_until <= at, "breaker_open"),
    ]
    if venue.listed:
        rules.append((decimals.is_multiple(request.quantity, venue.lot_size), "lot_size"))
        price = request.limit_price
        rules.append((price is None or decimals.is_multiple(price, venue.tick_size), "tick_size"))
    return [name for passed, name in rules if not passed]


def _cost(
    request: RouteRequest, venue: Venue, quote: QuoteRef | None, fee: Decimal | None, belief: Belief, weights: Weights
) -> dict[str, Decimal]:
    """Return the parts of the expected cost in basis points.

    latency, failures, offline: of waiting and of calls that fail; missing: of what is expected to stay undone, rejects with it;
    half_spread, fees: as quoted and agreed; impact: of taking more than is displayed (the square-root law); learned: what fills there
    cost beyond the quoted spread.
    """
    ack_ms = belief.ack_ms if belief.ack_ms is not None else venue.ack_ms or 0.0
    parts = {
        "latency": _rounded(weights.ms_bps * Decimal(repr(round(ack_ms, 3)))),
        "failures": weights.failure_bps * venue.failures,
        "offline": decimals.ZERO if venue.connected else weights.failure_bps * AWAY,
    }
    if belief.share is not None:
        missing = 1 - belief.share * (1 - (belief.reject_rate or 0.0))
        parts["missing"] = _rounded(weights.miss_bps * Decimal(repr(round(missing, 6))))
    price = quote.mid if quote else request.limit_price
    if price:
        value = price * request.quantity
        if quote and request.order_type in ("market", "stop"):
            parts["half_spread"] = _rounded((quote.ask - quote.bid) / 2 / price * BPS)
            parts["learned"] = _rounded(Decimal(repr(round(belief.cost_bps, 6))))
            if impact := impact_bps(request.side, request.quantity, quote, weights):
                parts["impact"] = impact
        if fee is not None:
            parts["fees"] = _rounded(fee / value * BPS)
    return parts


def displayed(side: str, quote: QuoteRef) -> Decimal | None:
    """Return what is displayed on the side that an order would take from."""
    return quote.ask_size if side == "buy" else quote.bid_size


def impact_bps(side: str, quantity: Decimal, quote: QuoteRef, weights: Weights) -> Decimal:
    """Return what an order is expected to move the price by beyond the spread: nothing within what is displayed."""
    size = displayed(side, quote)
    if not size or quantity <= size:
        return decimals.ZERO
    return _rounded(weights.impact_bps * (quantity / size).sqrt())


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"))
