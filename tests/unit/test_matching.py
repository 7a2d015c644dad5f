"""The simulated venue's matching, one rule a test, in the venue's own words."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.simulation.journal import Journal
from brokers.simulation.knobs import Instrument, Knobs, Lies
from brokers.simulation.venue import Venue
from brokers.simulation.wire import Answer, Message, Quote, decode_frame

AT = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
INSTRUMENTS = {"AAPL": Instrument("AAPL", Decimal("0.01"), Decimal(1), "USD", "equity")}


class Pit:
    """A venue in memory with one stock, spoken to in text: `buy 10 limit 99.50 gtc as A`."""

    def __init__(self, **knobs: Any) -> None:
        self.venue = Venue("X", INSTRUMENTS, Knobs(**knobs), Journal())
        self.at = AT
        self.count = 0

    def market(self, bid: str, ask: str, bid_size: str | None = None, ask_size: str | None = None) -> None:
        sizes = [Decimal(s) if s else None for s in (bid_size, ask_size)]
        self.venue.quote([Quote("AAPL", Decimal(bid), Decimal(ask), *sizes)], self.at)

    def send(self, text: str, name: str = "") -> Answer:
        self.count += 1
        return self.venue.submit([message(text, name or f"o{self.count}")], self.at)[0]

    def cancel(self, name: str) -> Answer:
        self.count += 1
        order = Message("cancel", f"x{self.count}", "A", "AAPL", "buy", orig_client_order_id=name)
        return self.venue.submit([order], self.at)[0]

    def replace(self, name: str, text: str, new_name: str) -> Answer:
        order = message(text, new_name)
        order.kind, order.orig_client_order_id = "replace", name
        return self.venue.submit([order], self.at)[0]

    def wait(self, **span: float) -> None:
        self.at += timedelta(**span)
        self.venue.tick(self.at)

    def reports(self) -> list[Any]:
        self.venue.seal()
        return [r for line in self.venue.journal.after(0) for r in decode_frame(line).reports]

    def story(self, name: str) -> list[str]:
        order = self.venue.book.by_client_id[name]
        mine = [r for r in self.reports() if r.broker_order_id == order.broker_order_id]
        return [f"{r.kind} {r.last_quantity}@{r.last_price}" if r.last_quantity else r.kind for r in mine]

    def state(self, name: str) -> tuple[str, str, str]:
        order = self.venue.book.by_client_id[name]
        return order.status, str(order.cumulative), str(order.leaves)


def message(text: str, name: str) -> Message:
    """`side quantity [type prices...] [tif] [as account]`."""
    words, account = text.split(), "A"
    if "as" in words:
        account = words[words.index("as") + 1]
        words = words[: words.index("as")]
    side, quantity, *rest = words
    order_type = rest.pop(0) if rest and rest[0] in ("market", "limit", "stop", "stop_limit") else "market"
    prices = [Decimal(w) for w in rest if w[0].isdigit()]
    tif = next((w for w in rest if not w[0].isdigit()), "day")
    limit = prices[-1] if order_type in ("limit", "stop_limit") else None
    stop = prices[0] if order_type in ("stop", "stop_limit") else None
    return Message("new", name, account, "AAPL", side, Decimal(quantity), order_type, tif, limit, stop)


@pytest.fixture
def pit() -> Pit:
    pit = Pit()
    pit.market("100.00", "100.02")
    return pit


def execution(number: int) -> str:
    """Return the id of the n-th execution of a pit, which opens at AT."""
    return f"E{int(AT.timestamp()):x}-{number}"


class TestAgainstTheQuote:
    def test_a_market_order_takes_the_other_side(self, pit: Pit) -> None:
        pit.send("buy 5", "b")
        pit.send("sell 5", "s")
        assert pit.story("b") == ["new", "trade 5@100.02"]
        assert pit.story("s") == ["new", "trade 5@100.00"]

    def test_a_limit_order_never_trades_worse_than_its_limit(self, pit: Pit) -> None:
        pit.send("buy 5 limit 100.01", "b")
        assert pit.state("b") == ("new", "0", "5")
        pit.market("99.98", "100.00")
        assert pit.story("b") == ["new", "trade 5@100.00"]

    def test_a_quote_serves_its_size_and_the_next_one_the_rest(self) -> None:
        pit = Pit(depth=1)
        pit.market("100.00", "100.02", "30", "30")
        pit.send("buy 50", "b")
        assert pit.state("b") == ("partially_filled", "30", "20")
        pit.market("100.01", "100.03", "30", "30")
        assert pit.story("b") == ["new", "trade 30@100.02", "trade 20@100.03"]

    def test_depth_multiplies_the_size(self) -> None:
        pit = Pit(depth=2)
        pit.market("100.00", "100.02", "30", "30")
        pit.send("buy 50", "b")
        assert pit.state("b")[0] == "filled"

    def test_a_market_order_waits_where_there_is_no_market_yet(self) -> None:
        pit = Pit()
        pit.send("buy 5", "b")
        assert pit.state("b")[0] == "new"
        pit.market("100.00", "100.02")
        assert pit.state("b")[0] == "filled"

    def test_price_improvement_stays_on_the_tick_and_inside_the_quote(self) -> None:
        pit = Pit(price_improvement_bps=50)
        pit.market("100.00", "100.02")
        for _ in range(50):
            pit.send("buy 1")
            pit.send("sell 1")
        prices = {r.last_price for r in pit.reports() if r.kind == "trade"}
        assert prices == {Decimal("100.00"), Decimal("100.01"), Decimal("100.02")}


class TestPriceTime:
    def test_the_better_price_goes_first_then_the_earlier_order(self) -> None:
        pit = Pit(depth=1)
        pit.market("99.00", "101.00", "10", "10")
        pit.send("buy 10 limit 100.00", "early")
        pit.send("buy 10 limit 100.00", "late")
        pit.send("buy 10 limit 100.10", "better")
        pit.market("99.00", "100.00", "15", "15")
        assert [pit.state(n)[1] for n in ("better", "early", "late")] == ["10", "5", "0"]

    def test_less_at_the_same_price_keeps_the_place_more_loses_it(self) -> None:
        for quantity, first in (("5", "a2"), ("20", "b")):
            pit = Pit(depth=1)
            pit.market("99.00", "101.00", "10", "10")
            pit.send("buy 10 limit 100.00", "a")
            pit.send("buy 10 limit 100.00", "b")
            pit.replace("a", f"buy {quantity} limit 100.00", "a2")
            pit.market("99.00", "100.00", "4", "4")
            assert pit.state(first)[1] == "4"

    def test_resting_orders_of_two_accounts_meet_at_the_resting_price(self, pit: Pit) -> None:
        pit.send("sell 5 limit 100.01 as B", "rests")
        pit.send("buy 3 limit 100.02", "takes")
        assert pit.story("takes") == ["new", "trade 3@100.01"]
        assert pit.state("rests") == ("partially_filled", "3", "2")

    def test_an_account_never_trades_with_itself(self, pit: Pit) -> None:
        pit.send("sell 5 limit 100.01", "rests")
        pit.send("buy 5", "takes")
        assert pit.state("rests")[0] == "new"
        assert pit.story("takes") == ["new", "trade 5@100.02"]

    def test_two_orders_never_meet_outside_of_the_quote(self) -> None:
        pit = Pit(depth=1)
        pit.market("100.00", "100.02", "1", "1")
        pit.send("sell 1 as B")  # takes the whole bid
        pit.send("buy 5 limit 99.00", "low")
        pit.send("sell 5 limit 99.00 as B", "cheap")
        assert (pit.state("low")[1], pit.state("cheap")[1]) == ("0", "0")


class TestTimeInForce:
    def test_ioc_takes_what_is_there_and_cancels_the_rest(self) -> None:
        pit = Pit(depth=1)
        pit.market("100.00", "100.02", "30", "30")
        pit.send("buy 50 market ioc", "b")
        assert pit.story("b") == ["new", "trade 30@100.02", "canceled"]
        assert pit.state("b") == ("canceled", "30", "0")

    def test_fok_is_all_or_nothing(self) -> None:
        pit = Pit(depth=1)
        pit.market("100.00", "100.02", "30", "30")
        pit.send("buy 31 market fok", "nothing")
        pit.send("buy 30 market fok", "all")
        assert pit.story("nothing") == ["new", "canceled"]
        assert pit.story("all") == ["new", "trade 30@100.02"]

    def test_day_orders_run_out_at_midnight_and_gtc_orders_stay(self, pit: Pit) -> None:
        pit.send("buy 5 limit 90 day", "day")
        pit.send("buy 5 limit 90 gtc", "gtc")
        pit.wait(hours=9)
        assert pit.state("day")[0] == "new"
        pit.wait(hours=1)
        assert (pit.state("day")[0], pit.state("gtc")[0]) == ("expired", "new")

    def test_gtd_orders_run_out_when_they_say(self, pit: Pit) -> None:
        order = message("buy 5 limit 90 gtd", "g")
        order.expire_at = AT + timedelta(minutes=5)
        pit.venue.submit([order], AT)
        pit.wait(minutes=4)
        assert pit.state("g")[0] == "new"
        pit.wait(minutes=1)
        assert pit.story("g") == ["new", "expired"]


class TestStops:
    def test_a_buy_stop_is_touched_by_the_ask_a_sell_stop_by_the_bid(self, pit: Pit) -> None:
        pit.send("buy 5 stop 100.10", "up")
        pit.send("sell 5 stop 99.90", "down")
        pit.market("99.91", "100.09")
        assert (pit.story("up"), pit.story("down")) == (["new"], ["new"])
        pit.market("99.90", "100.10")
        assert pit.story("up") == ["new", "triggered", "trade 5@100.10"]
        assert pit.story("down") == ["new", "triggered", "trade 5@99.90"]

    def test_a_stop_that_is_touched_at_entry_goes_at_once(self, pit: Pit) -> None:
        pit.send("buy 5 stop 100.02", "b")
        assert pit.story("b") == ["new", "triggered", "trade 5@100.02"]

    def test_a_stop_limit_rests_at_its_limit_once_touched(self, pit: Pit) -> None:
        pit.send("buy 5 stop_limit 100.10 100.12", "b")
        pit.market("100.20", "100.22")
        assert pit.story("b") == ["new", "triggered"]
        pit.market("100.10", "100.12")
        assert pit.story("b") == ["new", "triggered", "trade 5@100.12"]


class TestChanges:
    def test_a_cancel_after_the_fill_is_too_late(self, pit: Pit) -> None:
        pit.send("buy 5", "b")
        answer = pit.cancel("b")
        assert (answer.code, answer.reason) == (422, "too_late")
        assert pit.story("b")[-1] == "cancel_rejected"
        assert pit.state("b") == ("filled", "5", "0")

    def test_a_cancel_of_what_was_never_here_is_refused(self, pit: Pit) -> None:
        assert (pit.cancel("nobody").code, pit.cancel("nobody").reason) == (422, "unknown_order")

    @pytest.mark.parametrize(
        ("quantity", "status", "leaves"), [("12", "partially_filled", "2"), ("10", "filled", "0"), ("4", "filled", "0")]
    )
    def test_a_replace_meets_what_is_done_after_fix_d10_d11_d12(self, quantity: str, status: str, leaves: str) -> None:
        pit = Pit(depth=1)
        pit.market("99.98", "100.00", "10", "10")
        pit.send("buy 20 limit 100.00", "b")
        assert pit.replace("b", f"buy {quantity} limit 100.00", "b2").code == 200
        assert pit.state("b2") == (status, "10", leaves)

    def test_a_filled_order_may_grow_but_not_change_otherwise(self, pit: Pit) -> None:
        pit.send("buy 5 limit 100.02", "b")
        assert pit.replace("b", "buy 5 limit 100.00", "no").reason == "too_late"
        assert pit.replace("b", "buy 8 limit 100.00", "b2").code == 200
        assert pit.state("b2") == ("partially_filled", "5", "3")
        pit.market("99.99", "100.00")
        assert pit.state("b2") == ("filled", "8", "0")

    def test_a_bust_takes_money_and_stock_back(self, pit: Pit) -> None:
        pit.send("buy 5", "b")
        pit.venue.bust(execution(1), pit.at)
        assert pit.story("b") == ["new", "trade 5@100.02", "bust 5@100.02", "canceled"]
        assert pit.venue.book.positions["A", "AAPL"] == 0
        assert pit.venue.book.cash["A", "USD"] == 0
        assert not pit.venue.bust(execution(1), pit.at)

    def test_a_correction_of_a_correction_leaves_the_last_one_standing(self, pit: Pit) -> None:
        pit.send("buy 5", "b")
        assert pit.venue.correct(execution(1), None, Decimal("100.01"), pit.at)
        assert pit.venue.correct(execution(2), None, Decimal("99.99"), pit.at)
        assert not pit.venue.correct(execution(1), None, Decimal(1), pit.at)
        assert [(e.execution_id, str(e.price)) for e in pit.venue.living()] == [(execution(3), "99.99")]
        assert pit.venue.book.cash["A", "USD"] == Decimal("-499.95")
        assert pit.state("b") == ("filled", "5", "0")


class TestTheDoor:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("buy 0", "off_lot"),
            ("buy -1", "off_lot"),
            ("buy 1.5", "off_lot"),
            ("buy 1" + "0" * 40, "off_lot"),
            ("buy 1 limit 100.001", "off_tick"),
            ("buy 1 limit", "limit_price_missing"),
            ("buy 1 stop_limit 100", ""),
            ("buy 1 market opg", "unsupported_time_in_force"),
            ("hold 1", "unknown_side"),
        ],
    )
    def test_what_breaks_a_rule_is_rejected_with_its_reason(self, pit: Pit, text: str, reason: str) -> None:
        order = (
            message(text, "b")
            if text != "buy 1 limit"
            else Message("new", "b", "A", "AAPL", "buy", Decimal(1), "limit")
        )
        answer = pit.venue.submit([order], pit.at)[0]
        assert answer.reason == reason
        assert (answer.code == 422) == bool(reason)

    def test_above_the_rate_orders_are_refused_and_cancels_are_not(self) -> None:
        pit = Pit(orders_per_second=2)
        pit.market("100.00", "100.02")
        answers = [pit.send("buy 1 limit 90", f"o{n}") for n in range(3)]
        assert [a.code for a in answers] == [200, 200, 429]
        assert answers[2].accepted is False
        assert "o2" not in pit.venue.book.by_client_id
        assert pit.cancel("o0").code == 200
        pit.wait(seconds=1)
        assert pit.send("buy 1 limit 90", "o2").code == 200

    def test_a_lying_code_changes_the_answer_not_the_act(self) -> None:
        pit = Pit(lies=Lies(error_though_accepted=1.0))
        pit.market("100.00", "100.02")
        answer = pit.send("buy 5", "b")
        assert answer.code in (400, 429, 500)
        assert answer.accepted is None
        assert pit.state("b")[0] == "filled"
