"""What is asked of risk, and what it answers."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from brokers.domain.reference import InstrumentRef
from risk.domain.selftrade import Prevented


@dataclass(frozen=True, slots=True)
class Intent:
    """One order as risk sees it. Quantity in units, prices in the instrument's currency.

    `user_name` is the user's login, `strategy_code` empty for none; `automated` is true for programs; what `begins_later`
    waits at the desk, whatever the exchange's hours. What `waits` rests on no market yet; `reduce_only` may never open a
    position; what `liquidates` passes halts but of its broker, as far as it reduces; `self_trade` is the order's own mode of preventing self-trades, empty for its account's. What is
    `covered` ties no cash and no units of its own account: those that it trades for were judged and hold for it. Of orders
    with the same `oco` one cancels the others, so that together they count for the worst of one.
    """

    order_id: UUID
    account_id: int
    account_code: str
    base_currency: str
    account_open: bool
    instrument: InstrumentRef
    side: str
    quantity: Decimal
    order_type: str = "market"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    user_id: int | None = None
    user_name: str = ""
    strategy_id: int | None = None
    strategy_code: str = ""
    automated: bool = False
    directed_broker_code: str | None = None
    time_in_force: str = "day"
    begins_later: bool = False
    waits: bool = False
    reduce_only: bool = False
    self_trade: str = ""
    liquidates: bool = False
    covered: bool = False
    oco: UUID | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """Return (account id, instrument id): what positions and exposures are kept by."""
        return self.account_id, self.instrument.id


@dataclass(frozen=True, slots=True)
class Verdict:
    """May it trade? `reason` is a code of `Reason`, empty when approved; `checks` hold every number used.

    `reduces`: all of it would bring the position nearer to zero, so a reduce-only halt lets it pass. `held`: only a soft
    limit stands against it, so another person may let it pass, or orders of its own account that it would trade with:
    then `prevented` tells which must be gone first and what is left of it.
    `unit_amount`: what a unit is held at under new terms, in the instrument's currency.
    """

    order_id: UUID
    approved: bool
    reason: str = ""
    detail: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    reduces: bool = False
    unit_amount: Decimal | None = None
    held: bool = False
    prevented: Prevented | None = None
