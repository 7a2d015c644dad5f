"""Lines that break, fall silent or repeat, and answers that are empty: what the desk knows survives them.

The ids are those of the catalogue of failures in docs/faults.md; C06 stands with the FIX session's tests.
"""

from collections.abc import Callable

from oms.kernel.actor import Actor
from orders.models import Execution
from orders.operations.reconciling import reconcile
from portfolio.models import Break, Position, Reconciliation
from tests.flows.floor import Floor


def test_c01_a_line_that_was_cut_during_many_fills_gives_all_of_them_when_it_is_back(floor: Floor) -> None:
    """Behind the stored cursor, within 10 s; until it is back nothing new is routed there."""
    floor.near.lies.gap = 0.3
    placed = floor.place(*["buy 1 AAPL"] * 50)
    floor.turn(1)
    floor.market("AAPL", "99.99", "100.01")
    placed += floor.place(*["buy 1 AAPL"] * 50)
    floor.send()  # they fill
    floor.world.lines["NEAR"].down = True
    floor.turn(3)
    floor.market("AAPL", "99.99", "100.01")
    [elsewhere] = floor.place("buy 1 AAPL")
    assert list(floor.children(elsewhere)) == ["FAR"]
    floor.world.lines["NEAR"].down = False
    floor.turn(10)
    assert {floor.order(p).status for p in placed} == {"filled"}
    assert Execution.objects.count() == 101
    floor.market("AAPL", "99.99", "100.01")
    [back] = floor.place("buy 1 AAPL")
    assert list(floor.children(back)) == ["NEAR"]
    floor.turn(2)
    floor.agrees()


def test_c02_a_line_that_is_open_and_silent_is_stale_within_six_seconds(floor: Floor) -> None:
    """No heartbeat: the broker is taken for gone, and the router leaves it out."""
    floor.near.lies.silence = True
    floor.turn(6.5)
    floor.market("AAPL", "99.99", "100.01")
    [placed] = floor.place("buy 1 AAPL")
    assert list(floor.children(placed)) == ["FAR"]
    floor.near.lies.silence = False
    floor.turn(2)
    floor.market("AAPL", "99.99", "100.01")
    [placed] = floor.place("buy 1 AAPL")
    assert list(floor.children(placed)) == ["NEAR"]


def test_c03_a_fill_in_the_answer_to_a_question_and_on_the_stream_counts_once(floor: Floor) -> None:
    floor.near.lies.drop_reply = 1.0
    [placed] = floor.place("buy 10 AAPL")
    floor.send()
    floor.turn(2, without=[floor.gateways["NEAR"]])  # the question is answered with all that happened
    assert floor.order(placed).status == "filled"
    floor.turn(2)  # and the stream tells it again
    assert (Execution.objects.count(), Position.objects.get().quantity) == (1, 10)
    floor.agrees()


def reconciled(floor: Floor) -> Reconciliation:
    return reconcile("NEAR", actor=Actor.system("reconciler"), clock=floor.world.clock)


def test_c04_reconciling_while_fills_are_in_flight_books_none_twice(open_floor: Callable[..., Floor]) -> None:
    """At every moment between a fill and its report: what a run adopts, the stream tells again, and it counts once."""
    floor = open_floor(partial_fill_rate=0.5, latency_ms={"fill": [400, 300]})
    quiet = [floor.gateways["NEAR"]]
    placed = []
    for _ in range(6):
        floor.market("AAPL", "99.99", "100.01")
        placed += floor.place("buy 5 AAPL", "sell_short 3 AAPL", "buy 2 AAPL limit 90")
        floor.turn(0.5, every=0.5, without=quiet)
        assert reconciled(floor).state == Reconciliation.State.DONE
        floor.turn(0.5, every=0.5)
        assert reconciled(floor).state == Reconciliation.State.DONE
    floor.turn(5)
    floor.world.wait(600)
    assert reconciled(floor).state == Reconciliation.State.DONE
    assert not Break.objects.exclude(state="closed").exists()
    ids = list(Execution.objects.values_list("broker_execution_id", flat=True))
    assert len(ids) == len(set(ids))
    floor.agrees()


def test_c05_an_empty_answer_is_a_fault_and_not_a_flat_book(floor: Floor) -> None:
    """The broker says that nothing is held, owned or open: the run fails, nothing is booked, nothing is closed."""
    [filled, resting] = floor.place("buy 10 AAPL", "buy 5 AAPL limit 90")
    floor.turn(2)
    floor.world.wait(600)
    floor.near.lies.empty_lists = True
    run = reconciled(floor)
    assert (run.state, run.failure) == (Reconciliation.State.FAILED, "answer_empty")
    assert not Break.objects.exists()
    assert Position.objects.get().quantity == 10
    assert (floor.order(filled).status, floor.order(resting).status) == ("filled", "new")
    floor.near.lies.empty_lists = False
    assert reconciled(floor).state == Reconciliation.State.DONE
    floor.agrees()
