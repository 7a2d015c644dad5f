"""Limits in force, and which of them binds an order the tightest."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from oms.kernel.decimals import ZERO
from risk.domain.intents import Intent
from risk.domain.scopes import Scope

REQUIRED = ("order_quantity", "order_notional", "position")
DEFAULT = Scope("default")

KINDS = (
    "order_quantity", "order_quantity_min", "order_notional", "order_notional_min", "position", "position_long",
    "position_short", "position_gross", "gross_exposure", "net_exposure", "leverage", "concentration",
    "concentration_sector", "concentration_class", "concentration_strategy", "price_collar", "price_collar_ticks",
    "volume_recent", "volume_daily", "spread", "quote_age", "open_orders", "order_rate", "replace_rate", "message_rate", "automated_runs", "daily_loss",
    "drawdown", "duplicate_window", "opening_cutoff", "closing_cutoff",
)  # fmt: skip
"""Every kind of limit."""

IN_CURRENCY = frozenset(
    {"order_notional", "order_notional_min", "gross_exposure", "net_exposure", "daily_loss", "drawdown"}
)
"""Kinds that are amounts of money, in the account's base currency unless the limit names another."""

FLOORS = frozenset({"order_quantity_min", "order_notional_min", "duplicate_window", "opening_cutoff", "closing_cutoff"})
"""Kinds of which the highest is the tightest."""

AGGREGATE = frozenset(
    {
        "position", "position_long", "position_short", "position_gross", "gross_exposure", "net_exposure", "open_orders",
    }
)  # fmt: skip
"""Kinds that may bind the sum over accounts."""

AGGREGATE_SCOPES = ("firm", "user", "strategy", "symbol", "group")
"""Whose sum that may be; an account is one already, and a broker is chosen only after risk was asked."""

SOFT = frozenset(
    {
        "order_quantity", "order_notional", "position", "position_long", "position_short", "position_gross",
        "gross_exposure", "net_exposure", "leverage", "concentration", "concentration_sector", "concentration_class",
        "concentration_strategy", "price_collar", "price_collar_ticks", "volume_recent", "volume_daily", "spread", "open_orders",
    }
)  # fmt: skip
"""Kinds that may be soft: an order beyond one is held until another person approves it."""


@dataclass(frozen=True, slots=True)
class LimitRef:
    """A limit in force. `member` is whom it binds where its scope is a group; else that is the scope itself. One that is
    `aggregate` binds the sum over accounts, others each account by itself."""

    kind: str
    value: Decimal
    currency: str
    scope: Scope
    soft: bool = False
    member: Scope | None = None
    aggregate: bool = False

    @property
    def binds(self) -> tuple[str, str]:
        """Return the (kind, key) of the orders that it binds."""
        bound = self.member or self.scope
        return bound.kind, bound.key


class LimitSet:
    """The limits that bind one order, by kind; hard ones and soft ones apart, and those that bind sums."""

    def __init__(self, limits: Iterable[LimitRef]) -> None:
        self.hard: dict[str, list[LimitRef]] = {}
        self.soft: dict[str, list[LimitRef]] = {}
        self.sums: list[LimitRef] = []
        self._tightest: dict[str, LimitRef] = {}
        for limit in limits:
            if limit.aggregate:
                self.sums.append(limit)
                continue
            (self.soft if limit.soft else self.hard).setdefault(limit.kind, []).append(limit)
        self.kinds = self.hard.keys() | self.soft.keys()

    def missing(self) -> list[str]:
        """Return the kinds that must be set for the firm or the account and aren't."""
        return [
            kind for kind in REQUIRED if not any(x.scope.kind in ("firm", "account") for x in self.hard.get(kind, ()))
        ]

    def tightest(self, kind: str, default: Decimal | None = None) -> LimitRef:
        """Return the tightest hard limit of a kind, or the house default."""
        if kind not in self._tightest:
            found = self.hard.get(kind)
            if found is None and default is None:
                raise LookupError(f"no limit of kind {kind}")
            self._tightest[kind] = tightest(found) if found else LimitRef(kind, default or ZERO, "", DEFAULT)
        return self._tightest[kind]

    def duplicate_window(self, intent: Intent) -> Decimal:
        """Return the seconds in which a repeat is suspect: the longest window set.

        Windows of the firm, an account, a symbol, a broker or a group are meant for people; a program is bound only by one
        set for its own user or strategy.
        """
        found = self.hard.get("duplicate_window", ())
        return max(
            (x.value for x in found if not intent.automated or x.scope.kind in ("user", "strategy")), default=ZERO
        )


def tightest(limits: Iterable[LimitRef]) -> LimitRef:
    """Return the limit of one kind and currency that stops the most."""
    found = list(limits)
    return max(found, key=_value) if found[0].kind in FLOORS else min(found, key=_value)


def _value(limit: LimitRef) -> Decimal:
    return limit.value
