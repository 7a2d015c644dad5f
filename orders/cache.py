"""Order statuses in Redis, for reading only: a version never gives way to an older one."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import redis
import structlog

from oms.kernel import json
from oms.runtime.redis import client

KEEP_SECONDS = 24 * 3600
_PUT = """
for i = 1, #KEYS do
  local known = redis.call('HGET', KEYS[i], 'v')
  if not known or tonumber(known) < tonumber(ARGV[2 * i]) then
    redis.call('HSET', KEYS[i], 'v', ARGV[2 * i], 'd', ARGV[2 * i + 1])
    redis.call('EXPIRE', KEYS[i], ARGV[1])
  end
end
"""
log = structlog.get_logger(__name__)


def _key(order_id: str) -> str:
    return f"oms:order:{order_id}"


def put(statuses: Sequence[dict[str, Any]]) -> None:
    """Store statuses, each unless a newer version is there; a dead Redis is only slower reads."""
    if not statuses:
        return
    arguments: list[Any] = [KEEP_SECONDS]
    for status in statuses:
        arguments += [status["version"], json.dump_bytes(status)]
    try:
        client().eval(_PUT, len(statuses), *(_key(s["id"]) for s in statuses), *arguments)
    except redis.RedisError as error:
        log.warning("status_not_cached", orders=len(statuses), error=str(error))


def get(order_id: UUID) -> dict[str, Any] | None:
    """Return the cached status, or None when it is not there or Redis is away."""
    try:
        raw = client().hget(_key(str(order_id)), "d")
    except redis.RedisError:
        return None
    return json.loads(raw) if raw else None


def forget_all() -> int:
    """Drop every status, and return how many: after a restore they may tell of what never happened."""
    dropped = 0
    try:
        for key in client().scan_iter(match=_key("*"), count=1_000):
            dropped += int(client().delete(key))
    except redis.RedisError as error:
        log.warning("statuses_not_dropped", error=str(error))
    return dropped
