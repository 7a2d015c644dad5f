"""Trade confirmations: matched to executions within tolerance, what differs is a break, and no execution ever changes."""

import json
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from brokers import queries
from brokers.models import Broker
from oms.kernel.actor import Actor
from oms.kernel.errors import Invalid
from orders.models import Confirmation, Execution
from orders.operations import manual, resolving
from orders.operations.confirming import BadFile, Confirmed, confirm_answers, confirm_file, unconfirmed
from portfolio.models import Break
from tests.flows.floor import Floor

HEAD = "section,account,symbol,side,quantity,price,fees,amount,reference,order_reference,at,settles\n"
OPS = Actor.system("test")


@pytest.fixture
def traded(floor: Floor) -> Floor:
    """Two executions at NEAR: 10 of one order, 4 and 6 of another."""
    floor.place("buy 10 AAPL")
    floor.turn(1)
    floor.place("sell_short 10 AAPL limit 101")
    floor.turn(1)
    order = floor.at_venue()[-1]
    floor.near.fill(order, Decimal(4), Decimal(101), floor.at)
    floor.near.fill(order, Decimal(6), Decimal("101.5"), floor.at)
    floor.turn(1)
    assert Execution.objects.count() == 3
    return floor


def line(execution: Execution, **other: Any) -> str:
    """Return what a broker that agrees would write of an execution; `other` is where it doesn't."""
    net = execution.quantity * execution.price
    told = {
        "section": "fill", "account": "A1", "symbol": "AAPL", "side": execution.side, "quantity": execution.quantity,
        "price": execution.price, "fees": "0", "amount": net, "reference": execution.broker_execution_id,
        "order_reference": "", "at": execution.executed_at.isoformat(), "settles": execution.settle_date,
    } | other  # fmt: skip
    return ",".join(str(told[name]) for name in HEAD.strip().split(",")) + "\n"


def confirm(floor: Floor, *lines: str) -> Confirmed:
    return confirm_file((HEAD + "".join(lines)).encode(), broker="NEAR", name="near.csv", actor=OPS, at=floor.at)


def executions() -> list[Execution]:
    return list(Execution.objects.order_by("executed_at", "id"))


def test_each_execution_is_confirmed_by_a_row_of_its_own(traded: Floor) -> None:
    before = list(Execution.objects.order_by("id").values())
    done = confirm(traded, *map(line, executions()))
    assert (done.matched, done.mismatched, done.unknown, done.breaks) == (3, 0, 0, [])
    assert set(Confirmation.objects.values_list("state", flat=True)) == {"matched"}
    assert confirm(traded, *map(line, executions())).matched == 3  # once more: the same rows
    assert Confirmation.objects.count() == 3
    assert list(Execution.objects.order_by("id").values()) == before
    assert unconfirmed(Broker.objects.get(code="NEAR").pk, since=traded.at - timedelta(days=1), until=traded.at) == []
    traded.agrees()


@pytest.mark.parametrize(
    ("other", "name", "cause"),
    [
        ({"price": "100.02"}, "price", "terms"),
        ({"quantity": "11"}, "quantity", "terms"),
        ({"side": "sell"}, "side", "terms"),
        ({"fees": "1.25"}, "fees", "fees"),
        ({"amount": "1000.2"}, "net", "fees"),
        ({"settles": "2031-01-02"}, "settles", "terms"),
    ],
)
def test_what_differs_is_a_break_until_the_broker_agrees(
    traded: Floor, other: dict[str, str], name: str, cause: str
) -> None:
    first = executions()[0]
    done = confirm(traded, line(first, **other))
    assert (done.matched, done.mismatched) == (0, 1)
    [row] = Break.objects.all()
    assert (row.kind, row.subject, row.cause, row.state) == ("confirmation", first.broker_execution_id, cause, "open")
    assert name in row.detail["differences"]
    assert Confirmation.objects.get().state == "mismatched"
    confirm(traded, line(executions()[1]))  # says nothing of it: it stands
    assert Break.objects.get().state == "open"
    assert confirm(traded, line(first)).closed == 1
    assert (Break.objects.get().state, Break.objects.get().closed_as) == ("closed", "gone")
    assert set(Confirmation.objects.values_list("state", flat=True)) == {"matched"}
    traded.agrees()


def test_what_is_within_the_broker_s_tolerance_is_confirmed(traded: Floor) -> None:
    first = executions()[0]
    near = Broker.objects.get(code="NEAR")
    near.settings = near.settings | {"reconcile": {"price": "0.05", "cash": "1"}}
    near.save()
    queries.forget_cache()
    assert confirm(traded, line(first, price=first.price + Decimal("0.04"))).matched == 1
    assert confirm(traded, line(first, price=first.price + Decimal("0.06"))).mismatched == 1


