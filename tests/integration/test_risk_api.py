"""Risk from outside: roles, bodies and answers, the commands, and a halt that stops what waits to be sent."""

import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from rest_framework.test import APIRequestFactory, force_authenticate

from oms.kernel.actor import Actor
from oms.kernel.ids import uuid7
from orders import operations
from orders.api.halts import Halts
from orders.api.manual import Approvals
from orders.models import Submission
from risk import api
from risk.models import Halt, Limit
from tests.conftest import Desk, ticket


def call(view: Any, method: str, user: Any, body: object = None, query: str = "", **path: str) -> tuple[int, Any]:
    """Call a view as a user; return status and decoded body."""
    request = getattr(APIRequestFactory(), method)(f"/x{query}", *([body] if body is not None else []), format="json")
    force_authenticate(request, user)
    answer = view.as_view()(request, **path)
    answer.render()
    return answer.status_code, json.loads(answer.content)


@pytest.fixture
def rolf(desk: Desk, django_user_model: Any) -> Any:
    """A second risk officer."""
    user = django_user_model.objects.create_user("rolf")
    user.groups.add(*desk.rita.groups.all())
    return user


LIMIT = {"scope": {"account": "MAIN"}, "kind": "order_quantity", "value": "5", "reason": "calm"}


class TestLimits:
    def test_a_trader_is_refused_before_the_body_is_read(self, desk: Desk) -> None:
        status, body = call(api.Limits, "post", desk.alice, {"nonsense": 1})
        assert (status, body["code"]) == (403, "role_required")

    def test_a_new_limit_is_proposed_then_approved_by_another(self, desk: Desk, rolf: Any) -> None:
        status, limit = call(api.Limits, "post", desk.rita, LIMIT)
        assert (status, limit["status"], limit["scope"], limit["value"]) == (201, "proposed", {"account": "MAIN"}, "5")
        _, waiting = call(Approvals, "get", rolf)
        assert [a["status"] for a in waiting["results"]] == ["pending"]

        decision = {"object": limit["id"], "decision": "approve", "reason": "fine"}
        assert call(Approvals, "post", desk.rita, decision)[1]["code"] == "approver_is_maker"
        changed = decision | {"content_hash": "0" * 64}
        assert call(Approvals, "post", rolf, changed)[1]["code"] == "content_changed"
        seen = decision | {"content_hash": waiting["results"][0]["content_hash"]}
        status, approval = call(Approvals, "post", rolf, seen)
        assert (status, approval["status"], approval["approver"]) == (200, "approved", "rolf")
        desk.later(30)  # the limit holds from the time of its approval on
        [placed] = desk.place("buy 6 AAPL")
        assert desk.order(placed).reason == "quantity_limit"

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"value": 5}, "not_a_decimal_string"),
            ({"value": "NaN"}, "not_a_decimal"),
            ({"value": "-1"}, "out_of_range"),
            ({"kind": "height"}, "invalid_choice"),
            ({"scope": {"planet": "x"}}, "not_a_scope"),
            ({"scope": {"account": "NONE"}}, "unknown_account"),
            ({"currency": "USD"}, "not_allowed"),
            ({"soft": True, "kind": "quote_age"}, "not_allowed"),
            ({"effective_from": "soon"}, "invalid"),
            ({"scope": {"group": "NONE"}}, "unknown_group"),
            ({"extra": 1}, "unknown_field"),
            ({"reason": ""}, "blank"),
        ],
    )
    def test_what_is_wrong_is_told_by_field(self, desk: Desk, change: dict[str, Any], code: str) -> None:
        status, body = call(api.Limits, "post", desk.rita, LIMIT | change)
        assert (status, body["code"]) == (400, code)
        assert next(iter(change)) in body["errors"][0]["field"]
        assert Limit.objects.count() == 3

    def test_pages_walk_all_limits_once(self, desk: Desk) -> None:
        _, first = call(api.Limits, "get", desk.alice, query="?limit=2")
        _, second = call(api.Limits, "get", desk.alice, query="?" + first["next"].partition("?")[2])
        assert second["next"] is None
        assert len({x["id"] for x in first["results"] + second["results"]}) == 3

    def test_an_unknown_approval_is_not_found(self, desk: Desk) -> None:
        decision = {"object": "0193a000-0000-7000-8000-000000000000", "decision": "approve", "reason": "x"}
        assert call(Approvals, "post", desk.rita, decision)[0] == 404


