"""Rebalances, from targets to the last fill, through risk and routing."""

import json
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Forbidden, Refused
from orders import tasks
from orders.api.rebalances import (
    AccountRebalanceRule,
    RebalanceApprove,
    RebalanceCancel,
    RebalanceExecute,
    RebalanceOne,
    Rebalances,
)
from orders.models import Order
from orders.operations import rebalancing
from orders.operations.rebalancing import advance, advance_rebalances, execute, order_name
from portfolio.domain.options import parse_options
from portfolio.domain.targets import parse_targets
from portfolio.models import AccountGrant, Lot, Position, Rebalance, RebalanceLine, RebalanceRule
from portfolio.proposing import Wish, next_day
from risk.models import Approval, Limit, RestrictedInstrument
from tests.conftest import Desk
from tests.integration.test_risk_api import call

D = Decimal


def wish(targets: dict[str, Any], *accounts: str, key: str = "", **options: Any) -> Wish:
    return Wish(accounts or ("MAIN",), targets, parse_targets(targets), parse_options(options), key)


def propose(desk: Desk, targets: dict[str, Any], *accounts: str, **options: Any) -> Rebalance:
    made, _ = rebalancing.propose(wish(targets, *accounts, **options), actor=desk.actor(desk.alice), at=desk.at)
    return made


def approved(desk: Desk, targets: dict[str, Any], *accounts: str, **options: Any) -> Rebalance:
    made = propose(desk, targets, *accounts, **options)
    return rebalancing.approve(made.pk, actor=desk.actor(desk.alice), at=desk.at)


def lines(rebalance: Rebalance) -> dict[str, RebalanceLine]:
    return {line.instrument.symbol: line for line in rebalance.lines.select_related("instrument")}


def fill_all(desk: Desk, price: dict[str, str] | None = None, *, days_ago: int = 0) -> int:
    """Send what is due and fill it whole, each order at its price."""
    before = len(desk.near.sent)
    desk.send()
    sent = desk.near.sent[before:]
    for message in sent:
        told = {
            "execution_id": f"E-{message.client_order_id}",
            "last_quantity": message.quantity,
            "last_price": D((price or {}).get(message.symbol, "100")),
            "cumulative_quantity": message.quantity,
            "executed_at": desk.at - timedelta(days=days_ago),
        }
        desk.report(desk.near.report("new", message), desk.near.report("trade", message, **told))
    return len(sent)


PRICES = {"AAPL": "100.01", "MSFT": "200.02"}


def hold(desk: Desk, text: str) -> None:
    desk.place(text)
    fill_all(desk, PRICES)


def test_money_becomes_what_targets_say_and_every_order_goes_through_risk_and_routing(desk: Desk) -> None:
    rebalance = approved(desk, {"AAPL": "0.4", "MSFT": "0.3", "cash": "0.3"})
    by_symbol = lines(rebalance)
    # 1,000,000 × 0.4 / 100 and × 0.3 / 200, less what the spread takes
    assert by_symbol["AAPL"].quantity == 3999
    assert by_symbol["MSFT"].quantity == 1499
    assert by_symbol["AAPL"].limit_price == D("100.51")  # 50 bp through the ask, on the grid
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    orders = {o.client_order_id: o for o in Order.objects.all()}
    assert {o.origin for o in orders.values()} == {"rebalance"}
    assert set(orders) == {order_name(rebalance.pk, n) for n in (1, 2)}
    assert all(o.status == "pending_new" and o.created_by == desk.alice for o in orders.values())
    assert fill_all(desk, PRICES) == 2
    assert advance_rebalances(at=desk.at) == 1
    rebalance.refresh_from_db()
    assert (rebalance.status, rebalance.parts.get().trading) == ("done", False)
    assert {s: x.filled_quantity for s, x in lines(rebalance).items()} == {"AAPL": 3999, "MSFT": 1499}
    assert Position.objects.get(instrument__symbol="AAPL").quantity == 3999
    desk.holds()


