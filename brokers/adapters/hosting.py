"""Adapters whose session belongs to one process: what they keep, and which of them this process hosts.

Where a broker knows one session, as FIX does, only its gateway may speak: it claims, numbers, writes and asks. What must
outlive the process goes through a `SessionStore`, which refuses whoever lost the lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from brokers.adapters.port import BrokerAdapter, BrokerError, Report

EPOCH_BITS = 32
"""A frame's number is its session's epoch and then the message's own number, so that it rises when numbers begin anew."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where a session stands: the epoch rises each time the numbers begin anew."""

    epoch: int
    next_out: int
    began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was numbered and kept before it was written; `client_order_id` is empty for the session's own."""

    sequence: int
    kind: str
    client_order_id: str
    raw: bytes


class Fenced(BrokerError):
    """The session belongs to somebody else by now: nothing more may be written."""

    def __init__(self, detail: str = "another gateway has the session") -> None:
        super().__init__(detail, sent=False)


class SessionStore(Protocol):
    """What a session keeps outside of its process; every write raises `Fenced` without the lease."""

    def load(self) -> Numbers:
        """Return where the session stands."""

    def begin_anew(self, at: datetime) -> Numbers:
        """Start the numbers of both sides at 1, in a new epoch."""

    def keep(self, epoch: int, messages: Sequence[Sent]) -> None:
        """Take the numbers of messages and keep the messages, in one commit, before any of them is written."""

    def find(self, client_order_ids: Sequence[str]) -> dict[str, Sent]:
        """Return the last message kept of each id; what is missing was never written."""

    def at(self, epoch: int, sequence: int) -> Sent | None:
        """Return the message that had a number."""

    def confirm(self) -> None:
        """Raise `Fenced` unless the session is still ours."""

    def note(self, state: str, detail: str = "") -> None:
        """Tell how the session is, for people."""

    def saw(self, heard_at: datetime | None, wrote_at: datetime | None, garbled: int, gaps: int) -> None:
        """Tell when the broker was last heard and written to, for people."""


@runtime_checkable
class Hosted(Protocol):
    """What an adapter with a session does besides the port."""

    def attach(self, store: SessionStore) -> None:
        """Use a store from now on."""

    def open_orders_asked(self) -> bool:
        """Tell whether `open_orders` can be asked at this broker."""

    def disown(self, report: Report, why: str) -> None:
        """Tell the broker that an execution fits no order of ours (DontKnowTrade)."""


def expected(place: int | None, epoch: int) -> int:
    """Return the number that is expected next, by the place that was taken in last.

    >>> expected((3 << 32) | 17, 3), expected((2 << 32) | 17, 3), expected(None, 0)
    (18, 1, 1)
    """
    was, number = divmod(place or 0, 1 << EPOCH_BITS)
    return number + 1 if was == epoch else 1


_hosted: dict[int, BrokerAdapter] = {}


def host(broker_id: int, adapter: BrokerAdapter) -> None:
    """Make an adapter the one of all threads of this process."""
    _hosted[broker_id] = adapter


def leave(broker_id: int) -> None:
    """Host a broker no more."""
    _hosted.pop(broker_id, None)


def hosted_here(broker_id: int) -> BrokerAdapter | None:
    """Return the adapter that this process hosts for a broker."""
    return _hosted.get(broker_id)


def may_speak(broker_id: int, adapter: BrokerAdapter) -> bool:
    """Tell whether this process may send to a broker, and ask it."""
    return not adapter.capabilities.hosted or broker_id in _hosted