class TestWhoSeesWhat:
    def test_balances_add_what_open_orders_hold(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 100")
        status, body = call(api.Balances, "get", desk.alice, code="MAIN")
        [row] = body["results"]
        assert (status, row["ledger"], row["held"], row["available"]) == (200, "1000000", "1000", "999000")

    def test_an_account_not_granted_is_not_there(self, desk: Desk) -> None:
        assert call(api.Balances, "get", desk.otto, code="MAIN")[0] == 404
        assert call(api.Exposures, "get", desk.otto, query="?account=MAIN")[0] == 404
        assert call(api.Exposures, "get", desk.otto)[1]["results"] == []

    def test_exposure_of_a_granted_account(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 100")
        _, body = call(api.Exposures, "get", desk.alice)
        assert [(r["kind"], r["headroom"]) for r in body["results"]] == [
            ("position", "99990"),
            ("buying_power", "999000"),
        ]


class TestHalts:
    def test_e03_a_halt_cancels_what_is_open_and_stops_what_comes(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 90")
        status, halt = call(Halts, "post", desk.rita, {"scope": {"all": True}, "mode": "halt", "reason": "storm"})
        assert (status, halt["scope"], halt["canceled"]) == (201, {"all": True}, 1)
        assert desk.order(placed).status == "canceled"
        [after] = desk.place("buy 10 AAPL limit 90")
        assert desk.order(after).reason == "halted"
        desk.holds()

    def test_reduce_only_cancels_nothing_unless_asked(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 90")
        body = {"scope": {"account": "MAIN"}, "mode": "reduce_only", "reason": "storm"}
        assert call(Halts, "post", desk.rita, body)[1]["canceled"] == 0
        assert call(Halts, "post", desk.rita, body | {"cancel_open": True})[1]["canceled"] == 1

    @pytest.mark.parametrize(
        ("scope", "sent"),
        [
            ({"all": True}, 0),
            ({"account": "MAIN"}, 0),
            ({"broker": "NEAR"}, 0),
            ({"broker": "FAR"}, 1),
            ({"symbol": "AAPL"}, 0),
            ({"symbol": "MSFT"}, 1),
            ({"user": "alice"}, 0),
            ({"user": "otto"}, 1),
        ],
        ids=str,
    )
    def test_what_waits_to_be_sent_is_not_claimed(self, desk: Desk, scope: dict[str, Any], sent: int) -> None:
        desk.place("buy 10 AAPL")
        body = {"scope": scope, "mode": "halt", "cancel_open": False, "reason": "storm"}
        assert call(Halts, "post", desk.rita, body)[0] == 201
        assert desk.send() == sent
        assert Submission.objects.filter(state="prepared").count() == 1 - sent

    @pytest.mark.parametrize(("mode", "sides"), [("reduce_only", ["sell"]), ("halt", [])])
    def test_reduce_only_lets_go_what_reduces(self, desk: Desk, mode: str, sides: list[str]) -> None:
        desk.place("buy 10 AAPL")
        desk.send()
        [sent] = desk.near.sent
        fill = {"execution_id": "E1", "last_quantity": Decimal(10), "last_price": Decimal(100), "executed_at": desk.at}
        desk.report(desk.near.report("new", sent), desk.near.report("trade", sent, **fill))
        desk.place("buy 5 AAPL", "sell 5 AAPL")
        desk.near.sent.clear()
        body = {"scope": {"all": True}, "mode": mode, "cancel_open": False, "reason": "storm"}
        assert call(Halts, "post", desk.rita, body)[0] == 201
        assert desk.send() == len(sides)
        assert [order.side for order in desk.near.sent] == sides
        desk.holds()

    def test_a_cancel_passes_a_halt(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL limit 90")
        desk.send()
        [order] = desk.near.sent
        desk.report(desk.near.report("new", order))
        assert (
            call(Halts, "post", desk.rita, {"scope": {"all": True}, "mode": "halt", "reason": "storm"})[1]["canceled"]
            == 1
        )
        assert desk.order(placed).status == "pending_cancel"
        assert desk.send() == 1

    def test_release_by_another_person(self, desk: Desk, rolf: Any) -> None:
        halt = call(Halts, "post", desk.rita, {"scope": {"all": True}, "mode": "halt", "reason": "storm"})[1]
        assert (
            call(api.HaltRelease, "post", desk.rita, {"reason": "calm"}, id=halt["id"])[1]["code"]
            == "approver_is_maker"
        )
        status, released = call(api.HaltRelease, "post", rolf, {"reason": "calm"}, id=halt["id"])
        assert (status, released["released_by"]) == (200, "user:rolf")
        assert call(api.HaltRelease, "post", rolf, {"reason": "calm"}, id=halt["id"])[0] == 409
        assert call(api.HaltRelease, "post", rolf, {"reason": "calm"}, id="nonsense")[0] == 404
        assert call(Halts, "get", desk.alice, query="?engaged=true")[1]["results"] == []


class TestEnabling:
    BODY = {"strategy": "carry", "account": "MAIN", "reason": "looked at it"}

    def test_a_throttled_strategy_goes_on_when_a_person_says_so(self, desk: Desk) -> None:
        from portfolio.models import Strategy

        Strategy.objects.create(code="carry")
        assert call(api.StrategyEnable, "post", desk.rita, self.BODY)[1]["code"] == "nothing_counted"
        Limit.objects.create(
            id=uuid7(), scope_kind="strategy", scope_key="carry", kind="automated_runs", value=1, status="active",
            effective_from=desk.at, reason="x", created_at=desk.at,
        )  # fmt: skip
        program = Actor(f"user:{desk.alice.username}", desk.alice.pk, automated=True)

        def send() -> str:
            [placed] = operations.place([ticket("buy 1 AAPL", strategy="carry")], actor=program, at=desk.at)
            return str(desk.order(placed).reason)

        assert [send(), send()] == ["", "strategy_throttled"]
        assert call(api.StrategyEnable, "post", desk.alice, self.BODY)[0] == 403
        status, told = call(api.StrategyEnable, "post", desk.rita, self.BODY)
        assert (status, told["counted"]) == (200, "1")
        assert [send(), send()] == ["", "strategy_throttled"]
        desk.holds()

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"strategy": "none"}, "unknown_strategy"),
            ({"account": "NONE"}, "unknown_account"),
            ({"reason": " "}, "blank"),
        ],
    )
    def test_what_is_wrong_is_told(self, desk: Desk, change: dict[str, str], code: str) -> None:
        status, body = call(api.StrategyEnable, "post", desk.rita, self.BODY | change)
        assert (status, body["code"]) == (400, code)


class TestCommands:
    def run(self, *arguments: str) -> Any:
        out = StringIO()
        call_command(*arguments, "--json", stdout=out)
        return json.loads(out.getvalue())

    def test_halt_and_release(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 90")
        told = self.run("halt", "--scope", "account:MAIN", "--reason", "storm")
        assert (told["canceled"], told["halt"]["engaged_by"][:4]) == (1, "cli:")
        released = self.run("release_halt", told["halt"]["id"], "--as", "rita", "--reason", "calm")
        assert released["halt"]["released_by"] == "user:rita"

    def test_replay_judges_every_stored_verdict_again(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 90", "buy 10001 AAPL", "sell 1 AAPL", "buy 1 AAPL limit 200")
        told = self.run("risk", "replay")
        assert (told["judged"], told["count_differing"]) == (4, 0)
        with (
            connection.cursor() as cursor
        ):  # the rows are append-only: a forger would have to go round the trigger as well
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute("UPDATE risk_riskcheck SET approved = true, reason = '' WHERE reason = 'quantity_limit'")
            cursor.execute("SET LOCAL session_replication_role = origin")
        with pytest.raises(SystemExit) as ended:
            call_command("risk", "replay")
        assert ended.value.code == 1

    def test_a_dry_run_changes_nothing(self, desk: Desk) -> None:
        desk.place("buy 10 AAPL limit 90")
        assert self.run("halt", "--scope", "all", "--reason", "storm", "--dry-run")["open_orders"] == 1
        assert not Halt.objects.exists()

    @pytest.mark.parametrize(
        "more", [["--scope", "account:NONE"], ["--scope", "planet:X"], ["--scope", "all", "--as", "alice"]]
    )
    def test_what_can_not_be_done_ends_with_2(self, desk: Desk, more: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            call_command("halt", "--reason", "storm", *more)
        assert caught.value.returncode == 2


class TestAdmin:
    @pytest.fixture
    def officer(self, rolf: Any) -> Any:
        rolf.is_staff = rolf.is_superuser = True
        rolf.save()
        return rolf

    def request(self, user: Any, path: str = "/admin/") -> Any:
        from django.contrib.messages.storage.base import BaseStorage
        from django.test import RequestFactory

        class Told(BaseStorage):
            def _get(self, *args: Any, **kwargs: Any) -> Any:
                return [], True

            def _store(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
                return []

        request = RequestFactory().get(path)
        request.user = user
        request._messages = Told(request)
        return request

    def test_a_second_officer_approves_by_action_and_the_maker_can_not(self, desk: Desk, officer: Any) -> None:
        from django.contrib import admin

        limit = call(api.Limits, "post", desk.rita, LIMIT)[1]
        page = admin.site._registry[Limit]
        rows = Limit.objects.filter(pk=limit["id"])
        page.approve(self.request(desk.rita), rows)
        assert rows.get().status == "proposed"
        page.approve(self.request(officer), rows)
        assert rows.get().status == "active"

    def test_nobody_edits_limits_or_verdicts_in_the_admin(self, officer: Any) -> None:
        from django.contrib import admin

        for model in (Limit, Halt):
            page, request = admin.site._registry[model], self.request(officer)
            assert not page.has_add_permission(request)
            assert not page.has_change_permission(request)

    def test_a_restriction_is_journalled(self, desk: Desk, officer: Any) -> None:
        from django.contrib import admin

        from brokers.models import Instrument
        from oms.journal.models import Event
        from risk.models import RestrictedInstrument

        entry = RestrictedInstrument(instrument=Instrument.objects.get(symbol="AAPL"), since=desk.at, reason="results")
        admin.site._registry[RestrictedInstrument].save_model(self.request(officer), entry, None, False)
        assert Event.objects.get(kind="instrument.restricted").actor == "user:rolf"
        assert desk.order(desk.place("buy 1 AAPL")[0]).reason == "restricted"
