"""The books on a real database: bookings, transfers, what they are worth, and who may see them."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction

from brokers import queries as market
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, DomainError, Invalid, NotFound, Refused
from oms.kernel.ids import uuid7
from oms.runtime import sql
from portfolio import api, operations, queries, settlement
from portfolio.domain.fills import Fill
from portfolio.models import (
    Account,
    AccountGrant,
    CashBalance,
    LedgerEntry,
    LedgerTransaction,
    Lot,
    LotPolicy,
    Position,
    Trade,
)
from tests.conftest import Desk
from tests.integration.test_risk_api import call

OPS = Actor("user:oona")


def fill(desk: Desk, text: str, *, after: float = 0, **more: Any) -> Fill:
    """Read a fill like `buy 10 AAPL @ 100 fees 1`, executed some seconds from now."""
    side, quantity, symbol, _, price, *rest = text.split()
    instrument = market.instruments_by_symbol()[symbol]
    plain = Fill(
        source_id=uuid7(), kind="trade", ref_source_id=None, account_id=desk.account.pk,
        broker_id=market.brokers_by_code()["NEAR"].id, instrument_id=instrument.id,
        quantity=Decimal(quantity) * (1 if side == "buy" else -1), price=Decimal(price),
        fees=Decimal(rest[1]) if rest else Decimal(0), currency=instrument.currency,
        executed_at=desk.at + timedelta(seconds=after), settle_date=desk.at.date() + timedelta(days=1),
    )  # fmt: skip
    return replace(plain, **more)


def book(desk: Desk, *fills: Fill) -> list[tuple[int, int]]:
    with transaction.atomic():
        touched = operations.book(fills, at=desk.at)
        with connection.cursor() as cursor:  # the deferred rules judge now, not after the test
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
    return touched


def position(desk: Desk, symbol: str = "AAPL") -> Position:
    return Position.objects.get(account=desk.account, instrument__symbol=symbol)


class TestBooking:
    def test_a_round_trip_realises_its_gain_and_pays_its_fees(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100 fees 1"), fill(desk, "sell 10 AAPL @ 103 fees 1", after=1))
        row = position(desk)
        assert (row.quantity, row.cost, row.realized, row.fees) == (0, 0, 30, 2)
        assert CashBalance.objects.get(account=desk.account, currency="USD").balance == 1_000_028

    def test_a_fill_that_comes_late_takes_its_place_in_the_queue(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100", after=10), fill(desk, "sell 10 AAPL @ 110", after=20))
        assert position(desk).realized == 100
        book(desk, fill(desk, "buy 10 AAPL @ 90"))
        assert (position(desk).realized, position(desk).cost) == (200, 1000)
        assert [(lot.price, lot.remaining) for lot in Lot.objects.filter(closed_at=None)] == [(100, 10)]

    def test_a_bust_puts_everything_back(self, desk: Desk) -> None:
        bought = fill(desk, "buy 10 AAPL @ 100 fees 1")
        book(desk, bought)
        book(desk, replace(bought, source_id=uuid7(), kind="bust", ref_source_id=bought.source_id))
        row = position(desk)
        assert (row.quantity, row.cost, row.realized, row.fees) == (0, 0, 0, 0)
        assert CashBalance.objects.get(account=desk.account, currency="USD").balance == 1_000_000
        assert not Lot.objects.exists()
        assert Trade.objects.count() == 2

    def test_a_second_correction_replaces_the_first(self, desk: Desk) -> None:
        bought = fill(desk, "buy 10 AAPL @ 100")
        first = replace(bought, source_id=uuid7(), kind="correct", ref_source_id=bought.source_id, price=Decimal(101))
        second = replace(first, source_id=uuid7(), ref_source_id=first.source_id, quantity=Decimal(8))
        book(desk, bought, first)
        book(desk, second)
        assert (position(desk).quantity, position(desk).cost) == (8, 808)
        assert Lot.objects.get().trade_id == second.source_id

    def test_the_same_execution_is_never_booked_twice(self, desk: Desk) -> None:
        bought = fill(desk, "buy 10 AAPL @ 100")
        book(desk, bought)
        with pytest.raises(IntegrityError):
            book(desk, bought)
        assert position(desk).quantity == 10

    @pytest.mark.parametrize("size", [1, 200])
    def test_the_number_of_statements_does_not_grow_with_the_fills(self, desk: Desk, size: int) -> None:
        fills = [
            fill(desk, f"{'sell' if n % 3 else 'buy'} {n % 7 + 1} AAPL @ {100 + n % 5}", after=n) for n in range(size)
        ]
        with sql.recorded() as statements, transaction.atomic():
            operations.book(fills, at=desk.at)
        assert len(statements) <= 9

    def test_a_correction_of_the_unknown_changes_nothing(self, desk: Desk) -> None:
        with pytest.raises(KeyError):
            book(desk, fill(desk, "buy 1 AAPL @ 1", kind="bust", ref_source_id=uuid7()))
        assert not Trade.objects.exists()


class TestLedgerInTheDatabase:
    def transaction(self, desk: Desk, *amounts: str) -> None:
        owner = LedgerTransaction(id=uuid7(), account=desk.account, source_kind="test", source_id=uuid7(), at=desk.at)
        with transaction.atomic():
            sql.insert(
                [
                    LedgerEntry(
                        id=uuid7(), transaction_id=owner.id, account=desk.account, code="cash", currency="USD",
                        amount=Decimal(a),
                    )
                    for a in amounts
                ]
            )  # fmt: skip
            sql.insert([owner])
            sql.run("SET CONSTRAINTS ALL IMMEDIATE")

    def test_entries_that_do_not_balance_are_refused(self, desk: Desk) -> None:
        with pytest.raises(IntegrityError, match="does not balance"):
            self.transaction(desk, "5", "-4")

    def test_a_transaction_without_entries_is_refused(self, desk: Desk) -> None:
        with pytest.raises(IntegrityError, match="has no entries"):
            self.transaction(desk)

    def test_balanced_entries_stand(self, desk: Desk) -> None:
        self.transaction(desk, "5", "-5")

    def test_a_lot_is_closed_exactly_when_it_is_empty(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100"))
        with pytest.raises(IntegrityError, match="lot_closed_when_empty"), transaction.atomic():
            Lot.objects.update(remaining=0)


def move(desk: Desk, kind: str, amount: str, *, to: str = "", key: str = "k", currency: str = "USD") -> UUID:
    return operations.transfer(
        account="MAIN", kind=kind, currency=currency, amount=Decimal(amount), to=to, reason="why", key=key, actor=OPS,
        at=desk.at,
    )  # fmt: skip


def cash(code: str, currency: str = "USD") -> Decimal:
    row = CashBalance.objects.filter(account__code=code, currency=currency).first()
    return row.balance if row else Decimal(0)


class TestTransfers:
    def test_a_repeat_moves_nothing_and_answers_the_same(self, desk: Desk) -> None:
        assert move(desk, "deposit", "50") == move(desk, "deposit", "50")
        assert cash("MAIN") == 1_000_050
        with pytest.raises(Refused, match="idempotency_conflict"):
            move(desk, "deposit", "51")

    def test_a_withdrawal_needs_the_cash(self, desk: Desk) -> None:
        with pytest.raises(Conflict, match="insufficient_cash"):
            move(desk, "withdrawal", "1000000.01")
        move(desk, "withdrawal", "1000000")
        assert cash("MAIN") == 0

    def test_a_journal_moves_cash_between_accounts_and_back(self, desk: Desk) -> None:
        operations.open_account(code="SIDE", name="", base_currency="USD", actor=OPS, at=desk.at)
        moved = move(desk, "journal", "300", to="SIDE")
        assert (cash("MAIN"), cash("SIDE")) == (999_700, 300)
        operations.reverse_transfer(moved, reason="wrong", actor=OPS, at=desk.at)
        assert (cash("MAIN"), cash("SIDE")) == (1_000_000, 0)
        with pytest.raises(Conflict, match="already_reversed"):
            operations.reverse_transfer(moved, reason="again", actor=OPS, at=desk.at)
        desk.holds()

    @pytest.mark.parametrize(
        ("kind", "amount", "more", "code"),
        [
            ("gift", "1", {}, "not_a_choice"),
            ("deposit", "0", {}, "not_positive"),
            ("deposit", "0.000000001", {}, "not_positive"),
            ("deposit", "1", {"currency": "XXX"}, "unknown_currency"),
            ("deposit", "1", {"to": "MAIN"}, "unknown_account"),
            ("journal", "1", {}, "unknown_account"),
            ("journal", "1", {"to": "NOWHERE"}, "unknown_account"),
        ],
    )
    def test_bad_input_moves_nothing(self, desk: Desk, kind: str, amount: str, more: dict[str, str], code: str) -> None:
        with pytest.raises(Invalid) as caught:
            move(desk, kind, amount, **more)
        assert caught.value.code == code
        assert LedgerTransaction.objects.count() == 1  # the fixture's deposit

    def test_only_transfers_of_the_account_are_reversed_from_it(self, desk: Desk) -> None:
        moved = move(desk, "deposit", "5")
        with pytest.raises(NotFound):
            operations.reverse_transfer(moved, reason="x", actor=OPS, at=desk.at, account="OTHER")


class TestWorth:
    def test_a_position_is_worth_its_mid(self, desk: Desk) -> None:
        [pair] = book(desk, fill(desk, "buy 10 AAPL @ 99"))
        [shown] = queries.positions_out([pair])
        assert (shown["market_price"], shown["market_value"], shown["unrealized_pnl"]) == ("100", "1000", "10")
        assert (shown["average_cost"], shown["day_pnl"], shown["stale"]) == ("99", "10", False)

    def test_without_a_quote_nothing_is_claimed(self, desk: Desk) -> None:
        [pair] = book(desk, fill(desk, "buy 10 AAPL @ 99"))
        sql.run("DELETE FROM brokers_quote")
        [shown] = queries.positions_out([pair])
        assert [shown[n] for n in ("market_price", "market_value", "unrealized_pnl", "day_pnl")] == [None] * 4
        assert shown["stale"] is True
        assert queries.pnl_of(desk.account.pk)["unpriced_positions"] == 1

    def test_an_old_quote_is_told_as_stale(self, desk: Desk) -> None:
        [pair] = book(desk, fill(desk, "buy 10 AAPL @ 99"))
        sql.run("UPDATE brokers_quote SET at = at - interval '61 seconds'")
        assert queries.positions_out([pair])[0]["stale"] is True

    def test_brokers_share_the_position_and_its_cost(self, desk: Desk) -> None:
        far = market.brokers_by_code()["FAR"].id
        book(desk, fill(desk, "buy 6 AAPL @ 99"), fill(desk, "buy 4 AAPL @ 104", broker_id=far))
        with sql.recorded() as statements:
            shown = queries.positions_by_broker(desk.account.pk)
        assert [(s["broker"], s["quantity"], s["cost"]) for s in shown] == [("NEAR", "6", "606"), ("FAR", "4", "404")]
        assert len(statements) == 2

    def test_what_is_not_settled_is_told_apart(self, desk: Desk) -> None:
        bought, sold = fill(desk, "buy 10 AAPL @ 100 fees 1"), fill(desk, "sell 5 MSFT @ 200", after=1)
        busted = fill(desk, "buy 1 AAPL @ 100", after=2)
        book(desk, bought, sold, busted)
        book(desk, replace(busted, source_id=uuid7(), kind="bust", ref_source_id=busted.source_id))
        [usd] = queries.balances_of(desk.account.pk)
        assert usd == {
            "currency": "USD", "ledger": "999999", "settled": "1000000", "unsettled_in": "1000", "unsettled_out": "1001",
        }  # fmt: skip
        tomorrow = desk.at + timedelta(days=1)
        assert settlement.settle(tomorrow.date(), actor=OPS, at=tomorrow) == {"MAIN": 2}
        [later] = queries.balances_of(desk.account.pk)
        assert (later["settled"], later["unsettled_in"]) == ("999999", "0")

    def test_pnl_of_a_time_counts_what_was_booked_in_it(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100 fees 1"), fill(desk, "sell 10 AAPL @ 103", after=1))
        [usd] = queries.pnl_of(desk.account.pk, start=desk.at, end=desk.at + timedelta(seconds=1))["currencies"]
        assert (usd["realized"], usd["fees"]) == ("30", "1")
        assert queries.pnl_of(desk.account.pk)["currencies"] == [usd]
        [before] = queries.pnl_of(desk.account.pk, end=desk.at)["currencies"]
        assert (before["realized"], before["fees"]) == ("0", "0")


class TestWhoSees:
    def test_a_trader_sees_granted_accounts_until_they_expire(self, desk: Desk) -> None:
        def codes(user: Any) -> list[str]:
            return [a.code for a in queries.visible_accounts(user, at=desk.at)]

        assert (codes(desk.alice), codes(desk.otto), codes(desk.rita)) == (["MAIN"], [], ["MAIN"])
        AccountGrant.objects.update(expires_at=desk.at - timedelta(seconds=1))
        assert codes(desk.alice) == []

    @pytest.mark.parametrize("view", [api.Positions, api.Lots, api.Ledger, api.Pnl])
    def test_an_account_not_granted_is_not_there(self, desk: Desk, view: Any) -> None:
        assert call(view, "get", desk.alice, code="MAIN")[0] == 200
        assert call(view, "get", desk.otto, code="MAIN")[0] == 404

    def test_a_mistyped_filter_returns_nothing_and_a_broker_s_part_has_no_gain_of_its_own(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 1 AAPL @ 100"))
        assert call(api.Lots, "get", desk.alice, query="?symbol=MSFT", code="MAIN")[0] == 400
        [part] = call(api.Positions, "get", desk.alice, query="?by=broker", code="MAIN")[1]["results"]
        assert {n for n, v in part.items() if v is None} <= {
            n for n, f in api.PositionOut().fields.items() if f.allow_null
        }

    def test_cash_is_moved_by_operations_staff_alone(self, desk: Desk) -> None:
        body = {"kind": "deposit", "currency": "USD", "amount": "5", "reason": "r", "key": "api"}
        assert call(api.Transfers, "post", desk.alice, body, code="MAIN")[0] == 403
        status, moved = call(api.Transfers, "post", desk.oona, body, code="MAIN")
        assert status == 201
        status, _ = call(api.TransferReversal, "post", desk.oona, {"reason": "typo"}, code="MAIN", id=moved["id"])
        assert (status, cash("MAIN")) == (201, 1_000_000)

    def test_the_ledger_pages_without_a_gap(self, desk: Desk) -> None:
        book(desk, *[fill(desk, f"buy 1 AAPL @ {100 + n}", after=n) for n in range(5)])
        status, first = call(api.Ledger, "get", desk.alice, query="?limit=7", code="MAIN")
        _, rest = call(api.Ledger, "get", desk.alice, query="?" + first["next"].partition("?")[2], code="MAIN")
        ids = [r["id"] for r in first["results"] + rest["results"]]
        assert status == 200
        assert ids == [str(i) for i in LedgerEntry.objects.order_by("-id").values_list("id", flat=True)][: len(ids)]
        assert len(ids) == 12


def test_an_account_is_opened_once_and_linked_to_brokers(desk: Desk) -> None:
    operations.open_account(code="NEW", name="New", base_currency="EUR", actor=OPS, at=desk.at)
    assert Account.objects.get(code="NEW").links.count() == 2
    with pytest.raises(DomainError, match="account_exists"):
        operations.open_account(code="NEW", name="New", base_currency="EUR", actor=OPS, at=desk.at)


def test_officers_read_the_books_in_the_admin(desk: Desk, client: Any, settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path  # whitenoise warns of a folder that is not there
    moved = move(desk, "deposit", "5")
    book(desk, fill(desk, "buy 10 AAPL @ 100"))
    desk.oona.is_staff = True
    desk.oona.save()
    client.force_login(desk.oona)
    names = [
        "trade",
        "ledgertransaction",
        "ledgerentry",
        "lot",
        "position",
        "brokerposition",
        "cashbalance",
        "brokerlink",
    ]
    assert [client.get(f"/admin/portfolio/{n}/").status_code for n in names] == [200] * len(names)
    assert "capital" in client.get(f"/admin/portfolio/ledgertransaction/{moved}/change/").content.decode()
    assert client.post(f"/admin/portfolio/ledgertransaction/{moved}/change/", {"note": "x"}).status_code == 403


class TestLotPolicies:
    def test_a_switch_binds_trades_of_its_day_and_leaves_what_was_booked(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100"), fill(desk, "buy 10 AAPL @ 120", after=1))
        book(desk, fill(desk, "sell 5 AAPL @ 130", after=2))
        tomorrow = desk.at.date() + timedelta(days=1)
        status, body = call(
            api.LotPolicies, "post", desk.oona, {"since": str(tomorrow), "method": "lifo", "reason": "tax"}, code="MAIN"
        )
        assert (status, body["method"], body["since"]) == (201, "lifo", str(tomorrow))
        assert position(desk).realized == 150
        book(desk, fill(desk, "sell 5 AAPL @ 130", after=86_400))
        assert position(desk).realized == 200
        book(desk, fill(desk, "sell 5 AAPL @ 130", after=3))  # executed before, told after: by the old rules
        assert position(desk).realized == 350
        assert [(lot.price, lot.remaining) for lot in Lot.objects.filter(closed_at=None)] == [(120, 5)]
        status, body = call(api.LotPolicies, "get", desk.oona, code="MAIN")
        assert [(p["since"], p["method"]) for p in body["results"]] == [(str(tomorrow), "lifo")]

    @pytest.mark.parametrize(
        ("more", "code"),
        [
            ({"method": "odd"}, "invalid_choice"),
            ({"method": "average", "wash_sales": True}, "not_allowed"),
            ({"since": "2020-01-01"}, "too_late"),
            ({"since": "no day"}, "invalid"),
        ],
    )
    def test_rules_that_can_not_be_are_refused(self, desk: Desk, more: dict[str, Any], code: str) -> None:
        later = str(desk.at.date() + timedelta(days=9))
        status, body = call(
            api.LotPolicies, "post", desk.oona, {"since": later, "method": "lifo", "reason": "x"} | more, code="MAIN"
        )
        assert 400 <= status < 500
        assert code in (body["code"], *(e["code"] for e in body.get("errors", [])))
        assert not LotPolicy.objects.exists()

    def test_a_day_that_was_traded_on_keeps_its_rules(self, desk: Desk) -> None:
        book(desk, fill(desk, "buy 10 AAPL @ 100", after=2 * 86_400))
        day = str(desk.at.date() + timedelta(days=1))
        body = {"since": day, "method": "lifo", "reason": "x"}
        assert call(api.LotPolicies, "post", desk.oona, body, code="MAIN")[1]["code"] == "too_late"

    def test_fees_in_cost_and_a_wash_sale_show_in_lots_and_gains(self, desk: Desk) -> None:
        LotPolicy.objects.create(
            account=desk.account, since="0001-01-01", method="fifo", commissions="in_cost", wash_sales=True
        )
        book(desk, fill(desk, "buy 10 AAPL @ 100 fees 10"), fill(desk, "sell 10 AAPL @ 91 fees 10", after=60))
        assert (position(desk).realized, position(desk).fees) == (-110, 0)
        book(desk, fill(desk, "buy 10 AAPL @ 90 fees 10", after=120))
        assert (position(desk).realized, position(desk).cost) == (0, 1020)
        [lot] = call(api.Lots, "get", desk.alice, code="MAIN")[1]["results"]
        assert (lot["cost"], lot["long_term"]) == ("1020", False)
        assert lot["held_since"] < lot["opened_at"]
        [gain] = call(api.Gains, "get", desk.alice, code="MAIN", query="?symbol=AAPL")[1]["results"]
        assert (gain["gain"], gain["disallowed"], gain["cost"], gain["proceeds"]) == ("0", "110", "1010", "900")
        assert call(api.Gains, "get", desk.alice, code="MAIN", query="?symbol=NONE")[0] == 400

    def test_a_preview_names_the_lots_of_the_method(self, desk: Desk) -> None:
        LotPolicy.objects.create(account=desk.account, since="0001-01-01", method="hifo")
        book(desk, fill(desk, "buy 10 AAPL @ 100"), fill(desk, "buy 10 AAPL @ 120", after=1))
        instrument = market.instruments_by_symbol()["AAPL"].id
        lots = queries.lots_closed_by(desk.account.pk, instrument, "sell", Decimal(12), at=desk.at + timedelta(hours=1))
        assert [(lot["price"], lot["quantity"]) for lot in lots] == [("120", "10"), ("100", "2")]
