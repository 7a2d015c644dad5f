"""The thin way in for orders: POST orders and orders/batch before Django, with the same rules behind it.

Requests that wait while one batch commits go into the next one together: one transaction serves many clients,
and no timer ever holds an order back. Authentication, roles, budgets, parsing and operations are those of the
REST views, which serve the same addresses when `OMS_ENTRY=views`; one test suite runs through both.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.utils.crypto import constant_time_compare
from knox.crypto import hash_token
from knox.models import get_token_model
from knox.settings import CONSTANTS

from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError, Invalid, InvalidFields, Unavailable
from oms.kernel.ids import uuid7
from oms.runtime import crash, problems, rest, roles, signin, wire
from oms.runtime.bodies import BODY_BYTES_MAX
from oms.runtime.throttle import Budget, take
from orders import operations as desk
from orders.domain.tickets import Ticket, parse_ticket

PATHS = {
    "/api/v1/orders": False,
    "/api/v1/orders/": False,
    "/api/v1/orders/batch": True,
    "/api/v1/orders/batch/": True,
}
"""Address to whether it takes a batch."""
BATCH_MAX = 1_000
GATHER_MAX = 500
"""Orders committed together at most: enough to share a commit, small enough to answer soon."""
WAITING_MAX = 20_000
"""Orders that may wait for their commit; who comes later is asked to come again."""
COMMIT_SECONDS_MAX = 5.0
"""A commit that takes longer shows a database in trouble: nobody more is let in behind it."""
TOKEN_SECONDS = 2.0
"""How long a token once verified is believed; a revoked one stops working this much later."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token belongs to."""

    actor: Actor
    may_trade: bool
    until: float


@dataclass(slots=True)
class Waiting:
    """One request's orders, waiting for the next commit; the future gives the answers, or the error of all."""

    requests: list[desk.Request]
    caller: Caller
    done: "asyncio.Future[tuple[Budget, list[desk.Placed]]]"