def test_sales_come_first_where_the_buys_need_their_cash(desk: Desk) -> None:
    hold(desk, "buy 9000 AAPL")
    rebalance = approved(desk, {"MSFT": "0.9"})
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    working = Order.objects.exclude(status="filled")
    assert [(o.side, o.quantity) for o in working] == [("sell", 9000)]
    assert advance_rebalances(at=desk.at) == 1  # a second look places nothing while the sale works
    assert working.count() == 1
    fill_all(desk, {"AAPL": "99.99"})
    advance_rebalances(at=desk.at)
    [buy] = working.all()
    assert buy.side == "buy"
    line = lines(rebalance)["MSFT"]
    assert line.placed_quantity == buy.quantity <= line.quantity
    fill_all(desk, PRICES)
    advance_rebalances(at=desk.at)
    rebalance.refresh_from_db()
    assert rebalance.status in ("done", "incomplete")
    desk.holds()


def test_buys_shrink_to_the_cash_that_sales_brought(desk: Desk) -> None:
    hold(desk, "buy 9000 AAPL")
    rebalance = approved(desk, {"MSFT": "0.9"})
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    desk.send()
    [message] = desk.near.sent[-1:]
    half = {"execution_id": "H", "last_quantity": D(4500), "last_price": D("99.99"), "executed_at": desk.at}
    desk.report(
        desk.near.report("new", message), desk.near.report("trade", message, cumulative_quantity=D(4500), **half)
    )
    desk.report(desk.near.report("canceled", message, cumulative_quantity=D(4500)))
    advance_rebalances(at=desk.at)
    line = lines(rebalance)["MSFT"]
    assert line.placed_quantity is not None
    # about 99,910 + 449,955 of cash at 201.02, the bound of the price
    assert line.placed_quantity == 2735
    fill_all(desk, PRICES)
    advance_rebalances(at=desk.at)
    rebalance.refresh_from_db()
    assert rebalance.status == "incomplete"
    assert lines(rebalance)["AAPL"].outcome.startswith("canceled")
    desk.holds()


def test_whoever_goes_on_after_a_crash_places_nothing_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    rebalance = approved(desk, {"AAPL": "0.2", "MSFT": "0.2"})

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as broken:
        broken.setattr(rebalancing, "advance", die)
        with pytest.raises(RuntimeError):
            execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    assert Order.objects.count() == 0
    with monkeypatch.context() as broken:
        broken.setattr("portfolio.proposing.note", die)  # orders were placed in the transaction that dies
        with pytest.raises(RuntimeError):
            advance_rebalances(at=desk.at)
    assert Order.objects.count() == 0
    for _ in range(3):
        advance_rebalances(at=desk.at)
        execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    assert Order.objects.count() == 2
    fill_all(desk, PRICES)
    for _ in range(3):
        advance(rebalance.pk, at=desk.at)
    rebalance.refresh_from_db()
    assert rebalance.status == "done"
    assert Order.objects.count() == 2


def test_a_cancel_ends_what_works_and_places_no_more(desk: Desk) -> None:
    hold(desk, "buy 9000 AAPL")
    rebalance = approved(desk, {"MSFT": "0.9"})
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    stopped = rebalancing.cancel(rebalance.pk, reason="enough", actor=desk.actor(desk.alice), at=desk.at)
    assert stopped.status == "canceled"  # nobody had seen the sale yet
    advance_rebalances(at=desk.at)
    assert not Order.objects.filter(side="buy", origin="rebalance").exists()
    assert Position.objects.get(instrument__symbol="AAPL").quantity == 9000
    with pytest.raises(Conflict, match="rebalance_ended"):
        rebalancing.cancel(rebalance.pk, reason="again", actor=desk.actor(desk.alice), at=desk.at)


