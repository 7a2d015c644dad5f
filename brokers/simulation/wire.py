"""What travels between a desk and a simulated broker: one JSON object a line, numbers as strings.

A connection starts with `hello` (version, broker, key, purpose). Purposes: `orders` (submit and look-ups),
`stream` (numbered frames of reports), `market` (quotes in), `admin` (scripts of tests: lies, busts, the book).

**What an answer proves.** Of one message's result only these are proof, and a venue never lies in them:
200 (taken, under `broker_order_id`), 409 (the id was taken before; `broker_order_id` and `status` of that
order), 422 (refused, will never be acted on), and 429 or 408 *with* `"accepted": false` (not taken now).
Any other code, a 429 or 408 without that field, and a lost reply prove nothing.
"""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

VERSION = 1
ACCEPTED, TOO_LATE_TO_ACT, DUPLICATE, REFUSED, THROTTLED = 200, 408, 409, 422, 429
MESSAGES_MAX = 1_000
LINE_BYTES_MAX = 8 * 1024 * 1024
HEARTBEAT_SECONDS = 1.0


class New(Struct, tag_field="type", tag="new", gc=False):
    """A new order."""

    client_order_id: str
    account: str
    symbol: str
    side: str
    quantity: Decimal
    order_type: str
    time_in_force: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: str | None = None


class Cancel(Struct, tag_field="type", tag="cancel", gc=False):
    """A request to end an order."""

    client_order_id: str
    orig_client_order_id: str
    broker_order_id: str | None = None


class Replace(Struct, tag_field="type", tag="replace", gc=False):
    """A request to change an order's terms; every term is given, `quantity` is the new total."""

    client_order_id: str
    orig_client_order_id: str
    quantity: Decimal
    time_in_force: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: str | None = None
    broker_order_id: str | None = None


Message = New | Cancel | Replace


class Result(Struct, omit_defaults=True, gc=False):
    """What became of one message; see the module for what each code proves."""

    code: int
    client_order_id: str
    broker_order_id: str | None = None
    reason: str = ""
    status: str = ""
    accepted: bool | None = None
    retry_after: float | None = None


class Fee(Struct, gc=False):
    """One charge of an execution, in a currency."""

    kind: str
    amount: Decimal
    currency: str


class Event(Struct, omit_defaults=True, gc=False):
    """One fact about one order: what a report tells, and what the venue needs to rebuild its book from it."""

    kind: str
    client_order_id: str
    account: str
    symbol: str
    side: str
    order_status: str
    order_quantity: Decimal
    cumulative_quantity: Decimal
    leaves_quantity: Decimal
    broker_order_id: str
    executed_at: str
    event: int = 0
    orig_client_order_id: str | None = None
    execution_id: str | None = None
    ref_execution_id: str | None = None
    last_quantity: Decimal | None = None
    last_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    fees: list[Fee] | None = None
    text: str = ""
    order_type: str = ""
    time_in_force: str = ""
    expire_at: str | None = None
    rank: int = 0  # place in the time queue, given on entry and when priority is lost
    currency: str = ""  # what an execution was paid in


class Hello(Struct, tag_field="op", tag="hello"):
    """The first line of a connection; `after` is for streams: the last sequence number seen."""

    version: int
    broker: str
    key: str
    purpose: str
    after: int | None = None


class Submit(Struct, tag_field="op", tag="submit"):
    """Messages to act on, once; refused with 408 when they arrive after `expires_at` (Unix seconds)."""

    id: int
    messages: list[Message]
    expires_at: float | None = None


class LookUp(Struct, tag_field="op", tag="look_up"):
    """A question for orders by client id."""

    id: int
    client_order_ids: list[str]


class Query(Struct, tag_field="op", tag="query"):
    """A question for a list: `open_orders`, `executions` (from `since` on, Unix seconds), `positions`, `cash`."""

    id: int
    what: str
    since: float = 0.0


class Resend(Struct, tag_field="op", tag="resend"):
    """On a stream: a wish for frames first..last, which end with a line `{"resent": last}`."""

    first: int
    last: int


class Quote(Struct, array_like=True, gc=False):
    """The market of one symbol; sizes in units, None when not known."""

    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    at: float = 0.0


class Quotes(Struct, tag_field="op", tag="quotes"):
    """New markets."""

    id: int
    quotes: list[Quote]


class Admin(Struct, tag_field="op", tag="admin"):
    """An order of a test's script; see `brokers.simulation.admin`."""

    id: int
    act: str
    args: dict[str, Any] = {}


Request = Hello | Submit | LookUp | Query | Resend | Quotes | Admin

read_request = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder(decimal_format="string").encode
