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
SETS = (UUID(int=1), UUID(int=2))
"""Of orders of one of these, one cancels the others: together they hold the worst of one."""

# fmt: off
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.lists(st.tuples(st.sampled_from(["buy", "sell"]), AMOUNTS, PRICES, st.sampled_from([None, *SETS])), min_size=1, max_size=4)),
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


def intent(
    account: Account,
    side: str,
    quantity: Decimal,
    price: Decimal,
    oco: UUID | None = None,
    order_id: UUID | None = None,
) -> Intent:
    return Intent(
        order_id or uuid7(), account.pk, account.code, "USD", True, brokers.instruments_by_symbol()["EUR/USD"], side, quantity,
        "limit", price, oco=oco,
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
        risk.recheck(intent(account, old.side, quantity, price, order_id=old.order_id), open_quantity=quantity, at=AT)


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


def test_of_a_set_in_which_one_cancels_the_others_the_worst_is_held(account: Account) -> None:
    """Two orders of 200 in one set and one of 250 leave room for 50 more, as if the set were one order."""
    one, other, alone = (
        intent(account, "sell", Decimal(q), Decimal(100), oco)
        for q, oco in ((200, SETS[0]), (150, SETS[0]), (250, None))
    )
    with transaction.atomic():
        assert [v.approved for v in risk.check([one, other, alone], at=AT)] == [True] * 3
        assert Exposure.objects.get().selling == 450
        [left] = risk.check([intent(account, "sell", Decimal(51), Decimal(100))], at=AT)
        assert (left.approved, left.reason) == (False, "position_limit")
        risk.resize({one.order_id: Decimal(0)})
        assert Exposure.objects.get().selling == 400
        [joined] = risk.check([intent(account, "sell", Decimal(250), Decimal(100), SETS[0])], at=AT)
        assert joined.approved, "alone it is within the limit, and only one of its set is ever filled"
        assert Exposure.objects.get().selling == 500
        risk.resize(dict.fromkeys([one.order_id, other.order_id, alone.order_id, joined.order_id], Decimal(0)))
        assert (Exposure.objects.get().selling, Exposure.objects.get().amount) == (0, 0)
