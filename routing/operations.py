"""Deciding where orders go, keeping why, and learning from what became of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from brokers.domain.fees import NOTHING, Done, charge, needs_month
from brokers.domain.rates import Rates
from brokers.domain.reference import BrokerRef, InstrumentRef, QuoteRef
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Forbidden, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction, require_transaction
from routing import queries
from routing.domain.candidates import (
    BPS,
    MODEL_VERSION,
    Candidate,
    RouteRequest,
    Venue,
    displayed,
    judge,
    nothing_before,
)
from routing.domain.choosing import choose
from routing.domain.learning import Belief, Outcome, Sums, believe, part_of_day, size_of
from routing.domain.splitting import Taker, split
from routing.domain.weights import Weights, parse
from routing.models import BrokerScore, RouteLeg, RouteOutcome, RoutingDecision, RoutingWeights

SEED_BITS = 63
SPLIT_PARTS_MAX = 3
_DECISION = ("id", "source_id", "at", "model_version", "weights_version", "seed", "explored", "candidates")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where one order goes: (broker id, quantity) legs, or none and why."""

    order_id: UUID
    decision_id: UUID
    legs: tuple[tuple[int, Decimal], ...]
    detail: str
    candidates: list[dict[str, Any]]


@dataclass(slots=True)
class _World:
    """What a batch is decided by."""

    at: datetime
    version: int
    weights: Weights
    quotes: Mapping[int, QuoteRef]
    health: Mapping[int, tuple[Any, ...]]
    scores: queries.Scores
    volumes: Mapping[int, Decimal]
    venues: dict[int, list[Venue]]
    beliefs: dict[tuple[int, int, str], Belief]

    def belief(self, broker_id: int, instrument_id: int, quantity: Decimal) -> Belief:
        """Return what is expected of a broker for an order of this size now."""
        usual = self.volumes.get(instrument_id)
        size = size_of(float(quantity), float(usual) if usual else None)
        key = (broker_id, instrument_id, size)
        if key not in self.beliefs:
            levels = queries.levels(broker_id, instrument_id, size, part_of_day(self.at))
            self.beliefs[key] = believe([self.scores.get(level) for level in levels], self.weights, self.at)
        return self.beliefs[key]


def plan(requests: Sequence[RouteRequest], *, at: datetime) -> list[Plan]:
    """Decide for each request, in order, and store every candidate; four statements for any number.

    Must run inside the transaction that records the orders.
    """
    if not requests:
        return []
    version, weights = queries.weights()
    world = _World(
        at, version, weights, brokers.quotes({r.instrument.id for r in requests}), _health(), queries.scores(),
        brokers.daily_volumes(at), {}, {},
    )  # fmt: skip
    decisions, legs, plans = [], [], []
    for request in requests:
        candidates, seed, explored = decide(request, world)
        chosen = [c for c in candidates if c.quantity]
        stored = [c.as_json() for c in candidates]
        decision_id = uuid7()
        decisions.append(
            (decision_id, request.order_id, at, MODEL_VERSION, version, seed, explored, json.dumps(stored))
        )
        legs += [(uuid7(), decision_id, c.broker_id, c.quantity) for c in chosen]
        detail = "" if chosen else "; ".join(f"{c.code}: {', '.join(c.reasons)}" for c in candidates)[:200]
        taken = tuple((c.broker_id, c.quantity) for c in chosen)
        plans.append(Plan(request.order_id, decision_id, taken, detail, stored))
    sql.insert_values(RoutingDecision, _DECISION, decisions)
    sql.insert_values(RouteLeg, ("id", "decision_id", "broker_id", "quantity"), legs)
    return plans


