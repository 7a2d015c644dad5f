"""Live screens: what a socket gets, in which order, and what happens when something on the way is lost."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import connections
from knox.models import get_token_model

from oms.journal import publishing
from oms.live import hub as hubs
from oms.live import reading, socket
from oms.live.consumer import Blotter
from oms.live.hub import hub
from oms.live.reading import inThread
from oms.runtime import live
from tests.conftest import Desk

pytestmark = pytest.mark.django_db(transaction=True)


class Line(ApplicationCommunicator):
    """A WebSocket to the blotter, without a server between."""

    def __init__(self, headers: list[tuple[bytes, bytes]], subprotocols: list[str]) -> None:
        scope = {
            "type": "websocket",
            "path": "/ws/blotter/",
            "query_string": b"",
            "headers": headers,
            "subprotocols": subprotocols,
        }
        super().__init__(Blotter.as_asgi(), scope)

    async def connect(self) -> dict[str, Any]:
        await self.send_input({"type": "websocket.connect"})
        return await self.receive_output(10)

    async def say(self, text: str) -> None:
        await self.send_input({"type": "websocket.receive", "text": text})

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(10)


@pytest.fixture(autouse=True)
def _connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)  # as the web process has it


def played(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in an event loop of its own, and end the hub with it."""

    async def run() -> None:
        try:
            await scenario()
        finally:
            await hub.stop()

    asyncio.run(run())


def token(user: Any) -> str:
    return get_token_model().objects.create(user)[1]


def line(secret: str = "", **headers: str) -> Line:
    """Return a line to the blotter, with a token or with headers as a browser sends them."""
    told = [(k.encode(), v.encode()) for k, v in {"host": "localhost", **headers}.items()]
    return Line(told, ["token", secret] if secret else [])


async def heard(client: Line, *kinds: str, within: float = 10) -> dict[str, Any]:
    """Return the next message of one of the kinds (any but marks and heartbeats if none is named)."""
    async with asyncio.timeout(within):
        while True:
            message = json.loads((await client.receive_output(within))["text"])
            if message["type"] in kinds or (not kinds and message["type"] not in ("mark", "heartbeat")):
                return message


async def joined(secret: str, since: dict[str, int] | None = None) -> tuple[Line, dict[str, Any]]:
    """Open a line, subscribe to MAIN, and return it with the first answer."""
    client = line(secret)
    assert (await client.connect())["subprotocol"] == "token"
    await client.say(json.dumps({"type": "subscribe", "accounts": ["MAIN"], **({"since": since} if since else {})}))
    return client, await heard(client)


async def closed_with(client: Line) -> int:
    """Return the code the server closes with."""
    while True:
        message = await client.receive_output(10)
        if message["type"] == "websocket.close":
            return int(message["code"])


def test_a_snapshot_is_followed_by_every_fact_in_sequence(live_desk: Desk) -> None:
    live_desk.place("buy 1 AAPL")
    secret = token(live_desk.alice)

    async def scenario() -> None:
        client, snapshot = await joined(secret)
        assert [o["symbol"] for o in snapshot["orders"]] == ["AAPL"]
        await asyncio.sleep(0.3)  # the subscriber is on its way
        await inThread(live_desk.place)("buy 2 MSFT", "buy 3 MSFT")
        await inThread(live_desk.place)("buy 4 MSFT")
        frames = [await heard(client, "order") for _ in range(3)]
        assert [f["seq"] for f in frames] == [snapshot["seq"] + n for n in (1, 2, 3)]
        assert [f["data"]["quantity"] for f in frames] == ["2", "3", "4"]
        await client.disconnect()
        assert not hub.feeds

    played(scenario)


def test_a_client_resumes_with_what_it_missed(live_desk: Desk) -> None:
    secret = token(live_desk.alice)

    async def scenario() -> None:
        client, snapshot = await joined(secret)
        await client.disconnect()
        await inThread(live_desk.place)("buy 5 AAPL")
        client, first = await joined(secret, {"MAIN": snapshot["seq"]})
        assert (first["type"], first["seq"], first["data"]["quantity"]) == ("order", snapshot["seq"] + 1, "5")
        await client.disconnect()
        client, first = await joined(secret, {"MAIN": snapshot["seq"] + 9_999})
        assert first["type"] == "snapshot"  # it claims to have seen what never was
        await client.disconnect()

    played(scenario)


