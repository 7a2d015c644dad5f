"""The demo desk's data fits what reads it."""

from decimal import Decimal

import msgspec
import pytest

from brokers.adapters import capabilities_of
from brokers.domain.fees import charge
from brokers.simulation.demo import DEMO_BROKERS, DEMO_INSTRUMENTS
from brokers.simulation.knobs import Knobs

CONTRACT_SYMBOLS = {"AAPL", "MSFT", "SPY", "EUR/USD", "USD/JPY", "BTC/USDT", "ETH/USDT"}


def test_the_demo_trades_what_the_contract_names_in_three_asset_classes() -> None:
    assert {i["symbol"] for i in DEMO_INSTRUMENTS} >= CONTRACT_SYMBOLS
    assert len({i["symbol"] for i in DEMO_INSTRUMENTS}) == len(DEMO_INSTRUMENTS) >= 20
    assert {i["asset_class"] for i in DEMO_INSTRUMENTS} == {"equity", "fx", "crypto"}
    for i in DEMO_INSTRUMENTS:
        assert Decimal(i["start_price"]) % Decimal(i["tick_size"]) == 0


@pytest.mark.parametrize("code", sorted(DEMO_BROKERS))
def test_each_demo_broker_has_readable_knobs_abilities_and_fees(code: str) -> None:
    broker = DEMO_BROKERS[code]
    knobs = msgspec.convert(broker["venue"], Knobs)
    abilities = capabilities_of("simulated", {"venue": broker["venue"]})
    assert abilities.visibility_delay_seconds == knobs.visibility_delay_seconds
    assert knobs.lies == Knobs().lies or code == "FLAKY"
    for i in DEMO_INSTRUMENTS:
        value = Decimal(i["start_price"]) * 100
        fees = charge(
            broker["fees"][i["asset_class"]],
            side="buy",
            quantity=Decimal(100),
            price=Decimal(i["start_price"]),
            currency=i["currency"],
        )
        assert sum(f.amount for f in fees) <= value / 100


def test_the_brokers_differ_where_a_router_looks() -> None:
    def equity_fee(code: str) -> Decimal:
        fees = charge(
            DEMO_BROKERS[code]["fees"]["equity"], side="buy", quantity=Decimal(100), price=Decimal(200), currency="USD"
        )
        return sum((f.amount for f in fees), Decimal(0))

    assert equity_fee("CHEAP") < equity_fee("PRIME") < equity_fee("FAST")
    ack = {c: msgspec.convert(b["venue"], Knobs).latency_ms.ack[0] for c, b in DEMO_BROKERS.items()}
    assert ack["FAST"] < ack["PRIME"] < ack["CHEAP"]
