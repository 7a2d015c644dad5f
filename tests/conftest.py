"""A small desk for tests: alice trades MAIN, otto is an outsider, rita is risk, oona and omar are ops."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests import scripted


@dataclass
class Desk:
    """The people, the account and the brokers of a test, and a clock that only the test moves."""

    alice: Any
    otto: Any
    rita: Any
    oona: Any
    omar: Any
    account: Any
    near: "scripted.Scripted"
    far: "scripted.Scripted"
    at: datetime

    def actor(self, user: Any) -> Any:
        from oms.kernel.actor import Actor

        return Actor(f"user:{user.username}", user.pk)

    def later(self, seconds: float) -> datetime:
        """Move the clock and return it."""
        self.at += timedelta(seconds=seconds)
        return self.at

    def clock(self) -> datetime:
        return self.at

    def quote(self, symbol: str, bid: str, ask: str) -> None:
        from brokers.operations import QuoteUpdate, record_quotes

        record_quotes([QuoteUpdate(symbol, Decimal(bid), Decimal(ask), at=self.at)], source="posted", at=self.at)

    def place(self, *texts: str, user: Any = None, **more: Any) -> list[Any]:
        """Place orders spelled like `buy 10 AAPL`, `sell 5 AAPL limit 101`."""
        from orders import operations as desk

        return desk.place([ticket(t, **more) for t in texts], actor=self.actor(user or self.alice), at=self.at)

    def order(self, placed: Any) -> Any:
        from orders.models import Order

        return Order.objects.get(pk=placed.order_id)

    def send(self, code: str = "NEAR") -> int:
        from brokers import queries
        from orders import operations as desk

        return desk.send(queries.brokers_by_code()[code], owner="test", clock=lambda: datetime.now(UTC))

    def report(self, *reports: Any, code: str = "NEAR") -> int:
        from brokers import queries
        from oms.kernel.actor import Actor
        from orders import operations as desk

        broker = queries.brokers_by_code()[code]
        return desk.apply(broker.id, list(reports), actor=Actor.system("gateway"), at=datetime.now(UTC))

    def holds(self) -> None:
        """Fail unless every invariant and the audit chain hold."""
        from oms.journal import queries as audit
        from oms.management.commands.check_invariants import violations

        broken = {name: rows for name, rows in violations().items() if rows}
        assert not broken
        assert list(audit.faults()) == []


def ticket(text: str, **more: Any) -> Any:
    """Return a ticket from words: side, quantity, symbol, then an order type with its prices, then a time in force."""
    from orders.domain.tickets import parse_ticket

    side, quantity, symbol, *rest = text.split()
    raw: dict[str, Any] = {
        "account": "MAIN",
        "symbol": symbol,
        "side": side,
        "quantity": quantity,
        "order_type": "market",
    }
    if rest and rest[0] in ("limit", "stop"):
        raw |= {"order_type": rest[0], f"{rest[0]}_price": rest[1]}
        rest = rest[2:]
    if rest:
        raw["time_in_force"] = rest[0]
    return parse_ticket(raw | more, at=datetime.now(UTC))


@pytest.fixture(params=["thin", "views"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application, once through each way in."""
    from django.db import connections

    from tests import web

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)  # as the web process has it
    with web.opened(request.param) as application:
        yield application


@pytest.fixture
def desk(db: Any, django_user_model: Any) -> Iterator[Desk]:
    """A desk with one account of 1,000,000 USD, two scripted brokers and fresh quotes."""
    return _make_desk(django_user_model)


@pytest.fixture
def live_desk(transactional_db: Any, django_user_model: Any) -> Iterator[Desk]:
    """The same desk where commits are real, for threads and processes."""
    return _make_desk(django_user_model)


def _make_desk(users: Any) -> Desk:
    from django.contrib.auth.models import Group

    from brokers import adapters, queries
    from brokers.models import Broker, BrokerAccount, Instrument, Listing
    from oms.kernel.actor import Actor
    from oms.kernel.ids import uuid7
    from orders.queries import forget_codes
    from portfolio import operations as portfolio
    from portfolio.models import Account, AccountGrant, BrokerLink
    from portfolio.rates import forget_bases
    from risk.models import Limit
    from risk.queries import forget_rules
    from routing import queries as routing

    queries.forget_cache()
    routing.forget()
    forget_codes()
    forget_rules()
    forget_bases()
    scripted.BOOKS.clear()
    adapters._abilities.clear()
    adapters.forget()  # the ids of brokers come again where a test restarts the sequences
    adapters.ADAPTERS["scripted"] = "tests.scripted"
    at = datetime.now(UTC)
    people = {n: users.objects.create_user(n, password="demo") for n in ("alice", "otto", "rita", "oona", "omar")}
    for name, role in {
        "alice": "trader",
        "otto": "trader",
        "rita": "risk",
        "oona": "ops",
        "omar": "ops",
    }.items():
        people[name].groups.add(Group.objects.get_or_create(name=role)[0])
    instruments = [
        Instrument(symbol="AAPL", asset_class="equity", currency="USD", tick_size="0.01", lot_size="1"),
        Instrument(symbol="MSFT", asset_class="equity", currency="USD", tick_size="0.01", lot_size="1"),
        Instrument(
            symbol="EUR/USD", asset_class="fx", base_currency="EUR", currency="USD", tick_size="0.00001", lot_size="1",
            settlement_days=2,
        ),
    ]  # fmt: skip
    Instrument.objects.bulk_create(instruments)
    account = Account.objects.create(code="MAIN", base_currency="USD")
    AccountGrant.objects.create(user=people["alice"], account=account)
    for code in ("NEAR", "FAR"):
        broker = Broker.objects.create(code=code, adapter="scripted", settings={"name": code})
        BrokerLink.objects.create(
            account=account,
            broker=broker,
            broker_account=BrokerAccount.objects.create(broker=broker, external_id="A1"),
        )
        Listing.objects.bulk_create(
            Listing(instrument=i, broker=broker, symbol=i.symbol, tick_size=i.tick_size, lot_size=i.lot_size)
            for i in instruments
        )
    limits = {"order_quantity": "10000", "order_notional": "5000000", "position": "100000"}
    for kind, value in limits.items():
        Limit.objects.create(
            id=uuid7(), scope_kind="firm", kind=kind, value=value, currency="USD" if "notional" in kind else "",
            status="active", effective_from=at - timedelta(days=1), reason="test", created_at=at,
        )  # fmt: skip
    queries.forget_cache()
    made = Desk(
        **people,
        account=account,
        near=scripted.build({"name": "NEAR"}),
        far=scripted.build({"name": "FAR"}),
        at=at,
    )
    portfolio.transfer(
        account=account.code, kind="deposit", currency="USD", amount=Decimal(1_000_000), to="", reason="opening",
        key="opening", actor=Actor.system("test"), at=at,
    )  # fmt: skip
    made.quote("AAPL", "99.99", "100.01")
    made.quote("MSFT", "199.98", "200.02")
    made.quote("EUR/USD", "1.12000", "1.12002")
    # FAR is listed after NEAR by code, and both cost the same: make NEAR the cheaper one.
    from brokers.models import BrokerHealth

    BrokerHealth.objects.create(broker=Broker.objects.get(code="FAR"), ack_ms=50.0)
    return made
