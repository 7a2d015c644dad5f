"""Whatever is placed, filled, replaced and released: the totals are the sum of the holds, and no limit is passed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers import queries as brokers
from brokers.models import Instrument, Quote
from oms.kernel.ids import uuid7
from oms.runtime import sql
from portfolio.models import Account, CashBalance
from risk import operations as risk
from risk.domain.intents import Intent
from risk.domain.replaying import replay
from risk.invariants import PREDICATES
from risk.models import Exposure, Hold, Limit, RiskCheck

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
POSITION_MAX = 500
AMOUNTS = st.decimals("0.0000000001", "300", places=10)
PRICES = st.decimals("90", "110", places=7)

# fmt: off
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.lists(st.tuples(st.sampled_from(["buy", "sell"]), AMOUNTS, PRICES), min_size=1, max_size=4)),
        st.tuples(st.just("resize"), st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["0", "0.3333333333", "1"])), min_size=1, max_size=4)),
        st.tuples(st.just("replace"), st.tuples(st.integers(0, 20), AMOUNTS, PRICES)),
    ),
    min_size=1, max_size=8,
)
# fmt: on


@pytest.fixture
def account(db: Any) -> Account:
    made = Account.objects.create(code="MAIN", base_currency="USD")
    pair = Instrument.objects.create(
        symbol="EUR/USD",
        asset_class="fx",
        base_currency="EUR",
        currency="USD",
        tick_size="0.0000001",
        lot_size="0.0000000001",
    )
    Quote.objects.create(instrument=pair, bid=100, ask=100, at=AT, source="posted", day_open=100)
    CashBalance.objects.create(account=made, currency="USD", balance=60_000)
    for kind, value in {"order_quantity": 250, "order_notional": 1_000_000, "position": POSITION_MAX}.items():
        Limit.objects.create(
            id=uuid7(), scope_kind="firm", kind=kind, value=value, status="active", effective_from=AT - timedelta(days=1),
            reason="test", created_at=AT,
        )  # fmt: skip
    brokers.forget_cache()
    return made


def intent(account: Account, side: str, quantity: Decimal, price: Decimal, order_id: UUID | None = None) -> Intent:
    return Intent(
        order_id or uuid7(), account.pk, account.code, "USD", True, brokers.instruments_by_symbol()["EUR/USD"], side, quantity,
        "limit", price,
    )  # fmt: skip


def run(account: Account, step: tuple[str, Any], placed: list[Intent]) -> None:
    kind, arguments = step
    if kind == "place":
        intents = [intent(account, *a) for a in arguments]
        verdicts = risk.check(intents, at=AT)
        placed += [i for i, v in zip(intents, verdicts, strict=True) if v.approved]
    elif placed and kind == "resize":
        shares = {placed[n % len(placed)].order_id: Decimal(share) for n, share in arguments}
        held = Hold.objects.filter(id__in=shares)
        risk.resize({h.id: round(h.open_quantity * shares[h.id], 10) for h in held})
    elif placed:
        number, quantity, price = arguments
        old = placed[number % len(placed)]
        risk.recheck(intent(account, old.side, quantity, price, old.order_id), open_quantity=quantity, at=AT)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_totals_are_the_sum_of_the_holds_after_every_step(account: Account, steps: list[tuple[str, Any]]) -> None:
    with transaction.atomic():
        placed: list[Intent] = []
        for step in steps:
            run(account, step, placed)
            broken = {name: sql.run(statement).fetchall() for name, statement in PREDICATES.items()}
            assert not any(broken.values()), (step, broken)
            for exposure in Exposure.objects.all():
                assert max(exposure.buying, exposure.selling) <= POSITION_MAX
        for check in RiskCheck.objects.all():
            assert replay(check.checks)[:2] == (check.approved, check.reason)
        transaction.set_rollback(True)
