"""What a broker told of an order besides its fills and its end, each with its time: the latest word stands.

Words may arrive late, twice or in the wrong order; with their times kept, whatever order they come in ends the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from oms.kernel.decimals import EXACT, text
from oms.kernel.json import rfc3339
from orders.states import OrdStatus

_STEP = Decimal("1E-10")


@dataclass(slots=True)
class Standing:
    """The broker's words on one order.

    `word` is suspended, stopped or done_for_day, empty where it works; `traded_at` the latest execution of a lasting
    order, which ends its rest; `terms_at` when terms were last restated or replaced; `split` the new and the old
    quantity of a corporate action, which counts for what was filled before `split_at`; `received` that the broker has the
    order and has not taken it yet.
    """

    word: str = ""
    word_at: datetime | None = None
    traded_at: datetime | None = None
    terms_at: datetime | None = None
    split: tuple[Decimal, Decimal] | None = None
    split_at: datetime | None = None
    received: bool = False

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self:
        """Return what a row keeps."""
        if not stored:
            return cls()
        times = {n: datetime.fromisoformat(stored[n]) for n in _TIMES if n in stored}
        split = (Decimal(stored["split"][0]), Decimal(stored["split"][1])) if "split" in stored else None
        return cls(word=stored.get("word", ""), split=split, received=bool(stored.get("received")), **times)

    def as_json(self) -> dict[str, Any] | None:
        """Return what a row keeps; None of nothing."""
        kept: dict[str, Any] = {n: rfc3339(t) for n in _TIMES if (t := getattr(self, n)) is not None}
        if self.word:
            kept["word"] = self.word
        if self.received:
            kept["received"] = True
        if self.split is not None:
            kept["split"] = [text(q) for q in self.split]
        return kept or None

    def say(self, word: str, at: datetime) -> None:
        """Take a word in, unless a later one stands; of two of one moment the same one stands, whichever came first."""
        if self.word_at is None or (at, word) >= (self.word_at, self.word):
            self.word, self.word_at = word, at

    def trade(self, at: datetime) -> None:
        """Note an execution."""
        self.traded_at = at if self.traded_at is None else max(at, self.traded_at)

    def new_terms(self, at: datetime) -> bool:
        """Tell whether terms told at a time are the latest, and note it."""
        if self.terms_at is not None and at < self.terms_at:
            return False
        self.terms_at = at
        return True

    def in_force(self) -> str:
        """Return the word that stands; who trades again after the day's end rests no more."""
        if self.word == OrdStatus.DONE_FOR_DAY and self.traded_at and self.word_at and self.traded_at > self.word_at:
            return ""
        return self.word

    def counted(self, quantity: Decimal, executed_at: datetime) -> Decimal:
        """Return what a fill counts for the order: in the units of today, where a split came after it."""
        if self.split is None or self.split_at is None or executed_at >= self.split_at:
            return quantity
        new, old = self.split
        return EXACT.divide(EXACT.multiply(quantity, new), old).quantize(_STEP, context=EXACT)


_TIMES = ("word_at", "traded_at", "terms_at", "split_at")
