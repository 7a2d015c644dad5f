"""Exchange rates out of the quotes of currency pairs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from brokers.domain.reference import InstrumentRef

BRIDGE = "USD"
"""The currency that two others are joined through when no pair joins them."""
PAIRS = frozenset({"fx", "crypto"})


class Middle(Protocol):
    """A market with a middle."""

    @property
    def mid(self) -> Decimal:
        """Return the middle between bid and ask."""


class Rates:
    """Converts amounts by the mid prices of fx and crypto pairs, either way round, or in two steps through USD."""

    def __init__(self, quotes: Mapping[int, Middle], instruments: Mapping[int, InstrumentRef]) -> None:
        self._mids: dict[tuple[str, str], Decimal] = {}
        for instrument_id, quote in sorted(quotes.items()):
            pair = instruments.get(instrument_id)
            if pair and pair.asset_class in PAIRS and pair.base_currency and quote.mid > 0:
                self._mids.setdefault((pair.base_currency, pair.currency), quote.mid)

    def convert(self, amount: Decimal, source: str, target: str) -> Decimal | None:
        """Return the amount in the target currency; None when no rate leads there."""
        if source == target:
            return amount
        direct = self._step(amount, source, target)
        if direct is not None or BRIDGE in (source, target):
            return direct
        bridged = self._step(amount, source, BRIDGE)
        return None if bridged is None else self._step(bridged, BRIDGE, target)

    def _step(self, amount: Decimal, source: str, target: str) -> Decimal | None:
        if mid := self._mids.get((source, target)):
            return amount * mid
        if mid := self._mids.get((target, source)):
            return amount / mid
        return None
