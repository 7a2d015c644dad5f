"""The whole desk on a clock of its own, many seeds: every one ends clean, each again as before, and what is wrong is found."""

from collections.abc import Iterator
from typing import Any

import pytest

from brokers.adapters.port import Outcome
from brokers.models import Broker
from oms.simulating import Simulation, furnish, parse_faults, world
from oms.simulating.databases import Databases
from orders import operations as desk
from orders.operations import sending
from risk.models import Limit

SEEDS, ORDERS = 25, 30


@pytest.fixture(scope="module")
def databases(django_db_setup: Any, django_db_blocker: Any) -> Iterator[Databases]:
    """A template and what makes copies of it."""
    with django_db_blocker.unblock(), Databases(furnish).ready() as made:
        yield made


@pytest.fixture
def run(databases: Databases, django_db_blocker: Any) -> Any:
    """Run one seed in a database of its own."""

    def one(seed: int, faults: str = "all", orders: int = ORDERS) -> dict[str, Any]:
        with django_db_blocker.unblock(), databases.fresh():
            return Simulation(seed=seed, orders=orders, faults=parse_faults(faults)).run()

    return one


def test_every_seed_ends_with_nothing_lost_nothing_twice_and_all_rules_kept(run: Any) -> None:
    """Kills, frozen processes, outages, silence, halts and every lie at once; a failure is played again by its seed."""
    told = [run(seed) for seed in range(1, SEEDS + 1)]
    assert {t["seed"]: t["wrong"] for t in told if t["wrong"]} == {}
    happened = {name for t in told for name in t["happened"]}
    assert {"killed: sender", "killed: gateway", "frozen", "outage", "silence", "halts", "correct"} <= happened
    assert sum(t["resolved_by_asking"] for t in told) > SEEDS
    assert sum(t["executions"] for t in told) > 10 * SEEDS


def test_the_same_seed_ends_in_the_same_books(run: Any) -> None:
    first, second = ({k: v for k, v in run(3).items() if k != "seconds"} for _ in range(2))
    assert first == second


def test_a_desk_that_loses_fills_is_found_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = desk.apply

    def forgetful(broker_id: int, reports: list[Any], **more: Any) -> int:
        return apply(broker_id, [r for n, r in enumerate(reports) if r.kind != "trade" or n % 3], **more)

    monkeypatch.setattr(world.desk, "apply", forgetful)
    monkeypatch.setattr("oms.simulating.DRAIN_STEPS_MAX", 5)
    wrong = run(3, "none")["wrong"]
    assert wrong["executions_lost"]
    assert wrong["positions_apart"]


def test_a_desk_that_sends_again_blindly_is_found_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that did not come is no proof that the order didn't arrive."""
    honest = sending._next_state

    def blind(claimed: Any, answer: Any, at: Any) -> Any:
        state, due = honest(claimed, answer, at)
        return (sending.SubmissionState.PREPARED, due) if answer.outcome is Outcome.UNKNOWN else (state, due)

    monkeypatch.setattr(sending, "_next_state", blind)
    wrong = [run(seed, "drop_reply=0.3")["wrong"] for seed in (1, 2)]
    assert any("orders_at_a_broker_twice" in w for w in wrong)


def test_a_run_leaves_the_test_s_own_database_as_it_was(run: Any, db: None) -> None:
    assert not Broker.objects.exists()
    assert not Limit.objects.exists()
