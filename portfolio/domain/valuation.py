"""The book at the market, kept up to date tick by tick: a tick touches the holdings of its instrument and nothing else.

A holding is what an account has of an instrument at a broker, or for a strategy. What prices move is its value alone: its
unrealised gain is value less cost, its day is value less what the day began with and traded since, so that totals keep three
sums and a tick adds one difference to each. Amounts stay in the currency of their instrument; who reads a total in another one
converts it then. What has no price is counted, never taken as zero; what has an old one is counted, too.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from operator import mul
from typing import NamedTuple

from brokers.domain.rates import Rates
from oms.kernel.decimals import ZERO

MID, CLOSING = "mid", "closing"
POLICIES = (MID, CLOSING)
"""What a holding is valued at: the middle of the market, or what closing it brings: the bid of a long, the ask of a short."""
TWO = Decimal(2)

ACCOUNT, BROKER, SYMBOL, STRATEGY = "account", "broker", "symbol", "strategy"
DIMENSIONS = (ACCOUNT, BROKER, SYMBOL, STRATEGY)
Key = tuple[str, int, str]
"""Dimension, id (0 for none), currency."""


class Holding(NamedTuple):
    """A part of a position. `broker` or `strategy` 0 stands for none. `day_quantity` and `day_amount` are of the UTC `day`."""

    account: int
    instrument: int
    currency: str
    quantity: Decimal
    cost: Decimal
    broker: int = 0
    strategy: int = 0
    policy: str = MID
    day: date | None = None
    day_quantity: Decimal = ZERO
    day_amount: Decimal = ZERO


class Price(NamedTuple):
    """A market, and the middle that its day began with."""

    bid: Decimal
    ask: Decimal
    at: datetime
    day_open: Decimal

    @property
    def mid(self) -> Decimal:
        """Return the middle between bid and ask."""
        return (self.bid + self.ask) / TWO


class Total:
    """Sums over holdings of one key; `unpriced` are those left out of them."""

    __slots__ = ("cost", "count", "day_basis", "unpriced", "value")

    def __init__(self) -> None:
        self.value = self.cost = self.day_basis = ZERO
        self.count = self.unpriced = 0

    @property
    def unrealized(self) -> Decimal:
        """Return the gain that is not taken yet."""
        return self.value - self.cost

    @property
    def day(self) -> Decimal:
        """Return what was gained since the UTC day began."""
        return self.value - self.day_basis


class _Line:
    """A holding with its present value and the totals that it counts in."""

    __slots__ = ("basis", "holding", "quantity", "totals", "value", "what")

    def __init__(self, holding: Holding, totals: tuple[Total, ...]) -> None:
        self.holding, self.quantity, self.totals = holding, holding.quantity, totals
        self.value: Decimal | None = None
        self.basis = ZERO
        # which of (bid, ask, mid) it is valued at
        self.what = 2 if holding.policy == MID else 0 if holding.quantity > 0 else 1


@dataclass(frozen=True, slots=True)
class Worth:
    """Totals in one currency. `unpriced` holdings have no price, `unrated` currencies no rate: the amounts leave them out;
    `stale` instruments have an old price and count with it."""

    currency: str
    value: Decimal
    cost: Decimal
    unrealized: Decimal
    day: Decimal
    count: int
    unpriced: int
    stale: int
    unrated: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Tell whether nothing is left out and nothing is old."""
        return not (self.unpriced or self.unrated or self.stale)


