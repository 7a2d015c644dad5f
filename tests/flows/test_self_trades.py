"""Orders of one account that would trade with each other: refused, reduced, or held until the older ones are provably gone."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.adapters.port import CancelOrder, Outcome, ReplaceOrder
from orders import operations as operations
from orders.domain.tickets import parse_terms
from orders.models import Order, Submission, Wait
from risk.domain.replaying import replay
from risk.models import AccountRules, Hold, RiskCheck
from tests.conftest import Desk


@pytest.fixture
def apart(desk: Desk, django_user_model: Any) -> Any:
    """Return what sets MAIN's mode, with MAIN holding 1,000 AAPL."""
    from oms.kernel.ids import uuid7

    def put(mode: str) -> Desk:
        AccountRules.objects.create(
            id=uuid7(), account=desk.account, since=desk.at.date(), self_trade=mode, reason="test", status="active",
            maker=desk.rita, approver=desk.oona, created_at=desk.at,
        )  # fmt: skip
        return desk

    [bought] = desk.place("buy 1000 AAPL")
    desk.send()
    report(desk, bought, "trade", filled=1000)
    assert desk.order(bought).status == "filled"
    return put


def report(desk: Desk, placed: Any, kind: str, *, filled: int = 0, of: type | None = None) -> None:
    """Tell what became of the last message about an order."""
    child = desk.order(placed).children.get()
    names = set(Submission.objects.filter(child=child).values_list("client_order_id", flat=True))
    mine = [m for m in desk.near.sent if m.client_order_id in names and (of is None or isinstance(m, of))]
    more: dict[str, Any] = {}
    if kind == "trade":
        more = {
            "execution_id": f"X-{mine[-1].client_order_id}", "last_quantity": Decimal(filled), "last_price": Decimal(100),
            "cumulative_quantity": Decimal(filled), "executed_at": desk.at,
        }  # fmt: skip
    desk.report(desk.near.report(kind, mine[-1], **more))


def works(desk: Desk, text: str, **more: Any) -> Any:
    """Place an order, send it and let the broker take it."""
    [placed] = desk.place(text, **more)
    desk.send()
    report(desk, placed, "new")
    return placed


def now(desk: Desk) -> datetime:
    """Set the desk's clock to the real one, which sending goes by, and return it."""
    desk.at = datetime.now(UTC)
    return desk.at


def ended(desk: Desk, placed: Any) -> None:
    """Let the broker confirm the cancel that was sent."""
    desk.send()
    report(desk, placed, "canceled", of=CancelOrder)


