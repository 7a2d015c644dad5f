"""Risk against a real PostgreSQL: verdicts and holds, races, limits with a second person, halts."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction

from brokers import queries as brokers
from brokers.models import Bar, Broker, Instrument, Listing, Quote
from oms.journal.models import Event
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Forbidden, Invalid
from oms.kernel.ids import uuid7
from oms.runtime import sql
from portfolio.models import Account, CashBalance, Position, Strategy
from risk import operations as risk
from risk.domain.intents import Intent, Verdict
from risk.domain.replaying import replay
from risk.domain.scopes import Scope
from risk.invariants import PREDICATES
from risk.models import (
    Exposure,
    Group,
    GroupMember,
    Halt,
    Hold,
    Limit,
    Mandate,
    ProfitPeak,
    RestrictedInstrument,
    RiskCheck,
)
from risk.queries import balances_out, exposure_out, halts

THREADS = 32


@dataclass
class Floor:
    """An account with 1,000,000 USD, limits of the firm, three instruments with quotes, and two risk officers."""

    at: datetime
    account: Account
    alice: Any
    rita: Any
    rolf: Any

    def actor(self, user: Any) -> Actor:
        return Actor(f"user:{user.username}", user.pk)

    def intent(self, text: str, **more: Any) -> Intent:
        """Spell an order: `buy 10 AAPL`, `sell 5 AAPL limit 99`."""
        side, quantity, symbol, *rest = text.split()
        prices = {f"{rest[0]}_price": Decimal(rest[1])} if rest else {}
        return Intent(
            order_id=uuid7(),
            account_id=self.account.id,
            account_code=self.account.code,
            base_currency="USD",
            account_open=True,
            instrument=brokers.instruments_by_symbol()[symbol],
            side=side,
            quantity=Decimal(quantity),
            order_type=rest[0] if rest else "market",
            user_id=self.alice.pk,
            user_name="alice",
            **prices,
            **more,
        )

    def check(self, *intents: Intent, at: datetime | None = None) -> list[Verdict]:
        with transaction.atomic():
            Account.objects.select_for_update().get(pk=self.account.pk)
            return risk.check(intents, at=at or self.at)

    def ask(self, text: str, **more: Any) -> str:
        """Return the reason, empty when approved."""
        [verdict] = self.check(self.intent(text, **more))
        return verdict.reason

    def resize(self, sizes: dict[UUID, str]) -> None:
        with transaction.atomic():
            risk.resize({k: Decimal(v) for k, v in sizes.items()})

    def limit(self, scope: Scope, kind: str, value: str, currency: str = "") -> Limit:
        return Limit.objects.create(
            id=uuid7(),
            scope_kind=scope.kind,
            scope_key=scope.key,
            kind=kind,
            value=value,
            currency=currency,
            status="active",
            effective_from=self.at - timedelta(days=1),
            reason="test",
            created_at=self.at,
        )

    def broken(self) -> dict[str, list[Any]]:
        found = {name: sql.run(statement).fetchall() for name, statement in PREDICATES.items()}
        return {name: rows for name, rows in found.items() if rows}


def _make(users: Any) -> Floor:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    people = [users.objects.create_user(n) for n in ("alice", "rita", "rolf")]
    floor = Floor(at, Account.objects.create(code="MAIN", base_currency="USD"), *people)
    broker = Broker.objects.create(code="NEAR", adapter="simulated")
    for symbol, asset_class, base, currency, bid, ask, shortable in (
        ("AAPL", "equity", "", "USD", "99.99", "100.01", True),
        ("VOD", "equity", "", "EUR", "1.00", "1.00", False),
        ("EUR/USD", "fx", "EUR", "USD", "1.1", "1.1", True),
    ):
        instrument = Instrument.objects.create(
            symbol=symbol,
            asset_class=asset_class,
            base_currency=base,
            currency=currency,
            tick_size="0.01",
            lot_size="1",
        )
        Listing.objects.create(
            instrument=instrument,
            broker=broker,
            symbol=symbol,
            tick_size="0.01",
            lot_size="1",
            shortable=shortable,
        )
        Quote.objects.create(instrument=instrument, bid=bid, ask=ask, at=at, source="posted", day_open=bid)
    CashBalance.objects.create(account=floor.account, currency="USD", balance=1_000_000)
    floor.limit(Scope("firm"), "order_quantity", "10000")
    floor.limit(Scope("firm"), "order_notional", "500000", "USD")
    floor.limit(Scope("firm"), "position", "20000")
    brokers.forget_cache()
    return floor


@pytest.fixture
def floor(db: Any, django_user_model: Any) -> Floor:
    return _make(django_user_model)


@pytest.fixture
def live_floor(transactional_db: Any, django_user_model: Any) -> Iterator[Floor]:
    yield _make(django_user_model)
    brokers.forget_cache()


class TestCheck:
    def test_an_approved_order_leaves_a_verdict_a_hold_and_its_exposure(self, floor: Floor) -> None:
        intent = floor.intent("buy 10 AAPL limit 100")
        [verdict] = floor.check(intent)
        assert verdict.approved
        hold, exposure = Hold.objects.get(), Exposure.objects.get()
        assert (hold.id, hold.open_quantity, hold.unit_amount) == (intent.order_id, 10, 100)
        assert (exposure.buying, exposure.selling, exposure.amount) == (10, 0, 1000)
        assert floor.broken() == {}

    def test_a_stored_verdict_replays_to_the_same(self, floor: Floor) -> None:
        for text in (
            "buy 10 AAPL",
            "buy 20000 AAPL",
            "buy 10 AAPL limit 200",
            "sell 1 AAPL",
            "buy 9000 AAPL limit 99",
        ):
            floor.ask(text)
        stored = RiskCheck.objects.all()
        assert len({c.reason for c in stored}) == 5
        assert all(replay(c.checks)[:2] == (c.approved, c.reason) for c in stored)

    def test_each_approved_order_of_a_batch_counts_for_the_next(self, floor: Floor) -> None:
        floor.limit(Scope("account", "MAIN"), "position", "100")
        verdicts = floor.check(*[floor.intent("buy 40 AAPL") for _ in range(3)])
        assert [v.reason for v in verdicts] == ["", "", "position_limit"]
        assert "account MAIN" in verdicts[2].detail

    def test_open_orders_of_before_count(self, floor: Floor) -> None:
        floor.limit(Scope("symbol", "AAPL"), "position", "100")
        assert floor.ask("buy 60 AAPL") == ""
        assert floor.ask("buy 41 AAPL") == "position_limit"
        assert floor.ask("buy 40 AAPL") == ""

    def test_buying_power_counts_what_is_held(self, floor: Floor) -> None:
        assert [floor.ask("buy 4500 AAPL limit 100") for _ in range(3)] == ["", "", "buying_power"]

    def test_a_released_hold_frees_its_cash(self, floor: Floor) -> None:
        first, second = (floor.intent("buy 4500 AAPL limit 100") for _ in range(2))
        floor.check(first, second)
        floor.resize({first.order_id: "0"})
        assert floor.ask("buy 4500 AAPL limit 100") == ""
        assert floor.broken() == {}

    def test_a_foreign_instrument_is_valued_through_the_pair(self, floor: Floor) -> None:
        floor.limit(Scope("account", "MAIN"), "order_notional", "100", "USD")
        assert floor.ask("buy 90 VOD") == ""
        assert floor.ask("buy 91 VOD") == "notional_limit"

    def test_without_the_pair_a_foreign_order_can_not_be_valued(self, floor: Floor) -> None:
        Quote.objects.filter(instrument__symbol="EUR/USD").delete()
        assert floor.ask("buy 1 VOD") == "no_quote"

    def test_a_sale_needs_the_position_and_counts_open_sales(self, floor: Floor) -> None:
        aapl = brokers.instruments_by_symbol()["AAPL"]
        Position.objects.create(account=floor.account, instrument_id=aapl.id, quantity=100)
        assert [floor.ask("sell 60 AAPL"), floor.ask("sell 41 AAPL"), floor.ask("sell 40 AAPL")] == [
            "",
            "short_not_allowed",
            "",
        ]

    def test_a_short_sale_needs_a_lender_and_holds_its_margin(self, floor: Floor) -> None:
        assert floor.ask("sell_short 100 VOD") == "short_not_allowed"
        assert floor.ask("sell_short 100 AAPL limit 100") == ""
        assert Hold.objects.get().unit_amount == 50

    def test_fx_may_be_sold_short(self, floor: Floor) -> None:
        assert floor.ask("sell 1000 EUR/USD") == ""

    def test_e12_a_missing_limit_denies(self, floor: Floor) -> None:
        Limit.objects.filter(kind="position").delete()
        floor.limit(Scope("user", "alice"), "position", "10")
        assert floor.ask("buy 1 AAPL") == "limit_missing"

    def test_e05_a_stale_or_missing_quote_denies(self, floor: Floor) -> None:
        late = floor.at + timedelta(seconds=61)
        assert floor.check(floor.intent("buy 1 AAPL"), at=late)[0].reason == "stale_quote"
        Quote.objects.filter(instrument__symbol="AAPL").delete()
        assert floor.ask("buy 1 AAPL limit 90") == "no_quote"

    def test_a_restricted_instrument_denies_while_it_is_on_the_list(self, floor: Floor) -> None:
        aapl = brokers.instruments_by_symbol()["AAPL"].id
        entry = RestrictedInstrument.objects.create(instrument_id=aapl, since=floor.at, reason="results")
        assert floor.ask("buy 1 AAPL") == "restricted"
        entry.until = floor.at
        entry.save()
        assert floor.ask("buy 1 AAPL") == ""

    def test_a_watched_instrument_is_marked_and_passes(self, floor: Floor) -> None:
        aapl = brokers.instruments_by_symbol()["AAPL"].id
        RestrictedInstrument.objects.create(instrument_id=aapl, since=floor.at, watched=True, reason="a rumour")
        assert floor.ask("buy 1 AAPL") == ""
        assert RiskCheck.objects.filter(checks__contains=[{"check": "watched"}]).count() == 1

    def test_a_mandate_binds_whom_it_names(self, floor: Floor) -> None:
        Mandate.objects.create(scope_kind="user", scope_key="alice", dimension="currency", allowed="EUR", reason="x")
        assert [floor.ask("buy 1 AAPL"), floor.ask("buy 1 VOD")] == ["not_permitted", ""]
        with pytest.raises(IntegrityError), transaction.atomic():
            Mandate.objects.create(scope_kind="firm", scope_key="x", dimension="symbol", allowed="EUR", reason="x")

    def test_a_repeat_inside_the_window_is_suspect_for_people_only(self, floor: Floor) -> None:
        floor.limit(Scope("firm"), "duplicate_window", "2")
        assert floor.ask("buy 5 AAPL limit 90") == ""
        floor.resize({Hold.objects.get().id: "0"})  # a fill in between changes nothing
        assert floor.ask("buy 5 AAPL limit 90") == "duplicate_suspect"
        assert floor.ask("buy 5 AAPL limit 91") == ""
        assert floor.ask("buy 5 AAPL limit 90", automated=True) == ""
        assert floor.check(floor.intent("buy 5 AAPL limit 90"), at=floor.at + timedelta(seconds=3))[0].approved

    def test_e11_an_exception_in_a_check_denies_that_order_alone(self, floor: Floor, caplog: Any) -> None:
        bad = floor.intent("buy 1 AAPL")
        bad = replace(bad, quantity=Decimal("NaN"))
        verdicts = floor.check(bad, floor.intent("buy 1 AAPL"))
        assert [v.reason for v in verdicts] == ["check_failed", ""]
        assert replay(RiskCheck.objects.get(id=bad.order_id).checks)[:2] == (False, "check_failed")

    def test_the_number_of_statements_does_not_grow_with_the_batch(self, floor: Floor) -> None:
        floor.limit(Scope("firm"), "duplicate_window", "2")
        with sql.recorded() as one:
            floor.check(floor.intent("buy 1 AAPL"))
        with sql.recorded() as many:
            floor.check(*[floor.intent(f"buy {n} AAPL") for n in range(2, 102)])
        assert len(many) == len(one) <= 12


class TestLimitsThatBindWhereSet:
    """The facts that only some limits ask for, as they stand in the database."""

    def test_a_group_binds_the_orders_of_its_members(self, floor: Floor) -> None:
        tech = Group.objects.create(code="tech")
        floor.limit(Scope("group", "tech"), "order_quantity", "5")
        assert floor.ask("buy 6 AAPL") == ""
        for kind, key in (("symbol", "AAPL"), ("asset_class", "fx"), ("sector", "")):
            GroupMember.objects.create(group=tech, kind=kind, key=key)
        assert [floor.ask(t) for t in ("buy 6 AAPL", "buy 6 EUR/USD", "buy 6 VOD")] == ["quantity_limit"] * 2 + [""]
        assert "group tech" in floor.check(floor.intent("buy 6 AAPL"))[0].detail

    def test_a_rate_is_kept_from_batch_to_batch(self, floor: Floor) -> None:
        floor.limit(Scope("user", "alice"), "order_rate", "2")
        first = floor.check(*[floor.intent("buy 1 AAPL") for _ in range(3)])
        assert [v.reason for v in first] == ["", "", "rate_limit"]
        assert floor.ask("buy 1 AAPL") == "rate_limit"
        later = floor.at + timedelta(seconds=0.5)
        second = floor.check(*[floor.intent("buy 1 AAPL") for _ in range(2)], at=later)
        assert [v.reason for v in second] == ["", "rate_limit"]
        assert floor.broken() == {}

    def test_open_orders_are_counted_until_nothing_more_can_come(self, floor: Floor) -> None:
        floor.limit(Scope("account", "MAIN"), "open_orders", "1")
        intent = floor.intent("buy 1 AAPL")
        floor.check(intent)
        assert floor.ask("buy 1 VOD") == "open_orders_limit"
        floor.resize({intent.order_id: "0"})
        assert floor.ask("buy 1 VOD") == ""

    def test_the_days_loss_is_read_from_the_positions(self, floor: Floor) -> None:
        floor.limit(Scope("firm"), "daily_loss", "100", "USD")
        aapl = brokers.instruments_by_symbol()["AAPL"].id
        row = Position.objects.create(
            account=floor.account, instrument_id=aapl, quantity=10, cost=1100, day=floor.at.date(), day_quantity=10,
            day_amount=1100,
        )  # fmt: skip
        assert floor.ask("buy 1 AAPL") == ""
        Position.objects.filter(pk=row.pk).update(cost=1101, day_amount=1101)
        assert floor.ask("buy 1 AAPL") == "loss_limit"
        assert floor.ask("sell 1 AAPL") == ""
        Position.objects.filter(pk=row.pk).update(day=floor.at.date() - timedelta(days=1))
        assert floor.ask("buy 1 AAPL") == ""

    def test_a_drawdown_is_read_from_the_peak(self, floor: Floor) -> None:
        floor.limit(Scope("firm"), "drawdown", "50", "USD")
        aapl = brokers.instruments_by_symbol()["AAPL"].id
        Position.objects.create(account=floor.account, instrument_id=aapl, realized=49)
        ProfitPeak.objects.create(account=floor.account, value=100, at=floor.at)
        assert floor.ask("buy 1 AAPL") == "loss_limit"
        ProfitPeak.objects.update(value=99)
        assert floor.ask("buy 1 AAPL") == ""

    def test_what_a_strategy_works_counts_for_it(self, floor: Floor) -> None:
        carry = Strategy.objects.create(code="carry")
        floor.limit(Scope("strategy", "carry"), "concentration_strategy", "0.1")
        mine = {"strategy_id": carry.pk, "strategy_code": "carry"}
        assert [floor.ask("buy 600 AAPL limit 100", **mine) for _ in range(2)] == ["", "concentration_limit"]
        assert floor.ask("buy 600 AAPL limit 100") == ""

    def test_an_order_is_compared_with_what_the_market_trades(self, floor: Floor) -> None:
        floor.limit(Scope("symbol", "AAPL"), "volume_recent", "0.10")
        assert floor.check(floor.intent("buy 1 AAPL limit 100"))[0].reason == "no_volume"
        aapl = brokers.instruments_by_symbol()["AAPL"].id
        for minutes, volume in ((5, 60), (29, 40), (31, 1000), (24 * 60, 3000)):
            began = (floor.at - timedelta(minutes=minutes)).replace(second=0)
            prices = dict.fromkeys(("open", "high", "low", "close"), 100)
            Bar.objects.create(instrument_id=aapl, at=began, volume=volume, **prices)
        brokers.forget_cache()
        answers = [v.reason for v in floor.check(*[floor.intent(f"buy {n} AAPL limit 100") for n in (10, 11)])]
        assert answers == ["", "volume_limit"]
        floor.limit(Scope("symbol", "AAPL"), "volume_daily", "0.003")
        answers = [v.reason for v in floor.check(*[floor.intent(f"buy {n} AAPL limit 100") for n in (9, 10)])]
        assert answers == ["", "volume_limit"]

    def test_every_kind_of_limit_may_stand_at_once_and_all_verdicts_replay(self, floor: Floor) -> None:
        carry = Strategy.objects.create(code="carry")
        for kind in Limit.Kind.values:
            if kind not in ("order_quantity_min", "order_notional_min", "volume_recent", "volume_daily"):
                value = "0" if kind == "duplicate_window" else "1000000"
                floor.limit(Scope("account", "MAIN"), kind, value)
        mine = {"strategy_id": carry.pk, "strategy_code": "carry", "automated": True}
        with sql.recorded() as statements:
            verdicts = floor.check(*[floor.intent(f"buy {n} AAPL limit 100", **mine) for n in range(1, 51)])
        assert {v.reason for v in verdicts} == {""}
        assert len(statements) <= 17
        for stored in RiskCheck.objects.all():
            assert replay(stored.checks) == (stored.approved, stored.reason, stored.held)
        assert floor.broken() == {}


class TestRace:
    def test_e01_32_threads_never_pass_one_limit(self, live_floor: Floor) -> None:
        live_floor.limit(Scope("account", "MAIN"), "position", "1000")

        def trade(_: int) -> int:
            try:
                return sum(live_floor.ask("buy 10 AAPL") == "" for _ in range(5))
            finally:
                connection.close()

        with ThreadPoolExecutor(THREADS) as pool:
            approved = sum(pool.map(trade, range(THREADS)))
        assert approved == 100
        assert Exposure.objects.get().buying == 1000
        assert live_floor.broken() == {}

    def test_resizing_at_once_without_the_account_lock_keeps_the_totals(self, live_floor: Floor) -> None:
        intents = [live_floor.intent("buy 10 AAPL limit 100") for _ in range(THREADS)]
        live_floor.check(*intents)

        def fill(intent: Intent) -> None:
            try:
                for left in ("7", "4", "0"):
                    live_floor.resize({intent.order_id: left})
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, intents))
        assert Exposure.objects.get().buying == 0
        assert live_floor.broken() == {}

    def test_two_reports_on_one_order_at_once_keep_the_totals(self, live_floor: Floor) -> None:
        intents = [live_floor.intent("buy 10 AAPL limit 100") for _ in range(2)]
        live_floor.check(*intents)

        def fill(number: int) -> None:
            try:
                for left in range(20):
                    live_floor.resize({i.order_id: str((left * number) % 11) for i in intents})
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, range(1, 9)))
        assert live_floor.broken() == {}


class TestRecheck:
    def recheck(self, floor: Floor, intent: Intent, open_quantity: str) -> Verdict:
        with transaction.atomic():
            return risk.recheck(intent, open_quantity=Decimal(open_quantity), at=floor.at)

    def test_its_own_hold_does_not_count_against_it(self, floor: Floor) -> None:
        floor.limit(Scope("account", "MAIN"), "position", "100")
        intent = floor.intent("buy 80 AAPL limit 100")
        floor.check(intent)
        assert self.recheck(floor, replace(intent, quantity=Decimal(100)), "100").approved
        assert Hold.objects.get().open_quantity == 100
        assert self.recheck(floor, replace(intent, quantity=Decimal(101)), "101").reason == "position_limit"
        assert Exposure.objects.get().buying == 100
        assert floor.broken() == {}

    def test_the_hold_stays_at_the_worst_of_old_and_new(self, floor: Floor) -> None:
        intent = floor.intent("buy 80 AAPL limit 100")
        floor.check(intent)
        assert self.recheck(floor, replace(intent, quantity=Decimal(10), limit_price=Decimal(101)), "10").approved
        hold = Hold.objects.get()
        assert (hold.open_quantity, hold.unit_amount) == (80, 101)
        assert Exposure.objects.get().amount == 8080
        assert floor.broken() == {}


class TestLimits:
    def propose(self, floor: Floor, value: str, kind: str = "order_quantity", scope: Scope = Scope("firm")) -> Limit:
        return risk.propose_limit(scope, kind, Decimal(value), reason="why", actor=floor.actor(floor.rita), at=floor.at)

    def test_a_tighter_limit_holds_at_once(self, floor: Floor) -> None:
        assert self.propose(floor, "5").status == "active"
        assert floor.ask("buy 6 AAPL") == "quantity_limit"
        assert Limit.objects.filter(kind="order_quantity", status="retired").count() == 1

    def test_a_limit_that_begins_later_takes_over_at_its_time(self, floor: Floor) -> None:
        later = floor.at + timedelta(hours=1)
        limit = risk.propose_limit(
            Scope("firm"), "order_quantity", Decimal(5), effective_from=later, reason="x", actor=floor.actor(floor.rita),
            at=floor.at,
        )  # fmt: skip
        assert limit.status == "proposed"
        risk.decide(limit.id, "approve", reason="ok", actor=floor.actor(floor.rolf), at=floor.at)
        assert Limit.objects.get(pk=limit.pk).status == "approved"
        assert floor.ask("buy 6 AAPL") == ""
        Quote.objects.update(at=later)
        assert floor.check(floor.intent("buy 6 AAPL"), at=later)[0].reason == "quantity_limit"
        risk.propose_limit(
            Scope("firm"), "order_quantity", Decimal(4), reason="x", actor=floor.actor(floor.rita), at=later
        )
        statuses = Limit.objects.filter(kind="order_quantity").order_by("id").values_list("value", "status")
        assert sorted((int(v), s) for v, s in statuses) == [(4, "active"), (5, "retired"), (10000, "retired")]

    @pytest.mark.parametrize(("value", "scope"), [("20000", Scope("firm")), ("5", Scope("account", "MAIN"))])
    def test_a_looser_or_new_limit_waits_for_another_person(self, floor: Floor, value: str, scope: Scope) -> None:
        limit = self.propose(floor, value, scope=scope)
        assert limit.status == "proposed"
        with pytest.raises(Forbidden, match="approver_is_maker"):
            risk.decide(limit.id, "approve", reason="", actor=floor.actor(floor.rita), at=floor.at)
        with pytest.raises(Forbidden, match="not_a_person"):
            risk.decide(limit.id, "approve", reason="", actor=Actor("cli:root"), at=floor.at)
        done = risk.decide(limit.id, "approve", reason="fine", actor=floor.actor(floor.rolf), at=floor.at)
        assert (done.status, done.approver_id) == ("active", floor.rolf.pk)
        with pytest.raises(Conflict, match="already_decided"):
            risk.decide(limit.id, "refuse", reason="", actor=floor.actor(floor.rolf), at=floor.at)
        assert done.history.count() == 2

    def test_a_refused_limit_never_binds(self, floor: Floor) -> None:
        limit = self.propose(floor, "20000")
        risk.decide(limit.id, "refuse", reason="no", actor=floor.actor(floor.rolf), at=floor.at)
        assert floor.ask("buy 10001 AAPL") == "quantity_limit"

    def test_an_old_proposal_lapses(self, floor: Floor) -> None:
        limit = self.propose(floor, "20000")
        with pytest.raises(Conflict, match="approval_expired"):
            risk.decide(
                limit.id,
                "approve",
                reason="",
                actor=floor.actor(floor.rolf),
                at=floor.at + timedelta(hours=24),
            )

    def test_a_longer_duplicate_window_is_the_tighter_one(self, floor: Floor) -> None:
        floor.limit(Scope("firm"), "duplicate_window", "2")
        assert self.propose(floor, "3", "duplicate_window").status == "active"
        assert self.propose(floor, "1", "duplicate_window").status == "proposed"

    def test_a_limit_for_nobody_is_refused(self, floor: Floor) -> None:
        with pytest.raises(Invalid, match="unknown_account"):
            self.propose(floor, "1", scope=Scope("account", "NONE"))

    def test_every_change_is_journalled_with_the_limit_before(self, floor: Floor) -> None:
        self.propose(floor, "5")
        event = Event.objects.get(kind="limit.activated")
        assert event.actor == "user:rita"
        assert '"before":{' in event.body


class TestHalts:
    def engage(self, floor: Floor, scope: Scope, mode: str = "halt") -> Halt:
        return risk.engage_halt(scope, mode=mode, reason="test", actor=floor.actor(floor.rita), at=floor.at)

    @pytest.mark.parametrize(
        "scope",
        [Scope("all"), Scope("account", "MAIN"), Scope("symbol", "AAPL"), Scope("user", "alice")],
        ids=str,
    )
    def test_a_halt_denies_its_scope_until_another_person_releases_it(self, floor: Floor, scope: Scope) -> None:
        halt = self.engage(floor, scope)
        assert floor.ask("buy 1 AAPL") == "halted"
        with pytest.raises(Forbidden, match="approver_is_maker"):
            risk.release_halt(halt.id, reason="done", actor=floor.actor(floor.rita), at=floor.at)
        risk.release_halt(halt.id, reason="done", actor=floor.actor(floor.rolf), at=floor.at)
        assert floor.ask("buy 1 AAPL") == ""
        assert not halts(engaged=True)
        assert floor.broken() == {}

    def test_a_halt_of_another_symbol_binds_nothing_here(self, floor: Floor) -> None:
        self.engage(floor, Scope("symbol", "VOD"))
        assert floor.ask("buy 1 AAPL") == ""

    def test_reduce_only_lets_pass_what_brings_the_position_back(self, floor: Floor) -> None:
        aapl = brokers.instruments_by_symbol()["AAPL"]
        Position.objects.create(account=floor.account, instrument_id=aapl.id, quantity=100)
        self.engage(floor, Scope("all"), "reduce_only")
        assert [floor.ask("buy 1 AAPL"), floor.ask("sell 100 AAPL"), floor.ask("sell 1 AAPL")] == [
            "halted",
            "",
            "halted",
        ]

    def test_a_halt_of_all_shows_in_the_system_chain_and_every_account(self, floor: Floor) -> None:
        Account.objects.create(code="ALPHA", base_currency="USD")
        self.engage(floor, Scope("all"))
        told = Event.objects.filter(kind="halt.engaged").values_list("stream__name", "frame")
        assert set(told) == {("system", ""), ("account:MAIN", "halt"), ("account:ALPHA", "halt")}

    def test_an_unknown_scope_is_refused(self, floor: Floor) -> None:
        with pytest.raises(Invalid, match="unknown_symbol"):
            self.engage(floor, Scope("symbol", "NONE"))


class TestReads:
    def test_exposure_tells_used_held_and_headroom(self, floor: Floor) -> None:
        aapl = brokers.instruments_by_symbol()["AAPL"]
        Position.objects.create(account=floor.account, instrument_id=aapl.id, quantity=100)
        floor.ask("buy 50 AAPL limit 100")
        position, cash = exposure_out([floor.account], at=floor.at)
        assert (position["used"], position["held"], position["headroom"]) == ("100", "50", "19850")
        assert (cash["kind"], cash["headroom"], cash["breach"]) == ("buying_power", "995000", False)

    def test_e07_a_limit_lowered_under_its_use_shows_as_a_breach(self, floor: Floor) -> None:
        floor.ask("buy 50 AAPL limit 100")
        Limit.objects.filter(kind="position").update(value=40)
        position, _ = exposure_out([floor.account], at=floor.at)
        assert (position["headroom"], position["breach"]) == ("0", True)
        assert floor.ask("buy 1 AAPL") == "position_limit"

    def test_balances_tell_what_is_held_and_available(self, floor: Floor) -> None:
        floor.ask("buy 50 AAPL limit 100")
        [row] = balances_out(floor.account.pk, [{"currency": "USD", "ledger": "1000000"}])
        assert (row["held"], row["available"]) == ("5000", "995000")


def test_a_check_outside_a_transaction_is_a_mistake_told(live_floor: Floor) -> None:
    with pytest.raises(RuntimeError):
        risk.check([live_floor.intent("buy 1 AAPL")], at=live_floor.at)
