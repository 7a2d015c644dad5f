"""What a broker sent and nobody could use: shown, read again once it can be, or dismissed by a person who says why."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from brokers import operations as inbox
from brokers.models import Broker, RawMessage
from oms.kernel.errors import Conflict, Invalid
from oms.monitoring import exceptions
from orders.models import Execution, LetterDecision, ParkedReport
from orders.operations import letters
from tests.conftest import Desk


@pytest.fixture
def letter(desk: Desk) -> RawMessage:
    """A fill whose price the adapter could not read at first."""
    desk.place("buy 10 AAPL limit 99", broker="NEAR")
    desk.send()
    broker = Broker.objects.get(code="NEAR")
    raw = desk.near.sent[-1].client_order_id.encode()
    inbox.keep_raw(broker.id, [(raw, 7, "a price that nobody could read")], at=timezone.now())
    return RawMessage.objects.get()


def kinds() -> list[str]:
    return [e["kind"] for e in exceptions(at=timezone.now())]


def test_a_message_is_read_again_once_the_adapter_can(desk: Desk, letter: RawMessage) -> None:
    actor = desk.actor(desk.oona)
    assert kinds() == ["unreadable_message"]
    with pytest.raises(Conflict, match="can't be read"):
        letters.read_again(letter.pk, actor=actor, at=desk.at)
    desk.near.readable = True
    assert letters.read_again(letter.pk, actor=actor, at=desk.at) == 1
    assert Execution.objects.get().quantity == 10
    assert kinds() == []
    with pytest.raises(Conflict, match="decided"):
        letters.read_again(letter.pk, actor=actor, at=desk.at)
    assert LetterDecision.objects.get().actor == "user:oona"
    desk.holds()


def test_a_message_is_dismissed_with_a_reason_and_its_bytes_stay(desk: Desk, letter: RawMessage) -> None:
    actor = desk.actor(desk.oona)
    with pytest.raises(Invalid):
        letters.dismiss(letter.pk, reason=" ", actor=actor, at=desk.at)
    letters.dismiss(letter.pk, reason="a test of the broker's", actor=actor, at=desk.at)
    assert kinds() == []
    assert RawMessage.objects.count() == 1
    desk.holds()


def test_a_parked_report_is_tried_again_and_waits_on_or_is_dismissed(desk: Desk) -> None:
    actor = desk.actor(desk.oona)
    desk.report(desk.near.report("trade", stranger(), execution_id="E1", last_quantity=1, last_price=1))
    assert letters.retry_parked([ParkedReport.objects.get().pk], actor=actor, at=desk.at) == 0
    waiting = ParkedReport.objects.get(applied_at=None)
    assert kinds() == ["parked_report"]
    assert letters.dismiss_parked([waiting.pk], reason="another desk's", actor=actor, at=desk.at) == 1
    assert kinds() == []
    desk.holds()


def test_ops_decide_in_the_admin_and_others_may_only_look(desk: Desk, client: Client, letter: RawMessage) -> None:
    url = "/admin/orders/deadletter/"
    for user, may in ((desk.rita, False), (desk.oona, True)):
        user.is_staff = True
        user.save()
        client.force_login(user)
        assert "a price that nobody could read" in client.get(url).content.decode()
        client.post(url, {"action": "dismiss", "_selected_action": [str(letter.pk)]})
        assert LetterDecision.objects.exists() == may


def stranger() -> Any:
    from decimal import Decimal

    from brokers.adapters.port import NewOrder

    return NewOrder(
        client_order_id="nobody", account="A1", symbol="AAPL", side="buy", quantity=Decimal(1), order_type="market",
        time_in_force="day",
    )  # fmt: skip
