"""Commands as operators and programs use them: one object on request, a person named, exit codes that mean something."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from brokers.models import Broker
from oms.journal.models import Event
from oms.simulating import parse_faults
from tests.conftest import Desk

OURS = {"oms", "orders", "risk", "portfolio", "routing", "brokers", "analytics"}
READING = {"risk", "preflight", "check_invariants", "verify_audit", "route_explain", "tca_report", "drop_copy"}
PROCESSES = {"run_gateway", "run_pricer", "run_market"}
OWN_WORLD = {"simulate"}


def run(*command: str) -> dict[str, Any]:
    out = StringIO()
    call_command(*command, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def ours() -> Iterator[tuple[str, set[str]]]:
    for name, app in get_commands().items():
        if app in OURS:
            parser = load_command_class(app, name).create_parser("manage.py", name)
            yield name, {o for action in parser._actions for o in action.option_strings}


def test_every_command_tells_json_and_changes_nothing_on_a_dry_run() -> None:
    known = dict(ours())
    assert {"preflight", "backup", "restore", "route_explain", "simulate", "token", "halt"} <= set(known)
    for name, options in known.items():
        if name in PROCESSES - {"run_gateway"}:
            continue
        assert "--json" in options, name
        if name not in READING | PROCESSES:
            assert "--dry-run" in options, name
        if name not in READING | PROCESSES | OWN_WORLD:
            assert "--as" in options, name


class TestPreflight:
    def checks(self) -> tuple[int, dict[str, dict[str, Any]]]:
        out, code = StringIO(), 0
        try:
            call_command("preflight", "--json", stdout=out)
        except SystemExit as end:
            code = int(str(end.code))
        return code, {c["check"]: c for c in json.loads(out.getvalue())["checks"]}

    def test_what_is_missing_is_named(self, desk: Desk) -> None:
        code, found = self.checks()
        assert code == 1
        assert (found["people"]["ok"], found["people"]["detail"]) == (False, "admin has 0 of 1; risk has 1 of 2")
        assert found["schema"]["ok"]
        assert found["facts"]["ok"]
        assert found["postgresql"]["ok"]
        assert found["clock"]["ok"]
        assert found["limits"]["ok"]
        assert found["brokers"]["ok"], found["brokers"]

    def test_a_desk_without_limits_or_brokers_is_not_ready(self, desk: Desk) -> None:
        from risk.models import Limit

        Limit.objects.filter(kind="position").delete()
        Broker.objects.filter(code="FAR").update(adapter="telex")
        Broker.objects.filter(code="NEAR").update(enabled=False)
        from brokers import queries

        queries.forget_cache()
        _, found = self.checks()
        assert found["limits"]["detail"] == "nothing trades without: position of MAIN"
        assert found["brokers"]["detail"].startswith("FAR: These settings can't be used: no adapter named 'telex'")


class TestRouteExplain:
    def test_every_broker_is_told_with_its_cost_or_why_not(self, desk: Desk) -> None:
        [placed] = desk.place("buy 10 AAPL", client_order_id="mine", broker="FAR")
        by_id, by_name = run("route_explain", str(placed.order_id)), run("route_explain", "mine", "--account", "MAIN")
        assert by_id == by_name
        candidates = {c["broker"]: c["reasons"] for c in by_id["decisions"][0]["candidates"]}
        assert candidates == {"FAR": [], "NEAR": ["directed_elsewhere"]}
        out = StringIO()
        call_command("route_explain", "mine", stdout=out)
        assert "> FAR" in out.getvalue()
        assert "NEAR             no: directed_elsewhere" in out.getvalue()

    def test_an_order_that_is_not_there_can_not_be_explained(self, desk: Desk) -> None:
        with pytest.raises(CommandError) as missing:
            run("route_explain", "nothing")
        assert missing.value.returncode == 2


class TestToken:
    def test_a_token_is_printed_alone_and_journaled_without_it(self, desk: Desk) -> None:
        out = StringIO()
        call_command("token", "alice", stdout=out)
        assert len(out.getvalue().split()) == 1
        [event] = Event.objects.filter(kind="token.made")
        assert (event.object_id, out.getvalue().strip() in event.body) == ("alice", False)
        assert run("token", "alice", "--dry-run")["token"] is None
        for arguments in (("nobody",), ("alice", "--as", "alice")):
            with pytest.raises(CommandError) as refused:
                run("token", *arguments)
            assert refused.value.returncode == 2


class TestSimulate:
    @pytest.mark.parametrize(
        ("text", "rates"),
        [("none", {}), ("bust", {"bust": 0.02}), ("gap=0.5,bust=0", {"gap": 0.5, "bust": 0.0})],
    )
    def test_faults_are_read(self, text: str, rates: dict[str, float]) -> None:
        assert parse_faults(text) == rates

    @pytest.mark.parametrize("text", ["rain", "gap=2", "gap=x"])
    def test_unknown_faults_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"no fault|between|could not convert"):
            parse_faults(text)
