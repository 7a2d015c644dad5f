"""What a simulated broker documents about itself."""

from collections.abc import Mapping
from typing import Any

from brokers.adapters.port import Capabilities, Dedupe

BATCH_MAX = 1_000
ORDER_TYPES = ("market", "limit", "stop", "stop_limit")
TIMES_IN_FORCE = ("day", "gtc", "ioc", "fok", "gtd")
ASSET_CLASSES = ("equity", "fx", "crypto")
VISIBILITY_DELAY_SECONDS = 1.0


def capabilities(settings: Mapping[str, Any]) -> Capabilities:
    """Return what the broker of these settings promises; nothing is asked over the network."""
    venue: Mapping[str, Any] = settings.get("venue") or {}
    dedupe = Dedupe(venue.get("dedupe", Dedupe.FOREVER))
    rate = venue.get("orders_per_second")
    return Capabilities(
        order_types=frozenset(venue.get("order_types", ORDER_TYPES)),
        times_in_force=frozenset(venue.get("times_in_force", TIMES_IN_FORCE)),
        asset_classes=frozenset(venue.get("asset_classes", ASSET_CLASSES)),
        dedupe=dedupe,
        dedupe_window_seconds=float(venue.get("dedupe_window_seconds", 600)) if dedupe is Dedupe.WINDOW else None,
        query_by_client_id=True,
        query_includes_closed=True,
        visibility_delay_seconds=float(venue.get("visibility_delay_seconds", VISIBILITY_DELAY_SECONDS)),
        batch_max=BATCH_MAX,
        replace=bool(venue.get("replace", True)),
        replace_filled=bool(venue.get("replace", True)),
        overlapping_requests=True,
        cancel_by_client_id=True,
        sequence_numbers=True,
        acks_on_stream=True,
        oco=bool(venue.get("oco", False)),
        orders_per_second=float(rate) if rate else None,
        short=bool(venue.get("short", True)),
    )
