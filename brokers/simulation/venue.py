"""A broker that is not there: it takes orders, matches them against the market, remembers, and lies when told to.

No socket and no clock in here: every call brings the time, and what became ready is fetched as frames. The same
seed and the same calls make the same book.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from brokers.simulation import wire
from brokers.simulation.admission import fault_of_new, fault_of_terms
from brokers.simulation.book import ZERO, Execution, Order
from brokers.simulation.floor import Floor, working_status
from brokers.simulation.wire import Answer, Message, Report

LYING_CODES = (400, 429, 500)


class Venue(Floor):
    """One simulated broker, as its clients and its administrator meet it."""

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
                link=message.link,
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
            order_status=working_status(order.cumulative, quantity),
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
