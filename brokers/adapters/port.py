"""What the desk asks of any broker, and the classes of answers it may rely on.

Every adapter classifies; none retries. The class of an answer decides whether an order may ever be sent
again, so the default is `UNKNOWN` and each proof must come from the broker's own documentation.
Quantities are in units of the instrument, prices in its currency, times in UTC, delays as named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What is known of one message after a send."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # proven: the broker will never act on it
    NOT_SENT = "not_sent"  # proven: nothing arrived, or the broker documents that it refused before taking it
    PENDING = "pending"  # written to a session that answers by its reports; unknown once the lease is over without one
    UNKNOWN = "unknown"  # anything else; only a look-up may settle it


class Dedupe(StrEnum):
    """How long a broker refuses a second order under the same client order id."""

    FOREVER = "forever"
    WINDOW = "window"
    OPEN_ONLY = "open_only"
    NONE = "none"


class ReportKind(StrEnum):
    """What a report tells, after FIX ExecType and OrderCancelReject."""

    NEW = "new"
    TRADE = "trade"
    BUST = "bust"
    CORRECT = "correct"
    CANCELED = "canceled"
    REPLACED = "replaced"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCEL_REJECTED = "cancel_rejected"
    REPLACE_REJECTED = "replace_rejected"
    PENDING_NEW = "pending_new"  # it arrived, and nobody has taken it yet
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    DONE_FOR_DAY = "done_for_day"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    CALCULATED = "calculated"
    RESTATED = "restated"
    TRIGGERED = "triggered"
    STATUS = "status"  # how the order stands, for who asked: nothing new happened


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """An order to be worked; `symbol` and `account` are the broker's names."""

    client_order_id: str
    account: str
    symbol: str
    side: str
    quantity: Decimal
    order_type: str
    time_in_force: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: datetime | None = None
    display_quantity: Decimal | None = None
    min_quantity: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_percent: Decimal | None = None
    link: str | None = None  # names the set in which one cancels the others, at a broker that sees to it


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """A request to cancel the order known as `orig_client_order_id`; the request has an id of its own."""

    client_order_id: str
    orig_client_order_id: str
    account: str
    symbol: str
    side: str
    broker_order_id: str | None = None
    quantity: Decimal | None = None  # of the order as it stands, for protocols that repeat it


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceOrder:
    """New terms for the order known as `orig_client_order_id`; once accepted it goes by the new id."""

    client_order_id: str
    orig_client_order_id: str
    account: str
    symbol: str
    side: str
    quantity: Decimal
    order_type: str
    time_in_force: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    expire_at: datetime | None = None
    broker_order_id: str | None = None
    display_quantity: Decimal | None = None
    min_quantity: Decimal | None = None


