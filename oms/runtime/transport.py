"""What travels between hosts travels encrypted: judged from the addresses of PostgreSQL and Redis, before anything connects."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

ENCRYPTED = ("require", "verify-ca", "verify-full")


def require_safe_servers(database: Mapping[str, Any], redis_url: str) -> None:
    """Raise `ImproperlyConfigured` for a PostgreSQL or a Redis on another host that is spoken to in the clear."""
    hosts = str(database.get("HOST") or "").split(",")
    if not all(map(is_here, hosts)) and database.get("OPTIONS", {}).get("sslmode") not in ENCRYPTED:
        raise ImproperlyConfigured(
            "DATABASE_URL names another host without TLS; add ?sslmode=verify-full (or verify-ca, require)."
        )
    redis = urlsplit(redis_url)
    if redis.scheme != "unix" and not is_here(redis.hostname or ""):
        if redis.scheme != "rediss":
            raise ImproperlyConfigured("REDIS_URL names another host without TLS; use rediss://.")
        if not redis.password:
            raise ImproperlyConfigured("REDIS_URL names another host without a password: anybody could ring there.")


def is_here(host: str) -> bool:
    """Tell whether a host is this machine: no name, a socket's path, or a loopback address."""
    name = host.strip("[]")
    if not name or name.startswith("/") or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
