"""Deciding where orders go, and keeping why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers import queries as brokers
from brokers.adapters import capabilities_of
from brokers.domain.fees import charge
from brokers.domain.reference import BrokerRef, InstrumentRef, QuoteRef
from oms.kernel import decimals, json
from oms.kernel.ids import uuid7
from oms.runtime import sql
from routing.domain.candidates import MODEL_VERSION, RouteRequest, Venue, choose, judge
from routing.models import RouteLeg, RoutingDecision


@dataclass(frozen=True, slots=True)
class Plan:
    """Where one order goes: (broker id, quantity) legs, or none and why."""

    order_id: UUID
    decision_id: UUID
    legs: tuple[tuple[int, Decimal], ...]
    detail: str
    candidates: list[dict[str, Any]]


def plan(requests: Sequence[RouteRequest], *, at: datetime) -> list[Plan]:
    """Decide for each request, in order, and store every candidate; four statements for any number.

    Must run inside the transaction that records the orders.
    """
    if not requests:
        return []
    quotes = brokers.quotes({r.instrument.id for r in requests})
    health = _health()
    venues: dict[int, list[Venue]] = {}
    decisions, legs, plans = [], [], []
    for request in requests:
        instrument = request.instrument
        if instrument.id not in venues:
            venues[instrument.id] = [_venue(b, instrument, health, at) for b in brokers.brokers().values()]
        quote = quotes.get(instrument.id)
        candidates = [
            judge(request, v, quote, _fee_of(request, v.broker_id, quote, at), at=at) for v in venues[instrument.id]
        ]
        best = choose(candidates, request.quantity)
        stored = [c.as_json() for c in candidates]
        decision_id = uuid7()
        decisions.append((decision_id, request.order_id, at, MODEL_VERSION, json.dumps(stored)))
        if best:
            legs.append((uuid7(), decision_id, best.broker_id, best.quantity))
        detail = "" if best else "; ".join(f"{c.code}: {', '.join(c.reasons)}" for c in candidates)[:200]
        taken = ((best.broker_id, best.quantity),) if best else ()
        plans.append(Plan(request.order_id, decision_id, taken, detail, stored))
    sql.insert_values(RoutingDecision, ("id", "source_id", "at", "model_version", "candidates"), decisions)
    sql.insert_values(RouteLeg, ("id", "decision_id", "broker_id", "quantity"), legs)
    return plans


def _health() -> dict[int, tuple[Any, ...]]:
    rows = sql.run(
        "SELECT b.id, coalesce(s.connected, false), h.open_until, coalesce(h.failures_in_row, 0), h.ack_ms "
        "FROM brokers_broker b LEFT JOIN brokers_brokersession s ON s.broker_id = b.id "
        "LEFT JOIN brokers_brokerhealth h ON h.broker_id = b.id"
    )
    return {r[0]: r[1:] for r in rows}


def _fee_of(request: RouteRequest, broker_id: int, quote: QuoteRef | None, at: datetime) -> Decimal | None:
    return estimated_fee(broker_id, request.instrument, request.side, request.quantity, quote, request.limit_price, at)


def _anything(order_type: str, time_in_force: str) -> bool:
    """Tell that a broker without exceptions takes whatever types and times it takes together."""
    return True


def _venue(broker: BrokerRef, instrument: InstrumentRef, health: dict[int, tuple[Any, ...]], at: datetime) -> Venue:
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
) -> Decimal | None:
    """Return what the broker would charge, by the same schedule that books it; None without any price."""
    price = limit_price or (quote.side_price(side) if quote else None)
    if price is None:
        return None
    items = brokers.fee_items(broker_id, instrument.asset_class, at.date())
    own, base = instrument.currency, instrument.base_currency
    charges = charge(items, side=side, quantity=quantity, price=price, currency=own, base_currency=base)
    units = decimals.total(c.amount for c in charges if base and c.currency == base)
    return decimals.total(c.amount for c in charges if c.currency == own) + decimals.money(units * price)
