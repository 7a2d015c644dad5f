"""One client's side of the live screens: what it follows, how far it has come, what waits to be sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from oms.live.reading import Identity

QUEUE_MAX = 4_000
"""Frames that may wait for a slow client; beyond, it starts over from a snapshot."""


@dataclass(eq=False, slots=True)
class Follower:
    """One account as one socket sees it. `cursor` is the last sequence queued, None while a snapshot is on its way."""

    socket: Socket
    account: str
    cursor: int | None = None

    def take(self, first: int, frames: list[str]) -> bool:
        """Queue what is new of consecutive frames; False when some in between are missing."""
        if self.cursor is None:
            return True
        start = self.cursor + 1 - first
        if start < 0:
            return False
        if start < len(frames):
            self.cursor = first + len(frames) - 1
            self.socket.put(frames if start == 0 else frames[start:])
        return True


@dataclass(eq=False, slots=True)
class Socket:
    """A connection: a bounded queue of text that one task sends."""

    send: Callable[[str], Awaitable[None]]
    close: Callable[[int], Awaitable[None]]
    identity: Identity
    followed: dict[str, Follower] = field(default_factory=dict)
    queue: deque[str] = field(default_factory=deque)
    marks: dict[tuple[str, str], str] = field(default_factory=dict)
    lagging: set[str] = field(default_factory=set)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def put(self, frames: list[str]) -> None:
        """Queue facts. A client too slow for them loses the queue and gets a snapshot of each account instead."""
        self.queue.extend(frames)
        if len(self.queue) > QUEUE_MAX:
            self.queue.clear()
            self.marks.clear()
            for follower in self.followed.values():
                follower.cursor = None
                self.lagging.add(follower.account)
        self.ready.set()

    def put_mark(self, account: str, kind: str, frame: str) -> None:
        """Queue what prices move: one of a kind and account waits at most, the latest."""
        if account in self.followed and self.followed[account].cursor is not None:
            self.marks[account, kind] = frame
            self.ready.set()

    def forget(self, account: str) -> None:
        """Stop sending an account's marks; facts already queued still go."""
        self.followed.pop(account, None)
        self.marks = {key: frame for key, frame in self.marks.items() if key[0] != account}
        self.lagging.discard(account)

    async def pump(self, reload: Callable[[Follower], Awaitable[None]]) -> None:
        """Send what waits, facts first, until the connection ends; `reload` brings a lagging account up again."""
        while not self.closed:
            await self.ready.wait()
            self.ready.clear()
            while self.queue:
                await self.send(self.queue.popleft())
            while self.marks and not self.queue:
                await self.send(self.marks.pop(next(iter(self.marks))))
            while self.lagging and not self.queue:
                account = self.lagging.pop()
                follower = self.followed.get(account)
                if follower is not None:
                    await self.send(f'{{"type":"resync","account":"{account}"}}')
                    await reload(follower)
            if self.queue or self.marks or self.lagging:
                self.ready.set()