def test_without_redis_facts_arrive_a_little_later_and_in_order(
    live_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = token(live_desk.alice)
    monkeypatch.setattr(publishing.live, "publish", lambda *_: None)
    monkeypatch.setattr(hubs, "CHECK_SECONDS", 0.2)

    async def scenario() -> None:
        client, snapshot = await joined(secret)
        await inThread(live_desk.place)(*["buy 1 AAPL"] * 5)
        sequences = [(await heard(client, "order"))["seq"] for _ in range(5)]
        assert sequences == [snapshot["seq"] + n for n in range(1, 6)]
        await client.disconnect()

    played(scenario)


def test_batches_that_overtake_or_repeat_each_other_are_put_right(
    live_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = token(live_desk.alice)
    batches: list[live.FrameBatch] = []
    monkeypatch.setattr(publishing.live, "publish", lambda *parts: batches.append(live.FrameBatch(*parts)))
    monkeypatch.setattr(hubs, "CHECK_SECONDS", 60)

    async def scenario() -> None:
        client, snapshot = await joined(secret)
        for _ in range(3):
            await inThread(live_desk.place)("buy 1 AAPL", "buy 2 AAPL")
        for batch in (batches[2], batches[0], batches[1], batches[1], batches[2]):
            hub.receive(batch)
        sequences = [(await heard(client, "order"))["seq"] for _ in range(6)]
        assert sequences == [snapshot["seq"] + n for n in range(1, 7)]
        assert await client.receive_nothing(0.3)
        await client.disconnect()

    played(scenario)


def test_an_account_not_granted_does_not_exist(live_desk: Desk) -> None:
    secret = token(live_desk.otto)

    async def scenario() -> None:
        client, answer = await joined(secret)
        assert answer == {"type": "error", "code": "not_found", "account": "MAIN"}
        await client.disconnect()

    played(scenario)


def test_what_is_no_subscription_is_answered_and_changes_nothing(live_desk: Desk) -> None:
    secret = token(live_desk.alice)

    async def scenario() -> None:
        client, _ = await joined(secret)
        for said in (
            "{",
            "[]",
            '{"type":"order","accounts":[]}',
            '{"type":"subscribe","accounts":"MAIN"}',
            "x" * 20_000,
        ):
            await client.say(said)
            assert (await heard(client))["code"] == "invalid"
        await inThread(live_desk.place)("buy 1 AAPL")
        assert (await heard(client))["type"] == "order"
        await client.disconnect()

    played(scenario)


def test_a_bad_token_and_a_foreign_page_are_turned_away(live_desk: Desk, client: Any) -> None:
    client.force_login(live_desk.alice)

    async def scenario() -> None:
        stranger = line("0" * 64)
        await stranger.connect()
        assert await closed_with(stranger) == 4401
        for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
            page = line(origin=origin)
            assert await page.connect() == {"type": "websocket.close", "code": 4403}  # never accepted
        nobody = line(origin="http://localhost")
        await nobody.connect()
        assert await closed_with(nobody) == 4401

    played(scenario)


def test_a_revoked_token_ends_the_line(live_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = token(live_desk.alice)
    monkeypatch.setattr(hubs, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(hubs, "GUARD_SECONDS", 0.2)

    async def scenario() -> None:
        client, _ = await joined(secret)
        assert (await heard(client, "heartbeat"))["at"].endswith("Z")
        await inThread(get_token_model().objects.all().delete)()
        assert await closed_with(client) == 4401

    played(scenario)


def test_a_withdrawn_grant_ends_the_feed(live_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = token(live_desk.alice)
    monkeypatch.setattr(hubs, "GUARD_SECONDS", 0.2)

    async def scenario() -> None:
        client, _ = await joined(secret)
        await inThread(live_desk.account.grants.all().delete)()
        assert (await heard(client, "error"))["code"] == "not_found"
        assert not hub.feeds
        await client.disconnect()

    played(scenario)


def test_a_client_too_slow_starts_over_from_a_snapshot(live_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "QUEUE_MAX", 10)
    sent: list[dict[str, Any]] = []
    gate = asyncio.Event()

    async def send(text: str) -> None:
        await gate.wait()
        sent.append(json.loads(text))

    async def close(_: int) -> None: ...

    async def scenario() -> None:
        slow = socket.Socket(send, close, reading.Identity(live_desk.alice.pk, None))
        pump = asyncio.ensure_future(slow.pump(hub.load))
        hub.join(slow)
        await hub.subscribe(slow, ["MAIN"], {})
        await asyncio.sleep(0.3)
        for _ in range(4):
            await inThread(live_desk.place)(*["buy 1 AAPL"] * 5)
        await asyncio.sleep(1.5)
        gate.set()
        async with asyncio.timeout(10):
            while not any(m["type"] == "snapshot" and len(m["orders"]) == 20 for m in sent):
                await asyncio.sleep(0.05)
        kinds = [m["type"] for m in sent if m["type"] not in ("heartbeat", "mark")]
        assert kinds[-2:] == ["resync", "snapshot"]
        assert kinds.count("order") < 20
        slow.closed = True
        hub.leave(slow)
        pump.cancel()

    played(scenario)
