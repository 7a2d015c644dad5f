"""How often a user may call: a sliding window over one second, shared by all processes through Redis."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import redis

from oms.runtime.redis import client

KEY_SECONDS = 3
LOCAL_USERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Window:
    """A budget of calls per second and user.

    Without Redis a window with `fallback` keeps counting within this process, so that losing Redis never
    opens the gate; one without lets everything pass: cancels must.
    """

    name: str
    per_second: int
    fallback: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left; `wait` is above zero (seconds) when the call is refused."""

    limit: int
    remaining: int
    wait: float


_local: OrderedDict[tuple[str, object, int], int] = OrderedDict()
_lock = threading.Lock()


def take(window: Window, who: object, *, weight: int = 1) -> Budget:
    """Count one call and judge it: the last second's calls are this second's and the share of the one before still in view."""
    now = time.time()
    second, past = divmod(now, 1.0)
    try:
        current, previous = _count_shared(window, who, int(second), weight)
    except redis.RedisError:
        if not window.fallback:
            return Budget(window.per_second, window.per_second, 0.0)
        current, previous = _count_here(window, who, int(second), weight)
    used = current + previous * (1 - past)
    return Budget(
        window.per_second,
        max(0, int(window.per_second - used)),
        1 - past if used > window.per_second else 0.0,
    )


def _count_shared(window: Window, who: object, second: int, weight: int) -> tuple[int, int]:
    name = f"oms:rate:{window.name}:{who}:"
    pipe = client().pipeline(transaction=False)
    pipe.incrby(f"{name}{second}", weight)
    pipe.expire(f"{name}{second}", KEY_SECONDS)
    pipe.get(f"{name}{second - 1}")
    current, _, previous = pipe.execute()
    return int(current), int(previous or 0)


def _count_here(window: Window, who: object, second: int, weight: int) -> tuple[int, int]:
    with _lock:
        key = (window.name, who, second)
        _local[key] = _local.get(key, 0) + weight
        while len(_local) > LOCAL_USERS_MAX:
            _local.popitem(last=False)
        return _local[key], _local.get((window.name, who, second - 1), 0)
