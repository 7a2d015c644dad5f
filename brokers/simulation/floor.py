"""The trading floor of a simulated broker: its memory, its alarm clock, its matching.

No socket and no clock in here: every call brings the time, and what became ready is fetched as frames. The same
seed and the same calls make the same book.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any

from brokers.domain.fees import Done, charge
from brokers.simulation import wire
from brokers.simulation.admission import Bucket, expiry_of
from brokers.simulation.book import ZERO, Book, Order
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.matching import Market, better
from brokers.simulation.wire import Fee, Message, Quote, Report

SIBLING_FILLED = "sibling_filled"
CONTINUE_SECONDS = 0.05
"""The least time between two parts of a fill that was split by chance."""


class Floor:
    """One broker's orders and their trading, as they go on without anyone asking."""

    def __init__(
        self,
        code: str,
        instruments: Mapping[str, Instrument],
        knobs: Knobs,
        journal: Journal,
        *,
        fees: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.code = code
        self.knobs = knobs
        self.lies = knobs.lies
        self.instruments = instruments
        self.journal = journal
        self.fees = fees
        self.book = Book(instruments)
        self.markets = {s: Market(i.tick_size, i.lot_size) for s, i in instruments.items()}
        self.bucket = Bucket(knobs.orders_per_second)
        self.pending: list[Report] = []
        self.ready: list[tuple[int, bytes]] = []
        self.due: list[tuple[datetime, int, str, Any]] = []
        self.scheduled = 0
        self.hidden: dict[str, datetime] = {}
        self._remember()
        self.random = random.Random(f"{knobs.seed}:{code}:{len(journal)}")  # noqa: S311 - a play of chance, not a secret

    def _remember(self) -> None:
        """Rebuild the book from the journal and put what is open back where it stood."""
        for number, line in enumerate(self.journal.after(0), 1):
            for report in wire.decode_frame(line).reports:
                self.book.apply(report, number)
        for order in self.book.open.values():
            market = self.markets[order.symbol]
            market.side_of(order).add(order)
            self._watch_expiry(order)

    def list_instrument(self, instrument: Instrument) -> None:
        """Open a market, or give an open one its new tick and lot; the terms come with the shared listing."""
        market = self.markets.setdefault(instrument.symbol, Market(instrument.tick_size, instrument.lot_size))
        market.tick, market.lot = instrument.tick_size, instrument.lot_size

    @property
    def sequence(self) -> int:
        """Return the number of the last frame."""
        return len(self.journal)

    def seal(self) -> None:
        """Make a frame of the reports at hand: from here on they are facts, whoever hears of them."""
        if self.pending:
            number = len(self.journal) + 1
            line = wire.encode(wire.FrameOut(number, self.pending))
            self.journal.append(line)
            self.ready.append((number, line))
            self.pending = []

    def frames(self) -> list[tuple[int, bytes]]:
        """Return frames not fetched yet, in order."""
        self.seal()
        ready, self.ready = self.ready, []
        return ready

    def _tell(self, order: Order, kind: str, at: datetime, **changes: Any) -> None:
        """Make a report about an order and fold it into the book."""
        fields: dict[str, Any] = {
            "client_order_id": order.client_order_id,
            "order_status": order.status,
            "order_quantity": order.quantity,
            "cumulative_quantity": order.cumulative,
            "leaves_quantity": order.leaves,
            "order_type": order.order_type,
            "time_in_force": order.time_in_force,
            "limit_price": order.limit_price,
            "stop_price": order.stop_price,
            "expire_at": order.expire_at,
        }
        fields.update(changes)
        report = Report(
            kind=kind,
            broker_order_id=order.broker_order_id,
            account=order.account,
            symbol=order.symbol,
            side=order.side,
            executed_at=at,
            **fields,
        )
        self._file(report)

    def _file(self, report: Report) -> Order:
        order = self.book.apply(report, len(self.journal) + 1)
        self.pending.append(report)
        if len(self.pending) >= wire.FRAME_REPORTS_MAX:
            self.seal()
        return order

    # -- time --------------------------------------------------------------------------------------------------

    def _delay(self, latency: tuple[float, float]) -> float:
        """Return seconds drawn from (mean, jitter) in milliseconds."""
        mean, jitter = latency
        return max(0.0, mean + jitter * self.random.uniform(-1, 1)) / 1000 if mean or jitter else 0.0

    def ack_delay(self) -> float:
        """Return how long the next request waits before it is acted on, in seconds."""
        return self._delay(self.knobs.latency_ms.ack)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def _later(self, seconds: float, act: str, subject: Any, at: datetime) -> None:
        if seconds <= 0:
            self._do(act, subject, at)
            return
        self._at(at + timedelta(seconds=seconds), act, subject)

    def _at(self, when: datetime, act: str, subject: Any) -> None:
        self.scheduled += 1
        heappush(self.due, (when, self.scheduled, act, subject))

    def _watch_expiry(self, order: Order) -> None:
        when = expiry_of(order, self.knobs.day_ends_at)
        if when is not None:
            self._at(when, "expire", order)

    def next_due(self) -> datetime | None:
        """Return when something happens by itself."""
        return self.due[0][0] if self.due else None

    def tick(self, at: datetime) -> None:
        """Do all that is due."""
        while self.due and self.due[0][0] <= at:
            when, _, act, subject = heappop(self.due)
            self._do(act, subject, max(when, at))

    def _do(self, act: str, subject: Any, at: datetime) -> None:
        if act == "activate":
            if subject.open:
                self._activate(subject, at)
        elif act == "cancel":
            order, message = subject
            self._cancel(order, message, at)
        elif act == "expire":
            when = expiry_of(subject, self.knobs.day_ends_at)
            if subject.open and when is not None and when <= at:
                self._close(subject, "expired", at)
        elif act == "bust":
            self.bust(subject, at)
        elif act == "late_fill":
            order, quantity = subject
            self._fill_late(order, quantity, at)

    def _close(self, order: Order, kind: str, at: datetime, **changes: Any) -> None:
        self.markets[order.symbol].remove(order)
        self._tell(order, kind, at, order_status=kind, leaves_quantity=ZERO, **changes)

    # -- matching ----------------------------------------------------------------------------------------------

    def quote(self, quotes: Sequence[Quote], at: datetime) -> None:
        """Take the market's quotes: touch stops, then serve what each quote satisfies."""
        self.tick(at)
        for quote in quotes:
            market = self.markets.get(quote.symbol)
            if market is None:
                continue
            market.quote(quote.bid, quote.ask, self._deep(quote.bid_size), self._deep(quote.ask_size))
            for order in market.touched_stops():
                self._trigger(order, at)
            for order in market.marketable():
                if order.open and order.broker_order_id in market.side_of(order).places:
                    self._work(order, at)

    def _deep(self, size: Decimal | None) -> Decimal | None:
        depth = self.knobs.depth
        return None if size is None or depth is None else size * Decimal(str(depth))

    def _activate(self, order: Order, at: datetime) -> None:
        market = self.markets[order.symbol]
        if not order.waits_for_trigger:
            self._work(order, at)
            return
        market.side_of(order).add(order)
        if order in market.touched_stops():
            self._trigger(order, at)

    def _trigger(self, order: Order, at: datetime) -> None:
        self.markets[order.symbol].remove(order)
        self._tell(order, "triggered", at)
        self._work(order, at)

    def _work(self, order: Order, at: datetime) -> None:
        """Trade what can be traded now; the rest waits in the book, or ends where it may not wait."""
        market = self.markets[order.symbol]
        if order.time_in_force == "fok" and not self._covers(market, order):
            self._close(order, "canceled", at, text="not to be filled whole")
            return
        self._take(market, order, at)
        if not order.open:
            market.remove(order)
        elif order.time_in_force in ("ioc", "fok"):
            self._close(order, "canceled", at, text="the rest of an immediate order")
        else:
            market.side_of(order).add(order)

    def _covers(self, market: Market, order: Order) -> bool:
        left = market.available(order)
        if left is None:
            return True
        covered = left
        for other, _ in market.counterparties(order):
            covered += other.leaves
            if covered >= order.leaves:
                break
        return covered >= order.leaves

    def _take(self, market: Market, order: Order, at: datetime) -> None:
        """Trade with resting orders and the quote, the better price first, resting orders first at the same."""
        while order.leaves > 0:
            left = market.available(order)
            usable = order.leaves if left is None else min(order.leaves, left // market.lot * market.lot)
            met = next(market.counterparties(order), None)
            if met is not None and (usable <= 0 or better(order, met[1], market.touch_price(order))):
                self._cross(market, order, *met, at)
            elif usable > 0:
                if self._fill_from_quote(market, order, usable, at) < usable:
                    return
            else:
                return

    def _cross(self, market: Market, order: Order, other: Order, price: Decimal, at: datetime) -> None:
        quantity = min(order.leaves, other.leaves)
        self._trade(other, quantity, price, at)
        self._trade(order, quantity, price, at)
        if not other.open:
            market.remove(other)

    def _fill_from_quote(self, market: Market, order: Order, usable: Decimal, at: datetime) -> Decimal:
        """Fill from the quote and return how much; chance may split it, and the rest follows a little later."""
        quantity = usable
        if order.time_in_force != "fok" and usable > market.lot and self.chance(self.knobs.partial_fill_rate):
            part = usable * Decimal(str(round(self.random.uniform(0.2, 0.8), 3)))
            quantity = max(part // market.lot * market.lot, market.lot)
            pause = max(self._delay(self.knobs.latency_ms.fill), CONTINUE_SECONDS)
            self._later(pause, "activate", order, at)
        market.use(order, quantity)
        price = market.touch_price(order, self._improvement())
        extra = market.lot if quantity == order.leaves and self.chance(self.lies.overfill) else ZERO
        self._trade(order, quantity + extra, price, at)
        return quantity

    def _improvement(self) -> Decimal:
        most = self.knobs.price_improvement_bps - self.knobs.spread_bps_extra
        return Decimal(str(round(self.random.uniform(0, most) / 10_000, 10))) if most > 0 else ZERO

    def _trade(self, order: Order, quantity: Decimal, price: Decimal, at: datetime) -> None:
        execution_id = self._next_execution(at)
        cumulative = order.cumulative + quantity
        working = order.open
        self._tell(
            order,
            "trade",
            at,
            execution_id=execution_id,
            last_quantity=quantity,
            last_price=price,
            cumulative_quantity=cumulative,
            leaves_quantity=max(order.quantity - cumulative, ZERO) if working else ZERO,
            order_status=working_status(cumulative, order.quantity) if working else order.status,
            fees=self._charge(order, quantity, price, Done(order.cumulative, order.amount)),
        )
        for sibling in self.book.siblings(order):
            self._take_off(sibling, quantity, at)
        if self.chance(self.lies.bust):
            self._later(self.lies.bust_seconds, "bust", execution_id, at)

    def _take_off(self, order: Order, filled: Decimal, at: datetime) -> None:
        """Reduce an order by what another one linked with it filled, in the same moment; end it where nothing is left."""
        quantity = order.quantity - filled
        if quantity <= order.cumulative:
            self._close(order, "canceled", at, reason=SIBLING_FILLED, text="an order linked with it was filled")
            return
        self._tell(
            order, "restated", at, order_quantity=quantity, leaves_quantity=quantity - order.cumulative,
            order_status=working_status(order.cumulative, quantity), reason=SIBLING_FILLED,
        )  # fmt: skip

    def _next_execution(self, at: datetime) -> str:
        """Return an execution id: unique here, but other brokers born in the same second use the same."""
        return f"E{self._life(at)}-{self.book.last_execution + 1}"

    def _life(self, at: datetime) -> str:
        """Return what tells ids of this journal from those of one that was lost."""
        return f"{int((self.book.born or at).timestamp()):x}"

    def _charge(self, order: Order, quantity: Decimal, price: Decimal, done: Done) -> tuple[Fee, ...] | None:
        if self.fees is None:
            return None
        instrument = self.instruments[order.symbol]
        items = self.fees.get(instrument.asset_class, ())
        charges = charge(
            items, side=order.side, quantity=quantity, price=price, currency=instrument.currency, done=done,
            base_currency=order.symbol.partition("/")[0] if "/" in order.symbol else "",
        )  # fmt: skip
        return tuple(Fee(c.kind, c.amount, c.currency) for c in charges)

    # -- what ends or undoes -----------------------------------------------------------------------------------

    def _cancel(self, order: Order, message: Message, at: datetime) -> None:
        if not order.open:
            self._refuse_change(order, message, "cancel_rejected", at)
            return
        left = order.leaves
        self._close(
            order, "canceled", at, client_order_id=message.client_order_id, orig_client_order_id=order.client_order_id
        )
        if self.chance(self.lies.late_fill_after_cancel):
            self._later(self.lies.late_fill_seconds, "late_fill", (order, left), at)

    def _refuse_change(self, order: Order, message: Message, kind: str, at: datetime, text: str = "too_late") -> None:
        self._tell(
            order,
            kind,
            at,
            client_order_id=message.client_order_id,
            orig_client_order_id=order.client_order_id,
            text=text,
        )

    def bust(self, execution_id: str, at: datetime) -> bool:
        """Undo a trade; what that leaves open of a filled order is canceled unless the venue reopens it."""
        return self._undo("bust", execution_id, None, None, at)

    def correct(self, execution_id: str, quantity: Decimal | None, price: Decimal | None, at: datetime) -> bool:
        """Restate a trade under a new execution id."""
        return self._undo("correct", execution_id, quantity, price, at)

    def _undo(
        self, kind: str, execution_id: str, quantity: Decimal | None, price: Decimal | None, at: datetime
    ) -> bool:
        execution = self.book.executions.get(execution_id)
        if execution is None or not execution.alive:
            return False
        order = execution.order
        quantity = execution.quantity if quantity is None else quantity
        price = execution.price if price is None else price
        cumulative = order.cumulative - execution.quantity + (quantity if kind == "correct" else ZERO)
        rest = Done(order.cumulative - execution.quantity, order.amount - execution.quantity * execution.price)
        was = order.status
        works = order.open or was == "filled"
        self._tell(
            order,
            kind,
            at,
            execution_id=self._next_execution(at),
            ref_execution_id=execution_id,
            last_quantity=quantity,
            last_price=price,
            cumulative_quantity=cumulative,
            leaves_quantity=max(order.quantity - cumulative, ZERO) if works else ZERO,
            order_status=working_status(cumulative, order.quantity) if works else was,
            fees=() if kind == "bust" else self._charge(order, quantity, price, rest),
        )
        self._after_undo(order, was, at)
        return True

    def _after_undo(self, order: Order, was: str, at: datetime) -> None:
        if not order.open:
            self.markets[order.symbol].remove(order)
        elif was == "filled" and self.knobs.reopen_after_bust:
            self._watch_expiry(order)
            self._activate(order, at)
        elif was == "filled":
            self._close(order, "canceled", at, text="not worked on after a bust")

    def _fill_late(self, order: Order, quantity: Decimal, at: datetime) -> None:
        """Report a fill that was on its way when the cancel was confirmed."""
        market = self.markets[order.symbol]
        if market.bid is None:
            return
        touch, limit = market.touch_price(order), order.limit()
        self._trade(order, quantity, touch if limit is None or better(order, touch, limit) else limit, at)


def working_status(cumulative: Decimal, quantity: Decimal) -> str:
    if cumulative >= quantity:
        return "filled"
    return "partially_filled" if cumulative > 0 else "new"
