"""The live screens of one process: one Redis subscriber, frames encoded once and handed to every socket that follows.

Redis only makes it quick. Each second the heads of the followed streams are compared with PostgreSQL, so a frame
that Redis lost, or all of them while it is away, arrives a second late and in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis
import redis.asyncio
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from oms.kernel import json
from oms.live import reading
from oms.live.socket import Follower, Socket
from oms.runtime.live import CHANNEL, MARKS, FrameBatch

CHECK_SECONDS = 1.0
BEAT_SECONDS = 5.0
GUARD_SECONDS = 2.0
"""How often every socket's right to listen is looked up again: what was withdrawn ends well within five seconds."""
REJOIN_SECONDS = 0.5
KEPT = 2_000
"""Frames of a stream kept in memory for those who resume."""
INVALID_TOKEN = 4401
_TROUBLE = (DatabaseError, InterfaceError)
log = structlog.get_logger(__name__)
_batches = msgspec.msgpack.Decoder(FrameBatch)
_marks = msgspec.msgpack.Decoder(list[tuple[str, str, str]])


@dataclass(slots=True)
class Feed:
    """One account's stream in this process. `head` is the last sequence handed on, None before it is known."""

    followers: set[Follower] = field(default_factory=set)
    head: int | None = None
    kept: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    catching_up: bool = False
    told: int = 0
    """The highest sequence that Redis spoke of."""
    loading: asyncio.Task[reading.Snapshot] | None = None
    marks: dict[str, str] = field(default_factory=dict)