def test_the_rule_of_an_account_asks_for_another_person(desk: Desk, django_user_model: Any) -> None:
    RebalanceRule.objects.create(account=desk.account, second_person=True)
    rebalance = propose(desk, {"AAPL": "0.1"})
    assert Approval.objects.get(object_id=rebalance.pk).object_kind == "rebalance"
    with pytest.raises(Forbidden, match="approver_is_maker"):
        rebalancing.approve(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    with pytest.raises(Forbidden, match="not_granted"):
        rebalancing.approve(rebalance.pk, actor=desk.actor(desk.otto), at=desk.at)
    with pytest.raises(Conflict, match="not_approved"):
        execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    AccountGrant.objects.create(user=desk.otto, account=desk.account)
    with pytest.raises(Conflict, match="content_changed"):
        rebalancing.approve(rebalance.pk, seen="0" * 64, actor=desk.actor(desk.otto), at=desk.at)
    rebalancing.approve(rebalance.pk, seen=rebalance.content_hash, actor=desk.actor(desk.otto), at=desk.at)
    assert Approval.objects.get(object_id=rebalance.pk).status == "approved"
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    assert Order.objects.count() == 1
    # and the database says so, too
    with pytest.raises(IntegrityError, match="rebalance_approver_is_another"), transaction.atomic():
        Rebalance.objects.filter(pk=rebalance.pk).update(approver=desk.alice)


def test_what_was_approved_is_what_is_traded(desk: Desk) -> None:
    rebalance = approved(desk, {"AAPL": "0.1"})
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        RebalanceLine.objects.update(quantity=9999)
    with pytest.raises(IntegrityError, match="rebalance_approved_as_proposed"), transaction.atomic():
        Rebalance.objects.update(content_hash="0" * 64)
    hold(desk, "buy 5 AAPL")
    with pytest.raises(Conflict, match="positions_moved"):
        execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    fresh = approved(desk, {"AAPL": "0.1"})
    with pytest.raises(Conflict, match="proposal_expired"):
        execute(fresh.pk, actor=desk.actor(desk.alice), at=desk.at + timedelta(hours=25))


def test_only_one_trades_in_an_account_at_a_time(desk: Desk) -> None:
    first, second = approved(desk, {"AAPL": "0.1"}), approved(desk, {"MSFT": "0.1"})
    execute(first.pk, actor=desk.actor(desk.alice), at=desk.at)
    with pytest.raises(Conflict, match="rebalance_running"):
        execute(second.pk, actor=desk.actor(desk.alice), at=desk.at)


def test_names_on_the_restricted_list_stay_as_they_are_and_the_others_share_the_rest(desk: Desk) -> None:
    hold(desk, "buy 5000 AAPL")
    apple = Position.objects.get().instrument
    RestrictedInstrument.objects.create(instrument=apple, since=desk.at - timedelta(days=1), reason="inside")
    rebalance = propose(desk, {"MSFT": "1"}, cash_buffer="0.01")
    found = lines(rebalance)
    assert (found["AAPL"].side, found["AAPL"].skipped) == ("", "restricted")
    assert found["MSFT"].weight_target == pytest.approx(D("0.5"), abs=D("0.001"))
    assert found["MSFT"].quantity * 200 <= 500_000


def test_a_line_that_risk_denies_says_so_and_the_others_go_on(desk: Desk) -> None:
    from oms.kernel.ids import uuid7

    Limit.objects.create(
        id=uuid7(), scope_kind="symbol", scope_key="MSFT", kind="order_quantity", value=1, status="active",
        effective_from=desk.at - timedelta(days=1), reason="test", created_at=desk.at,
    )  # fmt: skip
    rebalance = approved(desk, {"AAPL": "0.1", "MSFT": "0.1"})
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    fill_all(desk, PRICES)
    advance_rebalances(at=desk.at)
    rebalance.refresh_from_db()
    assert rebalance.status == "incomplete"
    assert lines(rebalance)["MSFT"].outcome.startswith("denied")
    assert lines(rebalance)["AAPL"].outcome == "filled"


def test_a_key_makes_one_proposal(desk: Desk) -> None:
    actor = desk.actor(desk.alice)
    first, new = rebalancing.propose(wish({"AAPL": "0.1"}, key="k"), actor=actor, at=desk.at)
    again, newer = rebalancing.propose(wish({"AAPL": "0.1"}, key="k"), actor=actor, at=desk.at)
    assert (first.pk, new, newer) == (again.pk, True, False)
    with pytest.raises(Refused, match="idempotency_conflict"):
        rebalancing.propose(wish({"AAPL": "0.2"}, key="k"), actor=actor, at=desk.at)


def test_several_accounts_are_brought_to_the_same_targets_each_with_its_own_money(desk: Desk) -> None:
    from oms.kernel.actor import Actor
    from portfolio import operations as portfolio

    system = Actor.system("test")
    portfolio.open_account(code="SECOND", name="", base_currency="EUR", actor=system, at=desk.at)
    portfolio.transfer(
        account="SECOND", kind="deposit", currency="EUR", amount=D(100_000), to="", reason="x", key="x", actor=system, at=desk.at
    )  # fmt: skip
    AccountGrant.objects.create(user=desk.alice, account_id=_id("SECOND"))
    rebalance = approved(desk, {"AAPL": "0.1"}, "MAIN", "SECOND")
    by_account = {x.account.code: x for x in rebalance.lines.select_related("account")}
    assert by_account["MAIN"].quantity == 999
    assert by_account["SECOND"].quantity == 111  # 10,000 EUR at 1.12001
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    assert Order.objects.count() == 2


def _id(code: str) -> int:
    from portfolio.models import Account

    return Account.objects.get(code=code).pk


def test_over_rest_from_proposal_to_done(desk: Desk) -> None:
    status, told = call(
        Rebalances, "post", desk.alice, {"account": "MAIN", "targets": {"AAPL": "0.4"}, "method": "full"}
    )
    assert status == 201, told
    assert (told["status"], told["account"], told["second_person"]) == ("proposed", "MAIN", False)
    [line] = told["lines"]
    assert (line["symbol"], line["side"], line["weight_before"], line["weight_target"]) == ("AAPL", "buy", "0", "0.4")
    assert D(line["weight_after"]) == pytest.approx(D("0.4"), abs=D("0.001"))
    assert D(told["accounts"][0]["cost"]) == pytest.approx(D("39.99"), abs=D("0.1"))  # half of the spread
    assert call(RebalanceExecute, "post", desk.alice, {}, id=told["id"])[0] == 409
    body = {"content_hash": told["content_hash"]}
    assert call(RebalanceApprove, "post", desk.alice, body, id=told["id"])[0] == 200
    status, running = call(RebalanceExecute, "post", desk.alice, {}, id=told["id"])
    assert (status, running["status"]) == (202, "executing")
    fill_all(desk, PRICES)
    advance_rebalances(at=desk.at)
    _, done = call(RebalanceOne, "get", desk.alice, id=told["id"])
    assert (done["status"], done["lines"][0]["outcome"]) == ("done", "filled")
    assert call(RebalanceOne, "get", desk.otto, id=told["id"])[0] == 404
    assert call(RebalanceCancel, "post", desk.alice, {}, id=told["id"])[0] == 409
    _, listed = call(Rebalances, "get", desk.alice, query="?account=MAIN&status=done")
    assert [r["id"] for r in listed["results"]] == [told["id"]]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"targets": {"AAPL": "0.4"}}, {"account"}),
        ({"account": "NONE", "targets": {"AAPL": "0.4"}}, {"account"}),
        ({"account": "MAIN"}, {"targets"}),
        ({"account": "MAIN", "targets": {"NOPE": "0.4"}}, {"targets.NOPE"}),
        ({"account": "MAIN", "targets": {"AAPL": 0.4}}, {"targets.AAPL"}),
        ({"account": "MAIN", "targets": {"AAPL": "x"}, "method": "full"}, {"targets.AAPL"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.4"}, "method": "magic"}, {"method"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.4"}, "cash_buffer": "2"}, {"cash_buffer"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.4"}, "drift_band": "-1"}, {"drift_band"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.8", "cash": "0.3"}}, {"targets"}),
        ({"account": "MAIN", "targets": {"G": {"weight": "0.4"}}}, {"targets.G"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.4"}, "colour": "red"}, {"colour"}),
        ({"account": "MAIN", "targets": {"AAPL": "0.4"}, "model": "M"}, {"targets"}),
        ({"account": "MAIN", "model": "M"}, {"model"}),
    ],
)
def test_bad_input_is_named_and_nothing_is_kept(desk: Desk, body: dict[str, Any], fields: set[str]) -> None:
    status, told = call(Rebalances, "post", desk.alice, body)
    assert status == 400
    assert {e["field"] for e in told["errors"]} == fields
    assert not Rebalance.objects.exists()


