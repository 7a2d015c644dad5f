"""One way to write JSON: decimals and ids as strings, times in RFC 3339 UTC, keys in the order given."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from oms.kernel import decimals


def _spell(value: object) -> str:
    if isinstance(value, Decimal):
        return decimals.text(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


_encoder = msgspec.json.Encoder(enc_hook=_spell, decimal_format="string")


def rfc3339(at: datetime) -> str:
    """Return a UTC time as RFC 3339 with microseconds and a Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def rfc3339_or_none(at: datetime | None) -> str | None:
    """Return `rfc3339(at)`, or None for None."""
    return None if at is None else rfc3339(at)


def dumps(value: Any) -> str:
    """Return compact JSON text."""
    return _encoder.encode(value).decode()


def dump_bytes(value: Any) -> bytes:
    """Return compact JSON as UTF-8 bytes."""
    return _encoder.encode(value)


def loads(raw: str | bytes) -> Any:
    """Return the value a JSON text spells; numbers with a fraction become floats, which no amount accepts."""
    return msgspec.json.decode(raw)
