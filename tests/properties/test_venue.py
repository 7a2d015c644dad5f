"""What holds at a simulated venue whatever is sent to it, in any order."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs, Latency, Lies
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Message, Quote, Report, decode_frame

AT = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
INSTRUMENTS = {"AAPL": Instrument("AAPL", Decimal("0.01"), Decimal(1), "USD", "equity")}
ticks = st.integers(9_990, 10_010)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("quote"), ticks, st.integers(0, 4), st.integers(1, 30), st.integers(1, 30)),
        st.tuples(
            st.just("new"),
            st.sampled_from(["buy", "sell", "sell_short"]),
            st.integers(1, 40),
            st.sampled_from(["market", "limit", "stop", "stop_limit"]),
            ticks,
            ticks,
            st.sampled_from(["day", "gtc", "ioc", "fok"]),
            st.sampled_from("AB"),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("replace"), st.integers(0, 30), st.integers(1, 60), ticks),
        st.tuples(st.just("undo"), st.integers(1, 20), st.sampled_from(["bust", "correct"]), st.integers(1, 10)),
        st.tuples(st.just("wait"), st.integers(1, 500)),
    ),
    max_size=40,
)


class Run:
    """A venue driven by a list of actions; notes the quote that stood when each report was made."""

    def __init__(self, knobs: Knobs, journal: Journal, script: list[tuple[Any, ...]]) -> None:
        self.venue = Venue("X", INSTRUMENTS, knobs, journal)
        self.at = AT
        self.sent = 0
        self.seen: list[tuple[Report, Decimal | None, Decimal | None]] = []
        for action in script:
            self.at += timedelta(milliseconds=1)
            getattr(self, action[0])(*action[1:])
            self._note()

    def _note(self) -> None:
        market = self.venue.markets["AAPL"]
        for _, line in self.venue.frames():
            self.seen += [(r, market.bid, market.ask) for r in decode_frame(line).reports]

    def quote(self, bid: int, width: int, bid_size: int, ask_size: int) -> None:
        # what falls due before a new quote is told of under the old one
        self.venue.tick(self.at)
        self._note()
        prices = (Decimal(bid) / 100, Decimal(bid + width) / 100)
        self.venue.quote([Quote("AAPL", *prices, Decimal(bid_size), Decimal(ask_size))], self.at)

    def new(self, side: str, quantity: int, kind: str, limit: int, stop: int, tif: str, account: str) -> None:
        self.sent += 1
        order = Message("new", f"c{self.sent}", account, "AAPL", side, Decimal(quantity), kind, tif)
        order.limit_price = Decimal(limit) / 100 if "limit" in kind else None
        order.stop_price = Decimal(stop) / 100 if "stop" in kind else None
        self.venue.submit([order], self.at)

    def _request(self, kind: str, which: int) -> Message:
        self.sent += 1
        return Message(
            kind, f"c{self.sent}", "A", "AAPL", "buy", Decimal(1), "limit", "gtc", orig_client_order_id=f"c{which}"
        )

    def cancel(self, which: int) -> None:
        self.venue.submit([self._request("cancel", which)], self.at)

    def replace(self, which: int, quantity: int, limit: int) -> None:
        order = self._request("replace", which)
        order.quantity, order.limit_price = Decimal(quantity), Decimal(limit) / 100
        self.venue.submit([order], self.at)

    def undo(self, which: int, kind: str, quantity: int) -> None:
        if kind == "bust":
            self.venue.bust(f"E{self.venue._life(AT)}-{which}", self.at)
        else:
            self.venue.correct(f"E{self.venue._life(AT)}-{which}", Decimal(quantity), None, self.at)

    def wait(self, milliseconds: int) -> None:
        self.at += timedelta(milliseconds=milliseconds)
        self.venue.tick(self.at)


def picture(venue: Venue) -> tuple[Any, ...]:
    """Return all that a venue knows, to compare."""
    book = venue.book
    fields = (
        "broker_order_id", "client_order_id", "account", "side", "order_type", "time_in_force", "limit_price", "stop_price",
        "quantity", "cumulative", "leaves", "status", "priority", "triggered", "amount", "frames", "created_at",
    )  # fmt: skip
    queues = [
        [row[2].broker_order_id for row in side.queue]
        for market in venue.markets.values()
        for side in (market.bids, market.asks, market.buy_stops, market.sell_stops)
    ]
    return (
        [tuple(getattr(o, f) for f in fields) for o in book.orders.values()],
        sorted(book.open),
        {k: v.broker_order_id for k, v in book.by_client_id.items()},
        [(e.execution_id, e.quantity, e.price, e.alive) for e in book.executions.values()],
        {k: v for k, v in book.positions.items() if v},
        {k: v for k, v in book.cash.items() if v},
        queues,
    )


knobs = st.builds(
    Knobs,
    seed=st.integers(0, 99),
    depth=st.sampled_from([None, 1.0, 2.5]),
    partial_fill_rate=st.sampled_from([0.0, 0.5]),
    price_improvement_bps=st.sampled_from([0.0, 3.0]),
    reject_rate=st.sampled_from([0.0, 0.2]),
    reopen_after_bust=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(knobs, actions)
def test_no_fill_stands_outside_of_the_quote_or_the_limit(knobs: Knobs, script: list[tuple[Any, ...]]) -> None:
    for report, bid, ask in Run(knobs, Journal(), script).seen:
        if report.kind == "trade":
            assert bid is not None
            assert bid <= report.last_price <= ask
            if report.limit_price is not None:
                worse = report.last_price - report.limit_price
                assert worse <= 0 if report.side == "buy" else worse >= 0


@settings(max_examples=80, deadline=None)
@given(knobs, actions)
def test_done_and_left_are_the_whole_and_closed_orders_leave_nothing(
    knobs: Knobs, script: list[tuple[Any, ...]]
) -> None:
    run = Run(knobs, Journal(), script)
    for report, _, _ in run.seen:
        if report.order_status in ("new", "partially_filled"):
            assert report.cumulative_quantity + report.leaves_quantity == report.order_quantity
        else:
            assert report.leaves_quantity == 0
    for order in run.venue.book.orders.values():
        mine = [e for e in run.venue.living() if e.order is order]
        assert order.cumulative == sum(e.quantity for e in mine)
        assert order.amount == sum(e.quantity * e.price for e in mine)


@settings(max_examples=80, deadline=None)
@given(knobs, actions)
def test_positions_and_cash_are_what_the_living_executions_say(knobs: Knobs, script: list[tuple[Any, ...]]) -> None:
    venue = Run(knobs, Journal(), script).venue
    for account in "AB":
        mine = [(e, 1 if e.order.buys else -1) for e in venue.living() if e.order.account == account]
        assert venue.book.positions[account, "AAPL"] == sum(sign * e.quantity for e, sign in mine)
        assert venue.book.cash[account, "USD"] == -sum(sign * e.quantity * e.price for e, sign in mine)


@settings(max_examples=80, deadline=None)
@given(knobs, actions)
def test_the_journal_read_again_gives_the_same_book(knobs: Knobs, script: list[tuple[Any, ...]]) -> None:
    journal = Journal()
    run = Run(knobs, journal, script)
    assert [decode_frame(line).seq for line in journal.after(0)] == list(range(1, len(journal) + 1))

    journal.file.seek(0)
    again = Journal()
    for line in journal.after(0):
        again.append(line)

    assert picture(Venue("X", INSTRUMENTS, knobs, again)) == picture(run.venue)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), actions)
def test_the_same_seed_and_calls_make_the_same_history(seed: int, script: list[tuple[Any, ...]]) -> None:
    knobs = Knobs(
        seed=seed,
        reject_rate=0.2,
        partial_fill_rate=0.5,
        latency_ms=Latency(fill=(5, 5), cancel=(5, 5)),
        lies=Lies(bust=0.2, bust_seconds=0.05, late_fill_after_cancel=0.5, overfill=0.2),
    )
    first, second = Journal(), Journal()
    Run(knobs, first, script)
    Run(knobs, second, script)
    assert list(first.after(0)) == list(second.after(0))


@settings(max_examples=40, deadline=None)
@given(actions)
def test_at_one_price_who_came_first_is_served_first(script: list[tuple[Any, ...]]) -> None:
    """A later order of the same side and price holds nothing while an earlier one that rested still waits whole."""
    orders = [(*a[:3], "limit", 10_000, 0, "gtc", "A") for a in script if a[0] == "new" and a[1] == "buy"]
    quotes = [("quote", 10_000 - a[2], a[2], a[3], a[4]) for a in script if a[0] == "quote"]
    run = Run(Knobs(depth=1.0), Journal(), [("quote", 10_001, 2, 1, 1), *orders, *quotes])
    done = [o.cumulative / o.quantity for o in run.venue.book.orders.values()]
    assert done == sorted(done, reverse=True)
    assert sum(0 < share < 1 for share in done) <= 1


def test_a_line_torn_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "X.journal"
    run = Run(Knobs(), Journal(path), [("quote", 10_000, 2, 5, 5), ("new", "buy", 3, "market", 0, 0, "day", "A")])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":2,"reports":[{"kind":"tra')

    again = Venue("X", INSTRUMENTS, Knobs(), Journal(path))

    assert path.read_bytes() == whole
    assert picture(again) == picture(run.venue)
    again.journal.close()
    run.venue.journal.close()
