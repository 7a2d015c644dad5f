"""Which brokers could take an order, what each would cost, and why the others can't."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import decimals

MODEL_VERSION = "cost-1"
BPS = Decimal(10_000)
MS_COST_BPS = Decimal("0.002")
"""What a millisecond of acknowledgement costs in expected drift; a round figure until it is learned."""
FAILURE_COST_BPS = Decimal(2)
"""What each recent failed call in a row adds: enough to prefer a steady broker over a slightly cheaper one."""


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
    halted: frozenset[str] = frozenset()  # codes of brokers that nothing of this kind may be sent to now


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
    quantity: Decimal = decimals.ZERO

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
            "weight": "1" if self.quantity else "0",
            "quantity": decimals.text(self.quantity),
        }


def judge(
    request: RouteRequest, venue: Venue, quote: QuoteRef | None, fee: Decimal | None, *, at: datetime
) -> Candidate:
    """Return a candidate with the reasons against it, or with its expected cost.

    `fee` is the broker's for the whole quantity, in the instrument's currency; None where nothing tells.
    """
    candidate = Candidate(venue.broker_id, venue.code, _reasons(request, venue, at))
    if not candidate.reasons:
        candidate.parts = _cost(request, venue, quote, fee)
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


def _cost(request: RouteRequest, venue: Venue, quote: QuoteRef | None, fee: Decimal | None) -> dict[str, Decimal]:
    parts = {
        "latency": _rounded(MS_COST_BPS * Decimal(repr(round(venue.ack_ms or 0.0, 3)))),
        "failures": FAILURE_COST_BPS * venue.failures,
        "offline": decimals.ZERO if venue.connected else FAILURE_COST_BPS * 5,
    }
    price = quote.mid if quote else request.limit_price
    if price:
        value = price * request.quantity
        if quote and request.order_type in ("market", "stop"):
            parts["half_spread"] = _rounded((quote.ask - quote.bid) / 2 / price * BPS)
        if fee is not None:
            parts["fees"] = _rounded(fee / value * BPS)
    return parts


def choose(candidates: Sequence[Candidate], quantity: Decimal) -> Candidate | None:
    """Give the quantity to the cheapest eligible broker; equal cost goes by code. None when nobody can."""
    eligible = [c for c in candidates if not c.reasons]
    if not eligible:
        return None
    best = min(eligible, key=lambda c: (c.cost_bps, c.code))
    best.quantity = quantity
    return best


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"))
