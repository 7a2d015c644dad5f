"""How a simulated broker behaves: its quality, and the lies it tells. Everything is off unless set."""

from decimal import Decimal

import msgspec
from msgspec import Struct


class Latency(Struct):
    """(mean, jitter) in milliseconds: a delay is drawn evenly from mean ± jitter, never below zero."""

    ack: tuple[float, float] = (0.0, 0.0)
    fill: tuple[float, float] = (0.0, 0.0)
    cancel: tuple[float, float] = (0.0, 0.0)


class Down(Struct):
    """Planned outages: for so long, every so often, the first after one full period."""

    every_seconds: float
    for_seconds: float


class Lies(Struct, forbid_unknown_fields=True):
    """Rates are probabilities between 0 and 1; each lie can be switched while the venue runs."""

    drop_reply: float = 0.0  # act, then close the connection without an answer
    error_though_accepted: float = 0.0  # act, then answer a code that proves nothing
    hide_orders: float = 0.0  # look-ups and lists leave an order out for `hide_seconds`
    hide_seconds: float = 1.0
    duplicate_reports: float = 0.0  # send a report again, under the same execution id
    reorder_reports: float = 0.0  # turn the reports of a frame around
    gap: float = 0.0  # lose a frame on the live stream; it is there when asked for again
    corrupt: float = 0.0  # cut a frame short on the live stream; it is whole when asked for again
    garbage: float = 0.0  # put a line of nonsense into the stream, for good
    late_fill_after_cancel: float = 0.0
    late_fill_seconds: float = 0.2
    bust: float = 0.0
    bust_seconds: float = 2.0
    overfill: float = 0.0  # execute one lot more than was asked
    silence: bool = False  # keep connections, act on nothing, answer nothing
    empty_lists: bool = False  # say that nothing is open, held or owned
    shrink: float = 0.0  # leave out this part of every list
    stale_seconds: float = 0.0  # answer lists as things stood so long ago
    wrong_positions: dict[str, Decimal] = {}  # symbol to what is told beside the truth
    down: bool = False  # refuse connections


class Knobs(Struct, forbid_unknown_fields=True):
    """The `venue` part of a simulated broker's settings. Rates are probabilities, times as named."""

    seed: int = 0
    latency_ms: Latency = msgspec.field(default_factory=Latency)
    reject_rate: float = 0.0
    partial_fill_rate: float = 0.0
    price_improvement_bps: float = 0.0  # drawn evenly from 0 to this, within the spread
    spread_bps_extra: float = 0.0  # taken off the improvement: this venue keeps more of the spread
    depth: float | None = None  # how many times the quoted size one quote can serve; None: without limit
    orders_per_second: float | None = None
    down: Down | None = None
    day_ends_at: str = "24:00"  # UTC; day orders expire then
    dedupe: str = "forever"
    dedupe_window_seconds: float = 600.0
    visibility_delay_seconds: float = 1.0  # what the broker documents; only lies come near it
    reopen_after_bust: bool = False  # else what a bust leaves open of a closed order is canceled
    order_types: tuple[str, ...] = ("market", "limit", "stop", "stop_limit")
    times_in_force: tuple[str, ...] = ("day", "gtc", "ioc", "fok", "gtd")
    asset_classes: tuple[str, ...] = ("equity", "fx", "crypto")
    replace: bool = True
    oco: bool = False  # takes off linked orders what one of them fills
    short: bool = True
    lies: Lies = msgspec.field(default_factory=Lies)


class Instrument(Struct):
    """What a venue must know of something it trades."""

    symbol: str
    tick_size: Decimal
    lot_size: Decimal
    currency: str
    asset_class: str
