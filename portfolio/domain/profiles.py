"""How a broker writes its files, as data: which column is what, and how numbers, times and words are spelled.

Settings of a profile, all optional but `columns` where the headers are not our own names:

- `columns`: our field to their header; fields that are not named bear our names: see `FIELDS`.
- `section`: what every line is (position, cash, fill, order); without it a column `section` says so, by `sections`
  (their word to ours).
- `encoding` (a codec; without it UTF-8, or what a byte order mark says), `delimiter`, `skip` (lines above the headers).
- `decimal` (`.` or `,`) and `thousands` (what may stand between groups of three digits).
- `times`: a strftime format where they aren't ISO 8601, `days` one of days of settlement (default `%Y-%m-%d`); `timezone`: of times without an offset (default UTC).
- `sides`, `actions`, `symbols`, `accounts`: their word to ours; an account may also go by the broker's own name of it.
- `ignore`: {header: [values]}: lines that are none, such as totals.
- `basis`: `settle` where positions and cash are what has settled, else `trade`.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from oms.kernel.errors import Invalid

POSITION, CASH, FILL, ORDER = "position", "cash", "fill", "order"
SECTIONS = (POSITION, CASH, FILL, ORDER)
FIELDS = (
    "section", "account", "symbol", "currency", "quantity", "amount", "side", "price", "fees", "reference",
    "order_reference", "action", "undoes", "at", "settles",
)  # fmt: skip
NEEDED = {
    POSITION: ("account", "symbol", "quantity"),
    CASH: ("account", "currency", "amount"),
    FILL: ("account", "symbol", "side", "quantity", "price", "reference", "at"),
    ORDER: ("account", "symbol", "side", "quantity", "reference"),
}
"""Fields that a line of a section can't do without; of an order `quantity` is what is left to fill."""
SIDES = {
    "buy": "buy", "b": "buy", "bot": "buy", "bought": "buy", "1": "buy",
    "sell": "sell", "s": "sell", "sld": "sell", "sold": "sell", "2": "sell",
    "sell_short": "sell_short", "ss": "sell_short", "short": "sell_short", "5": "sell_short",
}  # fmt: skip
ACTIONS = {
    "": "trade",
    "trade": "trade",
    "bust": "bust",
    "cancel": "bust",
    "correct": "correct",
    "correction": "correct",
}
TRADE_DATE, SETTLE_DATE = "trade", "settle"
_DELIMITERS = (",", ";", "\t", "|")
_THOUSANDS = ("", ",", ".", " ", "'", "\u00a0", "\u202f")
_TEXT = ("section", "encoding", "delimiter", "decimal", "thousands", "times", "days", "timezone", "basis")
_MAPS = ("columns", "sections", "sides", "actions", "symbols", "accounts", "ignore")


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings that were judged; see the module."""

    columns: Mapping[str, str] = field(default_factory=dict)
    section: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    delimiter: str = ","
    skip: int = 0
    decimal: str = "."
    thousands: str = ""
    times: str = ""
    days: str = "%Y-%m-%d"
    timezone: str = "UTC"
    sides: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[str, str] = field(default_factory=dict)
    symbols: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)
    ignore: Mapping[str, list[str]] = field(default_factory=dict)
    basis: str = TRADE_DATE


def judge_profile(settings: object) -> Profile:
    """Return the profile that settings make, or raise `Invalid` with what to correct."""
    if not isinstance(settings, Mapping):
        raise _wrong("Settings are an object.")
    if unknown := sorted(set(map(str, settings)) - set(Profile.__dataclass_fields__)):
        raise _wrong(f"There is no setting {', '.join(unknown)}.")
    for name in _TEXT:
        if not isinstance(settings.get(name, ""), str):
            raise _wrong(f"{name} is a text.")
    for name in _MAPS:
        if not isinstance(settings.get(name, {}), Mapping):
            raise _wrong(f"{name} is an object.")
    profile = Profile(**settings)
    _judge_words(profile)
    _judge_spelling(profile)
    return profile


def _judge_words(profile: Profile) -> None:
    if unknown := sorted(set(profile.columns) - set(FIELDS)):
        raise _wrong(f"columns: there is no field {', '.join(unknown)}; use {', '.join(FIELDS)}.")
    if profile.section and profile.section not in SECTIONS:
        raise _wrong(f"section is one of: {', '.join(SECTIONS)}.")
    for name, known in (("sections", SECTIONS), ("sides", set(SIDES.values())), ("actions", set(ACTIONS.values()))):
        if not set(getattr(profile, name).values()) <= set(known):
            raise _wrong(f"{name} leads to: {', '.join(sorted(known))}.")
    for name in ("columns", "symbols", "accounts"):
        if not all(isinstance(v, str) for v in getattr(profile, name).values()):
            raise _wrong(f"{name} leads from text to text.")
    if not all(isinstance(v, list) for v in profile.ignore.values()):
        raise _wrong("ignore leads from a header to a list of values.")
    if profile.basis not in (TRADE_DATE, SETTLE_DATE):
        raise _wrong("basis is trade or settle.")


def _judge_spelling(profile: Profile) -> None:
    if profile.decimal not in (".", ",") or profile.thousands not in _THOUSANDS or profile.decimal == profile.thousands:
        raise _wrong("decimal is . or , and thousands another character between groups of digits.")
    if profile.delimiter not in _DELIMITERS:
        raise _wrong("delimiter is a comma, a semicolon, a tab or a bar.")
    if not isinstance(profile.skip, int) or isinstance(profile.skip, bool) or not 0 <= profile.skip <= 100:
        raise _wrong("skip is a number of lines, 100 at the most.")
    try:
        codecs.lookup(profile.encoding or "utf-8")
        ZoneInfo(profile.timezone)
    except (LookupError, ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise _wrong(f"There is no such encoding or time zone: {error}.") from error


def _wrong(detail: str) -> Invalid:
    return Invalid("bad_profile", detail, field="profile")


STANDARD = "standard"
TEMPLATES: dict[str, dict[str, Any]] = {
    STANDARD: {},
    "positions": {"section": POSITION},
    "cash": {"section": CASH},
    "fills": {"section": FILL},
    "orders": {"section": ORDER},
    "continental": {"delimiter": ";", "decimal": ",", "thousands": "."},
    "settled": {"basis": SETTLE_DATE},
}
"""Profiles that every desk has: headers are our own names, in any order."""
HEADERS = {
    "": FIELDS,
    POSITION: ("account", "symbol", "quantity", "price", "currency"),
    CASH: ("account", "currency", "amount"),
    FILL: tuple(n for n in FIELDS if n not in ("section", "amount")),
    ORDER: ("account", "symbol", "side", "quantity", "reference", "order_reference", "price", "action"),
}


def template_of(profile: Profile) -> str:
    """Return the header line of a file that a profile reads."""
    names = [n for n in HEADERS[profile.section] if n != "section" or not profile.section]
    return profile.delimiter.join(profile.columns.get(n, n) for n in names)