class Valuation:
    """Holdings, prices and totals in memory. Not for several threads at once."""

    def __init__(self, holdings: Iterable[Holding] = (), prices: Mapping[int, Price] | None = None) -> None:
        self.totals: dict[Key, Total] = {}
        self.prices: OrderedDict[int, Price] = OrderedDict()  # the oldest first
        self._lines: dict[int, list[_Line]] = {}
        self._flat: tuple[list[_Line], list[Decimal], list[tuple[Total, list[int]]]] | None = None
        self._places: list[tuple[int, int]] = []
        self.load(holdings, prices or {})

    # ------------------------------------------------ loading

    def load(self, holdings: Iterable[Holding], prices: Mapping[int, Price]) -> None:
        """Value a whole book anew."""
        self.totals, self._lines, self._flat = {}, {}, None
        self.prices = OrderedDict(sorted(prices.items(), key=lambda p: p[1].at))
        for holding in holdings:
            self._lines.setdefault(holding.instrument, []).append(_Line(holding, self._totals_of(holding)))
        for instrument, lines in self._lines.items():
            self._value(lines, self.prices.get(instrument))

    def replace(self, instrument: int, holdings: Iterable[Holding]) -> None:
        """Take other holdings of one instrument for those known: after a trade, a split, a correction."""
        self._flat = None
        for line in self._lines.pop(instrument, ()):
            self._take_out(line)
        lines = [_Line(h, self._totals_of(h)) for h in holdings]
        if lines:
            self._lines[instrument] = lines
            self._value(lines, self.prices.get(instrument))

    def _totals_of(self, holding: Holding) -> tuple[Total, ...]:
        ids = (holding.account, holding.broker, holding.instrument, holding.strategy)
        found = []
        for dimension, pk in zip(DIMENSIONS, ids, strict=True):
            key = (dimension, pk, holding.currency)
            total = self.totals.get(key)
            if total is None:
                total = self.totals[key] = Total()
            found.append(total)
        return tuple(found)

    def _value(self, lines: Sequence[_Line], price: Price | None) -> None:
        """Count lines in for the first time."""
        if price is None:
            for line in lines:
                for total in line.totals:
                    total.count += 1
                    total.unpriced += 1
            return
        prices = (price.bid, price.ask, (price.bid + price.ask) / TWO)
        for line in lines:
            self._count_in(line, prices[line.what], price)
            for total in line.totals:
                total.count += 1

    @staticmethod
    def _count_in(line: _Line, at: Decimal, price: Price) -> None:
        line.value = line.quantity * at
        line.basis = day_basis(line.holding, price)
        for total in line.totals:
            total.value += line.value
            total.cost += line.holding.cost
            total.day_basis += line.basis

    @staticmethod
    def _take_out(line: _Line) -> None:
        for total in line.totals:
            total.count -= 1
            if line.value is None:
                total.unpriced -= 1
            else:
                total.value -= line.value
                total.cost -= line.holding.cost
                total.day_basis -= line.basis

    # ------------------------------------------------ ticking

    def tick(self, instrument: int, price: Price) -> None:
        """Take a newer market of one instrument."""
        before = self.prices.get(instrument)
        self.prices[instrument] = price
        self.prices.move_to_end(instrument)
        lines = self._lines.get(instrument)
        if lines is None:
            return
        prices = (price.bid, price.ask, (price.bid + price.ask) / TWO)
        if before is None or before.day_open != price.day_open or before.at.date() != price.at.date():
            self._begin_day(lines, prices, price)
            return
        for line in lines:
            value = line.quantity * prices[line.what]
            moved = value - line.value  # type: ignore[operator] # it had a price before
            line.value = value
            for total in line.totals:
                total.value += moved

    def _begin_day(self, lines: Sequence[_Line], prices: tuple[Decimal, ...], price: Price) -> None:
        """Take the first price, or the first of a day, from which the day's gain counts anew."""
        self._flat = None
        for line in lines:
            self._take_out(line)
            self._count_in(line, prices[line.what], price)
            for total in line.totals:
                total.count += 1

    def sweep(self, prices: Mapping[int, Price]) -> None:
        """Take newer markets of many instruments: each holding is valued once and each total summed once."""
        for instrument, price in prices.items():
            before = self.prices.get(instrument)
            if before is None or before.day_open != price.day_open or before.at.date() != price.at.date():
                self.tick(instrument, price)
            else:
                self.prices[instrument] = price
                self.prices.move_to_end(instrument)
        lines, quantities, members = self._flattened()
        sides = {i: (p.bid, p.ask, (p.bid + p.ask) / TWO) for i, p in self.prices.items()}
        values = list(map(mul, quantities, [sides[i][w] for i, w in self._places]))
        for line, value in zip(lines, values, strict=True):
            line.value = value
        for total, indices in members:
            total.value = sum(map(values.__getitem__, indices), ZERO)

    def _flattened(self) -> tuple[list[_Line], list[Decimal], list[tuple[Total, list[int]]]]:
        """Return the priced lines, their quantities, and by total the places of its lines; kept until holdings change."""
        if self._flat is None:
            lines = [x for group in self._lines.values() for x in group if x.value is not None]
            members: dict[int, tuple[Total, list[int]]] = {}
            for place, line in enumerate(lines):
                for total in line.totals:
                    members.setdefault(id(total), (total, []))[1].append(place)
            self._places = [(x.holding.instrument, x.what) for x in lines]
            self._flat = lines, [x.quantity for x in lines], list(members.values())
        return self._flat

    # ------------------------------------------------ reading

    def lines_of(self, instrument: int) -> list[tuple[Holding, Decimal | None, Decimal]]:
        """Return holdings of an instrument with value, and what their day is counted from."""
        return [(x.holding, x.value, x.basis) for x in self._lines.get(instrument, ())]

    def held(self) -> list[int]:
        """Return the instruments that anything is held of."""
        return list(self._lines)

    def stale(self, at: datetime, after: timedelta) -> list[int]:
        """Return the instruments held whose price is older than that; looks at those alone."""
        found = []
        for instrument, price in self.prices.items():
            if at - price.at <= after:
                break
            if instrument in self._lines:
                found.append(instrument)
        return found

    def worth(
        self, dimension: str, pk: int | None, currency: str, rates: Rates, *, at: datetime, after: timedelta
    ) -> Worth:
        """Return the totals of one account, broker, symbol or strategy in a currency; of the whole book without an id."""
        keys = [k for k in self.totals if k[0] == dimension and (pk is None or k[1] == pk)]
        sums, count, unpriced, unrated = [ZERO, ZERO, ZERO], 0, 0, set()
        for key in keys:
            total = self.totals[key]
            count, unpriced = count + total.count, unpriced + total.unpriced
            if total.count == total.unpriced:
                continue
            rate = rates.convert(Decimal(1), key[2], currency)
            if rate is None:
                unrated.add(key[2])
                continue
            sums = [s + x * rate for s, x in zip(sums, (total.value, total.cost, total.day_basis), strict=True)]
        value, cost, basis = sums
        stale = [i for i in self.stale(at, after) if self._counts(i, dimension, pk)]
        return Worth(
            currency, value, cost, value - cost, value - basis, count, unpriced, len(stale), tuple(sorted(unrated))
        )

    def _counts(self, instrument: int, dimension: str, pk: int | None) -> bool:
        if pk is None:
            return True
        place = DIMENSIONS.index(dimension)
        ids = ((h.account, h.broker, h.instrument, h.strategy) for h in (x.holding for x in self._lines[instrument]))
        return any(i[place] == pk for i in ids)


def day_basis(holding: Holding, price: Price) -> Decimal:
    """Return what the value of a holding is compared with for its day: what it held when the day began at the day's first
    price, and what was traded since at the prices paid."""
    if holding.day == price.at.date():
        return (holding.quantity - holding.day_quantity) * price.day_open + holding.day_amount
    return holding.quantity * price.day_open