def test_the_rule_of_an_account_over_rest(desk: Desk) -> None:
    body = {"every": "month", "next_on": "2026-12-01", "second_person": True, "drift_band": "0.05"}
    assert call(AccountRebalanceRule, "get", desk.alice, code="MAIN")[0] == 404
    assert call(AccountRebalanceRule, "post", desk.alice, body, code="MAIN")[0] == 403
    status, told = call(AccountRebalanceRule, "post", desk.oona, body, code="MAIN")
    assert (status, told["options"], told["every"]) == (201, {"drift_band": "0.05"}, "month")
    assert call(AccountRebalanceRule, "post", desk.oona, {"every": "day"}, code="MAIN")[0] == 400


def model(desk: Desk, targets: dict[str, Any]) -> Any:
    from portfolio.modelling import set_model

    return set_model(code="HALF", name="", targets=targets, actor=desk.actor(desk.oona), at=desk.at)


def test_a_calendar_proposes_once_on_its_day_and_goes_on_to_the_next(desk: Desk) -> None:
    day = desk.at.date()
    rule = RebalanceRule.objects.create(
        account=desk.account, model=model(desk, {"AAPL": "0.1"}), every="month", next_on=day
    )
    assert tasks.rebalance() is None
    [made] = Rebalance.objects.all()
    assert (made.method, made.due_on, made.made_by) == ("calendar", day, "system:rebalancing")
    rule.refresh_from_db()
    assert rule.next_on == next_day("month", day) > day
    tasks.rebalance()
    assert Rebalance.objects.count() == 1


