"""Columns of values as PostgreSQL's own array bytes: a statement that writes a thousand rows spends its time elsewhere.

A list given to the driver is spelled element by element, each through a lookup of how; here a whole column of one
type is packed at once, in the binary form of `array_recv`: dimensions, a flag for nulls, the element's type, then each
element behind its length. Numerics travel as text, which their own reader takes faster than we can pack their digits.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date().toordinal()


class Packed(bytes):
    """An array ready for the wire; each element type has its own subclass, so that the driver knows the type."""

    __slots__ = ()


def _packed(element: int, parts: Sequence[bytes], *, nulls: bool) -> bytes:
    if not parts:
        return struct.pack(">iii", 0, 0, element)
    return struct.pack(">iiiii", 1, int(nulls), element, len(parts), 1) + b"".join(parts)


def _uuid(value: Any) -> bytes:
    return b"\x00\x00\x00\x10" + value.int.to_bytes(16)


def _text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(4) + raw


def _json(value: str) -> bytes:
    raw = value.encode()
    return (len(raw) + 1).to_bytes(4) + b"\x01" + raw


def _raw(value: Any) -> bytes:
    return len(value).to_bytes(4) + bytes(value)


def _time(value: datetime) -> bytes:
    since = value - _EPOCH
    return b"\x00\x00\x00\x08" + struct.pack(
        ">q", (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    )


def _date(value: date) -> bytes:
    return struct.pack(">ii", 4, value.toordinal() - _EPOCH_DAY)


_BOOLS = {True: b"\x00\x00\x00\x01\x01", False: b"\x00\x00\x00\x01\x00"}


def _bool(value: bool) -> bytes:
    return _BOOLS[value]


def _small(value: int) -> bytes:
    return struct.pack(">ih", 2, value)


def _int(value: int) -> bytes:
    return struct.pack(">ii", 4, value)


def _big(value: int) -> bytes:
    return struct.pack(">iq", 8, value)


_ELEMENTS: dict[str, tuple[int, int, Callable[[Any], bytes]]] = {
    "uuid": (2950, 2951, _uuid),
    "text": (25, 1009, _text),
    "jsonb": (3802, 3807, _json),
    "bytea": (17, 1001, _raw),
    "timestamptz": (1184, 1185, _time),
    "date": (1082, 1182, _date),
    "boolean": (16, 1000, _bool),
    "smallint": (21, 1005, _small),
    "integer": (23, 1007, _int),
    "bigint": (20, 1016, _big),
}
"""Element type, array type and packer by the name of the SQL type."""
_NUMERIC_ARRAY = 1231


class _NumericArray(Packed):
    __slots__ = ()


class _Ready(Dumper):
    """Hands over what is packed already."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return obj


_KINDS: dict[str, type[Packed]] = {}
for _name, (_, _array_type, _) in _ELEMENTS.items():
    _KINDS[_name] = type(f"_{_name.title()}Array", (Packed,), {"__slots__": ()})
    psycopg.adapters.register_dumper(_KINDS[_name], type(f"_{_name.title()}Dumper", (_Ready,), {"oid": _array_type}))
psycopg.adapters.register_dumper(
    _NumericArray, type("_NumericDumper", (_Ready,), {"oid": _NUMERIC_ARRAY, "format": Format.TEXT})
)


def pack(kind: str, values: Sequence[Any]) -> Packed:
    """Return a column of values of one SQL type (see `KINDS`), None for null; JSON comes as text."""
    if kind == "numeric":
        return _NumericArray(("{" + ",".join(["NULL" if v is None else str(v) for v in values]) + "}").encode())
    element, _, encode = _ELEMENTS[kind]
    if values and values[0] is None and values.count(None) == len(values):  # what few rows ever have
        return _KINDS[kind](_packed(element, [_NULL] * len(values), nulls=True))
    try:
        return _KINDS[kind](_packed(element, _encode_all(encode, values), nulls=False))
    except (AttributeError, KeyError, TypeError, struct.error):
        if all(v is not None for v in values):
            raise
    return _KINDS[kind](_packed(element, [_NULL if v is None else encode(v) for v in values], nulls=True))


def _encode_all(encode: Callable[[Any], bytes], values: Sequence[Any]) -> list[bytes]:
    first = values[0] if values else None
    if (
        len(values) > 1
        and encode in (_time, _date, _text)
        and values[-1] == first
        and values.count(first) == len(values)
    ):
        return [encode(first)] * len(values)  # most columns of a batch tell one moment or one word
    return [encode(v) for v in values]


KINDS = frozenset({*_ELEMENTS, "numeric"})
