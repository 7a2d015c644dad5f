"""Execution quality of orders, computed from their facts when asked."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from analytics.domain.quality import BPS, PLACES, arrival_bps, shortfall
from brokers import queries as brokers
from oms.kernel.decimals import text, text_or_none
from oms.kernel.ids import first_id
from oms.kernel.json import rfc3339
from oms.runtime import sql
from orders.models import Order, Submission
from orders.queries import average_price

SCORED_SECONDS = 3_600
"""How far back the rates of a broker are counted."""


def broker_scores(*, at: datetime) -> list[dict[str, Any]]:
    """Return what is known of each broker by its own conduct in the last hour, by code.

    Rates are null where nothing was sent. Ids bear their time, so the hour is a range of the primary key.
    """
    since = at - timedelta(seconds=SCORED_SECONDS)
    counts = {
        broker_id: rest
        for broker_id, *rest in sql.run(
            """
            SELECT broker_id, count(*), count(*) FILTER (WHERE state = 'accepted'), count(*) FILTER (WHERE state = 'rejected'),
                   count(*) FILTER (WHERE state = 'unknown'), count(*) FILTER (WHERE attempts > 1)
            FROM orders_submission WHERE id >= %s AND kind = 'new' AND sent_at IS NOT NULL GROUP BY broker_id
            """,
            [first_id(since)],
        ).fetchall()
    }
    ids = {b.code: b.id for b in brokers.brokers().values()}
    rows = []
    for health in brokers.health():
        sent, accepted, rejected, unknown, repeated = counts.get(ids.get(health["code"], 0), (0, 0, 0, 0, 0))
        rows.append(
            {
                "broker": health["code"],
                "enabled": health["enabled"],
                "connected": health["connected"],
                "failures_in_row": health["failures_in_row"],
                "open_until": health["open_until"],
                "ack_ms": health["ack_ms"],
                "sent": sent,
                "accepted": accepted,
                "rejected": rejected,
                "unknown": unknown,
                "repeated": repeated,
                "reject_rate": text((Decimal(rejected) / sent).quantize(PLACES)) if sent else None,
                "since": rfc3339(since),
            }
        )
    return rows


def quality_of(order: Order) -> dict[str, Any]:
    """Return an order's quality; null for what is not known (yet)."""
    currency = brokers.instruments()[order.instrument_id].currency
    average = average_price(order.filled_amount, order.filled_quantity)
    arrival = (
        (order.arrival_bid + order.arrival_ask) / 2
        if order.arrival_bid is not None and order.arrival_ask is not None
        else None
    )
    return {
        "order": str(order.id),
        "arrival_bps": text(arrival_bps(order.side, average, arrival)) if average and arrival else None,
        "shortfall": _shortfall(order, arrival, currency),
        "fill_rate": text((order.filled_quantity / order.quantity).quantize(PLACES)),
        "ack_ms": _ack_ms(order),
        "vwap_bps": None,
        "markouts": {},
        "score": None,
    }


def _shortfall(order: Order, arrival: Any, currency: str) -> dict[str, Any] | None:
    if arrival is None:
        return None
    parts = shortfall(order.side, order.quantity, order.filled_quantity, order.filled_amount, order.fees, arrival)
    told = {"trading": parts.trading, "fees": parts.fees, "opportunity": parts.opportunity, "total": parts.total}
    value = order.quantity * arrival
    bps = {k: text((v / value * BPS).quantize(PLACES)) if v is not None else None for k, v in told.items()}
    return {**{k: text_or_none(v) for k, v in told.items()}, "currency": currency, "bps": bps}


def _ack_ms(order: Order) -> float | None:
    """Return the round trip of the first accepted send."""
    rows = Submission.objects.filter(child__order_id=order.id, kind="new").order_by("id").values_list("log", flat=True)
    trips = [e.get("rtt_ms") for log in rows for e in log if e.get("outcome") == "accepted"]
    return trips[0] if trips else None
