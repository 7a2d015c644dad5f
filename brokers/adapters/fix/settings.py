"""The settings of a FIX broker, read strictly: a word that nobody knows is a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from brokers.adapters.fix.schedule import Schedule
from brokers.adapters.port import Capabilities, Dedupe

VERSIONS = ("FIX.4.4", "FIX.4.2")
HOUSE = frozenset({"listings", "accounts", "fees", "cancel_and_new", "code", "name"})
"""Settings of every broker, which are not for the adapter."""
HEARTBEAT_SECONDS = (1, 3600)
OWN_TAGS = frozenset({8, 9, 10, 34, 35, 43, 49, 52, 56, 97, 122})
"""What the session writes itself."""
ORDER_TYPES = ("market", "limit", "stop", "stop_limit")
TIMES_IN_FORCE = ("day", "gtc", "opg", "ioc", "fok", "gtd")
ASSET_CLASSES = ("equity", "fx", "crypto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach a broker's FIX session and what its rules of engagement say.

    `host`, `port`; `begin_string` FIX.4.4 or FIX.4.2; `sender_comp_id` is us, `target_comp_id` the broker, each with a
    `_sub_id` where they want one. `heartbeat_seconds`; `reset_on_logon` begins the numbers anew with each logon, else they go on
    until the window of `schedule` ends (`start`, `end`, `timezone`, `days`; without one the session never ends).
    `username` and `password` go into the logon, `logon_fields` and `order_fields` ({"tag": "value"}) into it and into every order.
    `account` stands for all accounts in tag 1. `tls` with `tls_ca_file` and `tls_server_name`. `mass_status` tells whether the broker
    answers OrderMassStatusRequest, `status_requests` whether OrderStatusRequest. What it takes: `order_types`, `times_in_force`,
    `asset_classes`, `replace`, `short`, `orders_per_second`, `dedupe` (how long it refuses an id that it had before) and
    `visibility_delay_seconds` (how long it may not know an order that it has).
    """

    host: str
    port: int
    sender_comp_id: str
    target_comp_id: str
    begin_string: str = "FIX.4.4"
    heartbeat_seconds: int = 30
    reset_on_logon: bool = False
    sender_sub_id: str = ""
    target_sub_id: str = ""
    username: str = ""
    password: str = ""
    account: str = ""
    logon_fields: tuple[tuple[str, str], ...] = ()
    order_fields: tuple[tuple[str, str], ...] = ()
    schedule: Schedule | None = None
    tls: bool = False
    tls_ca_file: str = ""
    tls_server_name: str = ""
    mass_status: bool = True
    status_requests: bool = True
    dont_know_trade: bool = True
    order_types: tuple[str, ...] = ORDER_TYPES
    times_in_force: tuple[str, ...] = TIMES_IN_FORCE
    asset_classes: tuple[str, ...] = ASSET_CLASSES
    replace: bool = True
    short: bool = True
    orders_per_second: float = 0.0
    dedupe: str = Dedupe.NONE
    visibility_delay_seconds: float = 1.0

    @property
    def is_44(self) -> bool:
        """Tell whether the session speaks FIX.4.4."""
        return self.begin_string == "FIX.4.4"


def read(told: Mapping[str, Any]) -> Settings:
    """Return settings; raises `KeyError` for a missing one, `ValueError` that names what is wrong with another."""
    known = {f.name: f for f in fields(Settings)}
    if unknown := sorted(set(told) - set(known) - HOUSE):
        raise ValueError(f"no setting named {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    for name in ("host", "port", "sender_comp_id", "target_comp_id"):
        if name not in told:
            raise KeyError(name)
    kept = {name: _value(name, str(f.type), told[name]) for name, f in known.items() if name in told}
    settings = Settings(**kept)
    _judge(settings)
    return settings


def _value(name: str, kind: str, value: Any) -> Any:
    if name == "schedule":
        if not isinstance(value, Mapping):
            raise ValueError("schedule is an object with start, end, timezone and days")
        return Schedule.read(value)
    if name in ("logon_fields", "order_fields"):
        return _tags(name, value)
    if kind.startswith("tuple"):
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} is a list of words")
        return tuple(value)
    if kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is true or false")
        return value
    if kind in ("int", "float"):
        try:
            number = int(value) if kind == "int" else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name} is a number, not {value!r}") from None
        if isinstance(value, bool):
            raise ValueError(f"{name} is a number")
        return number
    if not isinstance(value, str):
        raise ValueError(f"{name} is a text")
    if any(ord(c) < 32 for c in value):
        raise ValueError(f"{name} holds a control character")
    return value


def _tags(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise ValueError(f'{name} is an object like {{"528": "A"}}')
    for tag, text in value.items():
        if not str(tag).isdigit() or int(tag) in OWN_TAGS or not isinstance(text, str) or not text or "\x01" in text:
            raise ValueError(f"{name}: {tag} can't be set to {text!r}")
    return tuple((str(tag), text) for tag, text in value.items())


def _judge(s: Settings) -> None:
    if s.begin_string not in VERSIONS:
        raise ValueError(f"begin_string is {' or '.join(VERSIONS)}, not {s.begin_string!r}")
    if not 1 <= s.port <= 65535:
        raise ValueError("port is a number from 1 to 65535")
    least, most = HEARTBEAT_SECONDS
    if not least <= s.heartbeat_seconds <= most:
        raise ValueError(f"heartbeat_seconds is a number from {least} to {most}")
    for name in ("host", "sender_comp_id", "target_comp_id"):
        if not getattr(s, name):
            raise ValueError(f"{name} is empty")
    if s.password and not s.username and s.is_44:
        raise ValueError("a password needs a username beside it")
    known = {"order_types": ORDER_TYPES, "times_in_force": (*TIMES_IN_FORCE, "cls"), "asset_classes": ASSET_CLASSES}
    for name, words in known.items():
        if strange := sorted(set(getattr(s, name)) - set(words)):
            raise ValueError(f"{name}: none named {', '.join(strange)}; there are {', '.join(words)}")
    if s.dedupe not in (Dedupe.FOREVER, Dedupe.OPEN_ONLY, Dedupe.NONE):
        raise ValueError("dedupe is forever, open_only or none")
    if s.orders_per_second < 0 or s.visibility_delay_seconds < 0:
        raise ValueError("orders_per_second and visibility_delay_seconds are not below 0")


def capabilities(s: Settings) -> Capabilities:
    """Return what the rules of engagement promise."""
    return Capabilities(
        order_types=frozenset(s.order_types),
        times_in_force=frozenset(s.times_in_force),
        asset_classes=frozenset(s.asset_classes),
        display_quantity=True,
        min_quantity=True,
        dedupe=Dedupe(s.dedupe),
        query_by_client_id=s.status_requests,
        visibility_delay_seconds=s.visibility_delay_seconds,
        batch_max=100,
        replace=s.replace,
        replace_filled=s.replace,
        overlapping_requests=True,
        cancel_by_client_id=True,
        sequence_numbers=True,
        acks_on_stream=True,
        orders_per_second=s.orders_per_second or None,
        short=s.short,
        hosted=True,
    )
