"""Compliance rules: dated, approved by a second person, judged before a trade and at the end of a day; and the drop copy."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from brokers.domain.reference import InstrumentRef
from oms.kernel.errors import Conflict, Forbidden, Invalid
from risk import operations as risk
from risk.domain.compliance import Found, Held, RuleRef, rule_of
from risk.domain.exposures import Holding
from risk.domain.replaying import replay
from risk.domain.scopes import Scope
from risk.models import ComplianceBreach, ComplianceRule, RiskCheck
from risk.queries import drop_copy, forget_rules
from tests.conftest import Desk
from tests.integration.test_account_rules import answers, fill, rolf
from tests.unit.test_risk_checks import STOCK, D, gate, holding, intent

__all__ = ["rolf"]


def ref(kind: str, parameters: dict[str, Any], severity: str = "block", scope: Scope = Scope("firm")) -> RuleRef:
    from uuid import UUID

    return RuleRef(UUID(int=1), kind, rule_of(kind, parameters), scope, "pre_trade", severity, "clause 1")


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "parameters", "passes", "fails", "more"),
        [
            ("issuer_share", {"single": "0.10"}, "buy 10 limit 100", "buy 11 limit 100", {}),
            ("issuer_share", {"single": "0.01"}, "sell 10 limit 100", "buy 2 limit 100", {"held": "10"}),
            ("ownership_cap", {"symbol": "AAPL", "outstanding": "100", "fraction": "0.05"}, "buy 5", "buy 6", {}),
            ("countries_barred", {"countries": ["KP"]}, "buy 1", None, {}),
            ("price_band", {"tier": 1, "symbols": ["AAPL"]}, "buy 1 limit 105", "buy 1 limit 105.01", {}),
            ("price_band", {"tier": 1, "symbols": ["MSFT"]}, "buy 1 limit 109", None, {}),
            ("short_price_test", {"symbols": ["AAPL"]}, "sell_short 1 limit 99", None, {}),
            (
                "short_price_test",
                {"symbols": ["AAPL"], "fallen": "0.005"},
                "sell_short 1 limit 100",
                "sell_short 1",
                {"open": "105"},
            ),
        ],
    )
    def test_at_the_limit_an_order_passes_and_past_it_not(
        self, kind: str, parameters: dict[str, Any], passes: str, fails: str | None, more: dict[str, str]
    ) -> None:
        for text in (passes, fails):
            if text is None:
                continue
            held = holding(STOCK, more["held"]) if "held" in more else {}
            made = gate(holdings=held, shortable={("", STOCK.id)}, compliance=[ref(kind, parameters)])
            if "open" in more:
                from dataclasses import replace

                made.facts.quotes = {k: replace(q, day_open=D(more["open"])) for k, q in made.facts.quotes.items()}
            verdict, _ = made.judge(intent(text))
            assert verdict.reason == ("" if text == passes else "compliance"), text
            assert replay(json.loads(json.dumps(verdict.checks)))[:2] == (verdict.approved, verdict.reason)

    def test_a_warning_passes_and_binds_only_its_scope(self) -> None:
        warned = ref("issuer_share", {"single": "0.01"}, "warn")
        verdict, _ = gate(compliance=[warned]).judge(intent("buy 10 limit 100"))
        assert verdict.approved
        assert [c["numbers"]["figure"] for c in verdict.checks if c["check"] == "compliance"] == ["0.1"]
        elsewhere = ref("issuer_share", {"single": "0.01"}, scope=Scope("user", "bob"))
        assert gate(compliance=[elsewhere]).judge(intent("buy 10 limit 100"))[0].approved

    def test_what_can_not_be_worked_out_is_denied_by_a_rule_that_blocks(self) -> None:
        made = gate(compliance=[ref("issuer_share", {"single": "0.5"})])
        made.facts.holdings[7, 3] = Holding(D(1))  # a coin without a price
        assert made.judge(intent("buy 1 limit 100"))[0].reason == "no_quote"

    def test_five_ten_forty(self) -> None:
        rule = rule_of("issuer_share", {"single": "0.10", "large": "0.05", "large_total": "0.40"})
        units = [8, 8, 8, 8, 8, 4, 11]
        held = {_stock(n): D(q) for n, q in enumerate(units)}
        found = rule.after(Held(held, lambda i, q: q, D(100), D(45)))
        assert found == [Found(D("0.11"), D("0.10"), 6), Found(D("0.51"), D("0.40"))]

    def test_cash_that_lacks(self) -> None:
        rule = rule_of("cash_reserve", {"least": "0.05"})
        assert rule.after(Held({}, lambda i, q: q, D(100), D(5))) == []
        assert rule.after(Held({}, lambda i, q: q, D(100), D(4))) == [Found(D("0.01"), D(0))]

    @pytest.mark.parametrize(
        ("kind", "parameters", "field"),
        [
            ("hunch", {}, "kind"),
            ("cash_reserve", {}, "parameters"),
            ("cash_reserve", {"least": "0.1", "most": "1"}, "parameters.most"),
            ("cash_reserve", {"least": "NaN"}, "parameters.least"),
            ("cash_reserve", {"least": 0.1}, "parameters.least"),
            ("countries_barred", {"countries": []}, "parameters.countries"),
            ("countries_barred", {"countries": "KP"}, "parameters.countries"),
            ("price_band", {"tier": 3, "symbols": ["AAPL"]}, "parameters.tier"),
            ("price_band", {"tier": True, "symbols": ["AAPL"]}, "parameters.tier"),
        ],
    )
    def test_parameters_that_make_no_rule_are_refused(self, kind: str, parameters: dict[str, Any], field: str) -> None:
        with pytest.raises(Invalid) as refused:
            rule_of(kind, parameters)
        assert refused.value.field == field


def _stock(pk: int) -> InstrumentRef:
    return InstrumentRef(pk, f"S{pk}", "equity", "", "USD", D("0.01"), D(1), 1, True)


def put(desk: Desk, rolf: Any, kind: str, parameters: dict[str, Any], **more: Any) -> ComplianceRule:
    """Set a rule of the firm, proposed by rita and approved by rolf."""
    terms: dict[str, Any] = {
        "scope": Scope("firm"), "context": "pre_trade", "severity": "block", "source": "house policy", "clause": "4.2",
        "effective_from": desk.at.date(),
    }  # fmt: skip
    asked = risk.propose_compliance_rule(
        kind, kind, parameters, **terms | more, reason="law", actor=desk.actor(desk.rita), at=desk.at
    )
    return risk.decide_compliance_rule(asked.id, "approve", reason="seen", actor=desk.actor(rolf), at=desk.at)


class TestOnADesk:
    def test_a_rule_holds_on_its_days_once_another_approves_and_breaches_are_kept(self, desk: Desk, rolf: Any) -> None:
        parameters = {"symbol": "AAPL", "outstanding": "1000", "fraction": "0.01"}
        rita = desk.actor(desk.rita)
        asked = risk.propose_compliance_rule(
            "stake", "ownership_cap", parameters, scope=Scope("account", "MAIN"), context="pre_trade", severity="block",
            source="17 CFR 240.13d-1", clause="(a)", effective_from=desk.at.date(), reason="law", actor=rita, at=desk.at,
        )  # fmt: skip
        assert answers(desk, "buy 11 AAPL") == ["pending_new"]
        with pytest.raises(Forbidden, match="approver_is_maker"):
            risk.decide_compliance_rule(asked.id, "approve", reason="mine", actor=rita, at=desk.at)
        risk.decide_compliance_rule(asked.id, "approve", reason="ok", actor=desk.actor(rolf), at=desk.at)
        assert answers(desk, "buy 1 AAPL", "buy 1 MSFT") == ["compliance", "pending_new"]
        [kept] = ComplianceBreach.objects.all()
        assert (kept.disposition, kept.figure, kept.rule.code) == ("prevented", Decimal("0.012"), "stake")
        stored = RiskCheck.objects.get(pk=kept.order_id)
        assert replay(stored.checks)[:2] == (False, "compliance")
        ComplianceRule.objects.update(effective_to=desk.at.date(), effective_from=desk.at.date() - timedelta(days=1))
        desk.at += timedelta(days=1)
        forget_rules()
        desk.quote("AAPL", "99.99", "100.01")
        assert answers(desk, "buy 1 AAPL") == ["pending_new"]
        desk.holds()

    def test_what_is_warned_of_passes_and_somebody_says_what_came_of_it(self, desk: Desk, rolf: Any) -> None:
        put(desk, rolf, "issuer_share", {"single": "0.0001"}, severity="warn")
        assert answers(desk, "buy 10 AAPL") == ["pending_new"]
        [kept] = ComplianceBreach.objects.filter(disposition="open")
        rita = desk.actor(desk.rita)
        with pytest.raises(Invalid):
            risk.dispose(kept.id, "forgotten", reason="x", actor=rita, at=desk.at)
        done = risk.dispose(kept.id, "accepted", reason="small", actor=rita, at=desk.at)
        assert (done.disposition, done.disposed_by) == ("accepted", "user:rita")
        with pytest.raises(Conflict, match="already_disposed"):
            risk.dispose(kept.id, "accepted", reason="again", actor=rita, at=desk.at)
        desk.holds()

    def test_the_end_of_a_day_is_judged_once_and_the_command_tells_it(self, desk: Desk, rolf: Any) -> None:
        put(desk, rolf, "cash_reserve", {"least": "0.999"}, context="end_of_day", severity="warn")
        fill(desk, "buy 100 AAPL", "100")  # 1 % of the account
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("compliance", "--dry-run", "--as", "rita", stdout=out)
        assert not ComplianceBreach.objects.exists()
        for _ in range(2):
            with pytest.raises(SystemExit):
                call_command("compliance", "--as", "rita", "--json", stdout=out)
        [kept] = ComplianceBreach.objects.all()
        assert (kept.day, kept.order_id, kept.disposition) == (datetime.now(UTC).date(), None, "open")
        risk.dispose(kept.id, "corrected", reason="sold", actor=desk.actor(desk.rita), at=desk.at)
        call_command("compliance", "--as", "rita", stdout=out)
        assert "0 open breaches" in out.getvalue()
        desk.holds()

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"context": "end_of_day"}, "context"),
            ({"scope": Scope("symbol", "AAPL")}, "scope"),
            ({"effective_to": date(2020, 1, 1)}, "effective_to"),
            ({"severity": "shout"}, "severity"),
            ({"source": " "}, "source"),
        ],
    )
    def test_a_rule_that_can_not_be_judged_is_refused(
        self, desk: Desk, rolf: Any, changed: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(Invalid) as refused:
            put(desk, rolf, "price_band", {"tier": 1, "symbols": ["AAPL"]}, **changed)
        assert refused.value.field == field

    def test_every_execution_is_copied_in_order_and_once_by_cursor(self, desk: Desk) -> None:
        fill(desk, "buy 10 AAPL", "100")
        copies, cursor = drop_copy(["MAIN"])
        assert [(c["account"], c["data"]["quantity"], c["data"]["symbol"]) for c in copies] == [("MAIN", "10", "AAPL")]
        assert drop_copy(["MAIN"], since=cursor) == ([], cursor)
        fill(desk, "sell 4 AAPL", "101")
        later, after = drop_copy(["MAIN"], since=cursor)
        assert [c["data"]["side"] for c in later] == ["sell"]
        assert later[0]["seq"] > copies[0]["seq"]
        assert drop_copy(["MAIN"], limit=1)[0] == copies
        with pytest.raises(Invalid):
            drop_copy(["MAIN"], since="not a cursor")
        out = StringIO()
        call_command("drop_copy", "--since", cursor, stdout=out)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert (lines[0]["data"]["side"], lines[-1]["next_since"]) == ("sell", after)