Message = NewOrder | CancelOrder | ReplaceOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one send proved about one message."""

    client_order_id: str
    outcome: Outcome
    broker_order_id: str | None = None
    reason: str = ""
    retry_after_seconds: float | None = None
    rtt_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FeeItem:
    """One charge of an execution; a negative amount is a rebate."""

    kind: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One execution report or cancel reject.

    `client_order_id` is the order's name at the broker from now on (for `REPLACED` the new one);
    `orig_client_order_id` is the name before. A `CANCELED`, `CANCEL_REJECTED` or `REPLACE_REJECTED` report
    names the order in `orig_client_order_id` and the request in `client_order_id` when it answers a request;
    an unsolicited cancel has the order in `client_order_id` and no original.
    For `BUST` and `CORRECT`, `ref_execution_id` names the execution undone or restated, and `last_*` of a
    correction are the new values. `fees` is None where the broker doesn't itemise charges.
    `executed_at` is when it happened at the broker, whatever kind it is of. `REPLACED` without a request of ours and
    `RESTATED` tell terms that the broker changed. `reason` tells apart what a kind alone leaves open: a restatement for a
    `corporate_action` puts quantities, filled ones too, into new units; a rejection as `duplicate` says that the id was
    taken before, so that the order stands as it was; `sibling_filled`, that another of the orders linked with it was filled.
    """

    kind: ReportKind
    client_order_id: str
    account: str
    symbol: str
    side: str
    order_status: str
    order_quantity: Decimal
    cumulative_quantity: Decimal
    leaves_quantity: Decimal
    broker_order_id: str | None = None
    orig_client_order_id: str | None = None
    execution_id: str | None = None
    ref_execution_id: str | None = None
    last_quantity: Decimal | None = None
    last_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    executed_at: datetime | None = None
    fees: tuple[FeeItem, ...] | None = None
    liquidity: str = ""  # maker or taker, where the broker tells
    reason: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """An order as the broker shows it when asked; `client_order_id` is its name now."""

    client_order_id: str
    broker_order_id: str
    account: str
    symbol: str
    side: str
    status: str
    order_type: str
    time_in_force: str
    quantity: Decimal
    cumulative_quantity: Decimal
    leaves_quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    average_price: Decimal | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The answer to "do you know this id?".

    `authoritative` tells whether absence may be believed, given the broker's visibility delay is over.
    `reports` is the order's whole history, so that the caller can apply whatever it missed.
    """

    client_order_id: str
    found: OrderState | None
    authoritative: bool
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Bytes off the stream, always kept as received; `error` says why they could not be read."""

    raw: bytes
    sequence: int | None = None
    reports: tuple[Report, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a broker's documentation promises."""

    order_types: frozenset[str] = frozenset({"market", "limit", "stop", "stop_limit"})
    times_in_force: frozenset[str] = frozenset({"day", "gtc", "ioc", "fok", "gtd"})
    asset_classes: frozenset[str] = frozenset({"equity", "fx", "crypto"})
    exceptions: frozenset[tuple[str, str, str, str]] = frozenset()
    """What it does not take together, of what it takes each: (order type, time in force, asset class, session open or
    closed), a star for any."""
    display_quantity: bool = False
    min_quantity: bool = False
    oco: bool = False  # takes off linked orders what one of them fills, in the same moment
    dedupe: Dedupe = Dedupe.NONE
    dedupe_window_seconds: float | None = None
    query_by_client_id: bool = False
    query_includes_closed: bool = False
    visibility_delay_seconds: float = 0.0  # how long after acceptance a look-up may still miss an order
    batch_max: int = 1
    replace: bool = False
    replace_filled: bool = False  # a replace to more reopens a filled order
    overlapping_requests: bool = False  # takes a cancel or replace while an earlier replace or cancel is undecided
    cancel_by_client_id: bool = False
    sequence_numbers: bool = False
    acks_on_stream: bool = False
    orders_per_second: float | None = None
    short: bool = False
    hosted: bool = False  # its session belongs to the gateway: nobody else sends or asks

    def takes(self, order_type: str, time_in_force: str, asset_class: str, *, is_open: bool = True) -> bool:
        """Tell whether the broker takes an order of this kind by itself."""
        asked = (order_type, time_in_force, asset_class, "open" if is_open else "closed")
        each = (self.order_types, self.times_in_force, self.asset_classes)
        if not all(word in known for word, known in zip(asked, each, strict=False)):
            return False
        return not any(all(e in ("*", a) for e, a in zip(x, asked, strict=True)) for x in self.exceptions)


class BrokerError(Exception):
    """A call to a broker failed.

    `sent` tells whether bytes may have arrived; `permanent` whether the same call would fail again.
    """

    def __init__(self, detail: str, *, permanent: bool = False, sent: bool = True) -> None:
        super().__init__(detail)
        self.detail = detail
        self.permanent = permanent
        self.sent = sent


class BrokerUnavailable(BrokerError):
    """The broker can't be asked now; nothing follows about any order."""


class BrokerClosed(BrokerUnavailable):
    """The broker takes nothing before a time, by its own hours."""

    def __init__(self, opens_at: datetime) -> None:
        super().__init__(f"the session opens at {opens_at:%Y-%m-%d %H:%M} UTC", sent=False)
        self.opens_at = opens_at


class Stream(Protocol):
    """An open session of reports."""

    def receive(self, timeout: float) -> list[Frame]:
        """Return all frames that have arrived, waiting up to timeout seconds for the first; [] on timeout.

        Frames come in sequence; a gap is asked for again before anything behind it is returned.
        Raises `BrokerUnavailable` when the session is lost.
        """

    def close(self) -> None:
        """End the session."""


class BrokerAdapter(Protocol):
    """One broker, spoken to in its own protocol. Used by one thread at a time."""

    capabilities: Capabilities

    def send(self, messages: Sequence[Message], *, deadline: float) -> list[Answer]:
        """Send each message once and return an answer for each, in order.

        `deadline` is a monotonic time; what has no answer by then is `UNKNOWN`. Never retries, never raises
        for broker trouble.
        """

    def look_up(self, client_order_ids: Sequence[str], *, since: datetime) -> list[Lookup]:
        """Return what the broker knows of each id, in order; raises `BrokerUnavailable`."""

    def open_orders(self) -> list[OrderState]:
        """Return all orders still working, the broker's own included; raises `BrokerUnavailable`."""

    def executions_since(self, since: datetime) -> list[Report]:
        """Return trades, busts and corrections from a time on, oldest first; raises `BrokerUnavailable`."""

    def positions(self) -> list[tuple[str, str, Decimal]]:
        """Return (account, symbol, signed quantity); raises `BrokerUnavailable`."""

    def cash(self) -> list[tuple[str, str, Decimal]]:
        """Return (account, currency, amount); raises `BrokerUnavailable`."""

    def stream(self, after: int | None) -> Stream:
        """Open the report session behind a sequence number (None: from now); raises `BrokerUnavailable`."""

    def read(self, raw: bytes) -> tuple[Report, ...]:
        """Return what a message of the stream tells, read by itself; raises `ValueError` for one that can't be read."""

    def close(self) -> None:
        """Give connections back."""