def test_an_order_is_confirmed_at_its_average_price(traded: Floor) -> None:
    """One record for two executions: each gets a row."""
    _, four, six = executions()
    order = six.child.broker_order_id
    average = {"quantity": "10", "price": "101.3", "amount": "1013", "reference": "ALLOC-1", "order_reference": order}
    assert confirm(traded, line(six, **average)).matched == 1
    assert {c.execution_id for c in Confirmation.objects.all()} == {four.pk, six.pk}
    assert confirm(traded, line(six, **average | {"price": "101.4", "amount": "1014"})).mismatched == 1
    assert Break.objects.get().subject == "ALLOC-1"
    ours = average | {"order_reference": six.child.client_order_id}
    assert ours["order_reference"] != order
    assert confirm(traded, line(six, **ours)).matched == 1


def test_a_trade_that_nobody_here_knows_and_one_that_was_busted(traded: Floor) -> None:
    first = executions()[0]
    done = confirm(traded, line(first, reference="NEVER-1"))
    assert (done.unknown, Break.objects.get().cause, Break.objects.get().ours) == (1, "not_booked", None)
    assert not Confirmation.objects.exists()
    traded.near.bust(first.broker_execution_id, traded.at)
    traded.turn(1)
    assert confirm(traded, line(first)).mismatched == 1
    assert Break.objects.filter(cause="busted").count() == 1


def test_a_correction_is_confirmed_and_not_what_it_took_the_place_of(traded: Floor) -> None:
    first = executions()[0]
    traded.near.correct(first.broker_execution_id, None, Decimal("99.5"), traded.at)
    traded.turn(1)
    corrected = Execution.objects.get(kind="correct")
    assert confirm(traded, line(first, price="99.5", amount="995")).matched == 1  # under the first name
    assert Confirmation.objects.get().execution_id == corrected.pk
    assert confirm(traded, line(corrected)).matched == 1
    assert Confirmation.objects.count() == 1


def test_a_broker_confirms_by_what_it_answers(traded: Floor) -> None:
    near = traded.world.broker("NEAR")
    first = executions()[0]
    traded.near.bust(first.broker_execution_id, traded.at)
    traded.turn(1)
    done = confirm_answers(near, since=traded.at - timedelta(days=1), actor=OPS, at=traded.at)
    assert (done.matched, done.mismatched, done.unknown) == (2, 0, 0)
    assert Confirmation.objects.count() == 2


def test_a_person_accepts_what_may_stand(traded: Floor) -> None:
    first = executions()[0]
    confirm(traded, line(first, fees="1.25"))
    row = Break.objects.get()
    maker, checker = (traded.desk.actor(p) for p in (traded.desk.oona, traded.desk.omar))
    approval = resolving.propose(row.pk, "accept", reason="billed monthly", actor=maker, at=traded.at)
    manual.decide(approval.object_id, "approve", reason="right", actor=checker, at=traded.at)
    assert Break.objects.get().state == "resolved"
    confirm(traded, line(first, fees="1.25"))
    assert Break.objects.get().state == "resolved"


def test_bad_lines_are_told_and_nothing_is_taken(traded: Floor) -> None:
    first = executions()[0]
    for other in ({"settles": "soon"}, {"quantity": "NaN"}, {"symbol": "NOPE"}, {"price": "=1+1"}):
        with pytest.raises(BadFile):
            confirm(traded, line(first), line(executions()[1], **other))
    with pytest.raises(Invalid):
        confirm_file(b"", broker="NEAR", name="x", actor=OPS, at=traded.at)
    assert not Confirmation.objects.exists()


def test_the_command_tells_what_differs_and_what_was_never_confirmed(traded: Floor, tmp_path: Path) -> None:
    file = tmp_path / "near.csv"
    file.write_text(HEAD + "".join(map(line, executions())))

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        out, code = StringIO(), 0
        try:
            call_command("confirm_trades", *arguments, "--broker", "NEAR", "--json", stdout=out)
        except SystemExit as end:
            code = int(str(end.code))
        return code, json.loads(out.getvalue())

    code, told = run(str(file))
    assert (code, told["matched"], told["unconfirmed"]) == (0, 3, [])
    file.write_text(HEAD + line(executions()[0], price="1"))
    code, told = run(str(file))
    assert (code, told["mismatched"], len(told["breaks"])) == (1, 1, 1)
    code, told = run(str(file), "--dry-run")
    assert (code, told["dry_run"]) == (0, True)
    file.write_text(HEAD + line(executions()[0], quantity="x"))
    code, told = run(str(file))
    assert (code, told["bad_lines"]) == (1, 1)
