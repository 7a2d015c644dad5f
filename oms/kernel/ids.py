"""Identifiers made before anything is written or sent."""

import base64
import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last_tick = 0


def uuid7() -> UUID:
    """Return a time-ordered UUID (RFC 9562, version 7), strictly rising within this process.

    The 12 bits after the millisecond hold a fraction of it; when the clock stands still or steps
    back the last value is raised by one, so ids made here never sort against their order of making.
    """
    global _last_tick
    tick = time.time_ns() * 4096 // 1_000_000
    with _lock:
        tick = _last_tick = tick if tick > _last_tick else _last_tick + 1
    head = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    tail = 2 << 62 | int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=head << 64 | tail)


def broker_client_id(submission: UUID) -> str:
    """Return the id a broker sees for one submission: short, unique, and never used for another.

    >>> broker_client_id(UUID("01930000-0000-7000-8000-000000000001"))
    'aagjqaaaaabyabaaaaaaaaaaaae'
    """
    return "a" + base64.b32encode(submission.bytes).decode().rstrip("=").lower()
