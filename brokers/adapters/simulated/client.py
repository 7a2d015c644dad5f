"""Speaking to a simulated broker: orders out once, questions asked, every answer classified.

| answer | class | why |
|---|---|---|
| 200 | accepted | documented |
| 409 | accepted; rejected if that order was | documented: the id was taken before |
| 422 | rejected | documented as never acted on |
| 429, 408 with `accepted: false` | not sent | documented as not taken |
| any other code, a 429 or 408 without that field | unknown | nothing is documented |
| can't connect, not greeted, deadline passed before the write | not sent | no byte of the message left |
| broken or silent after the first byte, unreadable, a message without its own result | unknown | it may have arrived |
"""

import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from brokers.adapters.port import (
    Answer,
    BrokerUnavailable,
    Lookup,
    Message,
    NewOrder,
    OrderState,
    Outcome,
    ReplaceOrder,
    Report,
)
from brokers.adapters.simulated.capabilities import capabilities
from brokers.adapters.simulated.connection import Connection
from brokers.adapters.simulated.stream import SimulatedStream, read_reports

QUERY_SECONDS = 5.0
T = TypeVar("T")


class _Result(msgspec.Struct):
    client_order_id: str
    code: int
    broker_order_id: str | None = None
    reason: str = ""
    accepted: bool | None = None
    retry_after: float | None = None
    status: str = ""


class _Submitted(msgspec.Struct):
    id: int
    answers: list[_Result] = []
    code: int = 200
    reason: str = ""


class _LookedUp(msgspec.Struct):
    id: int
    orders: list[Lookup]


class _Orders(msgspec.Struct):
    id: int
    orders: list[OrderState]


class _Reports(msgspec.Struct):
    id: int
    reports: list[Report]


class _Rows(msgspec.Struct):
    id: int
    rows: list[tuple[str, str, Decimal]]


_write = msgspec.json.Encoder(decimal_format="string").encode
_read_submitted = msgspec.json.Decoder(_Submitted).decode


