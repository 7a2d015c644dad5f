"""What made others lose fortunes in minutes: old code that still runs, words with a second meaning, more going out than came in."""

import json
import time
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import DataError, IntegrityError, transaction
from structlog.testing import capture_logs

from oms.kernel.errors import Refused
from oms.runtime import sql
from oms.runtime.build import build_id, hash_of
from orders.models import Build, ChildOrder, Order, Submission
from orders.operations import sending
from risk.models import Halt
from tests.conftest import Desk


class TestD13OldCode:
    def test_d13_a_worker_of_another_build_claims_nothing_and_says_so(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL")
        Build.objects.create(build="the-next-one", released_at=desk.at)
        sending._said.clear()
        with capture_logs() as lines:
            assert [desk.send(), desk.send()] == [0, 0]
        assert [line["event"] for line in lines] == ["fenced_out"]
        assert Submission.objects.get().state == "prepared"
        assert desk.near.sent == []
        Build.objects.create(build=build_id(), released_at=desk.at)
        assert desk.send() == 1
        desk.holds()

    def test_without_a_released_build_nothing_goes(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL")
        Build.objects.all().delete()
        assert desk.send() == 0

    def test_migrating_releases_the_build_that_does_it_and_a_second_time_nothing(self, desk: Desk) -> None:
        from orders.operations.building import release_build

        before = Build.objects.count()
        release_build()
        assert Build.objects.count() == before
        Build.objects.create(build="an-old-one", released_at=desk.at)
        release_build()
        assert Build.objects.order_by("-id").first().build == build_id()

    def test_a_line_of_code_makes_another_build(self, tmp_path: Any) -> None:
        (tmp_path / "orders").mkdir()
        code = tmp_path / "orders" / "x.py"
        code.write_text("a = 1\n")
        first = hash_of(tmp_path)
        code.write_text("a = 2\n")
        assert hash_of(tmp_path) != first

    def test_a_word_nobody_knows_stops_its_broker_and_is_not_guessed_at(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL")
        Submission.objects.update(kind="peg")
        with pytest.raises(KeyError):
            desk.send()
        assert desk.near.sent == []


class TestE08MoreOutThanIn:
    def test_e08_a_router_that_sends_four_times_as_much_is_refused_and_the_account_halted(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from routing import operations as routing

        plan = routing.plan

        def runaway(wanted: Any, *, at: Any) -> list[Any]:
            from dataclasses import replace

            return [replace(p, legs=[(b, q * 4) for b, q in p.legs]) for p in plan(wanted, at=at)]

        monkeypatch.setattr(routing, "plan", runaway)
        with pytest.raises(Refused, match="beyond_order"):
            desk.place("buy 10 AAPL")
        assert not Order.objects.exists()
        [halt] = Halt.objects.all()
        assert (halt.scope_kind, halt.scope_key, halt.mode) == ("account", "MAIN", "halt")
        monkeypatch.setattr(routing, "plan", plan)
        [placed] = desk.place("buy 10 AAPL")
        assert desk.order(placed).reason == "halted"
        assert desk.send() == 0

    def test_e08_a_message_that_asks_for_more_than_its_order_is_refused_whoever_wrote_it(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from orders.operations import placing

        made = placing.NewOrder
        monkeypatch.setattr(placing, "NewOrder", lambda **f: made(**f | {"quantity": f["quantity"] * 4}))
        with pytest.raises(Refused, match="beyond_order"):
            desk.place("buy 10 AAPL")
        assert not Submission.objects.exists()
        assert Halt.objects.filter(released_at=None).exists()

    @pytest.mark.parametrize(
        "changed",
        [{"quantity": "11"}, {"side": "sell"}, {"quantity": None}, {"quantity": "NaN"}],
    )
    def test_the_database_compares_each_message_with_its_order(self, desk: Desk, changed: dict[str, Any]) -> None:
        desk.place("buy 10 AAPL")
        [stored] = Submission.objects.all()
        sql.run("DELETE FROM orders_submission")
        with pytest.raises((IntegrityError, DataError)), transaction.atomic():
            _again(stored, json.dumps({**stored.message, **changed}))

    def test_a_replace_asks_for_no_more_than_risk_holds(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 90")
        [stored] = Submission.objects.all()
        stored.kind = "replace"
        _again(stored, json.dumps({**stored.message, "quantity": "10"}))
        with pytest.raises(IntegrityError, match="messages_within_order"), transaction.atomic():
            _again(stored, json.dumps({**stored.message, "quantity": "11"}))
        assert ChildOrder.objects.get(order_id=placed.order_id).quantity == Decimal(10)


def _again(stored: Submission, message: str) -> None:
    """Insert a submission like one that is there, with a message of its own, past all code of the desk."""
    columns = [f.attname for f in Submission._meta.concrete_fields]
    copied = ", ".join(columns)
    values = {f: getattr(stored, f) for f in columns}
    values |= {"id": uuid4(), "client_order_id": f"t{time.monotonic_ns()}", "message": message}
    values |= {n: json.dumps(v) for n, v in values.items() if isinstance(v, list | dict)}
    sql.run(
        f"INSERT INTO orders_submission ({copied}) VALUES ({', '.join(['%s'] * len(columns))})", list(values.values())
    )
