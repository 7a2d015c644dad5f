"""Adapters by name. A new broker is one entry here and one package that implements the port."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from brokers.adapters.port import BrokerAdapter

ADAPTERS = {"simulated": "brokers.adapters.simulated"}
"""Adapter name to the package whose `build(settings)` makes it; imported when first asked for."""


def build(adapter_name: str, settings: dict[str, Any]) -> BrokerAdapter:
    """Return an adapter for a broker's settings; no connection is made yet.

    Raises `ValueError` for an unknown adapter, `KeyError` for a setting that the adapter can't do without.
    """
    if adapter_name not in ADAPTERS:
        raise ValueError(f"no adapter named {adapter_name!r}; known: {', '.join(sorted(ADAPTERS))}")
    make: Callable[[dict[str, Any]], BrokerAdapter] = import_module(ADAPTERS[adapter_name]).build
    return make(settings)
