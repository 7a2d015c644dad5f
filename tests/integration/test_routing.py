"""Routing on a desk: what outcomes teach, weights of two persons, exploring by a seed, large orders shared."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from analytics import operations as analytics
from brokers import queries as brokers
from brokers.models import BrokerHealth, BrokerSession, FeeSchedule, Quote
from oms.kernel.errors import Conflict, Forbidden
from orders.models import ChildOrder
from routing import operations, policies, queries
from routing.models import BrokerScore, RouteOutcome, RoutingDecision
from tests.conftest import Desk


@pytest.fixture
def near(desk: Desk) -> Desk:
    """A desk whose brokers are both there and cost the same."""
    for broker in brokers.brokers().values():
        BrokerSession.objects.update_or_create(broker_id=broker.id, defaults={"connected": True})
    BrokerHealth.objects.all().delete()
    return desk


def traded(desk: Desk, number: int, price: str, code: str = "NEAR") -> Any:
    """Send a directed order and fill it; return what was placed."""
    [placed] = desk.place("buy 10 AAPL", broker=code)
    desk.send(code)
    venue = desk.near if code == "NEAR" else desk.far
    told = {"execution_id": f"E{number}", "last_quantity": Decimal(10), "last_price": Decimal(price)}
    desk.report(venue.report("trade", venue.sent[-1], **told, executed_at=datetime.now(UTC)), code=code)
    return placed


def measure() -> None:
    analytics.measure(at=datetime.now(UTC) + timedelta(seconds=1))
    queries.forget()


def explore(desk: Desk, share: str = "0.5") -> None:
    row = operations.propose_weights(
        {"explore_share": share, "explore_bps": "50"}, reason="try", actor=desk.actor(desk.oona), at=desk.at
    )
    operations.promote_weights(row.version, actor=desk.actor(desk.omar), at=desk.at)


class TestLearning:
    def test_what_fills_cost_moves_later_orders_elsewhere(self, near: Desk) -> None:
        [first] = near.place("buy 10 AAPL")
        assert ChildOrder.objects.get(order_id=first.order_id).broker.code == "FAR"  # equal: by code
        for n in range(12):
            traded(near, n, "100.11", "FAR")
        measure()
        [row] = [r for r in queries.scores_out(at=near.at) if r["broker"] == "FAR" and r["symbol"] is None]
        assert row["cost_bps"] > 3
        assert row["low_bps"] < row["cost_bps"] < row["high_bps"]
        [later] = near.place("buy 10 AAPL")
        assert ChildOrder.objects.get(order_id=later.order_id).broker.code == "NEAR"
        [decision] = queries.decisions_of(later.order_id)
        far = next(c for c in decision["candidates"] if c["broker"] == "FAR")
        assert Decimal(far["parts"]["learned"]) > 3
        assert far["orders"] == pytest.approx(12, abs=0.5)

    def test_each_outcome_teaches_once(self, near: Desk) -> None:
        traded(near, 1, "100.03")
        measure()
        before = list(BrokerScore.objects.order_by("id").values())
        measure()
        analytics.rebuild(at=datetime.now(UTC))
        assert list(BrokerScore.objects.order_by("id").values()) == before
        assert RouteOutcome.objects.count() == 1
        assert len(before) == 4

    def test_a_decision_shows_what_it_came_to(self, near: Desk) -> None:
        placed = traded(near, 1, "100.03")
        measure()
        [decision] = queries.decisions_of(placed.order_id)
        assert decision["outcome"]["cost_bps"] == pytest.approx(3.0, abs=0.1)


class TestWeights:
    def test_it_takes_two_persons_and_rolls_back(self, near: Desk) -> None:
        oona, omar = near.actor(near.oona), near.actor(near.omar)
        first = operations.propose_weights({"ms_bps": "0.01"}, reason="slow brokers cost more", actor=oona, at=near.at)
        with pytest.raises(Forbidden):
            operations.promote_weights(first.version, actor=oona, at=near.at)
        operations.promote_weights(first.version, actor=omar, at=near.at)
        with pytest.raises(Conflict):
            operations.promote_weights(first.version, actor=omar, at=near.at)
        second = operations.propose_weights({"miss_bps": "20"}, reason="misses cost more", actor=oona, at=near.at)
        operations.promote_weights(second.version, actor=omar, at=near.at)
        assert queries.weights()[1].as_json() | {"miss_bps": "10"} == first.values
        operations.promote_weights(first.version, actor=omar, at=near.at)
        assert queries.weights()[0] == first.version
        near.place("buy 10 AAPL")
        assert RoutingDecision.objects.get().weights_version == first.version

    def test_by_the_api(self, near: Desk) -> None:
        client = APIClient()
        client.force_authenticate(near.oona)
        body = {"values": {"explore_share": "0.9"}, "reason": "all of it"}
        assert (
            client.post("/api/v1/routing/weights", body, format="json").json()["errors"][0]["field"] == "explore_share"
        )
        body["values"] = {"explore_share": "0.05"}
        told = client.post("/api/v1/routing/weights", body, format="json").json()
        assert client.post(f"/api/v1/routing/weights/{told['version']}/promote").json()["code"] == "same_person"
        client.force_authenticate(near.alice)
        assert client.post(f"/api/v1/routing/weights/{told['version']}/promote").status_code == 403
        client.force_authenticate(near.omar)
        assert client.post(f"/api/v1/routing/weights/{told['version']}/promote").json()["status"] == "active"
        assert [w["version"] for w in client.get("/api/v1/routing/weights").json()["results"]] == [told["version"], 0]
        assert client.get("/api/v1/routing/beliefs").json()["results"] == []
        assert client.get("/api/v1/routing/comparison").json()["results"][0]["policy"] == "as it was"


class TestExploring:
    def test_it_goes_elsewhere_now_and_then_and_tells_the_chance(self, near: Desk) -> None:
        explore(near)
        near.place(*[f"buy {n + 1} AAPL" for n in range(40)])
        decisions = list(RoutingDecision.objects.all())
        assert 0 < sum(d.explored for d in decisions) < 30
        for decision in decisions:
            chances = [c["propensity"] for c in decision.candidates]
            assert sum(chances) == pytest.approx(1.0, abs=1e-5)
            assert decision.seed is not None
        assert all(c["drawn_bps"] is not None for d in decisions if d.explored for c in d.candidates)

    def test_the_same_order_is_decided_the_same_again(self, near: Desk) -> None:
        explore(near)
        near.place(*[f"buy {n + 1} AAPL" for n in range(10)])
        for decision in RoutingDecision.objects.all():
            again = queries.replayed(decision, 0.5)
            assert again == next(c["broker"] for c in decision.candidates if c["quantity"] != "0")

    def test_other_policies_are_held_against_it(self, near: Desk) -> None:
        explore(near, "0.5")
        for n in range(6):
            traded(near, n, "100.02", ("NEAR", "FAR")[n % 2])
        measure()
        now = datetime.now(UTC)
        rows = {
            r["policy"]: r["estimate"] for r in policies.compared(now - timedelta(hours=1), now + timedelta(hours=1))
        }
        assert set(rows) == {"as it was", *policies.POLICIES}
        assert rows["as it was"]["orders"] == 6


class TestSplitting:
    def test_what_takes_more_than_is_displayed_goes_to_both(self, near: Desk) -> None:
        Quote.objects.update(bid_size=100, ask_size=100)
        [placed] = near.place("buy 5000 AAPL")
        children = ChildOrder.objects.filter(order_id=placed.order_id)
        assert sorted(c.quantity for c in children) == [2500, 2500]
        [decision] = queries.decisions_of(placed.order_id)
        assert [c["weight"] for c in decision["candidates"]] == ["0.5", "0.5"]
        near.holds()

    def test_fees_that_start_high_keep_it_whole(self, near: Desk) -> None:
        Quote.objects.update(bid_size=100, ask_size=100)
        for broker in brokers.brokers().values():
            FeeSchedule.objects.create(
                broker_id=broker.id, asset_class="equity", effective_from="2020-01-01",
                items=[{"kind": "commission", "basis": "per_order", "rate": "500"}],
            )  # fmt: skip
        brokers.forget_cache()
        [placed] = near.place("buy 200 AAPL")
        assert ChildOrder.objects.filter(order_id=placed.order_id).count() == 1

    def test_what_rests_stays_whole(self, near: Desk) -> None:
        Quote.objects.update(bid_size=100, ask_size=100)
        [placed] = near.place("buy 5000 AAPL limit 99.98")
        assert ChildOrder.objects.filter(order_id=placed.order_id).count() == 1
