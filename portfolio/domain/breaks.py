"""Differences between two sides' books: what counts as one, what likely causes it, and which answers are no facts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from oms.kernel.decimals import ZERO, text
from oms.kernel.errors import Invalid

SHRUNKEN = Decimal("0.5")
"""Of what we know of, an answer that lacks more than this part is believed by nobody."""
SHRUNKEN_FROM = 4
"""With fewer things than this on our side, only an answer without any of them is one that shrank."""
DIFFERENCES_MAX = 10_000
"""More differences than this in one section are one difference: the wrong file, the wrong account, the wrong day."""
PERSISTS_RUNS = 3
"""A position that differs in so many runs in a row lets its account only reduce, until a person has looked."""

UNSETTLED, FILLS, SPLIT, FEES, DIVIDEND, TRANSFER = "unsettled", "fills", "split", "fees", "dividend", "transfer"
NOT_BOOKED, NOT_TOLD, TERMS, BUSTED, UNEXPLAINED = "not_booked", "not_told", "terms", "busted", "unexplained"
CAUSES = {
    UNSETTLED: "One side counts what has been traded, the other what has settled.",
    FILLS: "The fills that differ add up to it.",
    SPLIT: "One side has a split that the other has not.",
    FEES: "The charges differ.",
    DIVIDEND: "A dividend of this amount was paid on one side only.",
    TRANSFER: "Cash of this amount came in or went out without a broker being named.",
    NOT_BOOKED: "We know nothing of it.",
    NOT_TOLD: "They know nothing of it.",
    TERMS: "The same thing was told with other terms.",
    BUSTED: "They have undone it.",
    UNEXPLAINED: "Nothing known explains it.",
}
_RATIOS = tuple(Decimal(n) for n in (2, 3, 4, 5, 7, 8, 10, 15, 20, 25, 50, 100))


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What is too little, and what too young, to be a break; from a broker's settings under `reconcile`."""

    quantity: Decimal = ZERO
    cash: Decimal = Decimal("0.005")
    price: Decimal = Decimal("0.00000001")
    fees: Decimal = Decimal("0.005")
    grace_seconds: Decimal = Decimal(5)


def tolerances_of(settings: Mapping[str, Any]) -> Tolerances:
    """Return the tolerances that settings name, the house's own for the rest; raises `Invalid` for what is none."""
    told = settings.get("reconcile") or {}
    names = set(Tolerances.__dataclass_fields__)
    if not isinstance(told, Mapping) or set(told) - names:
        raise Invalid("bad_settings", f"reconcile holds: {', '.join(sorted(names))}.", field="settings")
    try:
        values = {name: Decimal(str(value)) for name, value in told.items()}
    except ArithmeticError as error:
        raise Invalid("bad_settings", "reconcile holds decimals.", field="settings") from error
    if not all(v.is_finite() and v >= 0 for v in values.values()):
        raise Invalid("bad_settings", "reconcile holds decimals from zero.", field="settings")
    return Tolerances(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A difference as one comparison sees it; see `portfolio.models.Break`."""

    kind: str
    account_id: int | None
    subject: str
    ours: Decimal | None
    theirs: Decimal | None
    instrument_id: int | None = None
    currency: str = ""
    cause: str = UNEXPLAINED
    detail: Mapping[str, Any] = field(default_factory=dict)
    proposal: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[str, int | None, str]:
        """Return what tells it apart from others at the same broker, run after run."""
        return self.kind, self.account_id, self.subject


def distrust(ours: int, theirs: int, missing: int) -> str:
    """Return why an answer is no fact, empty for one that may be believed.

    `ours` and `theirs` count what each side has, `missing` what of ours they don't name at all,
    without what is too young to be named.

    >>> distrust(3, 0, 3), distrust(10, 4, 6), distrust(10, 9, 1), distrust(1, 1, 1)
    ('answer_empty', 'answer_shrunken', '', '')
    """
    if missing and not theirs:
        return "answer_empty"
    return "answer_shrunken" if ours >= SHRUNKEN_FROM and missing > SHRUNKEN * ours else ""


def cause_of_position(ours: Decimal | None, theirs: Decimal | None, *, unsettled: Decimal, fills: Decimal) -> str:
    """Return what likely makes two quantities differ; `fills` is what the differing fills of the same run add up to."""
    mine, other = ours or ZERO, theirs or ZERO
    if fills and other - mine == fills:
        return FILLS
    if unsettled and other == mine - unsettled:
        return UNSETTLED
    if mine and other and any(other in (mine * r, mine / r) for r in _RATIOS):
        return SPLIT
    if not theirs:
        return NOT_TOLD
    return NOT_BOOKED if not ours else UNEXPLAINED


def cause_of_cash(
    ours: Decimal | None,
    theirs: Decimal | None,
    *,
    unsettled: Decimal,
    fills: Decimal,
    tolerance: Decimal,
    dividends: Iterable[Decimal],
    transfers: Iterable[Decimal],
) -> str:
    """Return what likely makes two amounts of cash differ."""
    mine, other = ours or ZERO, theirs or ZERO
    more = other - mine
    if fills and abs(more - fills) <= tolerance:
        return FILLS
    if unsettled and abs(more + unsettled) <= tolerance:
        return UNSETTLED
    if any(abs(more - d) <= tolerance for d in dividends):
        return DIVIDEND
    if any(abs(more - t) <= tolerance for t in transfers):
        return TRANSFER
    return UNEXPLAINED


def amounts(**values: Decimal | None) -> dict[str, str]:
    """Return decimals as text, those that are there."""
    return {name: text(value) for name, value in values.items() if value is not None}
