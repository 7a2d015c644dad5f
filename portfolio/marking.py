"""Marking positions to the market, for the screens: a live book that follows the quotes."""

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers import queries as market
from brokers.domain.rates import Rates
from oms.kernel import json
from oms.kernel.decimals import money, text
from oms.kernel.json import rfc3339
from oms.runtime import live, sql
from portfolio.domain.valuation import ACCOUNT, CLOSING, TWO, Holding, Price, Valuation, Worth
from portfolio.models import Account
from portfolio.queries import STALE_AFTER
from portfolio.valuing import holdings

RELOAD_SECONDS = 5.0
"""What was traded without its price moving is in the totals after that; the position itself is told as it is booked."""


class Marker:
    """A book kept in memory between looks; each look takes in the quotes that moved since, and what is held of those."""

    def __init__(self) -> None:
        self.book = Valuation()
        self._seen: dict[int, datetime] = {}
        self._loaded = -RELOAD_SECONDS
        self._accounts: dict[int, tuple[str, str]] = {}

    def look(self, *, at: datetime) -> int:
        """Publish marks of positions whose quote moved since the last look, with the totals of their accounts; return how many
        positions that were."""
        moved = self._moved()
        if time.monotonic() - self._loaded >= RELOAD_SECONDS:
            self._reload()
        elif moved:
            self._take(moved)
        if not moved:
            return 0
        frames, count = self._frames(moved, at)
        live.publish_marks(frames)
        return count

    def _moved(self) -> dict[int, Price]:
        """Return the quotes that are newer than those seen."""
        found = {}
        for pk, bid, ask, quoted_at, day_open in sql.run(
            "SELECT instrument_id, bid, ask, at, day_open FROM brokers_quote", binary=True
        ):
            if self._seen.get(pk) != quoted_at:
                self._seen[pk] = quoted_at
                found[pk] = Price(bid, ask, quoted_at, day_open)
        return found

    def _reload(self) -> None:
        self._loaded = time.monotonic()
        self._accounts = {
            pk: (code, base) for pk, code, base in Account.objects.values_list("id", "code", "base_currency")
        }
        prices = self.book.prices | self._all_prices()
        self.book.load(holdings(), prices)

    def _all_prices(self) -> dict[int, Price]:
        return {i: Price(q.bid, q.ask, q.at, q.day_open) for i, q in market.quotes().items()}

    def _take(self, moved: dict[int, Price]) -> None:
        """Take new prices, and what is held of those instruments now, whatever was known of it."""
        by_instrument: dict[int, list[Holding]] = defaultdict(list)
        for holding in holdings(instruments=list(moved)):
            by_instrument[holding.instrument].append(holding)
        for instrument, price in moved.items():
            known = [h for h, _, _ in self.book.lines_of(instrument)]
            if known != by_instrument.get(instrument, []):
                self.book.replace(instrument, by_instrument.get(instrument, ()))
            self.book.tick(instrument, price)

    def _frames(self, moved: Iterable[int], at: datetime) -> tuple[list[tuple[str, str]], int]:
        rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for instrument in moved:
            for holding, value, basis in self.book.lines_of(instrument):
                if value is not None:
                    rows[holding.account].append(self._row(holding, value, basis, at))
        rates = Rates(self.book.prices, market.instruments()) if rows else None
        frames = []
        for account, data in rows.items():
            if account not in self._accounts or rates is None:
                continue
            code, base = self._accounts[account]
            worth = self.book.worth(ACCOUNT, account, base, rates, at=at, after=STALE_AFTER)
            body = {"type": "mark", "account": code, "data": data, "totals": _totals_out(worth), "at": at}
            frames.append((code, json.dumps(body)))
        return frames, sum(map(len, rows.values()))

    def _row(self, holding: Holding, value: Decimal, basis: Decimal, at: datetime) -> dict[str, Any]:
        price = self.book.prices[holding.instrument]
        return {
            "symbol": market.instruments()[holding.instrument].symbol,
            "market_price": text(_price(holding, price)),
            "unrealized_pnl": text(money(value - holding.cost)),
            "day_pnl": text(money(value - basis)),
            "price_at": rfc3339(price.at),
            "stale": at - price.at > STALE_AFTER,
        }


def _price(holding: Holding, price: Price) -> Decimal:
    if holding.policy == CLOSING:
        return price.bid if holding.quantity > 0 else price.ask
    return (price.bid + price.ask) / TWO


def _totals_out(worth: Worth) -> dict[str, Any]:
    """Return the totals of an account in its own currency; what is missing or old is counted."""
    return {
        "currency": worth.currency,
        "value": text(money(worth.value)),
        "unrealized": text(money(worth.unrealized)),
        "day": text(money(worth.day)),
        "positions": worth.count,
        "unpriced": worth.unpriced,
        "stale": worth.stale,
        "unrated": list(worth.unrated),
    }
