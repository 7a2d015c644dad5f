"""A broker that fails rests; then it is asked, not tried out with an order."""

from brokers import queries
from brokers.models import Broker, BrokerHealth
from brokers.operations import note_sending
from brokers.queries import health_of
from orders import operations as desk_operations
from orders.tasks import due_work
from tests.conftest import Desk


def probe(desk: Desk) -> bool | None:
    return desk_operations.probe(queries.brokers_by_code()["NEAR"], clock=lambda: desk.at)


def test_a_breaker_opens_rests_is_half_open_and_closes_with_an_answer(desk: Desk) -> None:
    broker_id = Broker.objects.get(code="NEAR").pk
    for _ in range(3):
        note_sending(broker_id, reached=False, ack_ms=None, at=desk.at)
    assert health_of("NEAR")["breaker"] == "open"
    assert probe(desk) is None, "it rests"

    desk.later(-3600)  # it has rested
    BrokerHealth.objects.filter(broker_id=broker_id).update(open_until=desk.at)
    assert health_of("NEAR")["breaker"] == "half_open"
    assert ("NEAR", False, True) in due_work()

    desk.near.reachable = False
    desk.later(1)
    assert probe(desk) is False
    assert probe(desk) is None, "it rests again, and nobody else asks meanwhile"
    desk.near.reachable = True
    desk.later(6)
    assert probe(desk) is True
    told = health_of("NEAR")
    assert (told["breaker"], told["failures_in_row"]) == ("closed", 0)
    assert desk.near.sent == []
