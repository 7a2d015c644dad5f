"""PostgreSQL and Valkey: the user's by URL, or embedded ones that live under the data folder."""

from oms.servers.discovery import (
    Lease,
    ServersUnavailable,
    ServerUrls,
    attach_or_start,
    connect,
    running,
    secret_key,
)
from oms.servers.postgres import Postgres
from oms.servers.valkey import Valkey

__all__ = [
    "Lease",
    "Postgres",
    "ServerUrls",
    "ServersUnavailable",
    "Valkey",
    "attach_or_start",
    "connect",
    "running",
    "secret_key",
]
