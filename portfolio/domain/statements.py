"""Reading a broker's file: bytes in, lines and faults out, each with the number of the line it stands on.

A line is either read whole or told as a fault with what is wrong; nothing is guessed. What a broker writes twice is a
fault the second time. Numbers stay text, so that a million of them reach the database without a detour.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from oms.kernel.decimals import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX
from oms.kernel.errors import Invalid
from portfolio.domain.profiles import (
    ACTIONS,
    CASH,
    FIELDS,
    FILL,
    NEEDED,
    ORDER,
    POSITION,
    SECTIONS,
    SIDES,
    Profile,
)

FILE_BYTES_MAX = 512 * 1024 * 1024
CELL_CHARACTERS_MAX = 1_000
TEXT_MAX = {"reference": 64, "order_reference": 64, "undoes": 64, "symbol": 64, "currency": 12}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]")
_FORMULA = ("=", "+", "-", "@")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class Line(NamedTuple):
    """A line as it is kept: see `portfolio.models.StatementLine`. Numbers are plain text, `at` is ISO 8601 with its offset."""

    line: int
    section: str
    account_id: int
    instrument_id: int | None
    name: str
    reference: str = ""
    order_reference: str = ""
    action: str = ""
    undoes: str = ""
    side: str = ""
    quantity: str | None = None
    price: str | None = None
    amount: str | None = None
    fees: str | None = None
    currency: str = ""
    at: str | None = None
    settles: str | None = None  # the day of settlement, where a confirmation tells it


class Fault(NamedTuple):
    """What is wrong with a line."""

    line: int
    code: str
    detail: str


class _Bad(Exception):
    """One cell can't be read."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Known:
    """What a broker's words stand for: its names of our accounts, its symbols (with the currency), and all currencies."""

    accounts: Mapping[str, int]
    symbols: Mapping[str, tuple[int, str]]
    currencies: frozenset[str] = field(default_factory=frozenset)


def read(content: bytes, profile: Profile, known: Known) -> Iterator[Line | Fault]:
    """Return the lines and faults of a file, in order. Raises `Invalid` for what is no such file at all."""
    text = _decoded(content, profile)
    rows = _rows(text, profile)
    first = next(rows, None)
    if first is None:
        raise Invalid("empty_file", "The file holds no line at all.", field="file")
    number, headers = first
    if isinstance(headers, Fault):
        raise Invalid("not_a_table", headers.detail, field="file")
    places = _places(headers, profile)
    return _Reader(profile, known, places, headers).read(rows, after=number)


def _decoded(content: bytes, profile: Profile) -> str:
    """Return the text; bytes that are none become marks, so that only their own lines are refused."""
    if len(content) > FILE_BYTES_MAX:
        raise Invalid("file_too_large", f"A file may hold {FILE_BYTES_MAX} bytes.", field="file")
    marked = next((codec for mark, codec in _MARKS if content.startswith(mark)), "")
    encoding = marked or profile.encoding or "utf-8"
    try:
        return content.decode(encoding, errors="surrogateescape")
    except (UnicodeError, LookupError) as error:
        raise Invalid("not_text", f"The file is no {encoding}: {error}"[:200], field="file") from error


def _rows(text: str, profile: Profile) -> Iterator[tuple[int, Sequence[str] | Fault]]:
    """Return (number of its first line, cells) of each record; what can't be taken apart is a fault and the end."""
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=profile.delimiter, strict=True)
    skipped, start = 0, 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, Fault(start, "not_a_line", f"From here on the file can't be taken apart: {error}.")
            return
        number, start = start, reader.line_num + 1
        if skipped < profile.skip:
            skipped += 1
            continue
        if any(c.strip() for c in cells):
            yield number, cells


def _places(headers: Sequence[str], profile: Profile) -> dict[str, int]:
    """Return where each of our fields stands."""
    found: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for place, header in enumerate(headers):
        name = header.strip()
        if name and name in by_name:
            raise Invalid("duplicate_column", f"The column {name!r} stands twice.", field="file")
        by_name[name] = place
    for name in FIELDS:
        header = profile.columns.get(name, name)
        if header in by_name:
            found[name] = by_name[header]
        elif name in profile.columns:
            raise Invalid("missing_column", f"There is no column {header!r} (for {name}).", field="file")
    needed = NEEDED[profile.section] if profile.section else ("section", "account")
    if absent := [profile.columns.get(n, n) for n in needed if n not in found]:
        raise Invalid("missing_column", f"There is no column {', '.join(map(repr, absent))}.", field="file")
    return found