def decide(request: RouteRequest, world: _World) -> tuple[list[Candidate], int | None, bool]:
    """Return every broker looked at, with what it takes; the seed if one was drawn by; whether it went elsewhere to learn."""
    instrument = request.instrument
    if instrument.id not in world.venues:
        world.venues[instrument.id] = [
            _venue(b, instrument, world.health, world.at) for b in brokers.brokers().values()
        ]
    quote = world.quotes.get(instrument.id)
    candidates = [
        judge(
            request, v, quote, _fee_of(request, v.broker_id, quote, world.at),
            belief=world.belief(v.broker_id, instrument.id, request.quantity), weights=world.weights, at=world.at,
        )
        for v in world.venues[instrument.id]
    ]  # fmt: skip
    eligible = sorted((c for c in candidates if not c.reasons), key=lambda c: (c.cost_bps, c.code))
    if not eligible:
        return candidates, None, False
    if _divided(request, eligible, quote, world):
        return candidates, None, False
    return candidates, *_give_to_one(request, eligible, quote, world.weights)


def _give_to_one(
    request: RouteRequest, eligible: Sequence[Candidate], quote: QuoteRef | None, weights: Weights
) -> tuple[int | None, bool]:
    price = quote.mid if quote else request.limit_price or decimals.ZERO
    seed = request.order_id.int >> (128 - SEED_BITS) ^ (request.order_id.int & ((1 << SEED_BITS) - 1))
    means = [float(c.cost_bps) for c in eligible]
    to_one = request.directed is not None or bool(
        request.excluded
    )  # told where, or refused elsewhere: nothing to try out
    drawn = choose(
        means,
        [c.belief.error_bps for c in eligible],
        value=float(price * request.quantity),
        weights=weights,
        seed=seed,
        steady=[not to_one and not c.parts["failures"] and not c.parts["offline"] for c in eligible],
    )
    best = eligible[drawn.index]
    best.quantity, best.weight = request.quantity, Decimal(1)
    for n, candidate in enumerate(eligible):
        candidate.propensity = drawn.propensities[n]
        candidate.drawn_bps = drawn.draws[n] if drawn.draws else None
    return (seed if weights.explore_share else None), drawn.explored


def _divided(request: RouteRequest, eligible: Sequence[Candidate], quote: QuoteRef | None, world: _World) -> bool:
    """Give an order that takes more than is displayed to several brokers, where that saves more than it costs; tell whether."""
    weights = world.weights
    if not request.may_split or quote is None or len(eligible) < 2:
        return False
    size = displayed(request.side, quote)
    if not size or request.quantity <= weights.split_share * size:
        return False
    takers = [_taker(request, c, quote, size, world) for c in eligible]
    lot = max(t.lot for t in takers)
    if not decimals.is_multiple(request.quantity, lot):
        return False
    parts = split(takers, request.quantity, lot=lot, parts_max=SPLIT_PARTS_MAX)
    alone = min(t.cost(request.quantity) for t in takers)
    together = decimals.total(t.cost(q) for t, q in zip(takers, parts, strict=True))
    value = quote.mid * request.quantity
    if sum(q > 0 for q in parts) < 2 or (alone - together) / value * BPS < weights.split_saving_bps:
        return False
    for candidate, quantity in zip(eligible, parts, strict=True):
        candidate.quantity = quantity
        candidate.weight = (quantity / request.quantity).quantize(Decimal("0.0001"))
    return True


def _taker(request: RouteRequest, candidate: Candidate, quote: QuoteRef, size: Decimal, world: _World) -> Taker:
    """Return what a broker's part costs by its quantity: its fee at the margin and at the least, what was learned, its impact."""
    price = quote.mid
    whole = _fee_of(request, candidate.broker_id, quote, world.at) or decimals.ZERO
    lot = next(v.lot_size for v in world.venues[request.instrument.id] if v.broker_id == candidate.broker_id)
    least = estimated_fee(
        candidate.broker_id,
        request.instrument,
        request.side,
        max(lot, request.instrument.lot_size),
        quote,
        None,
        world.at,
        month=request.month,
    )
    other = (
        candidate.cost_bps - candidate.parts.get("fees", decimals.ZERO) - candidate.parts.get("impact", decimals.ZERO)
    )
    rate = whole / request.quantity + price * other / BPS
    return Taker(rate, least or decimals.ZERO, price * world.weights.impact_bps / BPS / size.sqrt(), lot)


