"""Identifiers made before anything is written or sent."""

import base64
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_lock = threading.Lock()
_last_tick = 0
_CHUNK = 8 * 256
_noise = b""
"""Random bytes not used yet: asking the kernel for many at once costs as much as asking for a few."""


def uuid7() -> UUID:
    """Return a time-ordered UUID (RFC 9562, version 7), strictly rising within this process.

    The 12 bits after the millisecond hold a fraction of it; when the clock stands still or steps
    back the last value is raised by one, so ids made here never sort against their order of making.
    """
    global _last_tick, _noise
    tick = time.time_ns() * 4096 // 1_000_000
    with _lock:
        tick = _last_tick = tick if tick > _last_tick else _last_tick + 1
        if not _noise:
            _noise = os.urandom(_CHUNK)
        random, _noise = _noise[:8], _noise[8:]
    head = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    tail = 2 << 62 | int.from_bytes(random) >> 2
    return UUID(int=head << 64 | tail)


def _forget_noise() -> None:
    global _noise
    _noise = b""


os.register_at_fork(after_in_child=_forget_noise)  # a child must not repeat what its parent will use


def first_id(at: datetime) -> UUID:
    """Return the lowest id that `uuid7` could have made at a time, for bounds on ids."""
    milliseconds = max(0, int(at.timestamp() * 1000)) & (1 << 48) - 1
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)


def uuid7_of(at: datetime, name: str) -> UUID:
    """Return the one id, ordered by its time (to the quarter microsecond), of what happened then under that name.

    Who learns of two things in another order gives them the same ids, and so the same order.
    """
    microseconds = max((at - _EPOCH) // timedelta(microseconds=1), 0)
    milliseconds, rest = divmod(microseconds, 1000)
    head = milliseconds << 16 | 0x7000 | rest * 4096 // 1000
    tail = 2 << 62 | int.from_bytes(sha256(name.encode()).digest()[:8]) >> 2
    return UUID(int=head << 64 | tail)


def broker_client_id(submission: UUID) -> str:
    """Return the id a broker sees for one submission: short, unique, and never used for another.

    >>> broker_client_id(UUID("01930000-0000-7000-8000-000000000001"))
    'aagjqaaaaabyabaaaaaaaaaaaae'
    """
    return "a" + base64.b32encode(submission.bytes).decode().rstrip("=").lower()
