"""Plays the races of an order's life through a FIX session: what the desk asks is read off the wire, what the broker says is
written on it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from orders.models import ChildOrder, ParkedReport
from tests.fix.conftest import CODE, Wired
from tests.fix.peer import Field, Got
from tests.flows.order_states import ENDS, Play, Row, roomy

REQUESTS = {"new": "D", "cancel": "F", "replace": "G"}
STATUSES = {
    "new": "0", "partially_filled": "1", "filled": "2", "done_for_day": "3", "canceled": "4", "pending_cancel": "6", "stopped": "7",
    "rejected": "8", "suspended": "9", "pending_new": "A", "calculated": "B", "expired": "C", "pending_replace": "E",
}  # fmt: skip
TYPES = {
    "new": "0", "done_for_day": "3", "canceled": "4", "replaced": "5", "pending_cancel": "6", "stopped": "7", "rejected": "8",
    "suspended": "9", "pending_new": "A", "calculated": "B", "expired": "C", "restated": "D", "pending_replace": "E",
    "trade": "F", "correct": "G", "bust": "H", "status": "I",
}  # fmt: skip
TRANSACTIONS = {"bust": "1", "correct": "2", "status": "3"}


class FixPlay(Play):
    """One order at the FIX broker, led through rows over the wire."""

    broker = CODE

    def __init__(self, wired: Wired, number: int) -> None:
        super().__init__(wired.desk)
        self.wired, self.number = wired, number
        self.is_44 = wired.peer.begin == "FIX.4.4"

    def _sent(self, row: Row) -> Got:
        self.desk.send(CODE)
        m = self.wired.peer.expect(REQUESTS[row.kind])
        if row.kind != "new":
            assert m[41] == self.sent[row.orig][11], row
            assert m[55] == "AAPL"
            assert m[54] == "1"
        assert (row.quantity is None and row.kind == "cancel") or Decimal(m[38]) > 0
        return m

    def _tell(self, row: Row) -> None:
        kind = row.kind
        answered = self.waiting.get(row.id)
        if kind in ("cancel_rejected", "replace_rejected"):
            number = self._refuse(row, "2" if "replace" in (kind.partition("_")[0], answered) else "1")
        else:
            number = self._report(row)
        self.filled = self.filled if row.filled is None else row.filled
        self.wired.heard(number)
        if row.id in self.waiting and kind not in ("pending_cancel", "pending_replace"):
            del self.waiting[row.id]
        if kind in ENDS:
            self.waiting.clear()

    def _refuse(self, row: Row, response_to: str) -> int:
        return self.wired.peer.tell(
            "9", (37, self._order_id()), (11, self._id(row.id)), (41, self._id(row.orig)), (39, STATUSES[row.status]),
            (434, response_to), (102, "0"), (58, "no"),
        )  # fmt: skip

    def _report(self, row: Row) -> int:
        now = self.filled if row.filled is None else row.filled
        day = int(row.time.partition(",")[0]) if "," in row.time else 1
        at = self.start + timedelta(days=day - 1, seconds=self.steps)
        quantity = row.quantity if row.quantity is not None else Decimal(self._first()[38])
        fields: list[Field] = [
            (37, self._order_id()), (11, self._id(row.id)), (41, self._id(row.orig) if row.orig else None),
            (17, self._exec_id(row.more.get("exec", f"S{self.steps}"))),
            (19, self._exec_id(row.more["ref"]) if "ref" in row.more else None),
            *self._kind(row, now), (39, STATUSES[row.status]), (1, "A1"), (55, "AAPL"), (54, "1"), (38, quantity), (151, row.leaves or 0),
            (14, now), (6, 0), (60, at.strftime("%Y%m%d-%H:%M:%S")), (9999, "of our own"),
        ]  # fmt: skip
        if row.kind in ("trade", "bust", "correct", "stopped"):
            last = Decimal(row.more["last"]) if "last" in row.more else abs(now - self.filled)
            fields += [(32, last), (31, row.more.get("price", "99"))]
        if "price" in row.more and row.kind in ("restated", "replaced"):
            fields += [(44, row.more["price"])]
        reasons = {"corporate_action": (378, "0"), "duplicate": (103, "6")}
        if reason := reasons.get(row.more.get("reason", "")):
            fields += [reason]
        if row.kind == "status" and row.status == "rejected":
            fields += [(103, "5")]
        return self.wired.peer.tell("8", *fields)

    def _kind(self, row: Row, filled: Decimal) -> list[Field]:
        if self.is_44:
            return [(150, TYPES[row.kind])]
        if row.kind in TRANSACTIONS:
            return [(20, TRANSACTIONS[row.kind]), (150, STATUSES[row.status])]
        if row.kind == "trade":
            return [(20, "0"), (150, "1" if row.leaves else "2")]
        if row.kind == "stopped":
            return [(20, "0"), (150, "1")]  # D37: told as a fill, and only CumQty says that it is none
        return [(20, "0"), (150, TYPES[row.kind])]

    def _tell_of_nobody(self, row: Row) -> None:
        before = ParkedReport.objects.count(), ChildOrder.objects.count()
        self.wired.heard(self._refuse(row, "1"))
        assert (ParkedReport.objects.count(), ChildOrder.objects.count()) == (before[0] + 1, before[1])

    def _first(self) -> Got:
        return next(m for m in self.sent.values() if m[35] == "D")

    def _order_id(self) -> str:
        return f"O-{self._first()[11][-12:]}" if self.sent else "NONE"

    def _id(self, name: str) -> str:
        known = self.sent.get(name)
        return known[11] if known else f"{self.number}-{name}"

    def _exec_id(self, name: str) -> str:
        return f"{self.number}-{name}"


def spacious(wired: Wired) -> None:
    """Give the account room for a hundred orders of ten thousand, one after the other."""
    from oms.kernel.actor import Actor
    from portfolio import operations as portfolio
    from risk.models import Limit

    roomy(wired.desk)
    Limit.objects.filter(kind="position").update(value=100_000_000)
    portfolio.transfer(
        account="MAIN", kind="deposit", currency="USD", amount=Decimal(10_000_000_000), to="", reason="room", key="more",
        actor=Actor.system("test"), at=wired.desk.at,
    )  # fmt: skip


def play_all(wired: Wired, ways: dict[str, list[Row]]) -> dict[str, Any]:
    """Play cases one after the other through one session; return what went wrong, by case."""
    spacious(wired)
    wrong: dict[str, Any] = {}
    for number, (title, way) in enumerate(ways.items(), 1):
        wired.desk.at = datetime.now(UTC)
        play = FixPlay(wired, number)
        try:
            wired.desk.quote("AAPL", "99.99", "100.01")
            play.run(way)
        except AssertionError as error:
            wrong[title] = f"{str(error)[:300]} at step {play.steps}"
    return wrong
