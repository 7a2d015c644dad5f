"""The books end the same in whatever order and grouping fills, busts and corrections arrive."""

from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio import booking, invariants
from portfolio.domain.fills import Fill
from portfolio.domain.lots import LiveTrade, notional
from portfolio.domain.matching import Matching, amount
from portfolio.domain.policies import METHODS, POOLED, Policies, Policy
from portfolio.models import BrokerPosition, CashBalance, LedgerEntry, Lot, LotPolicy, Position

OPEN = datetime(2026, 3, 2, 23, 59, 57, tzinfo=UTC)  # so that some trades fall on the next day


@dataclass(frozen=True)
class World:
    account: int
    brokers: tuple[int, int]
    instruments: tuple[int, int]


@pytest.fixture
def world(db: Any) -> World:
    from brokers.models import Broker, Instrument
    from portfolio.models import Account

    symbols = [
        Instrument.objects.create(symbol=s, asset_class="equity", currency="USD", tick_size="0.01", lot_size="1")
        for s in ("AAPL", "MSFT")
    ]
    brokers = [Broker.objects.create(code=c, adapter="scripted") for c in ("NEAR", "FAR")]
    account = Account.objects.create(code="MAIN", base_currency="USD")
    return World(account.pk, (brokers[0].pk, brokers[1].pk), (symbols[0].pk, symbols[1].pk))


quantities = st.integers(-12, 12).filter(bool).map(Decimal)
prices = st.integers(0, 40).map(lambda n: Decimal(n) / 7).map(lambda p: p.quantize(Decimal("0.0000000001")))
fees = st.sampled_from([Decimal(0), Decimal("0.35"), Decimal("-0.02")])


@st.composite
def histories(draw: Any) -> list[list[Fill]]:
    """Return chains: a trade, then the corrections of it, then perhaps its bust."""
    chains = []
    for number in range(draw(st.integers(1, 12))):
        first = Fill(
            source_id=UUID(int=(number + 1) << 64), kind="trade", ref_source_id=None, account_id=0,
            broker_id=draw(st.integers(0, 1)), instrument_id=draw(st.sampled_from([0, 0, 0, 1])),
            quantity=draw(quantities), price=draw(prices), fees=draw(fees), currency="USD",
            executed_at=OPEN + timedelta(seconds=draw(st.integers(0, 6))), settle_date=OPEN.date(),
        )  # fmt: skip
        chain = [first]
        for kind in draw(
            st.sampled_from([[], [], [], ["bust"], ["correct"], ["correct", "correct"], ["correct", "bust"]])
        ):
            last = chain[-1]
            sign = 1 if first.quantity > 0 else -1
            chain.append(
                replace(
                    last,
                    source_id=UUID(int=last.source_id.int + 1),
                    kind=kind,
                    ref_source_id=last.source_id,
                    quantity=last.quantity if kind == "bust" else sign * abs(draw(quantities)),
                    price=draw(prices),
                )
            )
        chains.append(chain)
    return chains


@st.composite
def arrivals(draw: Any) -> tuple[list[list[Fill]], list[list[Fill]]]:
    """Return a history, and the batches it arrives in: no version before the one it refers to."""
    chains = draw(histories())
    waiting = [deque(c) for c in chains]
    arriving: list[Fill] = []
    while waiting:
        chain = draw(st.sampled_from(waiting))
        arriving.append(chain.popleft())
        waiting = [c for c in waiting if c]
    batches: list[list[Fill]] = [[]]
    for fill in arriving:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(fill)
    return chains, [b for b in batches if b]


def expected(fills: list[Fill]) -> tuple[list[tuple[Any, ...]], Decimal, Decimal]:
    """Fold live trades in order, as plainly as can be: open lots, cost and what was realised."""
    lots: deque[list[Any]] = deque()
    for fill in sorted(fills, key=lambda f: (f.executed_at, f.source_id.int >> 64)):
        left = fill.quantity
        while left and lots and lots[0][2] * left < 0:
            size = min(abs(left), abs(lots[0][2]))
            step = size if left > 0 else -size
            left -= step
            lots[0][2] += step
            if lots[0][2] == 0:
                lots.popleft()
        if left:
            lots.append([fill.executed_at, fill.price, left])
    cost = sum((notional(q, p) for _, p, q in lots), Decimal(0))
    return [tuple(lot) for lot in lots], cost, cost - sum((notional(f.quantity, f.price) for f in fills), Decimal(0))


@given(arrivals())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_order_of_arrival_ends_in_the_same_books(
    world: World, arrival: tuple[list[list[Fill]], list[list[Fill]]]
) -> None:
    chains, batches = arrival

    def here(fill: Fill) -> Fill:
        return replace(
            fill, account_id=world.account, broker_id=world.brokers[fill.broker_id],
            instrument_id=world.instruments[fill.instrument_id],
        )  # fmt: skip

    with transaction.atomic():
        for batch in batches:
            booking.book([here(f) for f in batch], at=OPEN)
        live = [here(c[-1]) for c in chains if c[-1].kind != "bust"]
        for instrument in {world.instruments[c[0].instrument_id] for c in chains}:
            check_holding(world, instrument, [f for f in live if f.instrument_id == instrument])
        spent = sum((notional(f.quantity, f.price) + f.fees for f in live), Decimal(0))
        assert CashBalance.objects.get(account_id=world.account, currency="USD").balance == -spent
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # the deferred zero-sum trigger and the foreign keys
            for name, statement in invariants.PREDICATES.items():
                cursor.execute(statement)
                assert (name, cursor.fetchall()) == (name, [])
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        transaction.set_rollback(True)