def _health() -> dict[int, tuple[Any, ...]]:
    rows = sql.run(
        "SELECT b.id, coalesce(s.connected, false), h.open_until, coalesce(h.failures_in_row, 0), h.ack_ms "
        "FROM brokers_broker b LEFT JOIN brokers_brokersession s ON s.broker_id = b.id "
        "LEFT JOIN brokers_brokerhealth h ON h.broker_id = b.id"
    )
    return {r[0]: r[1:] for r in rows}


def _fee_of(request: RouteRequest, broker_id: int, quote: QuoteRef | None, at: datetime) -> Decimal | None:
    return estimated_fee(
        broker_id,
        request.instrument,
        request.side,
        request.quantity,
        quote,
        request.limit_price,
        at,
        month=request.month,
    )


def _anything(order_type: str, time_in_force: str) -> bool:
    """Tell that a broker without exceptions takes whatever types and times it takes together."""
    return True


def _venue(broker: BrokerRef, instrument: InstrumentRef, health: Mapping[int, tuple[Any, ...]], at: datetime) -> Venue:
    listing = brokers.listings().get((broker.id, instrument.id))
    abilities = capabilities_of(broker.adapter, broker.settings)
    hours = brokers.hours(instrument.id)
    is_open = hours is None or hours.is_open(at)

    def takes(order_type: str, time_in_force: str) -> bool:
        return abilities.takes(order_type, time_in_force, instrument.asset_class, is_open=is_open)

    connected, open_until, failures, ack_ms = health.get(broker.id, (False, None, 0, None))
    return Venue(
        broker_id=broker.id,
        code=broker.code,
        enabled=broker.enabled,
        listed=bool(listing and listing.active and instrument.asset_class in abilities.asset_classes),
        shortable=bool(listing and listing.shortable),
        tick_size=listing.tick_size if listing else decimals.ZERO,
        lot_size=listing.lot_size if listing else decimals.ZERO,
        order_types=frozenset(abilities.order_types),
        times_in_force=frozenset(abilities.times_in_force),
        takes=takes if abilities.exceptions else _anything,
        instructions=frozenset(n for n in ("display_quantity", "min_quantity") if getattr(abilities, n)),
        connected=connected,
        open_until=open_until,
        failures=failures,
        ack_ms=ack_ms,
    )


def estimated_fee(
    broker_id: int,
    instrument: InstrumentRef,
    side: str,
    quantity: Decimal,
    quote: QuoteRef | None,
    limit_price: Decimal | None,
    at: datetime,
    *,
    month: Callable[[int], Done] = nothing_before,
) -> Decimal | None:
    """Return what the broker would charge in the instrument's currency, by the same schedule that books it, after what the
    account did there this month; None without any price, or without a rate for a fee in another currency."""
    price = limit_price or (quote.side_price(side) if quote else None)
    if price is None:
        return None
    items = brokers.fee_items(broker_id, instrument.asset_class, at.date())
    own, base = instrument.currency, instrument.base_currency
    charges = charge(
        items, side=side, quantity=quantity, price=price, currency=own, base_currency=base,
        month=month(broker_id) if needs_month(items) else NOTHING, hours=brokers.session_of(instrument.id, at),
    )  # fmt: skip
    units = decimals.total(c.amount for c in charges if base and c.currency == base)
    fee = decimals.total(c.amount for c in charges if c.currency == own) + decimals.money(units * price)
    foreign = [c for c in charges if c.currency not in (own, base)]
    if not foreign:
        return fee
    rates = Rates(brokers.quotes(), brokers.instruments())
    parts = [rates.convert(c.amount, c.currency, own) for c in foreign]
    return None if None in parts else fee + decimals.money(decimals.total(p for p in parts if p is not None))


# ---------------------------------------------------------------- learning


@dataclass(frozen=True, slots=True)
class Lesson:
    """What became of one broker order, handed down by whoever measured it."""

    child_id: UUID
    source_id: UUID
    broker_id: int
    instrument_id: int
    size: str
    at: datetime
    outcome: Outcome
    fees_bps: float | None = None


_OUTCOME = (
    "child_id", "source_id", "broker_id", "instrument_id", "size", "at", "cost_bps", "fees_bps", "filled_share", "rejected", "ack_ms",
)  # fmt: skip
_SUMS = (
    "at", "orders", "shares", "rejects", "acks", "ack_ms", "weight", "cost", "squares", "recent_weight", "recent_cost", "recent_squares",
)  # fmt: skip