def test_bands_propose_only_once_a_weight_is_outside(desk: Desk) -> None:
    hold(desk, "buy 1000 AAPL")
    rule = RebalanceRule.objects.create(
        account=desk.account, model=model(desk, {"AAPL": "0.1"}), options={"drift_band": "0.02"}
    )
    propose = rebalancing.propose_by_rule
    assert propose(rule, actor=Actor.system("t"), at=desk.at) is None
    desk.quote("AAPL", "129.99", "130.01")
    made = propose(rule, actor=Actor.system("t"), at=desk.at)
    assert made is not None
    [line] = made.lines.all()
    assert (made.method, line.side) == ("bands", "sell")
    assert line.weight_before == pytest.approx(D("0.1262"), abs=D("0.0001"))
    assert line.weight_after == pytest.approx(D("0.1"), abs=D("0.0003"))
    assert propose(rule, actor=Actor.system("t"), at=desk.at) is None  # one waits already


def test_the_command_proposes_and_takes_steps(desk: Desk) -> None:
    RebalanceRule.objects.create(account=desk.account, model=model(desk, {"AAPL": "0.1"}), options={"method": "full"})
    assert command("--dry-run") == {"due": ["MAIN"], "dry_run": True}
    told = command()
    assert [p["account"] for p in told["proposed"]] == ["MAIN"]
    made = told["proposed"][0]["rebalance"]
    assert command(made, "--step", "approve", "--as", "alice")["rebalance"]["status"] == "approved"
    with pytest.raises(SystemExit):  # nothing fills here, so that it is not done when the wait is over
        command(made, "--step", "execute", "--as", "alice", "--wait", "0")
    assert Order.objects.get().origin == "rebalance"
    assert command(made, "--step", "cancel", "--as", "alice")["rebalance"]["status"] == "canceled"
    with pytest.raises(CommandError, match="rebalance_ended"):
        command(made, "--step", "cancel", "--as", "alice")


