"""Halts that the desk engages by itself: what crosses a wire, that it halts once, and that a person lets it go on."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Broker
from oms.kernel.ids import uuid7
from orders import operations
from portfolio.models import Break
from risk import operations as risk
from risk.models import Halt, Limit, ProfitPeak, Trip, Tripwire
from tests.conftest import Desk


def limit(desk: Desk, kind: str, value: str) -> None:
    Limit.objects.create(
        id=uuid7(), scope_kind="account", scope_key="MAIN", kind=kind, value=value, currency="USD", status="active",
        effective_from=desk.at - timedelta(days=1), reason="test", created_at=desk.at,
    )  # fmt: skip


def wire(kind: str, threshold: str, window: str = "10", mode: str = "halt", *, enabled: bool = True) -> None:
    Tripwire.objects.create(kind=kind, threshold=threshold, window=window, mode=mode, enabled=enabled)


def guard(desk: Desk) -> list[tuple[str, str]]:
    return [(t.kind, str(t.scope)) for t in operations.guard(at=desk.at)]


def buy(desk: Desk, quantity: int, price: str = "100.01") -> None:
    desk.place(f"buy {quantity} AAPL")
    desk.send()
    sent = desk.near.sent[-1]
    fill = {
        "execution_id": f"E{quantity}",
        "last_quantity": Decimal(quantity),
        "last_price": Decimal(price),
        "executed_at": desk.at,
    }
    desk.report(desk.near.report("new", sent), desk.near.report("trade", sent, **fill))


def test_nothing_is_halted_while_nothing_is_wrong(desk: Desk) -> None:
    limit(desk, "daily_loss", "1000000")
    buy(desk, 10)
    assert guard(desk) == []
    assert not Halt.objects.exists()


def test_a_loss_of_the_day_lets_the_account_only_reduce(desk: Desk) -> None:
    limit(desk, "daily_loss", "100")
    buy(desk, 10)
    desk.quote("AAPL", "89.99", "90.01")  # 10 units lost 10.01 each
    assert guard(desk) == [("daily_loss", "account MAIN")]
    halt = Halt.objects.get()
    assert (halt.mode, halt.engaged_by, halt.engaged_user) == ("reduce_only", "system:tripwire", None)
    assert "100.1" in halt.reason
    statuses = [desk.order(p).reason for p in desk.place("buy 1 AAPL", "sell 1 AAPL")]
    assert statuses == ["halted", ""]
    desk.holds()


def test_it_halts_once_and_again_only_after_it_was_over(desk: Desk) -> None:
    limit(desk, "daily_loss", "100")
    buy(desk, 10)
    desk.quote("AAPL", "89.99", "90.01")
    assert [len(guard(desk)), len(guard(desk))] == [1, 0]
    risk.release_halt(Halt.objects.get().id, reason="seen", actor=desk.actor(desk.rita), at=desk.at)
    assert guard(desk) == []
    desk.quote("AAPL", "99.99", "100.01")
    assert guard(desk) == []
    assert Trip.objects.get().ended_at == desk.at
    desk.quote("AAPL", "89.99", "90.01")
    assert len(guard(desk)) == 1
    assert Halt.objects.count() == 2


def test_a_drawdown_counts_from_the_highest_profit_that_was_seen(desk: Desk) -> None:
    limit(desk, "drawdown", "100")
    buy(desk, 10)
    desk.quote("AAPL", "119.99", "120.01")
    assert guard(desk) == []
    peak = ProfitPeak.objects.get().value
    desk.quote("AAPL", "109.99", "110.01")
    assert guard(desk) == []
    assert ProfitPeak.objects.get().value == peak
    desk.quote("AAPL", "109.97", "110.01")
    assert guard(desk) == [("drawdown", "account MAIN")]
    assert desk.order(desk.place("buy 1 AAPL")[0]).reason in ("halted", "loss_limit")


def test_many_refusals_halt_their_broker(desk: Desk) -> None:
    wire("reject_storm", "2")
    for _ in range(3):
        desk.place("buy 1 AAPL", broker="NEAR")
    desk.send()
    sent = list(desk.near.sent)
    for number, message in enumerate(sent, 1):
        desk.report(desk.near.report("rejected", message))
        assert guard(desk) == ([("reject_storm", "broker NEAR")] if number == 3 else [])
    assert desk.order(desk.place("buy 1 AAPL", broker="NEAR")[0]).reason == "halted"


def test_many_new_breaks_let_their_broker_only_reduce(desk: Desk) -> None:
    wire("break_storm", "2", "60", "reduce_only")
    for number in range(1, 4):
        Break.objects.create(
            id=uuid7(), kind="position", broker=Broker.objects.get(code="NEAR"), account=desk.account, subject=f"S{number}",
            opened_at=desk.at, seen_at=desk.at,
        )  # fmt: skip
        assert guard(desk) == ([("break_storm", "broker NEAR")] if number == 3 else [])
    assert desk.order(desk.place("buy 1 AAPL", broker="NEAR")[0]).reason == "halted"
    assert desk.order(desk.place("buy 1 AAPL", broker="FAR")[0]).status == "pending_new"


def test_too_many_messages_halt_their_account_and_cancel_what_is_open(desk: Desk) -> None:
    wire("message_rate", "3")
    placed = desk.place(*["buy 1 AAPL limit 90"] * 3)
    assert guard(desk) == []
    placed += desk.place("buy 2 AAPL limit 90")
    assert guard(desk) == [("message_rate", "account MAIN")]
    assert {desk.order(p).status for p in placed} == {"canceled"}


def test_a_feed_that_stands_still_halts_everything(desk: Desk) -> None:
    wire("quotes_stale", "60", mode="reduce_only")
    desk.later(59)
    Tripwire.objects.create(kind="clock_drift", threshold=1000, mode="halt")
    assert guard(desk) == []
    desk.later(2)
    assert guard(desk) == [("quotes_stale", "all")]


def test_clocks_that_differ_halt_everything(desk: Desk) -> None:
    desk.later(3)
    assert guard(desk) == [("clock_drift", "all")]


@pytest.mark.parametrize("kind", ["daily_loss", "clock_drift"])
def test_a_wire_that_is_switched_off_halts_nothing(desk: Desk, kind: str) -> None:
    wire(kind, "0", enabled=False)
    limit(desk, "daily_loss", "0.01")
    buy(desk, 10)
    if kind == "clock_drift":
        desk.later(3)
        Limit.objects.filter(kind="daily_loss").delete()
    else:
        desk.quote("AAPL", "89.99", "90.01")
    assert guard(desk) == []


def test_a_second_look_at_the_same_moment_halts_nothing_twice(desk: Desk) -> None:
    from risk.domain.scopes import Scope
    from risk.domain.tripwires import Tripped

    trip: Any = Tripped("clock_drift", Scope("all"), "x")
    assert [risk.note_trip(trip, at=desk.at) for _ in range(2)] == [True, False]
    assert risk.newly_crossed([trip], at=desk.at) == []
