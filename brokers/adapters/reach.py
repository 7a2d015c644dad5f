"""Where the desk may connect: hosts named beforehand by who runs it, at addresses that a broker can have.

An administrator sets a broker's host over the web, so that a stolen administrator's session must not turn the desk into a
probe of its own network. Two walls: the host stands in a list from the environment, and what its name resolves to is
judged at each connection, which then goes to the very address that was judged: a name that changes in between gains nothing.
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
METADATA = frozenset(
    ipaddress.ip_address(a)
    for a in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")
)
"""Where cloud machines tell their secrets to whoever asks from inside."""
NAMES = frozenset({"host", "hostname", "address", "url", "base_url", "endpoint", "proxy", "server"})
"""Settings that name another machine; so does any value with `://` in it."""

_permitted: tuple[str, ...] = LOOPBACK_NAMES


class HostRefused(ValueError):
    """The desk does not connect there."""


def permit(hosts: Iterable[str]) -> None:
    """Set the hosts that may be connected to: exact names, or `.example.com` for every name below."""
    global _permitted
    _permitted = tuple(h.strip().lower() for h in hosts if h.strip())


def judge_settings(settings: Mapping[str, Any]) -> None:
    """Raise `HostRefused` for the first host of a broker's settings that is not on the list."""
    for host in _hosts(settings):
        judge_name(host)


def judge_name(host: str) -> None:
    """Raise `HostRefused` unless a host is on the list; an address is judged as well."""
    name = host.strip().lower().strip("[]").rstrip(".")
    if not any(name == h or (h.startswith(".") and name.endswith(h)) for h in _permitted):
        raise HostRefused(f"{host!r} is not among the hosts of brokers; who runs the desk adds it to OMS_BROKER_HOSTS")
    try:
        _judge_address(name, ipaddress.ip_address(name))
    except HostRefused:
        raise
    except ValueError:
        return  # a name: judged by what it resolves to, when it is used


def addresses(host: str, port: int) -> list[tuple[str, int]]:
    """Return the addresses to connect to, all judged; raises `HostRefused`, or `OSError` when the name leads nowhere."""
    judge_name(host)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    resolved = list(dict.fromkeys((str(entry[4][0]), port) for entry in found))
    for address, _ in resolved:
        _judge_address(host.strip().lower(), ipaddress.ip_address(address.partition("%")[0]))
    return resolved


def _judge_address(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inner = _inner(address)
    if inner in METADATA or inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        raise HostRefused(f"{name} leads to {address}, where no broker can be")
    if inner.is_loopback and name not in LOOPBACK_NAMES:
        raise HostRefused(f"{name} leads to this machine itself")
    if inner.is_reserved and not inner.is_private and not inner.is_loopback:
        raise HostRefused(f"{name} leads to {address}, which is reserved")


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one wraps, else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv6Network("64:ff9b::/96")
        if address in nat64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _hosts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _hosts(inner, str(key).lower())
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _hosts(inner, name)
    elif isinstance(value, str) and "://" in value:
        try:
            yield urlsplit(value).hostname or ""
        except ValueError:
            yield value
    elif name in NAMES:
        yield str(value)
