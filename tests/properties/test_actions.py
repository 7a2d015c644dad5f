"""Trades, busts, corrections and corporate actions in any order: the books end as if all had come in turn."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict
from portfolio import booking, corporate, invariants, rebuilding
from portfolio.corporate import Announcement
from portfolio.domain.families import Family, Terms
from portfolio.domain.fills import Fill
from portfolio.domain.lots import LiveTrade
from portfolio.domain.policies import METHODS, POOLED, Policies, Policy
from portfolio.models import LotPolicy
from tests.properties.test_books import World, world

__all__ = ["world"]
D = Decimal
OPEN = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAYS = 6
ACTOR = Actor.system("test")
rules = st.sampled_from(
    [Policy(method=m, wash_sales=w) for m in METHODS for w in (False, True) if not (w and m in POOLED)]
)
ratios = st.tuples(st.integers(1, 5), st.integers(1, 5))


@st.composite
def actions(draw: Any) -> list[dict[str, Any]]:
    """Return up to three actions on three days: of the first instrument, what comes is the second."""
    found = []
    for day in sorted(draw(st.sets(st.integers(1, DAYS), max_size=3))):
        kind = draw(
            st.sampled_from(["split", "stock_dividend", "spin_off", "return_of_capital", "rights", "cash_dividend"])
        )
        new, old = draw(ratios)
        terms: dict[str, Any] = {"type": kind, "day": day}
        if kind == "split":
            terms |= {"type": "split" if new > old else "reverse_split", "ratio": (new, old if new != old else old + 1)}
            terms["type"] = "split" if terms["ratio"][0] > terms["ratio"][1] else "reverse_split"
        elif kind in ("return_of_capital", "cash_dividend"):
            terms["cash"] = D(new) / 2
        else:
            terms["ratio"] = (new, old)
        if kind in ("split", "stock_dividend", "spin_off"):
            terms["cash_in_lieu"] = D(old) + D("0.1")
        if kind == "spin_off":
            terms |= {"target": True, "cost_share": D(new) / 8}
        if kind == "rights":
            terms["cash"] = D(old)
        found.append(terms)
    return found


trades = st.lists(
    st.tuples(st.integers(-9, 9).filter(bool), st.integers(1, 40), st.integers(0, DAYS), st.sampled_from([0, 0, 1]), st.integers(0, 1)),
    min_size=1, max_size=14,
)  # fmt: skip


def at(day: int) -> datetime:
    return OPEN + timedelta(days=day)


@given(trades, actions(), rules)
@settings(max_examples=150, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_what_every_action_moves_adds_up(drawn: Any, acts: list[dict[str, Any]], policy: Policy) -> None:
    found: dict[int, list[LiveTrade]] = {0: [], 1: []}
    for number, (quantity, price, day, instrument, broker) in enumerate(drawn):
        key = UUID(int=number + 1)
        moment = at(day) + timedelta(seconds=number)
        found[instrument].append(LiveTrade(key, key, moment, D(quantity), D(price) / 7, broker_id=broker + 1))
    for one in found.values():
        one.sort(key=lambda t: t.key)
    terms = [
        Terms(
            UUID(int=900 + n), a["type"], datetime.combine(at(a["day"]).date(), time.min, UTC), 0, 1 if a.get("target") else None,
            a.get("ratio"), a.get("cash"), a.get("cash_in_lieu"), a.get("cost_share", D(0)),
        )
        for n, a in enumerate(acts) if a["type"] != "cash_dividend"
    ]  # fmt: skip
    family = Family(found, terms, Policies([policy]))
    for term in terms:
        flows = family.flows(term.id).values()
        moved = sum((f.cost + sum(f.cash.values(), D(0)) - f.gain for f in flows), D(0))
        assert moved == 0
    for instrument, matching in family.matchings.items():
        assert sum((lot.remaining for lot in matching.lots), D(0)) == family.quantity(instrument)
    if any("cash_in_lieu" in a for a in acts) and not any(a["type"] == "return_of_capital" for a in acts):
        assert all(q == int(q) for q in family.held.values()), "every broker delivers whole units"


@st.composite
def stories(draw: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return steps in the order they are told: fills, their busts and corrections, applying and reversing actions."""
    acts = draw(actions())
    steps: list[Any] = []
    for number, (quantity, price, day, instrument, broker) in enumerate(draw(trades)):
        first = Fill(
            source_id=UUID(int=(number + 1) << 64), kind="trade", ref_source_id=None, account_id=0, broker_id=broker,
            instrument_id=instrument, quantity=D(quantity), price=(D(price) / 7).quantize(D("1E-10")), fees=D("0.35"),
            currency="USD", executed_at=at(day) + timedelta(seconds=number), settle_date=at(day).date(),
        )  # fmt: skip
        steps.append([first])
        if draw(st.integers(0, 3)) == 0:
            kind = draw(st.sampled_from(["bust", "correct"]))
            more = {"price": D(2)} if kind == "correct" else {}
            steps[-1].append(
                replace(
                    first, source_id=UUID(int=first.source_id.int + 1), kind=kind, ref_source_id=first.source_id, **more
                )
            )
    steps += [[("apply", n), *([("reverse", n)] if draw(st.booleans()) else [])] for n in range(len(acts))]
    told: list[Any] = []
    while steps:
        chain = draw(st.sampled_from(steps))
        told.append(chain.pop(0))
        steps = [s for s in steps if s]
    return told, acts


@given(stories(), rules)
@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_books_are_what_would_be_built_anew(world: World, story: Any, policy: Policy) -> None:
    from brokers import queries

    queries.forget_cache()
    steps, acts = story
    end = at(DAYS + 1)
    with transaction.atomic():
        LotPolicy.objects.create(
            account_id=world.account, since=date.min, method=policy.method, wash_sales=policy.wash_sales
        )
        made: dict[int, Any] = {}
        for step in steps:
            if isinstance(step, Fill):
                booking.book([here(world, step)], at=end)
                continue
            what, number = step
            if what == "apply":
                terms = {k: v for k, v in acts[number].items() if k not in ("day", "target")}
                more = {"target": "MSFT"} if acts[number].get("target") else {}
                told = Announcement(symbol="AAPL", ex_date=at(acts[number]["day"]).date(), **terms, **more)
                try:
                    action = corporate.announce.__wrapped__(told, actor=ACTOR, at=end)
                except Conflict:
                    continue
                made[number] = action
                corporate.apply(action.pk, actor=ACTOR, at=end)
            elif number in made:
                corporate.reverse.__wrapped__(made[number].pk, reason="x", actor=ACTOR, at=end)
        assert {n: r for n, r in rebuilding.differences().items() if r} == {}
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for name, statement in invariants.PREDICATES.items():
                cursor.execute(statement)
                assert (name, cursor.fetchall()) == (name, [])
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        transaction.set_rollback(True)


def here(world: World, fill: Fill) -> Fill:
    return replace(
        fill, account_id=world.account, broker_id=world.brokers[fill.broker_id], instrument_id=world.instruments[fill.instrument_id],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh() -> None:
    from brokers import queries

    queries.forget_cache()
