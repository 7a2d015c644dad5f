"""A client that gives up on nothing: it repeats a call under the same key until it is answered, and logs every answer."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ANSWER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call brought: status 0 when the connection died without an answer."""

    status: int
    body: bytes
    seconds: float


@dataclass(slots=True)
class Intent:
    """One order that a client wants, once, under one key; `answers` in the order of the calls."""

    key: str
    body: dict[str, str]
    answers: list[Answer] = field(default_factory=list)

    def promised(self) -> Answer | None:
        """Return the first answer that promised something."""
        return next((a for a in self.answers if 200 <= a.status < 300), None)

    def settled(self) -> bool:
        """Tell whether repeating makes no sense: promised, or refused for good."""
        status = self.answers[-1].status if self.answers else 0
        return 200 <= status < 500 and status != 429


class Client:
    """One user's program. A connection of its own for each thread that calls."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.local = threading.local()

    def call(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        """Make one call and return whatever came of it."""
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        started = time.monotonic()
        try:
            link = self._link()
            link.request(method, path, None if body is None else json.dumps(body), headers)
            reply = link.getresponse()
            content = reply.read()
            return Answer(reply.status, content, time.monotonic() - started)
        except (OSError, http.client.HTTPException):
            self._drop()
            return Answer(0, b"", time.monotonic() - started)

    def place(self, intent: Intent) -> Answer:
        """Ask once for an order and log the answer."""
        answer = self.call("POST", "/api/v1/orders", intent.body, intent.key)
        intent.answers.append(answer)
        return answer

    def insist(self, intent: Intent, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Repeat until it is settled, or the time is over."""
        end = time.monotonic() + seconds
        while not intent.settled() and time.monotonic() < end and not stop():
            if intent.answers:
                time.sleep(0.1)
            self.place(intent)

    def _link(self) -> http.client.HTTPConnection:
        link: http.client.HTTPConnection | None = getattr(self.local, "link", None)
        if link is None:
            link = self.local.link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        return link

    def _drop(self) -> None:
        link: http.client.HTTPConnection | None = getattr(self.local, "link", None)
        if link is not None:
            link.close()
        self.local.link = None

    close = _drop


class Load:
    """Threads that place orders, one after the other, until they are told to stop; each insists on its answers."""

    def __init__(
        self,
        client: Client,
        tickets: Callable[[random.Random], dict[str, str]],
        *,
        threads: int,
        seed: int,
        name: str,
        pause: float,
    ) -> None:
        self.client, self.tickets, self.name, self.pause = client, tickets, name, pause
        self.intents: list[Intent] = []
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}:{n}"), n), daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, rng: random.Random, thread: int) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            intent = Intent(f"{self.name}-{thread}-{number}", self.tickets(rng))
            self.intents.append(intent)
            self.client.insist(intent, 120)
            self.stopping.wait(self.pause)
        self.client.close()

    def stop(self) -> None:
        """Let every thread have its last answer."""
        self.stopping.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join(130)
                assert not thread.is_alive(), "a client waits for an answer for ever"


def broken_promises(intents: Sequence[Intent], recorded: dict[str, str]) -> list[str]:
    """Return what was promised and is not there, or was answered differently when it was asked again (L1).

    `recorded` has the first answer of each key, as the journal tells it.
    """
    faults = []
    for intent in intents:
        promises = [a for a in intent.answers if 200 <= a.status < 300]
        if promises and intent.key not in recorded:
            faults.append(f"{intent.key}: answered with {promises[0].status}, and there is no order")
        faults += [
            f"{intent.key}: another answer than the first"
            for a in promises
            if a.body.decode() != recorded.get(intent.key)
        ]
    return faults