def command(*given: str) -> Any:
    out = StringIO()
    call_command("rebalance", *given, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_sales_choose_the_lots_that_cost_least_tax_and_close_them(desk: Desk) -> None:
    for price in ("90", "120", "110"):
        desk.place("buy 100 AAPL")
        fill_all(desk, {"AAPL": price}, days_ago=60)
    rebalance = approved(desk, {"AAPL": "0.015"}, tax_aware=True, short_term_tax="0.4", long_term_tax="0.2")
    line = lines(rebalance)["AAPL"]
    assert line.quantity == 151
    dear, middle = Lot.objects.get(price=120), Lot.objects.get(price=110)
    assert [(s["lot"], s["quantity"]) for s in line.sales] == [(str(dear.pk), "100"), (str(middle.pk), "51")]
    # losses of 20.01 and 10.01 a share, at 40 %
    assert line.tax == D("-0.4") * (100 * D("20.01") + 51 * D("10.01"))
    execute(rebalance.pk, actor=desk.actor(desk.alice), at=desk.at)
    fill_all(desk, {"AAPL": "99.99"})
    advance_rebalances(at=desk.at)
    assert dict(Lot.objects.values_list("price", "remaining")) == {D(90): 100, D(110): 49}
    desk.holds()


def test_what_was_sold_at_a_loss_is_not_bought_again_within_thirty_days(desk: Desk) -> None:
    desk.place("buy 100 AAPL")
    fill_all(desk, PRICES, days_ago=60)
    desk.place("sell 100 AAPL")
    fill_all(desk, {"AAPL": "90"})
    guarded = lines(propose(desk, {"AAPL": "0.1"}, tax_aware=True))["AAPL"]
    assert (guarded.side, guarded.skipped) == ("", "wash_sale")
    assert lines(propose(desk, {"AAPL": "0.1"}, tax_aware=True, wash_guard=False))["AAPL"].side == "buy"


def test_a_loss_is_taken_and_its_substitute_held_meanwhile(desk: Desk) -> None:
    desk.place("buy 1000 AAPL")
    fill_all(desk, {"AAPL": "150"}, days_ago=60)
    targets = {"AAPL": "0.1"}
    kept = lines(propose(desk, targets, cash_buffer="0", drift_band="0.05"))
    assert kept["AAPL"].side == ""
    found = lines(propose(desk, targets, drift_band="0.05", harvest="1000", substitutes={"AAPL": "MSFT"}))
    assert (found["AAPL"].side, found["AAPL"].quantity) == ("sell", 1000)
    assert found["MSFT"].weight_target == pytest.approx(D("0.1"), abs=D("0.01"))


def test_tracking_error_is_told_where_a_risk_model_covers_the_names(desk: Desk, tmp_path: Path) -> None:
    blind = propose(desk, {"AAPL": "0.4"}).parts.get()
    assert (blind.tracking_error_before, blind.tracking_error_after) == (None, None)
    covered = {"loadings": [1.0], "specific_variance": 0.01}
    raw = {
        "code": "one", "as_of": "2026-11-25", "factors": ["market"], "covariance": [[0.04]],
        "instruments": {"AAPL": covered, "MSFT": covered},
    }  # fmt: skip
    file = tmp_path / "model.json"
    file.write_text(json.dumps(raw))
    call_command("risk_model", str(file), stdout=StringIO())
    seen = propose(desk, {"AAPL": "0.4"}).parts.get()
    # all of 0.4 is missing: 0.4 × √(0.04 + 0.01) a year; after it, next to nothing
    assert seen.tracking_error_before == pytest.approx(D("0.0894427"), abs=D("1e-6"))
    assert seen.tracking_error_after < D("0.0001")
    file.write_text(json.dumps(raw | {"covariance": [[0.04, 0.0]]}))
    with pytest.raises(CommandError, match="square"):
        call_command("risk_model", str(file), stdout=StringIO())


def test_the_optimiser_weighs_cost_against_tracking_error(desk: Desk) -> None:
    pytest.importorskip("cvxpy")
    hold(desk, "buy 4000 AAPL")
    near = propose(desk, {"AAPL": "0.41", "MSFT": "0.3"}, method="optimise", turnover_cap="0.2")
    traded = near.parts.get()
    assert D("0.19") < traded.turnover <= D("0.2")
    assert "No risk model" in traded.notes[0]
    patient = propose(desk, {"AAPL": "0.41", "MSFT": "0.3"}, method="optimise", tracking_error_aversion="0")
    assert not patient.lines.exclude(side="").exists()  # nothing is paid for what nobody minds


def test_without_the_optimiser_a_proposal_goes_all_the_way_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portfolio.optimising.available", lambda: False)
    made = propose(desk, {"AAPL": "0.4"}, method="optimise")
    assert "not installed" in made.parts.get().notes[0]
    assert lines(made)["AAPL"].quantity == 3999