class Hub:
    """All sockets of this process."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.sockets: set[Socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    # -------------------------------------------------------- sockets come and go

    def join(self, socket: Socket) -> None:
        """Take a socket in; the first one starts the subscriber and the checks."""
        self.sockets.add(socket)
        if not self._running:
            self._running = True
            for name, loop in (
                ("listen", self._listen),
                ("check", self._check),
                ("beat", self._beat),
                ("guard", self._guard),
            ):
                self._spawn(self._forever(name, loop))

    def leave(self, socket: Socket) -> None:
        """Let a socket go."""
        self.sockets.discard(socket)
        for account in list(socket.followed):
            self._unfollow(socket, account)

    async def subscribe(self, socket: Socket, accounts: Collection[str], since: dict[str, int]) -> None:
        """Make a socket follow exactly these accounts; one not granted is answered with an error."""
        granted = (await reading.visible([socket.identity.user_id])).get(socket.identity.user_id, set())
        for account in [a for a in socket.followed if a not in accounts]:
            self._unfollow(socket, account)
        for account in accounts:
            if account not in granted:
                socket.put([json.dumps({"type": "error", "code": "not_found", "account": account})])
                continue
            follower = self._follow(socket, account)
            follower.cursor = None
            await self.load(follower, since.get(account))

    def _follow(self, socket: Socket, account: str) -> Follower:
        follower = socket.followed.setdefault(account, Follower(socket, account))
        self.feeds.setdefault(account, Feed()).followers.add(follower)
        return follower

    def _unfollow(self, socket: Socket, account: str) -> None:
        follower = socket.followed.get(account)
        socket.forget(account)
        feed = self.feeds.get(account)
        if feed and follower:
            feed.followers.discard(follower)
            if not feed.followers:
                del self.feeds[account]

    # -------------------------------------------------------- snapshots and missed frames

    async def load(self, follower: Follower, since: int | None = None) -> None:
        """Bring a follower up to the stream's head: by the frames it missed, else by a snapshot."""
        if since is not None and await self._resume(follower, since):
            return
        state = await self._snapshot(follower.account)
        feed = self.feeds.get(follower.account)
        if feed is None or follower not in feed.followers:
            return
        follower.cursor = state.sequence
        follower.socket.put([state.text])
        if feed.head is None:
            feed.head = state.sequence
        self._forward(feed, follower)
        for kind, frame in feed.marks.items():
            follower.socket.put_mark(follower.account, kind, frame)

    async def _resume(self, follower: Follower, since: int) -> bool:
        head = (await reading.heads([follower.account])).get(follower.account, 0)
        if not 0 <= head - since <= reading.REPLAY_MAX:
            return False
        missed = await reading.frames_after(follower.account, since, reading.REPLAY_MAX)
        feed = self.feeds.get(follower.account)
        if feed is None or follower not in feed.followers:
            return True
        follower.cursor = max([since, head, *(s for s, _ in missed[-1:])])
        follower.socket.put([text for _, text in missed])
        if feed.head is None:
            feed.head = follower.cursor
        self._forward(feed, follower)
        return True

    def _forward(self, feed: Feed, follower: Follower) -> None:
        """Hand on what the stream did while the follower was loading."""
        cursor = follower.cursor
        if cursor is None or feed.head is None or feed.head <= cursor:
            return
        later = [(s, text) for s, text in feed.kept if s > cursor]
        if later and later[0][0] == cursor + 1:
            follower.cursor = feed.head
            follower.socket.put([text for _, text in later])
        else:
            self._start_over(follower)

    async def _snapshot(self, account: str) -> reading.Snapshot:
        """Return the account's state, read once for all that ask at the same moment."""
        feed = self.feeds.get(account)
        if feed is None:
            return await reading.snapshot(account)
        if feed.loading is None:
            feed.loading = asyncio.ensure_future(reading.snapshot(account))
            feed.loading.add_done_callback(lambda _: setattr(feed, "loading", None))
        return await asyncio.shield(feed.loading)

    def _start_over(self, follower: Follower) -> None:
        follower.cursor = None
        follower.socket.lagging.add(follower.account)
        follower.socket.ready.set()

    # -------------------------------------------------------- frames arrive

    def receive(self, batch: FrameBatch) -> None:
        """Hand frames on that follow the head; ask PostgreSQL for what is missing in between."""
        account = batch.stream.partition(":")[2]
        feed = self.feeds.get(account)
        if feed is None:
            return
        feed.told = max(feed.told, batch.first + len(batch.frames) - 1)
        if feed.head is None or feed.catching_up:
            return
        fresh = feed.head + 1 - batch.first
        if fresh < 0:
            self._catch_up(account, feed)
        elif fresh < len(batch.frames):
            self._hand_on(feed, feed.head + 1, batch.frames[fresh:] if fresh else batch.frames)

    def _hand_on(self, feed: Feed, first: int, frames: list[str]) -> None:
        feed.head = first + len(frames) - 1
        feed.kept.extend(enumerate(frames, first))
        for follower in feed.followers:
            if not follower.take(first, frames):
                self._start_over(follower)

    def _catch_up(self, account: str, feed: Feed) -> None:
        if not feed.catching_up:
            feed.catching_up = True
            self._spawn(self._fetch(account, feed))

    async def _fetch(self, account: str, feed: Feed) -> None:
        """Read and hand on all frames after the head; what arrives by Redis meanwhile is among them or follows."""
        try:
            while feed.head is not None and self.feeds.get(account) is feed:
                missing = await reading.frames_after(account, feed.head, reading.REPLAY_MAX)
                if not missing:
                    break
                for first, frames in _runs(missing):
                    if first > feed.head + 1:  # events without a frame stand in between
                        self._skip(feed, first - 1)
                    self._hand_on(feed, first, frames)
                if feed.head >= feed.told:
                    break
        except _TROUBLE as error:
            log.warning("frames_not_read", account=account, error=str(error).strip())
        finally:
            feed.catching_up = False

    def _skip(self, feed: Feed, sequence: int) -> None:
        feed.head = sequence
        for follower in feed.followers:
            if follower.cursor is not None:
                follower.cursor = max(follower.cursor, sequence)

    # -------------------------------------------------------- what runs along

    async def _listen(self) -> None:
        """Follow Redis; on any trouble end, to be started again."""
        connection = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, socket_timeout=None, socket_connect_timeout=1, health_check_interval=0
        )
        try:
            async with connection.pubsub(ignore_subscribe_messages=True) as subscriber:
                await subscriber.subscribe(CHANNEL, MARKS)
                for account, feed in list(self.feeds.items()):
                    self._catch_up(account, feed)
                async for message in subscriber.listen():
                    if message["channel"] == MARKS.encode():
                        self._spread_marks(message["data"])
                    elif message["type"] == "message":
                        self.receive(_batches.decode(message["data"]))
        except (redis.RedisError, OSError) as error:
            log.warning("redis_lost", error=str(error))
        finally:
            with contextlib.suppress(redis.RedisError, OSError):
                await connection.aclose()

    def _spread_marks(self, data: bytes) -> None:
        for account, kind, frame in _marks.decode(data):
            if feed := self.feeds.get(account):
                feed.marks[kind] = frame
                for follower in feed.followers:
                    follower.socket.put_mark(account, kind, frame)

    async def _check(self) -> None:
        """Compare the heads with PostgreSQL each second: that bounds what a lost Redis message can cost."""
        await asyncio.sleep(CHECK_SECONDS)
        if not self.feeds:
            return
        for account, sequence in (await reading.heads(list(self.feeds))).items():
            feed = self.feeds.get(account)
            if feed and feed.head is not None and sequence > feed.head:
                self._catch_up(account, feed)

    async def _beat(self) -> None:
        """Tell every socket that the line stands."""
        await asyncio.sleep(BEAT_SECONDS)
        beat = json.dumps({"type": "heartbeat", "at": json.rfc3339(datetime.now(UTC))})
        for socket in self.sockets:
            socket.put([beat])

    async def _guard(self) -> None:
        """Drop whoever may no longer listen."""
        await asyncio.sleep(GUARD_SECONDS)
        if not self.sockets:
            return
        valid = await reading.still_valid({s.identity for s in self.sockets})
        granted = await reading.visible({i.user_id for i in valid})
        for socket in list(self.sockets):
            if socket.identity not in valid:
                self.leave(socket)
                self._spawn(socket.close(INVALID_TOKEN))
                continue
            for account in set(socket.followed) - granted.get(socket.identity.user_id, set()):
                self._unfollow(socket, account)
                socket.put([json.dumps({"type": "error", "code": "not_found", "account": account})])

    async def _forever(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step whatever happens to it; trouble costs a pause."""
        while True:
            try:
                await step()
                if name == "listen":
                    await asyncio.sleep(REJOIN_SECONDS)
            except asyncio.CancelledError:
                raise
            except _TROUBLE as error:
                log.warning("hub_database_lost", step=name, error=str(error).strip())
                await asyncio.sleep(REJOIN_SECONDS)
            except Exception:
                log.exception("hub_step_failed", step=name)
                await asyncio.sleep(REJOIN_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End the hub with its process: close sockets as going away, stop what runs."""
        for socket in list(self.sockets):
            self.leave(socket)
            with contextlib.suppress(Exception):
                await socket.close(1001)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._running = False


def _runs(frames: list[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """Return frames in runs of consecutive sequences, each with its first one."""
    runs: list[tuple[int, list[str]]] = []
    for sequence, text in frames:
        if runs and runs[-1][0] + len(runs[-1][1]) == sequence:
            runs[-1][1].append(text)
        else:
            runs.append((sequence, [text]))
    return runs


hub = Hub()
