"""The adapter of the simulated brokers.

Settings: `host`, `port`, `key`, `code`?, and `venue` (the quality knobs, of which this side reads only what a
broker would document: its rate, its deduplication, its delay in showing orders, what it takes).
"""

from typing import Any

from brokers.adapters.port import BrokerAdapter
from brokers.adapters.simulated.client import SimulatedBroker


def build(settings: dict[str, Any]) -> BrokerAdapter:
    """Return a client of one simulated broker; it connects when it is first used."""
    return SimulatedBroker(settings)
