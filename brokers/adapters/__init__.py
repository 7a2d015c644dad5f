"""Adapters by name. A new broker is one entry here and one package that implements the port."""

from collections.abc import Callable
from importlib import import_module
from os import environ
from threading import local
from typing import Any

import structlog

from brokers.adapters.hosting import hosted_here
from brokers.adapters.port import BrokerAdapter, Capabilities

ADAPTERS = {"simulated": "brokers.adapters.simulated", "fix": "brokers.adapters.fix"}
"""Adapter name to the package whose `build(settings)` makes it; imported when first asked for."""


def build(adapter_name: str, settings: dict[str, Any]) -> BrokerAdapter:
    """Return an adapter for a broker's settings; no connection is made yet.

    A value `{"env": "PRIME_KEY"}` stands for that environment variable, so that a secret is kept in no table.
    Raises `ValueError` for an unknown adapter, `KeyError` for a setting or variable that the adapter can't do without.
    """
    if adapter_name not in ADAPTERS:
        raise ValueError(f"no adapter named {adapter_name!r}; known: {', '.join(sorted(ADAPTERS))}")
    make: Callable[[dict[str, Any]], BrokerAdapter] = import_module(ADAPTERS[adapter_name]).build
    return make(_filled_in(settings))


def _filled_in(value: Any) -> Any:
    if isinstance(value, dict):
        return environ[value["env"]] if set(value) == {"env"} else {k: _filled_in(v) for k, v in value.items()}
    return [_filled_in(v) for v in value] if isinstance(value, list) else value


_local = local()


def adapter_for(broker_id: int, adapter_name: str, settings: dict[str, Any]) -> BrokerAdapter:
    """Return this thread's adapter for a broker, with its connections kept; changed settings make a new one.

    A broker that this process hosts has one adapter for all threads.
    """
    if (hosted := hosted_here(broker_id)) is not None:
        return hosted
    kept: dict[int, tuple[str, BrokerAdapter]] = _local.__dict__.setdefault("adapters", {})
    stamp = repr((adapter_name, settings))
    if broker_id not in kept or kept[broker_id][0] != stamp:
        if broker_id in kept:
            kept[broker_id][1].close()
        kept[broker_id] = (stamp, build(adapter_name, settings))
    return kept[broker_id][1]


def forget() -> None:
    """Close this thread's adapters and forget them, for tests whose brokers come and go."""
    kept: dict[int, tuple[str, BrokerAdapter]] = _local.__dict__.setdefault("adapters", {})
    for _, adapter in kept.values():
        adapter.close()
    kept.clear()


NOTHING = Capabilities(order_types=frozenset(), times_in_force=frozenset(), asset_classes=frozenset())
_abilities: dict[str, Capabilities] = {}
log = structlog.get_logger(__name__)


def capabilities_of(adapter_name: str, settings: dict[str, Any]) -> Capabilities:
    """Return what an adapter with these settings promises, without connecting; one that can't be made takes nothing."""
    stamp = repr((adapter_name, settings))
    if stamp not in _abilities:
        try:
            _abilities[stamp] = build(adapter_name, settings).capabilities
        except (ValueError, KeyError):
            log.exception("adapter_not_usable", adapter=adapter_name)
            _abilities[stamp] = NOTHING
    return _abilities[stamp]
