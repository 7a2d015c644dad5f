"""What makes the desk engage a halt by itself, and how far it must have gone."""

from dataclasses import dataclass
from decimal import Decimal

from risk.domain.scopes import Scope


@dataclass(frozen=True, slots=True)
class Wire:
    """One trigger: past `threshold` within `window` seconds, where it counts something, a halt of `mode` is engaged."""

    threshold: Decimal
    window: Decimal
    mode: str
    enabled: bool = True


KINDS = {
    "daily_loss": "An account has lost more today than its limit.",
    "drawdown": "An account lies further below its highest profit than its limit.",
    "reject_storm": "A broker refused more new orders in the window than the threshold.",
    "break_storm": "A broker's statements differ from our books in more new places in the window than the threshold.",
    "message_rate": "An account sent more to brokers in the window than the threshold.",
    "quotes_stale": "The newest quote of all is older than the threshold, in seconds.",
    "clock_drift": "This machine's clock and the database's differ by more than the threshold, in seconds.",
}
DEFAULTS = {
    "daily_loss": Wire(Decimal(0), Decimal(0), "reduce_only"),
    "drawdown": Wire(Decimal(0), Decimal(0), "reduce_only"),
    "reject_storm": Wire(Decimal(100), Decimal(10), "halt", enabled=False),
    "break_storm": Wire(Decimal(100), Decimal(300), "reduce_only"),
    "message_rate": Wire(Decimal(10_000), Decimal(10), "halt", enabled=False),
    "quotes_stale": Wire(Decimal(60), Decimal(0), "reduce_only", enabled=False),
    "clock_drift": Wire(Decimal(2), Decimal(0), "halt"),
}
"""What holds until a risk officer sets it otherwise. The first two act only where such a limit is set, which is their
threshold; what counts messages and refusals is left to whoever knows the desk's traffic."""


@dataclass(frozen=True, slots=True)
class Tripped:
    """A wire that something has gone past now: whom it binds, and a sentence with the numbers."""

    kind: str
    scope: Scope
    detail: str
