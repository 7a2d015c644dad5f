"""The connection to Redis: a doorbell and a display cache, never an authority."""

from functools import lru_cache

import redis
from django.conf import settings


@lru_cache(maxsize=1)
def client() -> "redis.Redis":
    """Return this process's client; short timeouts, because nothing may wait for Redis."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=0.5, retry=None)
