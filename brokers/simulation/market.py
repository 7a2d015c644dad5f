"""The demo market: a seeded random walk of every instrument, rounded to its tick.

Prices walk in floating point, as nothing is booked at them: what leaves this module are exact multiples of a tick.
"""

import math
import random
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

LEFT_ALONE = timedelta(seconds=60)
"""How long a symbol belongs to whoever posted or replayed a quote of it."""
DAY_SECONDS = 86_400.0
STEP_SECONDS_MAX = 5.0
"""A model that was not stepped for long (a suspended machine) makes one step, not a leap."""
PULL_PER_DAY = 1.0
"""How strongly prices are drawn to where they started: over months they stay near it."""
SPREAD_PULL = 0.2
SPREAD_NOISE = 0.15
TURNOVER = 0.5
"""How often in a second, on average, as much is traded as is quoted on one side."""


class MarketQuote(NamedTuple):
    """A market as it is at one time; sizes in units."""

    symbol: str
    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal


class Walk:
    """One instrument's price, spread and sizes."""

    def __init__(self, instrument: Mapping[str, Any]) -> None:
        self.symbol = str(instrument["symbol"])
        self.tick = Decimal(str(instrument["tick_size"]))
        self.lot = Decimal(str(instrument["lot_size"]))
        self.home = self.mid = float(instrument["start_price"])
        self.usual_spread = float(instrument["spread_bps"]) / 10_000
        self.spread = self.usual_spread
        self.volatility = float(instrument["volatility"])
        self.usual_lots = float(instrument["size"]) / float(self.lot)
        self.free_at: datetime | None = None

    def move(self, seconds: float, rng: random.Random) -> None:
        """Let the price wander and the spread return to its usual width."""
        days = seconds / DAY_SECONDS
        pull = PULL_PER_DAY * days * math.log(self.home / self.mid)
        self.mid *= math.exp(pull + self.volatility * math.sqrt(days) * rng.gauss(0, 1))
        back = SPREAD_PULL * math.log(self.usual_spread / self.spread)
        self.spread *= math.exp(back + SPREAD_NOISE * rng.gauss(0, 1))

    def quote(self, rng: random.Random) -> MarketQuote:
        """Return the market around the price: at least a tick wide, on the tick, above zero."""
        tick = float(self.tick)
        width = max(1, round(self.mid * self.spread / tick))
        bid = max(1, round(self.mid / tick - width / 2))
        sizes = [max(1, int(self.usual_lots * rng.uniform(0.4, 1.6))) * self.lot for _ in range(2)]
        return MarketQuote(self.symbol, bid * self.tick, (bid + width) * self.tick, sizes[0], sizes[1])


class MarketModel:
    """All instruments, moved by one seeded generator: the same seed and times give the same market."""

    def __init__(
        self, instruments: Iterable[Mapping[str, Any]], *, seed: int, mids: Mapping[str, Decimal] | None = None
    ) -> None:
        self.walks = {w.symbol: w for w in map(Walk, instruments)}
        self.rng = random.Random(seed)  # noqa: S311 - a market, not a secret
        self.trading = random.Random(seed)  # noqa: S311 - of its own, so that prices don't depend on it
        self.stepped_at: datetime | None = None
        for symbol, mid in (mids or {}).items():
            if symbol in self.walks and mid > 0:
                self.walks[symbol].mid = float(mid)

    def step(self, at: datetime) -> list[MarketQuote]:
        """Move the market on to a time; return the new quotes of all symbols that are the model's to move."""
        passed = (at - self.stepped_at).total_seconds() if self.stepped_at else 0.0
        self.stepped_at = at
        seconds = min(max(passed, 0.0), STEP_SECONDS_MAX)
        quotes = []
        for walk in self.walks.values():
            walk.move(seconds, self.rng)  # left-alone symbols draw too, so that others don't depend on them
            fresh = walk.quote(self.rng)
            if walk.free_at is None or at >= walk.free_at:
                quotes.append(fresh)
        return quotes

    def traded(self, seconds: float) -> dict[str, Decimal]:
        """Return what others traded in a time, by symbol, in whole lots: at the prices of whoever sets them."""
        found = {}
        for walk in self.walks.values():
            lots = int(walk.usual_lots * TURNOVER * seconds * self.trading.expovariate(1.0))
            if lots:
                found[walk.symbol] = lots * walk.lot
        return found

    def external(self, symbol: str, bid: Decimal, ask: Decimal, at: datetime) -> None:
        """Note a quote from outside: the symbol is left alone for a minute, then walks on from there."""
        walk = self.walks.get(symbol)
        if walk is not None:
            walk.free_at = at + LEFT_ALONE
            walk.mid = walk.home = float((bid + ask) / 2)

    def left_alone(self, symbol: str, at: datetime) -> bool:
        """Tell whether a symbol belongs to someone outside at this time."""
        walk = self.walks.get(symbol)
        return walk is not None and walk.free_at is not None and at < walk.free_at