class _Reader:
    """One file on its way: what its words mean, and what was said already."""

    def __init__(self, profile: Profile, known: Known, places: Mapping[str, int], headers: Sequence[str]) -> None:
        self.profile, self.known, self.places, self.width = profile, known, places, len(headers)
        self.said: dict[tuple[object, ...], int] = {}
        self.zone = ZoneInfo(profile.timezone)
        self.sides = {**SIDES, **{k.lower(): v for k, v in profile.sides.items()}}
        self.actions = {**ACTIONS, **{k.lower(): v for k, v in profile.actions.items()}}
        self.number = _number_reader(profile)
        names = [h.strip() for h in headers]
        self.ignored = [(names.index(h), frozenset(v)) for h, v in profile.ignore.items() if h in names]
        self.makers: dict[str, Callable[[int, Sequence[str]], Line]] = {
            POSITION: self._position, CASH: self._cash, FILL: self._fill, ORDER: self._order,
        }  # fmt: skip

    def read(self, rows: Iterable[tuple[int, Sequence[str] | Fault]], *, after: int) -> Iterator[Line | Fault]:
        """Return what each record says."""
        for number, cells in rows:
            if isinstance(cells, Fault):
                yield cells
                continue
            if any(cells[place].strip() in values for place, values in self.ignored if place < len(cells)):
                continue
            try:
                yield self._line(number, cells)
            except _Bad as bad:
                yield Fault(number, bad.code, bad.detail)

    def _line(self, number: int, cells: Sequence[str]) -> Line:
        if len(cells) != self.width:
            raise _Bad("wrong_width", f"The line has {len(cells)} cells, the headers have {self.width}.")
        section = self.profile.section
        if not section:
            word = self._text(cells, "section")
            section = self.profile.sections.get(word, word)
            if section not in SECTIONS:
                raise _Bad("unknown_section", f"{word!r} is none of: {', '.join(SECTIONS)}.")
        line = self.makers[section](number, cells)
        key = _identity(line)
        before = self.said.setdefault(key, number)
        if before != number:
            raise _Bad("duplicate_line", f"Line {before} has said this already.")
        return line

    def _position(self, number: int, cells: Sequence[str]) -> Line:
        name, instrument, currency = self._symbol(cells)
        price = self._number(cells, "price", needed=False)
        return Line(
            number, POSITION, self._account(cells), instrument, name, quantity=self._number(cells, "quantity"),
            price=price, currency=currency,
        )  # fmt: skip

    def _cash(self, number: int, cells: Sequence[str]) -> Line:
        name = self._text(cells, "currency", needed=True)
        if name not in self.known.currencies:
            raise _Bad("unknown_currency", f"No account is kept and nothing trades in {name!r}.")
        return Line(number, CASH, self._account(cells), None, name, amount=self._number(cells, "amount"), currency=name)

    def _fill(self, number: int, cells: Sequence[str]) -> Line:
        name, instrument, currency = self._symbol(cells)
        word = self._text(cells, "action").lower()
        action = self.actions.get(word)
        if action is None:
            raise _Bad("unknown_action", f"{word!r} is none of: trade, bust, correct.")
        undoes = self._text(cells, "undoes", needed=action != "trade")
        return Line(
            number, FILL, self._account(cells), instrument, name,
            reference=self._text(cells, "reference", needed=True),
            order_reference=self._text(cells, "order_reference"),
            action=action, undoes=undoes, side=self._side(cells),
            quantity=self._number(cells, "quantity", sign=False), price=self._number(cells, "price"),
            fees=self._number(cells, "fees", needed=False), currency=currency, at=self._time(cells),
            amount=self._number(cells, "amount", needed=False), settles=self._day(cells),
        )  # fmt: skip

    def _order(self, number: int, cells: Sequence[str]) -> Line:
        name, instrument, currency = self._symbol(cells)
        return Line(
            number, ORDER, self._account(cells), instrument, name,
            reference=self._text(cells, "reference", needed=True),
            order_reference=self._text(cells, "order_reference"),
            action=self._text(cells, "action")[:16], side=self._side(cells),
            quantity=self._number(cells, "quantity", sign=False), price=self._number(cells, "price", needed=False),
            currency=currency,
        )  # fmt: skip

    # ------------------------------------------------------------ cells

    def _cell(self, cells: Sequence[str], name: str) -> str:
        place = self.places.get(name)
        return "" if place is None else cells[place].strip()

    def _text(self, cells: Sequence[str], name: str, *, needed: bool = False) -> str:
        cell = self._cell(cells, name)
        if not cell:
            if needed:
                raise _Bad("required", f"The {name} is empty.")
            return cell
        if cell[0] in _FORMULA:
            raise _Bad("formula_cell", f"The {name} begins like a formula: {cell[:20]!r}.")
        if not cell.isprintable() and _CONTROL.search(cell):
            raise _Bad("not_text", f"The {name} holds bytes or characters that are no text.")
        if len(cell) > TEXT_MAX.get(name, CELL_CHARACTERS_MAX):
            raise _Bad("too_long", f"The {name} is longer than {TEXT_MAX.get(name, CELL_CHARACTERS_MAX)} characters.")
        return cell

    def _number(self, cells: Sequence[str], name: str, *, needed: bool = True, sign: bool = True) -> str | None:
        cell = self._cell(cells, name)
        if not cell:
            if needed:
                raise _Bad("required", f"The {name} is empty.")
            return None
        value = self.number(cell)
        if value is None:
            if cell[0] in _FORMULA and not re.match(r"[-+][\d.,(]", cell):
                raise _Bad("formula_cell", f"The {name} begins like a formula: {cell[:20]!r}.")
            raise _Bad("not_a_number", f"The {name} is no number as this profile writes them: {cell[:30]!r}.")
        if not sign and value.startswith("-"):
            raise _Bad("not_positive", f"The {name} must not be below zero: the side says the sign.")
        _require_bounded(value, name)
        return value

    def _account(self, cells: Sequence[str]) -> int:
        word = self._text(cells, "account", needed=True)
        found = self.known.accounts.get(self.profile.accounts.get(word, word))
        if found is None:
            raise _Bad("unknown_account", f"The broker keeps no account of ours under {word!r}.")
        return found

    def _symbol(self, cells: Sequence[str]) -> tuple[str, int, str]:
        word = self._text(cells, "symbol", needed=True)
        found = self.known.symbols.get(self.profile.symbols.get(word, word))
        if found is None:
            raise _Bad("unknown_symbol", f"No instrument is listed at the broker as {word!r}.")
        told = self._text(cells, "currency")
        if told and told != found[1]:
            raise _Bad("wrong_currency", f"{word} is in {found[1]}, not in {told}.")
        return word, found[0], found[1]

    def _side(self, cells: Sequence[str]) -> str:
        word = self._text(cells, "side", needed=True)
        found = self.sides.get(word.lower())
        if found is None:
            raise _Bad("unknown_side", f"{word!r} is none of: buy, sell, sell_short.")
        return found

    def _day(self, cells: Sequence[str]) -> str | None:
        cell = self._text(cells, "settles")
        if not cell:
            return None
        try:
            return datetime.strptime(cell, self.profile.days).date().isoformat()  # noqa: DTZ007 - a day has no zone
        except ValueError as error:
            raise _Bad("not_a_day", f"The day of settlement can't be read: {cell[:40]!r}.") from error

    def _time(self, cells: Sequence[str]) -> str:
        cell = self._text(cells, "at", needed=True)
        try:
            at = datetime.strptime(cell, self.profile.times) if self.profile.times else datetime.fromisoformat(cell)  # noqa: DTZ007 - the zone follows
            at = at if at.tzinfo else at.replace(tzinfo=self.zone)
            return at.astimezone(UTC).isoformat()
        except (ValueError, OverflowError) as error:
            raise _Bad("not_a_time", f"The time can't be read: {cell[:40]!r}.") from error


