"""The adapter of brokers that speak FIX.4.4 or FIX.4.2; `settings.Settings` names what it can be told."""

from typing import Any

from brokers.adapters.fix.adapter import FixBroker


def build(settings: dict[str, Any]) -> FixBroker:
    """Return one FIX counterparty; it connects when the gateway opens its stream."""
    return FixBroker(settings)