class OrderEntry:
    """ASGI middleware: takes the two order addresses from programs, passes everything else on."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.queue: list[Waiting] = []
        self.flushing = False
        self.committing_since = 0.0
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="order-entry")
        self.door = ThreadPoolExecutor(1, thread_name_prefix="order-entry-door")  # nobody waits at it for a commit
        self.callers: dict[str, Caller] = {}
        self.asking: dict[str, asyncio.Future[Caller | None]] = {}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve a POST with a token at one of the addresses."""
        batch = PATHS.get(scope["path"])
        headers = dict(scope["headers"])
        token = headers.get(b"authorization", b"").decode("latin-1")
        if batch is None or scope["method"] != "POST" or not token.lower().startswith("token "):
            await self.app(scope, receive, send)
            return
        if headers.get(b"content-type", b"application/json").split(b";")[0].strip() != b"application/json":
            await self.app(scope, receive, send)
            return
        correlation = str(uuid7())
        structlog.contextvars.bind_contextvars(correlation_id=correlation)
        budget: Budget | None = None
        try:
            self._require_keeping_up()
            caller = await self._caller(token[6:].strip())
            if caller is None or not caller.may_trade:  # the view refuses, in the same words and with an event
                await self.app(scope, receive, send)
                return
            body = await _read(receive)
            raw = wire.decode(body) if body.strip() else {}
            key = headers.get(b"idempotency-key", b"").decode("latin-1")
            serve = self._batch if batch else self._single
            status, answer, budget, replayed = await serve(raw, caller, key)
        except DomainError as error:
            status, answer, replayed = problems.status_of(error), json.dump_bytes(problems.problem_of(error)), False
        except (OperationalError, InterfaceError):
            told = problems.problem(503, "database_unavailable", "Try the same call again in a moment.")
            status, answer, replayed = 503, json.dump_bytes(told), False
        except Exception:
            log.exception("order_entry_failed")
            told = problems.problem(
                500, "internal_error", "Something went wrong here; the correlation id leads to the log."
            )
            status, answer, replayed = 500, json.dump_bytes(told), False
        await _respond(send, status, answer, budget, correlation, replayed=replayed)

    def _require_keeping_up(self) -> None:
        """Raise `Unavailable` where the wait for a commit would be too long."""
        slow = self.committing_since and time.monotonic() - self.committing_since > COMMIT_SECONDS_MAX
        if slow or sum(len(w.requests) for w in self.queue) >= WAITING_MAX:
            raise Unavailable("overloaded", "The desk can't keep up; try the same call again in a moment.")

    async def _single(self, raw: Any, caller: Caller, key: str) -> tuple[int, bytes, Budget, bool]:
        ticket = parse_ticket(raw, at=datetime.now(UTC))
        budget, answers = await self._place([desk.Request(ticket, caller.actor, key)], caller)
        if budget.wait > 0:
            return 429, _throttled(), budget, False
        [placed] = answers
        if placed.problem:
            raise placed.problem
        return (201 if placed.created else 200), placed.body.encode(), budget, not placed.created

    async def _batch(self, raw: Any, caller: Caller, key: str) -> tuple[int, bytes, Budget, bool]:
        orders = raw.get("orders") if isinstance(raw, dict) else None
        if not isinstance(orders, list) or not 1 <= len(orders) <= BATCH_MAX or set(raw) != {"orders"}:
            raise InvalidFields([Invalid("not_a_batch", f"Send 1 to {BATCH_MAX} orders in `orders`.", field="orders")])
        parsed = [_parsed(o) for o in orders]
        requests = [
            desk.Request(t, caller.actor, desk.key_of(key, i)) for i, t in enumerate(parsed) if isinstance(t, Ticket)
        ]
        budget, answers = await self._place(requests, caller)
        if budget.wait > 0:
            return 429, _throttled(), budget, False
        placed = iter(answers)
        parts = [_part(next(placed)) if isinstance(t, Ticket) else _problem_part(t) for t in parsed]
        return 200, ('{"results":[' + ",".join(parts) + "]}").encode(), budget, False

    async def _place(self, requests: list[desk.Request], caller: Caller) -> tuple[Budget, list[desk.Placed]]:
        """Join the next commit and wait for it."""
        waiting = Waiting(requests, caller, asyncio.get_running_loop().create_future())
        self.queue.append(waiting)
        if not self.flushing:
            self.flushing = True
            task = asyncio.ensure_future(self._flush())
            task.add_done_callback(lambda t: t.exception() if not t.cancelled() else None)
        return await waiting.done

    async def _flush(self) -> None:
        """Commit batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            while self.queue:
                batch, size = [], 0
                while self.queue and (not batch or size + len(self.queue[0].requests) <= GATHER_MAX):
                    batch.append(self.queue.pop(0))
                    size += len(batch[-1].requests)
                self.committing_since = time.monotonic()
                try:
                    answers = await loop.run_in_executor(self.threads, _commit, batch)
                except Exception as error:
                    answers = [error] * len(batch)
                for waiting, answer in zip(batch, answers, strict=True):
                    if waiting.done.done():
                        continue
                    if isinstance(answer, BaseException):
                        waiting.done.set_exception(answer)
                    else:
                        waiting.done.set_result(answer)
        finally:
            self.flushing, self.committing_since = False, 0.0

    async def _caller(self, token: str) -> Caller | None:
        known = self.callers.get(token)
        if known is not None and known.until > time.monotonic():
            return known
        asked = self.asking.get(token)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self.door, _authenticate, token)
            self.asking[token] = asked
            asked.add_done_callback(lambda _: self.asking.pop(token, None))
        caller = await asyncio.shield(asked)
        if len(self.callers) > 10_000:
            self.callers.clear()
        if caller is None:
            self.callers.pop(token, None)
        else:
            self.callers[token] = caller
        return caller


def _authenticate(token: str) -> Caller | None:
    """Return the caller of a valid token; None leaves the refusal to the REST view."""
    if not token or len(token) > 128:
        return None
    try:
        digest = hash_token(token)
        rows = get_token_model().objects.select_related("user").filter(token_key=token[: CONSTANTS.TOKEN_KEY_LENGTH])
        for row in rows:
            fresh = row.expiry is None or row.expiry > datetime.now(UTC)
            if constant_time_compare(digest, row.digest) and fresh and row.user.is_active:
                held = roles.roles_of(row.user)
                return Caller(
                    roles.actor_for(row.user, automated=True),
                    "trader" in held and roles.TRADE in signin.scopes_of(digest),
                    time.monotonic() + TOKEN_SECONDS,
                )
    except (OperationalError, InterfaceError):
        connection.close()
        raise
    return None


def _commit(batch: Sequence[Waiting]) -> list[Any]:
    """Place everything that waits in one transaction; should it fail, each request alone, so that one spoils no other."""
    budgets: dict[Any, Budget] = {}
    for waiting in batch:
        user = waiting.caller.actor.user_id
        if user not in budgets:
            weight = sum(len(w.requests) for w in batch if w.caller.actor.user_id == user)
            budgets[user] = take(rest.ENTRY, user, weight=weight)
    admitted = [w for w in batch if budgets[w.caller.actor.user_id].wait <= 0]
    try:
        placed = iter(_place_all([r for w in admitted for r in w.requests]))
        done: dict[int, list[desk.Placed] | Exception] = {id(w): [next(placed) for _ in w.requests] for w in admitted}
    except (OperationalError, InterfaceError) as error:
        connection.close()
        return [error] * len(batch)
    except (DatabaseError, DomainError):
        log.exception("shared_commit_failed", requests=len(admitted))
        done = {id(w): _alone(w) for w in admitted}
    crash.point("before_reply")
    answers = [(budgets[w.caller.actor.user_id], done.get(id(w), [])) for w in batch]
    return [placed if isinstance(placed, Exception) else (budget, placed) for budget, placed in answers]


def _alone(waiting: Waiting) -> list[desk.Placed] | Exception:
    try:
        return _place_all(waiting.requests)
    except (OperationalError, InterfaceError) as error:
        connection.close()
        return error
    except Exception as error:
        log.exception("commit_failed", orders=len(waiting.requests))
        return error


def _place_all(requests: Sequence[desk.Request]) -> list[desk.Placed]:
    if not requests:
        return []
    return desk.place(requests, actor=requests[0].actor, at=datetime.now(UTC))


def _parsed(raw: object) -> Ticket | DomainError:
    try:
        return parse_ticket(raw, at=datetime.now(UTC))
    except DomainError as error:
        return error


def _part(placed: desk.Placed) -> str:
    if placed.problem:
        return _problem_part(placed.problem)
    return f'{{"status":{201 if placed.created else 200},"order":{placed.body}}}'


def _problem_part(error: DomainError) -> str:
    return json.dumps({"status": problems.status_of(error), "problem": problems.problem_of(error)})


def _throttled() -> bytes:
    return json.dump_bytes(problems.problem(429, "throttled", "Slow down; the headers tell when to go on."))


async def _read(receive: Callable[[], Awaitable[dict[str, Any]]]) -> bytes:
    """Return the body; one above the bound is read to its end but not kept, one that breaks off is refused."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("malformed_json", "The body broke off.")
        part = message.get("body", b"")
        size += len(part)
        if size <= BODY_BYTES_MAX + 1:
            parts.append(part)
        if not message.get("more_body"):
            if size > BODY_BYTES_MAX:
                raise wire.BodyTooLarge("body_too_large", f"Send at most {BODY_BYTES_MAX} bytes.")
            return b"".join(parts)


async def _respond(
    send: Any, status: int, body: bytes, budget: Budget | None, correlation: str, *, replayed: bool
) -> None:
    kind = b"application/json" if status < 400 else b"application/problem+json"
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-correlation-id", correlation.encode()),
    ]
    if status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if budget:
        headers += [
            (b"ratelimit-limit", str(budget.limit).encode()),
            (b"ratelimit-remaining", str(budget.remaining).encode()),
            (b"ratelimit-reset", b"1"),
        ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