def _identity(line: Line) -> tuple[object, ...]:
    """Return what a statement may say only once."""
    if line.section == FILL:
        return (FILL, line.account_id, line.reference)
    if line.section == ORDER:
        return (ORDER, line.account_id, line.reference)
    return (line.section, line.account_id, line.name)


def _number_reader(profile: Profile) -> Callable[[str], str | None]:
    """Return a function from a cell to the plain spelling of its number, None for what is none."""
    group, point = re.escape(profile.thousands), re.escape(profile.decimal)
    whole = rf"(?:[0-9]{{1,40}}|[0-9]{{1,3}}(?:{group}[0-9]{{3}}){{1,12}})" if group else r"[0-9]{1,40}"
    pattern = re.compile(rf"(?:{whole})(?:{point}[0-9]{{1,40}})?|{point}[0-9]{{1,40}}", re.ASCII)
    plain = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,10})?", re.ASCII) if profile.decimal == "." else None
    thousands, decimal = profile.thousands, profile.decimal

    def number(cell: str) -> str | None:
        if plain is not None and plain.fullmatch(cell):
            return cell
        minus = False
        cell = cell.replace("\u2212", "-")
        if cell.startswith("(") and cell.endswith(")"):
            minus, cell = True, cell[1:-1].strip()
        elif cell[:1] in "+-":
            minus, cell = cell[0] == "-", cell[1:]
        elif cell.endswith("-"):
            minus, cell = True, cell[:-1]
        if not pattern.fullmatch(cell):
            return None
        if thousands:
            cell = cell.replace(thousands, "")
        cell = cell.replace(decimal, ".")
        cell = f"0{cell}" if cell.startswith(".") else cell
        return f"-{cell}" if minus and cell.strip("0.") else cell

    return number


def _require_bounded(value: str, name: str) -> None:
    whole, _, fraction = value.lstrip("-").partition(".")
    if len(whole.lstrip("0")) > INTEGER_DIGITS_MAX:
        raise _Bad("out_of_range", f"The {name} has more than {INTEGER_DIGITS_MAX} digits before the point.")
    if len(fraction) > FRACTION_DIGITS_MAX and len(fraction.rstrip("0")) > FRACTION_DIGITS_MAX:
        raise _Bad("too_precise", f"The {name} has more than {FRACTION_DIGITS_MAX} decimal places.")