class TestRefusing:
    def test_the_newer_is_refused_and_the_older_works_on(self, apart: Any) -> None:
        desk = apart("cancel_newest")
        old = works(desk, "sell 10 AAPL limit 101")
        [met, clear] = [desk.order(p) for p in desk.place("buy 5 AAPL limit 101", "buy 5 AAPL limit 100.99")]
        assert (met.status, met.reason, clear.status) == ("denied", "self_trade", "pending_new")
        assert desk.order(old).status == "new"
        stored = RiskCheck.objects.get(pk=met.id)
        assert replay(stored.checks) == (False, "self_trade", False)
        desk.holds()

    def test_both_end_where_the_mode_says_so(self, apart: Any) -> None:
        desk = apart("cancel_both")
        old = works(desk, "sell 10 AAPL limit 101")
        [met] = desk.place("buy 5 AAPL")
        assert (desk.order(met).status, desk.order(old).status) == ("denied", "pending_cancel")
        ended(desk, old)
        assert desk.order(old).status == "canceled"
        desk.holds()

    def test_an_account_without_a_mode_looks_at_nothing_but_an_order_may_bring_its_own(self, desk: Desk) -> None:
        works(desk, "buy 10 AAPL limit 99")
        [plain] = desk.place("sell_short 5 AAPL limit 99")
        assert desk.order(plain).status == "pending_new"
        [own] = desk.place("sell_short 5 AAPL limit 99", self_trade_prevention="cancel_newest")
        assert desk.order(own).reason == "self_trade"

    def test_new_terms_that_would_meet_another_are_refused(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        works(desk, "sell 10 AAPL limit 101")
        buy = works(desk, "buy 5 AAPL limit 100")
        with pytest.raises(Exception, match="self_trade"):
            operations.replace(
                buy.order_id, parse_terms({"limit_price": "101"}), actor=desk.actor(desk.alice), at=desk.at
            )
        assert desk.order(buy).limit_price == 100

    def test_what_only_may_reduce_is_refused_where_it_could_open(self, apart: Any) -> None:
        desk = apart("")
        more, exact = desk.place("sell 1001 AAPL", "sell 1000 AAPL", reduce_only=True)
        assert (desk.order(more).status, desk.order(exact).status) == ("denied", "pending_new")
        [buy] = desk.place("buy 1 AAPL", reduce_only=True)
        assert desk.order(buy).reason == "would_not_reduce"


class TestWaiting:
    def test_a_new_order_goes_only_once_the_old_one_is_proven_gone(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        old = works(desk, "sell 10 AAPL limit 101")
        [new] = desk.place("buy 5 AAPL limit 101")
        assert (desk.order(new).status, desk.order(new).reason) == ("held", "self_trade")
        assert not Hold.objects.filter(pk=new.order_id).exists()
        sent = len(desk.near.sent)
        assert operations.release_apart(at=desk.at) == 0
        assert desk.send() == 1  # the cancel, and nothing of the new order
        assert isinstance(desk.near.sent[sent], CancelOrder)
        assert operations.release_apart(at=desk.at) == 0  # asked to end, and not ended yet
        report(desk, old, "canceled", of=CancelOrder)
        assert operations.release_apart(at=desk.at) == 1
        assert (desk.order(new).status, desk.order(new).reason) == ("pending_new", "")
        assert not Wait.objects.exists()
        assert desk.send() == 1
        desk.holds()

    def test_a_fill_that_beats_the_cancel_is_booked_and_lets_it_go_all_the_same(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        old = works(desk, "sell 10 AAPL limit 101")
        [new] = desk.place("buy 5 AAPL limit 101")
        desk.send()
        child = desk.order(old).children.get()
        first = next(m for m in desk.near.sent if m.client_order_id == child.client_order_id)
        desk.report(
            desk.near.report(
                "trade", first, execution_id="X-beat", last_quantity=Decimal(10), last_price=Decimal(101),
                cumulative_quantity=Decimal(10), executed_at=desk.at,
            )
        )  # fmt: skip
        assert (desk.order(old).status, desk.order(old).leaves_quantity) == ("pending_cancel", 0)
        assert operations.release_apart(at=desk.at) == 1
        assert desk.order(new).status == "pending_new"
        desk.holds()

    def test_while_the_old_one_is_unknown_the_new_one_waits(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        desk.near.outcome = lambda _: Outcome.UNKNOWN
        [old] = desk.place("sell 10 AAPL limit 101")
        desk.send()
        [new] = desk.place("buy 5 AAPL limit 101")
        assert desk.order(new).status == "held"
        assert operations.release_apart(at=desk.at) == 0
        assert desk.order(old).unknown

    def test_one_that_does_not_end_in_time_leaves_the_new_one_denied(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        old = works(desk, "sell 10 AAPL limit 101")
        [new] = desk.place("buy 5 AAPL limit 101")
        desk.send()
        report(desk, old, "cancel_rejected", of=CancelOrder)
        assert desk.order(old).status == "new"
        assert operations.release_apart(at=desk.later(6)) == 0  # asked to end once more
        assert desk.order(old).status == "pending_cancel"
        assert operations.release_apart(at=desk.later(60)) == 1
        assert (desk.order(new).status, desk.order(new).reason) == ("denied", "self_trade")
        desk.holds()

    def test_one_that_is_canceled_while_it_waits_stays_so(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        old = works(desk, "sell 10 AAPL limit 101")
        [new] = desk.place("buy 5 AAPL limit 101")
        operations.cancel(new.order_id, actor=desk.actor(desk.alice), at=desk.at)
        ended(desk, old)
        operations.release_apart(at=desk.at)
        assert desk.order(new).status == "canceled"
        assert not Wait.objects.exists()
        desk.holds()

    def test_of_two_in_one_batch_the_second_lets_the_first_end_unsent(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        first, second = desk.place("sell 10 AAPL limit 101", "buy 5 AAPL limit 101")
        assert (desk.order(first).status, desk.order(second).status) == ("canceled", "held")
        assert operations.release_apart(at=desk.at) == 1
        assert desk.order(second).status == "pending_new"
        desk.holds()

    def test_a_stop_that_is_reached_waits_at_the_desk_until_the_other_is_gone(self, apart: Any) -> None:
        desk = apart("cancel_oldest")
        buy = works(desk, "buy 10 AAPL limit 99")
        [stop] = desk.place("sell 5 AAPL", order_type="trailing_stop", trail_amount="1")
        assert desk.order(stop).status == "new"
        now(desk)
        desk.quote("AAPL", "98.50", "98.60")
        operations.watch(at=now(desk))
        assert (desk.order(stop).status, desk.order(buy).status) == ("new", "pending_cancel")
        ended(desk, buy)
        operations.watch(at=now(desk))
        assert desk.order(stop).triggered_at is not None
        desk.holds()


class TestDecrementing:
    def test_the_larger_new_one_goes_on_with_the_rest(self, apart: Any) -> None:
        desk = apart("decrement")
        old = works(desk, "sell 300 AAPL limit 101")
        [new] = desk.place("buy 500 AAPL limit 101")
        held = desk.order(new)
        assert (held.status, held.quantity, held.leaves_quantity) == ("held", 200, 200)
        assert "Reduced from 500" in held.reason_detail
        ended(desk, old)
        operations.release_apart(at=desk.at)
        assert (desk.order(new).status, desk.order(new).quantity) == ("pending_new", 200)
        desk.holds()

    def test_the_larger_old_one_is_replaced_by_less_and_the_new_one_ends(self, apart: Any) -> None:
        desk = apart("decrement")
        old = works(desk, "sell 500 AAPL limit 101")
        [new] = desk.place("buy 300 AAPL limit 101")
        assert (desk.order(new).status, desk.order(new).reason) == ("denied", "self_trade")
        desk.send()
        asked = desk.near.sent[-1]
        assert isinstance(asked, ReplaceOrder)
        assert asked.quantity == 200
        desk.report(desk.near.report("replaced", asked, leaves_quantity=Decimal(200)))
        assert desk.order(old).quantity == 200
        desk.holds()

    def test_equal_ones_both_end(self, apart: Any) -> None:
        desk = apart("decrement")
        old = works(desk, "sell 300 AAPL limit 101")
        [new] = desk.place("buy 300 AAPL limit 101")
        assert (desk.order(new).status, desk.order(old).status) == ("denied", "pending_cancel")

    def test_a_preview_tells_it_and_changes_nothing(self, apart: Any) -> None:
        from tests.conftest import ticket

        desk = apart("cancel_oldest")
        old = works(desk, "sell 10 AAPL limit 101")
        request = operations.Request(ticket("buy 5 AAPL limit 101"), desk.actor(desk.alice))
        Order.objects.filter(pk=old.order_id).update(created_at=desk.at - timedelta(minutes=1))
        told = operations.preview(request, at=desk.at)
        assert (told["held"], told["reason"]["code"]) == (True, "self_trade")
        assert desk.order(old).status == "new"
