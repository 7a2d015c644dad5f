"""The simulated brokers' protocol: one JSON object a line over TCP, decimals as strings, times in UTC.

A connection starts with `Hello` and is of one kind: `orders` (requests and replies), `stream` (numbered frames of
reports out, heartbeats between), `market` (quotes in) or `admin` (what only tests and the demo may do).

Codes of an answer: 200 taken; 422 rejected, and that is documented as proof; 409 an order of this client id
is here already, its state comes along; 429 over the rate and 408 too old, which only with `accepted: false` are a
proof that the message was not taken. Any other code proves nothing.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

VERSION = 1
TAKEN, TOO_OLD, DUPLICATE, REJECTED, TOO_MANY, FAILED = 200, 408, 409, 422, 429, 500
FRAME_REPORTS_MAX = 250


class Hello(msgspec.Struct):
    """The first line of a connection."""

    type: str
    broker: str = ""
    key: str = ""
    hello: int = VERSION
    after: int | None = None  # stream: resume behind this frame; None: from now


class Message(msgspec.Struct, omit_defaults=True):
    """An order, a cancel or a replace: `kind` new, cancel, replace."""

    kind: str
    client_order_id: str
    account: str
    symbol: str
    side: str
    quantity: Decimal = Decimal(0)
    order_type: str = ""
    time_in_force: str = "day"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: datetime | None = None
    display_quantity: Decimal | None = None
    link: str | None = None  # orders with the same one: what one fills is taken off the others
    orig_client_order_id: str | None = None
    broker_order_id: str | None = None


class Fee(msgspec.Struct):
    """One charge of an execution."""

    kind: str
    amount: Decimal
    currency: str


class Report(msgspec.Struct, omit_defaults=True):
    """One execution report; also what the journal keeps, so it tells all that the book must know again."""

    kind: str
    client_order_id: str
    broker_order_id: str
    account: str
    symbol: str
    side: str
    order_status: str
    order_quantity: Decimal
    cumulative_quantity: Decimal
    leaves_quantity: Decimal
    executed_at: datetime
    order_type: str = ""
    time_in_force: str = ""
    orig_client_order_id: str | None = None
    execution_id: str | None = None
    ref_execution_id: str | None = None
    last_quantity: Decimal | None = None
    last_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: datetime | None = None
    fees: tuple[Fee, ...] | None = None
    link: str | None = None
    reason: str = ""
    text: str = ""


class FrameOut(msgspec.Struct):
    """Reports that became ready together."""

    seq: int
    reports: list[Report]


class Request(msgspec.Struct):
    """One call on an `orders`, `market` or `admin` connection."""

    op: str
    id: int = 0
    messages: list[Message] = []
    ids: list[str] = []
    since: datetime | None = None
    quotes: list[Quote] = []
    lies: dict[str, Any] | None = None
    arguments: dict[str, Any] = {}
    expires_at: float = 0.0  # submit: seconds since 1970 after which nothing of it may be acted on; 0: no end
    first: int = 0  # resend: numbers of the first and the last frame wanted
    last: int = 0


class Quote(msgspec.Struct, array_like=True):
    """The market of one symbol; a size of None has no limit."""

    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    last: Decimal | None = None


class Answer(msgspec.Struct, omit_defaults=True):
    """What became of one message."""

    client_order_id: str
    code: int
    broker_order_id: str | None = None
    reason: str = ""
    accepted: bool | None = None
    retry_after: float | None = None
    status: str = ""  # 409: the state of the order that is here already


encode = msgspec.json.Encoder().encode
decode_hello = msgspec.json.Decoder(Hello).decode
decode_request = msgspec.json.Decoder(Request).decode
decode_frame = msgspec.json.Decoder(FrameOut).decode
