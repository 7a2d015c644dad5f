"""Price-time priority: who trades next, with whom, at which price.

The market's quote is a counterparty of bounded size; resting orders meet each other too. No price outside of
the quote's [bid, ask] is ever made.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from brokers.simulation.book import ZERO, Order

FRONT = Decimal("-Infinity")  # an order that takes any price stands before all that name one


class Side:
    """The resting orders of one side, best price first, then first come."""

    def __init__(self, sign: int, field: str) -> None:
        self.sign = sign
        self.field = field
        self.queue: list[tuple[Decimal, int, Order]] = []
        self.places: dict[str, tuple[Decimal, int]] = {}

    def _key(self, order: Order) -> tuple[Decimal, int]:
        price = order.stop_price if self.field == "stop" else order.limit()
        return (FRONT if price is None else price * self.sign, order.priority)

    def add(self, order: Order) -> None:
        """Put an order in its place; one that is there already moves if its terms did."""
        self.remove(order)
        place = self.places[order.broker_order_id] = self._key(order)
        insort(self.queue, (*place, order))

    def remove(self, order: Order) -> None:
        """Take an order out, wherever it stands."""
        place = self.places.pop(order.broker_order_id, None)
        if place is not None:
            del self.queue[bisect_left(self.queue, place, key=lambda row: row[:2])]

    def __iter__(self) -> Iterator[Order]:
        return (row[2] for row in self.queue)

    def reaching(self, price: Decimal) -> list[Order]:
        """Return the orders that a price satisfies, in the order they are served."""
        edge = price * self.sign
        found = []
        for key, _, order in self.queue:
            if key > edge:
                break
            found.append(order)
        return found


class Market:
    """One symbol at one venue: its quote with what is left of it, the resting orders and the waiting stops."""

    def __init__(self, tick: Decimal, lot: Decimal) -> None:
        self.tick = tick
        self.lot = lot
        self.bid: Decimal | None = None
        self.ask: Decimal | None = None
        self.bid_left: Decimal | None = None  # None: no limit
        self.ask_left: Decimal | None = None
        self.bids = Side(-1, "limit")
        self.asks = Side(1, "limit")
        self.buy_stops = Side(1, "stop")
        self.sell_stops = Side(-1, "stop")

    def quote(self, bid: Decimal, ask: Decimal, bid_size: Decimal | None, ask_size: Decimal | None) -> None:
        """Take a new quote; its sizes are fresh."""
        self.bid, self.ask, self.bid_left, self.ask_left = bid, ask, bid_size, ask_size

    def side_of(self, order: Order) -> Side:
        """Return where an order waits."""
        if order.waits_for_trigger:
            return self.buy_stops if order.buys else self.sell_stops
        return self.bids if order.buys else self.asks

    def remove(self, order: Order) -> None:
        """Take an order out of every queue."""
        for side in (self.bids, self.asks, self.buy_stops, self.sell_stops):
            side.remove(order)

    def touched_stops(self) -> list[Order]:
        """Return stops the quote has touched: a buy by the ask at or above, a sell by the bid at or below."""
        if self.bid is None or self.ask is None:
            return []
        return self.buy_stops.reaching(self.ask) + self.sell_stops.reaching(self.bid)

    def marketable(self) -> list[Order]:
        """Return resting orders that the quote satisfies, each side in its order."""
        if self.bid is None or self.ask is None:
            return []
        # a bid is satisfied by an ask at or below its price: on its negated scale, keys up to -ask
        return self.bids.reaching(self.ask) + self.asks.reaching(self.bid)

    def available(self, order: Order) -> Decimal | None:
        """Return what the quote has left for an order, None for no limit, zero when its price does not reach."""
        touch = self.ask if order.buys else self.bid
        if touch is None or not _takes(order, touch):
            return ZERO
        return self.ask_left if order.buys else self.bid_left

    def use(self, order: Order, quantity: Decimal) -> None:
        """Take a quantity off the quote."""
        if order.buys and self.ask_left is not None:
            self.ask_left -= quantity
        elif not order.buys and self.bid_left is not None:
            self.bid_left -= quantity

    def touch_price(self, order: Order, improvement: Decimal = ZERO) -> Decimal:
        """Return what the quote pays an order, better by a fraction of the price, on the tick, inside the quote."""
        bid, ask = self.bid or ZERO, self.ask or ZERO
        if improvement == 0:
            return ask if order.buys else bid
        if order.buys:
            price = (ask * (1 - improvement) / self.tick).to_integral_value(ROUND_CEILING) * self.tick
            return min(max(price, bid), ask)
        price = (bid * (1 + improvement) / self.tick).to_integral_value(ROUND_FLOOR) * self.tick
        return max(min(price, ask), bid)

    def counterparties(self, order: Order) -> Iterator[tuple[Order, Decimal]]:
        """Return resting orders an order may trade with now, best first, and the price of each.

        The resting order's price rules, moved into the quote if it stands outside; a pair that can't meet
        inside the quote does not trade. An account never trades with itself. Take one and ask again: a trade
        changes the queue.
        """
        if self.bid is None or self.ask is None:
            return
        for other in self.asks if order.buys else self.bids:
            limit = other.limit()
            price = min(max(self._meeting(order) if limit is None else limit, self.bid), self.ask)
            if not _takes(order, price) or not _takes(other, price):
                return  # those behind ask for more still, or stand outside of the quote
            if other.account != order.account and other.open and other is not order:
                yield other, price

    def _meeting(self, order: Order) -> Decimal:
        """Return where an order meets one that takes any price: at its limit, or in the middle."""
        limit = order.limit()
        if limit is not None:
            return limit
        middle = ((self.bid or ZERO) + (self.ask or ZERO)) / 2
        return (middle / self.tick).to_integral_value(ROUND_FLOOR) * self.tick


def better(order: Order, price: Decimal, other: Decimal) -> bool:
    """Tell whether a price is at least as good for an order as another."""
    return price <= other if order.buys else price >= other


def _takes(order: Order, price: Decimal) -> bool:
    limit = order.limit()
    return limit is None or better(order, price, limit)