class SimulatedBroker:
    """A client that keeps one connection for orders and questions, and makes another per stream."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.capabilities = capabilities(settings)
        self._connection: Connection | None = None
        self._last_id = 0
        self.monotonic, self.wall = time.monotonic, time.time

    def send(self, messages: Sequence[Message], *, deadline: float) -> list[Answer]:
        """See the port. A batch above `batch_max` is refused whole, before anything is written."""
        if not messages:
            return []
        if len(messages) > self.capabilities.batch_max:
            return _all(messages, Outcome.NOT_SENT, f"at most {self.capabilities.batch_max} messages a batch")
        try:
            connection = self._connected(deadline)
        except BrokerUnavailable as error:
            return _all(messages, Outcome.NOT_SENT, str(error))
        line = self._request("submit", messages=[_out(m) for m in messages], expires_at=self._wall_time(deadline))
        started = self.monotonic()
        if started >= deadline:
            return _all(messages, Outcome.NOT_SENT, "the deadline passed before the write")
        try:
            connection.write(line, deadline)
            submitted = _read_submitted(connection.read_line(deadline))
        except (BrokerUnavailable, msgspec.MsgspecError) as error:
            self.close()
            return _all(messages, Outcome.UNKNOWN, f"no readable answer: {error}")
        rtt_ms = (self.monotonic() - started) * 1000
        if submitted.id != self._last_id:
            self.close()
            return _all(messages, Outcome.UNKNOWN, "the answer belongs to another request")
        return _classify_all(messages, submitted, rtt_ms)

    def look_up(self, client_order_ids: Sequence[str], *, since: datetime) -> list[Lookup]:
        """See the port. An id that the broker's answer leaves out counts as not answered, never as absent."""
        answer = self._ask(_LookedUp, "look_up", ids=list(client_order_ids), since=since)
        found = {x.client_order_id: x for x in answer.orders}
        return [found.get(i) or Lookup(client_order_id=i, found=None, authoritative=False) for i in client_order_ids]

    def open_orders(self) -> list[OrderState]:
        """See the port."""
        return self._ask(_Orders, "open_orders").orders

    def executions_since(self, since: datetime) -> list[Report]:
        """See the port."""
        return self._ask(_Reports, "executions", since=since).reports

    def positions(self) -> list[tuple[str, str, Decimal]]:
        """See the port."""
        return self._ask(_Rows, "positions").rows

    def cash(self) -> list[tuple[str, str, Decimal]]:
        """See the port."""
        return self._ask(_Rows, "cash").rows

    def stream(self, after: int | None) -> SimulatedStream:
        """See the port."""
        connection = Connection(self.settings, "stream", deadline=time.monotonic() + QUERY_SECONDS, after=after)
        return SimulatedStream(connection, after)

    def read(self, raw: bytes) -> tuple[Report, ...]:
        """See the port."""
        return read_reports(raw)

    def close(self) -> None:
        """See the port."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, deadline: float) -> Connection:
        """Return the kept connection, or a new one when it is gone or was left in the middle of something."""
        if self._connection is not None and self._connection.is_stale():
            self.close()
        if self._connection is None:
            self._connection = Connection(self.settings, "orders", deadline=deadline)
        return self._connection

    def _wall_time(self, deadline: float) -> float:
        """Return a monotonic deadline as Unix seconds: the broker refuses what reaches it later."""
        return self.wall() + deadline - self.monotonic()

    def _request(self, op: str, **fields: Any) -> bytes:
        self._last_id += 1
        return _write({"op": op, "id": self._last_id} | fields)

    def _ask(self, kind: type[T], op: str, **fields: Any) -> T:
        """Ask a question; whatever goes wrong is `BrokerUnavailable`, so no fault can look like "nothing there"."""
        deadline = self.monotonic() + QUERY_SECONDS
        connection = self._connected(deadline)
        line = self._request(op, **fields)
        try:
            connection.write(line, deadline)
            answer = msgspec.json.decode(connection.read_line(deadline), type=kind)
        except BrokerUnavailable:
            self.close()
            raise
        except msgspec.MsgspecError as error:
            self.close()
            raise BrokerUnavailable(f"unreadable answer to {op}: {error}") from error
        if getattr(answer, "id", None) != self._last_id:
            self.close()
            raise BrokerUnavailable(f"the answer to {op} belongs to another request")
        return answer


def _out(message: Message) -> dict[str, Any]:
    """Return a message as it travels; what is not set is left out."""
    kind = "new" if isinstance(message, NewOrder) else "replace" if isinstance(message, ReplaceOrder) else "cancel"
    fields: dict[str, Any] = {"kind": kind}
    for name in type(message).__slots__:
        value = getattr(message, name)
        if value is not None:
            fields[name] = format(value, "f") if isinstance(value, Decimal) else value
    return fields


def _all(messages: Sequence[Message], outcome: Outcome, reason: str) -> list[Answer]:
    return [Answer(client_order_id=m.client_order_id, outcome=outcome, reason=reason) for m in messages]


def _classify_all(messages: Sequence[Message], submitted: _Submitted, rtt_ms: float) -> list[Answer]:
    """Give each message its own verdict; none inherits the batch's."""
    results = {r.client_order_id: r for r in submitted.answers}
    missing = submitted.reason or f"no result for this message (code {submitted.code})"
    answers = []
    for message in messages:
        result = results.get(message.client_order_id)
        if result is None:
            answers.append(
                Answer(client_order_id=message.client_order_id, outcome=Outcome.UNKNOWN, reason=missing, rtt_ms=rtt_ms)
            )
            continue
        outcome = classify(result.code, accepted=result.accepted, status=result.status)
        answers.append(
            Answer(
                client_order_id=message.client_order_id,
                outcome=outcome,
                broker_order_id=result.broker_order_id,
                reason=result.reason or ("" if outcome is Outcome.ACCEPTED else f"code {result.code}"),
                retry_after_seconds=result.retry_after if outcome is Outcome.NOT_SENT else None,
                rtt_ms=rtt_ms,
            )
        )
    return answers


def classify(code: int, *, accepted: bool | None = None, status: str = "") -> Outcome:
    """Return what a code proves; see the table of this module.

    >>> classify(422), classify(400), classify(429), classify(429, accepted=False)
    (<Outcome.REJECTED: 'rejected'>, <Outcome.UNKNOWN: 'unknown'>, <Outcome.UNKNOWN: 'unknown'>, <Outcome.NOT_SENT: 'not_sent'>)
    """
    if code == 200:
        return Outcome.ACCEPTED
    if code == 409:
        return Outcome.REJECTED if status == "rejected" else Outcome.ACCEPTED
    if code == 422:
        return Outcome.REJECTED
    if code in (408, 429) and accepted is False:
        return Outcome.NOT_SENT
    return Outcome.UNKNOWN
