"""The example client against the real REST views, as a program would use it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from docs import client
from tests.conftest import Desk

pytestmark = pytest.mark.filterwarnings(
    "ignore:No directory at:UserWarning"
)  # static files are not collected for tests


@pytest.fixture
def trade(live_desk: Desk, live_server: Any) -> Callable[..., int]:
    """Return a function that runs the client as alice and gives its exit code."""
    from knox.models import AuthToken

    _, token = AuthToken.objects.create(user=live_desk.alice)
    return lambda *more: client.main(["--url", live_server.url, "--token", token, "--quantity", "10", *more])


def _sent(desk: Desk) -> Any:
    """Send what is due, as a worker does, until the broker has it; return the message."""
    deadline = time.monotonic() + 20
    while not desk.near.sent:
        assert time.monotonic() < deadline, "the client placed nothing"
        desk.send()
        time.sleep(0.05)
    return desk.near.sent[-1]


def _fill(desk: Desk, message: Any, quantity: str, price: str, execution: str) -> None:
    fill = desk.near.report(
        "trade", message, execution_id=execution, last_quantity=Decimal(quantity), last_price=Decimal(price)
    )
    assert desk.report(fill) == 1


def test_it_places_an_order_waits_for_the_fills_and_prints_the_position(
    live_desk: Desk, trade: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(trade)
        message = _sent(live_desk)
        _fill(live_desk, message, "4", "100.00", "e1")
        _fill(live_desk, message, "6", "100.01", "e2")
        assert done.result(timeout=30) == 0
    told = capsys.readouterr().out
    assert "filled: 10 of 10 at 100.006 on average" in told
    assert "trade 4 at 100 from NEAR" in told
    assert "MAIN holds 10 AAPL, market value 1000 USD, unrealised -0.06" in told
    live_desk.holds()


def test_the_same_client_order_id_again_is_the_same_order(live_desk: Desk, trade: Callable[..., int]) -> None:
    from orders.models import Order

    assert trade("--client-order-id", "mine-1", "--wait", "0") == 1
    assert trade("--client-order-id", "mine-1", "--wait", "0") == 1
    assert Order.objects.count() == 1


def test_it_tells_a_denial_with_its_reason(trade: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert trade("--quantity", "10001") == 1
    assert "quantity_limit: 10001 units are above the 10000 of firm." in capsys.readouterr().out


def test_it_tells_a_problem_with_its_field(trade: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert trade("--quantity", "1.5") == 2
    assert "off_lot: quantity:" in capsys.readouterr().err
    assert trade("--symbol", "NONE") == 2
    assert "unknown_symbol: symbol:" in capsys.readouterr().err


def test_a_wrong_token_is_refused(live_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert client.main(["--url", live_server.url, "--token", "wrong"]) == 2
    assert capsys.readouterr().err