def learn(lessons: Sequence[Lesson]) -> int:
    """Take in outcomes, each once, in order of their time; return how many were new. Four statements for any number.

    Must run inside the transaction of whoever hands them down; one learner at a time.
    """
    if not lessons:
        return 0
    require_transaction()
    sql.run("LOCK TABLE routing_brokerscore IN SHARE ROW EXCLUSIVE MODE")
    known = {
        pk
        for (pk,) in sql.run(
            "SELECT child_id FROM routing_routeoutcome WHERE child_id = ANY(%s)",
            [sql.uuids([x.child_id for x in lessons])],
        )
    }
    fresh = sorted((x for x in lessons if x.child_id not in known), key=lambda x: (x.at, x.child_id))
    if not fresh:
        return 0
    _, weights = queries.weights()
    scores = queries.scores(fresh=True)
    touched: dict[queries.Level, Sums] = {}
    for lesson in fresh:
        for level in queries.levels(lesson.broker_id, lesson.instrument_id, lesson.size, part_of_day(lesson.at)):
            sums = touched.get(level) or scores.get(level) or Sums(lesson.at)
            sums = touched[level] = sums.aged(lesson.at, float(weights.half_life_hours))
            sums.add(lesson.outcome, weights)
    sql.insert_values(RouteOutcome, _OUTCOME, [_outcome_row(x) for x in fresh])
    moved = ", ".join(f"{name} = EXCLUDED.{name}" for name in _SUMS)
    sql.insert_values(
        BrokerScore,
        ("broker_id", "instrument_id", "size", "part", *_SUMS),
        [(*level, *(getattr(sums, n) for n in _SUMS)) for level, sums in touched.items()],
        on_conflict=f"ON CONFLICT (broker_id, instrument_id, size, part) DO UPDATE SET {moved}",
    )
    queries.forget()
    return len(fresh)


def _outcome_row(x: Lesson) -> tuple[Any, ...]:
    o = x.outcome
    return (
        x.child_id, x.source_id, x.broker_id, x.instrument_id, x.size, x.at, o.cost_bps, x.fees_bps, o.filled_share, o.rejected, o.ack_ms,
    )  # fmt: skip


# ---------------------------------------------------------------- weights


@in_transaction
def propose_weights(told: Mapping[str, Any], *, reason: str, actor: Actor, at: datetime) -> RoutingWeights:
    """Propose weights: those in force with the numbers told in their place. They decide nothing before another person promotes them."""
    _, present = queries.weights(fresh=True)
    row = RoutingWeights.objects.create(
        values=parse(told, present).as_json(), reason=reason[:200], proposed_by=actor.name, proposed_at=at
    )
    _tell("routing.weights_proposed", row, actor, at)
    return row


@in_transaction
def promote_weights(version: int, *, actor: Actor, at: datetime) -> RoutingWeights:
    """Put a version in force; also one that was retired, which rolls back to it. Raises `Forbidden` for who proposed it."""
    row = RoutingWeights.objects.select_for_update().filter(version=version).first()
    if row is None:
        raise NotFound("not_found", "There is no such version of the weights.")
    if row.status == RoutingWeights.Status.ACTIVE:
        raise Conflict("already_active", "This version is in force.")
    if row.proposed_by == actor.name:
        raise Forbidden("same_person", "Another person than the one who proposed it must promote it.")
    RoutingWeights.objects.filter(status=RoutingWeights.Status.ACTIVE).update(status=RoutingWeights.Status.RETIRED)
    row.status, row.promoted_by, row.promoted_at = RoutingWeights.Status.ACTIVE, actor.name, at
    row.save(update_fields=["status", "promoted_by", "promoted_at"])
    queries.forget()
    _tell("routing.weights_promoted", row, actor, at)
    return row


def _tell(kind: str, row: RoutingWeights, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"version": row.version, "values": row.values, "reason": row.reason}})
    journal.append([Entry(SYSTEM_STREAM, kind, str(row.version), body)], actor=actor, at=at)
