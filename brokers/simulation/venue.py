"""A broker that is not there: it takes orders, matches them against the market, remembers, and lies when told to.

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

from brokers.domain.fees import charge
from brokers.simulation import wire
from brokers.simulation.admission import Bucket, expiry_of, fault_of_new, fault_of_terms
from brokers.simulation.book import ZERO, Book, Execution, Order
from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs
from brokers.simulation.matching import Market, better
from brokers.simulation.wire import Answer, Fee, Message, Quote, Report

LYING_CODES = (400, 429, 500)
CONTINUE_SECONDS = 0.05  # the least time between two parts of a fill that was split by chance


class Venue:
    """One simulated broker."""

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

    # -- memory ------------------------------------------------------------------------------------------------

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

    # -- requests ----------------------------------------------------------------------------------------------

    def submit(self, messages: Sequence[Message], at: datetime) -> list[Answer]:
        """Act on each message by itself and answer it; a lie changes the answer, never the act."""
        self.tick(at)
        return [self._lie_about(self._act(m, at)) for m in messages]

    def _act(self, message: Message, at: datetime) -> Answer:
        wait = self.bucket.wait(at)
        if wait > 0 and message.kind != "cancel":
            return Answer(
                message.client_order_id, wire.TOO_MANY, reason="over the rate", accepted=False, retry_after=wait
            )
        if message.kind == "new":
            return self._new(message, at)
        order = self.book.by_client_id.get(message.orig_client_order_id or "")
        order = order or self.book.orders.get(message.broker_order_id or "")
        if order is None:
            return Answer(message.client_order_id, wire.REJECTED, reason="unknown_order")
        if message.kind == "cancel":
            return self._ask_cancel(order, message, at)
        if message.kind == "replace":
            return self._replace(order, message, at)
        return Answer(message.client_order_id, wire.REJECTED, reason="unknown_message")

    def _lie_about(self, answer: Answer) -> Answer:
        if answer.code == wire.TAKEN and self.chance(self.lies.error_though_accepted):
            return Answer(answer.client_order_id, self.random.choice(LYING_CODES), reason="something went wrong")
        return answer

    def _new(self, message: Message, at: datetime) -> Answer:
        twin = self.book.by_client_id.get(message.client_order_id)
        if twin is not None and self._refuses_twin(twin, at):
            return Answer(
                message.client_order_id,
                wire.DUPLICATE,
                twin.broker_order_id,
                "duplicate_client_order_id",
                status=twin.status,
            )
        fault = fault_of_new(message, self.instruments.get(message.symbol), self.knobs, at)
        if not fault and self.chance(self.knobs.reject_rate):
            fault = "declined_by_broker"
        return self._enter(message, at, fault)

    def _enter(self, message: Message, at: datetime, fault: str = "") -> Answer:
        order = self._file(
            Report(
                kind="rejected" if fault else "new",
                client_order_id=message.client_order_id,
                broker_order_id=f"{self.code}-{self._life(at)}-{len(self.book.orders) + 1}",
                account=message.account,
                symbol=message.symbol,
                side=message.side,
                order_status="rejected" if fault else "new",
                order_quantity=message.quantity,
                cumulative_quantity=ZERO,
                leaves_quantity=ZERO if fault else message.quantity,
                executed_at=at,
                order_type=message.order_type,
                time_in_force=message.time_in_force,
                limit_price=message.limit_price,
                stop_price=message.stop_price,
                expire_at=message.expire_at,
                text=fault,
            )
        )
        if fault:
            return Answer(message.client_order_id, wire.REJECTED, order.broker_order_id, fault)
        self._watch_expiry(order)
        if self.chance(self.lies.hide_orders):
            self.hidden[order.broker_order_id] = at + timedelta(seconds=self.lies.hide_seconds)
        self._later(self._delay(self.knobs.latency_ms.fill), "activate", order, at)
        return Answer(message.client_order_id, wire.TAKEN, order.broker_order_id)

    def _refuses_twin(self, twin: Order, at: datetime) -> bool:
        match self.knobs.dedupe:
            case "none":
                return False
            case "open_only":
                return twin.open
            case "window":
                return at - twin.created_at < timedelta(seconds=self.knobs.dedupe_window_seconds)
        return True

    def _ask_cancel(self, order: Order, message: Message, at: datetime) -> Answer:
        if not order.open:
            self._refuse_change(order, message, "cancel_rejected", at)
            return Answer(message.client_order_id, wire.REJECTED, order.broker_order_id, "too_late")
        self._later(self._delay(self.knobs.latency_ms.cancel), "cancel", (order, message), at)
        return Answer(message.client_order_id, wire.TAKEN, order.broker_order_id)

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

    def _replace(self, order: Order, message: Message, at: datetime) -> Answer:
        """Change terms after FIX's state-change matrices: never below what is done, a filled order may grow."""
        if message.client_order_id in self.book.by_client_id:
            return Answer(
                message.client_order_id,
                wire.DUPLICATE,
                order.broker_order_id,
                "duplicate_client_order_id",
                status=order.status,
            )
        grows = order.status == "filled" and message.quantity > order.cumulative
        fault = "" if order.open or grows else "too_late"
        fault = fault or fault_of_terms(message, self.instruments[order.symbol], self.knobs, at)
        if fault:
            self._refuse_change(order, message, "replace_rejected", at, fault)
            return Answer(message.client_order_id, wire.REJECTED, order.broker_order_id, fault)
        market = self.markets[order.symbol]
        if order.priority and (message.stop_price != order.stop_price or not order.open):
            market.remove(order)
        quantity = max(message.quantity, order.cumulative)
        leaves = quantity - order.cumulative
        self._tell(
            order,
            "replaced",
            at,
            client_order_id=message.client_order_id,
            orig_client_order_id=order.client_order_id,
            order_status=_working_status(order.cumulative, quantity),
            order_quantity=quantity,
            leaves_quantity=leaves,
            order_type=message.order_type,
            time_in_force=message.time_in_force,
            limit_price=message.limit_price,
            stop_price=message.stop_price,
            expire_at=message.expire_at,
        )
        market.remove(order)
        if order.open:
            self._watch_expiry(order)
            self._activate(order, at)
        return Answer(message.client_order_id, wire.TAKEN, order.broker_order_id)

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
            order_status=_working_status(cumulative, order.quantity) if working else order.status,
            fees=self._charge(order, quantity, price),
        )
        if self.chance(self.lies.bust):
            self._later(self.lies.bust_seconds, "bust", execution_id, at)

    def _next_execution(self, at: datetime) -> str:
        """Return an execution id: unique here, but other brokers born in the same second use the same."""
        return f"E{self._life(at)}-{self.book.last_execution + 1}"

    def _life(self, at: datetime) -> str:
        """Return what tells ids of this journal from those of one that was lost."""
        return f"{int((self.book.born or at).timestamp()):x}"

    def _charge(self, order: Order, quantity: Decimal, price: Decimal) -> tuple[Fee, ...] | None:
        if self.fees is None:
            return None
        instrument = self.instruments[order.symbol]
        items = self.fees.get(instrument.asset_class, ())
        charges = charge(items, side=order.side, quantity=quantity, price=price, currency=instrument.currency)
        return tuple(Fee(c.kind, c.amount, c.currency) for c in charges)

    # -- corrections, and what only an administrator may ask ---------------------------------------------------

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
            order_status=_working_status(cumulative, order.quantity) if works else was,
            fees=() if kind == "bust" else self._charge(order, quantity, price),
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

    def fill(self, order: Order, quantity: Decimal, price: Decimal, at: datetime) -> None:
        """Execute as an administrator says, whatever the market."""
        self._trade(order, quantity, price, at)
        if not order.open:
            self.markets[order.symbol].remove(order)

    def enter_by_hand(self, message: Message, at: datetime) -> Answer:
        """Take an order that the desk never sent, as a broker's dealer does."""
        return self._enter(message, at)

    def cancel_by_hand(self, order: Order, at: datetime) -> None:
        """Cancel without having been asked."""
        if order.open:
            self._close(order, "canceled", at, text="canceled by the broker")

    # -- questions ---------------------------------------------------------------------------------------------

    def visible(self, order: Order, at: datetime) -> bool:
        """Tell whether questions show an order yet."""
        until = self.hidden.get(order.broker_order_id)
        return until is None or until <= at

    def history(self, orders: Sequence[Order]) -> dict[str, list[Report]]:
        """Return all reports of some orders by broker order id, oldest first."""
        self.seal()
        wanted = {o.broker_order_id: [] for o in orders}  # type: dict[str, list[Report]]
        for number in sorted({n for o in orders for n in o.frames}):
            for report in wire.decode_frame(self.journal.read(number)).reports:
                if report.broker_order_id in wanted:
                    wanted[report.broker_order_id].append(report)
        return wanted

    def executions_since(self, since: datetime, at: datetime) -> list[Report]:
        """Return trades, busts and corrections from a time on, oldest first."""
        self.seal()
        frames: set[int] = set()
        for execution_id, number in reversed(self.book.changed):
            if self.book.executions[execution_id].executed_at < since:
                break
            frames.add(number)
        reports = [r for n in sorted(frames) for r in wire.decode_frame(self.journal.read(n)).reports]
        return [
            r
            for r in reports
            if r.execution_id and r.executed_at >= since and self.visible(self.book.orders[r.broker_order_id], at)
        ]

    def living(self) -> list[Execution]:
        """Return executions as they stand, busts and corrections taken in."""
        return [e for e in self.book.executions.values() if e.alive]


def _working_status(cumulative: Decimal, quantity: Decimal) -> str:
    if cumulative >= quantity:
        return "filled"
    return "partially_filled" if cumulative > 0 else "new"