rules = st.sampled_from(
    [
        Policy(method=m, commissions=c, wash_sales=w)
        for m in METHODS
        for c in ("expensed", "in_cost")
        for w in (False, True)
        if not (w and m in POOLED)
    ]
)


@given(arrivals(), st.lists(rules, min_size=1, max_size=2), st.booleans())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_order_of_arrival_ends_the_same_under_every_lot_method(
    world: World, arrival: tuple[list[list[Fill]], list[list[Fill]]], policies: list[Policy], choosing: bool
) -> None:
    chains, batches = arrival
    days = (date.min, OPEN.date() + timedelta(days=1))
    ruled = [replace(p, since=day) for p, day in zip(policies, days, strict=False)]
    lots = tuple(c[0].source_id for c in chains[:1]) if choosing else ()

    def here(fill: Fill) -> Fill:
        return replace(
            fill, account_id=world.account, broker_id=world.brokers[fill.broker_id],
            instrument_id=world.instruments[fill.instrument_id], chosen=lots if fill.quantity < 0 else (),
        )  # fmt: skip

    with transaction.atomic():
        for p in ruled:
            LotPolicy.objects.create(
                account_id=world.account,
                since=p.since,
                method=p.method,
                commissions=p.commissions,
                wash_sales=p.wash_sales,
            )
        for batch in batches:
            booking.book([here(f) for f in batch], at=OPEN)
        live = [here(c[-1]) for c in chains if c[-1].kind != "bust"]
        firsts = {c[-1].source_id: c[0].source_id for c in chains}
        for instrument in {world.instruments[c[0].instrument_id] for c in chains}:
            mine = [f for f in live if f.instrument_id == instrument]
            check_matched(world, instrument, mine, firsts, Policies(ruled))
        spent = sum((notional(f.quantity, f.price) + f.fees for f in live), Decimal(0))
        assert CashBalance.objects.get(account_id=world.account, currency="USD").balance == -spent
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for name, statement in invariants.PREDICATES.items():
                cursor.execute(statement)
                assert (name, cursor.fetchall()) == (name, [])
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        transaction.set_rollback(True)


def check_matched(
    world: World, instrument: int, live: list[Fill], firsts: dict[UUID, UUID], policies: Policies
) -> None:
    """Compare the rows with one matching of all live trades, as if nothing had ever come late."""
    trades = [
        LiveTrade(firsts[f.source_id], f.source_id, f.executed_at, f.quantity, f.price, f.fees, f.chosen) for f in live
    ]
    matching = Matching((), policies)
    matching.run(sorted(trades, key=lambda t: t.key))
    mine = {"account_id": world.account, "instrument_id": instrument}
    rows = Lot.objects.filter(**mine, closed_at=None)
    found = {r.id: (r.opened_at, r.price, r.remaining, r.basis, r.held_since) for r in rows}
    assert found == {x.id: (x.opened_at, x.price, x.remaining, x.basis, x.held_since) for x in matching.lots}
    position = Position.objects.get(**mine)
    assert (position.quantity, position.cost) == (sum((f.quantity for f in live), Decimal(0)), matching.cost)
    expensed = [t for t in trades if policies.at(t.executed_at).commissions == "expensed"]
    assert position.fees == sum((t.fees for t in expensed), Decimal(0))
    paid = sum((amount(t, policies.at(t.executed_at)) for t in trades), Decimal(0))
    assert position.realized == matching.cost - paid


def check_holding(world: World, instrument: int, live: list[Fill]) -> None:
    mine = {"account_id": world.account, "instrument_id": instrument}
    lots, cost, realized = expected(live)
    rows = Lot.objects.filter(**mine, closed_at=None).order_by("opened_at", "id")
    assert [(r.opened_at, r.price, r.remaining) for r in rows] == lots
    position = Position.objects.get(**mine)
    quantity = sum((f.quantity for f in live), Decimal(0))
    fees_paid = sum((f.fees for f in live), Decimal(0))
    assert (position.quantity, position.cost, position.realized, position.fees) == (quantity, cost, realized, fees_paid)
    last_day = position.day
    of_day = [f for f in live if f.executed_at.date() == last_day]
    assert position.day_quantity == sum((f.quantity for f in of_day), Decimal(0))
    assert position.day_amount == sum((notional(f.quantity, f.price) for f in of_day), Decimal(0))
    for broker in world.brokers:
        share = BrokerPosition.objects.filter(**mine, broker_id=broker).first()
        assert (share.quantity if share else 0) == sum((f.quantity for f in live if f.broker_id == broker), Decimal(0))
    gains = [e.amount for e in LedgerEntry.objects.filter(**mine, code="realized_pnl")]
    assert -sum(gains, Decimal(0)) == realized
