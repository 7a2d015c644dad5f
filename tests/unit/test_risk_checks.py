"""Each check by its numbers, and the gate by small tables; no database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from brokers.domain.rates import Rates
from brokers.domain.reference import InstrumentRef, QuoteRef
from oms.kernel import json
from oms.kernel.errors import Invalid
from risk.domain.checks import OrderQuantity, PositionLimit, PriceCollar, QuoteUsable, ShortSale
from risk.domain.exposures import Holding
from risk.domain.gate import Facts, Gate, HaltRef, MandateRef
from risk.domain.intents import Intent
from risk.domain.limits import LimitRef
from risk.domain.replaying import CHECKS, replay
from risk.domain.results import Result
from risk.domain.scopes import HALT_SCOPES, LIMIT_SCOPES, Scope, parse_scope, parse_scope_text

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
D = Decimal
STOCK = InstrumentRef(1, "AAPL", "equity", "", "USD", D("0.01"), D(1), 1, True)
PAIR = InstrumentRef(2, "EUR/USD", "fx", "EUR", "USD", D("0.00001"), D(1), 2, True)
COIN = InstrumentRef(3, "BTC/USDT", "crypto", "BTC", "USDT", D("0.01"), D("0.0001"), 0, True)
INSTRUMENTS = {i.id: i for i in (STOCK, PAIR, COIN)}


def quote(instrument: InstrumentRef, bid: str, ask: str, age: float = 0) -> QuoteRef:
    at = AT - timedelta(seconds=age)
    return QuoteRef(instrument.id, instrument.symbol, D(bid), D(ask), None, None, None, at, D(bid))


def limit(kind: str, value: str, scope: Scope = Scope("firm"), currency: str = "") -> LimitRef:
    return LimitRef(kind, D(value), currency, scope)


def gate(
    *limits: LimitRef, quotes: list[QuoteRef] | None = None, cash: dict[str, str] | None = None, **more: Any
) -> Gate:
    """A gate with wide limits of the firm, 10,000 USD, and AAPL at 99 / 101."""
    found = {q.instrument_id: q for q in quotes or [quote(STOCK, "99", "101"), quote(PAIR, "1.1", "1.1")]}
    wide = [
        limit("order_quantity", "1000"),
        limit("order_notional", "100000", currency="USD"),
        limit("position", "1000"),
    ]
    money = {c: D(v) for c, v in (cash or {"USD": "10000"}).items()}
    facts = Facts(AT, INSTRUMENTS, found, Rates(found, INSTRUMENTS), limits=[*wide, *limits], cash={7: money}, **more)
    return Gate(facts)


def intent(text: str, instrument: InstrumentRef = STOCK, **more: Any) -> Intent:
    """Spell an order: `buy 10`, `sell 10 limit 99`, `buy 10 stop 105`."""
    side, quantity, *rest = text.split()
    prices = {f"{rest[0]}_price": D(rest[1])} if rest else {}
    order_type = rest[0] if rest else "market"
    base: dict[str, Any] = {"account_id": 7, "account_code": "MAIN", "base_currency": "USD", "account_open": True}
    return Intent(
        order_id=UUID(int=1), instrument=instrument, side=side, quantity=D(quantity), order_type=order_type,
        **prices, **base | {"user_id": 5, "user_name": "alice"} | more,
    )  # fmt: skip


def holding(
    instrument: InstrumentRef, quantity: str, buying: str = "0", selling: str = "0"
) -> dict[tuple[int, int], Holding]:
    return {(7, instrument.id): Holding(D(quantity), D(buying), D(selling))}


class TestOneCheck:
    @pytest.mark.parametrize(
        ("check", "reason"),
        [
            (OrderQuantity(D(10), D(10), "firm"), None),
            (OrderQuantity(D("10.0000000001"), D(10), "firm"), "quantity_limit"),
            (QuoteUsable(None, None, None, D(60)), "no_quote"),
            (QuoteUsable(D(0), D(1), D(1), D(60)), "no_quote"),
            (QuoteUsable(D(2), D(1), D(1), D(60)), "crossed_quote"),
            (QuoteUsable(D(1), D(1), D(60), D(60)), None),
            (QuoteUsable(D(1), D(1), D("60.000001"), D(60)), "stale_quote"),
            (PriceCollar(True, D(110), D(100), D("0.1"), "firm"), None),
            (PriceCollar(True, D("110.01"), D(100), D("0.1"), "firm"), "price_collar"),
            (PriceCollar(False, D(90), D(100), D("0.1"), "firm"), None),
            (PriceCollar(False, D("89.99"), D(100), D("0.1"), "firm"), "price_collar"),
            (PriceCollar(False, D(500), D(100), D("0.1"), "firm"), None),
            (PositionLimit(True, D(50), D(30), D(20), D(100), "firm"), None),
            (PositionLimit(True, D(50), D(30), D(21), D(100), "firm"), "position_limit"),
            (PositionLimit(False, D(50), D(30), D(120), D(100), "firm"), None),
            (PositionLimit(False, D(50), D(30), D(121), D(100), "firm"), "position_limit"),
            (PositionLimit(False, D(500), D(0), D(1), D(100), "firm"), None),
            (ShortSale("equity", "sell", D(10), D(10), False), None),
            (ShortSale("crypto", "sell", D(11), D(10), True), "short_not_allowed"),
            (ShortSale("fx", "sell", D(11), D(10), False), None),
            (ShortSale("equity", "sell_short", D(11), D(0), True), None),
            (ShortSale("equity", "sell_short", D(1), D(10), False), "short_not_allowed"),
        ],
    )
    def test_judges_by_its_numbers(self, check: Any, reason: str | None) -> None:
        assert check.judge() == reason
        stored = json.loads(json.dumps([check.as_json(check.judge())]))
        assert replay(stored)[:2] == (reason is None, reason or "")

    def test_a_changed_number_changes_the_replay(self) -> None:
        stored = OrderQuantity(D(10), D(10), "firm").as_json(None)
        stored["numbers"]["limit"] = "9"
        assert replay([stored])[:2] == (False, "quantity_limit")

    def test_every_check_has_a_name_of_its_own(self) -> None:
        assert len(CHECKS) == len({kind.__name__ for kind in CHECKS.values()}) == 48

    def test_every_kind_of_limit_is_measured_or_judged_by_name(self) -> None:
        from risk.domain.limits import IN_CURRENCY, KINDS, SOFT
        from risk.domain.measures import CUTOFFS, MEASURES
        from risk.models import Limit

        assert set(Limit.Kind.values) == set(KINDS) == {*MEASURES, "quote_age", "duplicate_window"}
        assert {*IN_CURRENCY, *SOFT} <= set(KINDS)
        assert set(MEASURES) - set(CUTOFFS) <= set(CHECKS)


class TestGate:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("buy 10", ""),
            ("buy 1001", "quantity_limit"),
            ("buy 991 limit 101", "notional_limit"),
            ("buy 1 limit 111.11", "price_collar"),
            ("buy 1 limit 111.1", ""),
            ("buy 1 limit 0.01", ""),
            ("sell 1 limit 89.09", "price_collar"),
            ("sell 1", "short_not_allowed"),
            ("buy 100 limit 100", ""),
            ("buy 101 limit 100", "buying_power"),
            ("buy 91", "buying_power"),  # 91 × 101 × 1.1: at market the collar counts
            ("buy 90", ""),
            ("buy 1 stop 120", ""),
            ("buy 76 stop 120", "buying_power"),
        ],
    )
    def test_verdicts_on_a_flat_account(self, text: str, reason: str) -> None:
        verdict, held = gate().judge(intent(text))
        assert (verdict.reason, held is not None) == (reason, reason == "")
        assert replay(json.loads(json.dumps(verdict.checks)))[:2] == (verdict.approved, verdict.reason)

    @pytest.mark.parametrize(
        ("text", "position", "unit"),
        [
            ("buy 10 limit 98", "0", "98"),
            ("buy 10", "0", "111.1"),
            ("buy 10 limit 100", "-10", "0"),
            ("buy 11 limit 100", "-10", "100"),
            ("sell 10 limit 100", "10", "0"),
            ("sell_short 10 limit 100", "0", "50"),
            ("sell_short 10", "0", "51"),
            ("sell_short 10 limit 120", "0", "60"),
        ],
    )
    def test_an_order_holds_its_worst_case(self, text: str, position: str, unit: str) -> None:
        desk = gate(cash={"USD": "100000"}, holdings=holding(STOCK, position), shortable={("", 1)})
        _, held = desk.judge(intent(text))
        assert held is not None
        assert held.unit_amount == D(unit)

    def test_a_short_position_ties_half_as_much_again(self) -> None:
        desk = gate(holdings=holding(STOCK, "-10"))
        assert desk.free_cash(7, "USD") == 10_000 - 1_500

    def test_a_short_position_without_a_price_stops_what_needs_cash(self) -> None:
        desk = gate(quotes=[quote(STOCK, "99", "101")], holdings=holding(COIN, "-1"))
        assert desk.judge(intent("buy 1"))[0].reason == "no_quote"

    def test_cash_without_a_rate_counts_for_nothing(self) -> None:
        assert gate(cash={"USD": "100", "USDT": "1000000"}).free_cash(7, "USD") == 100

    def test_a_debt_without_a_rate_stops_what_needs_cash(self) -> None:
        assert gate(cash={"USD": "10000", "USDT": "-1"}).judge(intent("buy 1"))[0].reason == "no_quote"

    def test_cash_of_other_currencies_counts_by_the_pair(self) -> None:
        assert gate(cash={"EUR": "1000"}).free_cash(7, "USD") == 1100

    def test_an_instrument_without_a_rate_to_the_limit_is_not_valued(self) -> None:
        desk = gate(quotes=[quote(COIN, "50000", "50000")])
        assert desk.judge(intent("buy 0.1", COIN))[0].reason == "no_quote"

    def test_the_tightest_limit_wins_and_is_named(self) -> None:
        desk = gate(
            limit("order_quantity", "50", Scope("user", "alice")), limit("order_quantity", "5", Scope("user", "otto"))
        )
        verdict, _ = desk.judge(intent("buy 51"))
        assert (verdict.reason, "user alice" in verdict.detail) == ("quantity_limit", True)

    def test_the_tightest_value_is_found_across_currencies(self) -> None:
        desk = gate(limit("order_notional", "95", Scope("account", "MAIN"), "EUR"))
        verdict, _ = desk.judge(intent("buy 2 limit 60"))
        assert (verdict.reason, "EUR" in verdict.detail) == ("notional_limit", True)

    def test_a_closed_account_trades_nothing(self) -> None:
        assert gate().judge(intent("buy 1", account_open=False))[0].reason == "account_closed"

    @pytest.mark.parametrize(("side", "reason"), [("buy", "halted"), ("sell", "")])
    def test_reduce_only_passes_what_reduces(self, side: str, reason: str) -> None:
        desk = gate(halts=[HaltRef("reduce_only", Scope("all"))], holdings=holding(STOCK, "10"))
        verdict, _ = desk.judge(intent(f"{side} 10"))
        assert (verdict.reason, verdict.reduces) == (reason, side == "sell")

    def test_a_halt_of_the_directed_broker_denies(self) -> None:
        desk = gate(halts=[HaltRef("halt", Scope("broker", "NEAR"))])
        assert desk.judge(intent("buy 1", directed_broker_code="NEAR"))[0].reason == "halted"
        assert desk.judge(intent("buy 1"))[0].reason == ""

    def test_gross_exposure_counts_both_sides_and_what_works(self) -> None:
        desk = gate(limit("gross_exposure", "1000"), holdings=holding(STOCK, "5", buying="3"))
        assert desk.judge(intent("buy 2 limit 100"))[0].reason == ""
        assert desk.judge(intent("buy 1 limit 100"))[0].reason == "position_limit"

    def test_a_sale_at_a_low_limit_is_valued_at_the_bid(self) -> None:
        desk = gate(limit("order_notional", "98"), holdings=holding(STOCK, "10"))
        assert desk.judge(intent("sell 1 limit 95"))[0].reason == "notional_limit"

    def test_a_refused_order_leaves_no_trace_for_the_next(self) -> None:
        desk = gate()
        assert [desk.judge(intent(f"buy {n} limit 100"))[0].reason for n in (60, 60, 40)] == ["", "buying_power", ""]


class TestMandates:
    @pytest.mark.parametrize(
        ("scope", "dimension", "allowed", "reason"),
        [
            (Scope("firm"), "asset_class", "equity,fx", ""),
            (Scope("account", "MAIN"), "asset_class", "fx", "not_permitted"),
            (Scope("user", "alice"), "currency", "EUR,GBP", "not_permitted"),
            (Scope("user", "bob"), "currency", "EUR,GBP", ""),
            (Scope("strategy", "carry"), "symbol", "MSFT", "not_permitted"),
            (Scope("account", "MAIN"), "country", "US", "not_permitted"),  # nobody said where AAPL is from
            (Scope("account", "MAIN"), "symbol", "AAPL,MSFT", ""),
            (Scope("account", "MAIN"), "symbol", "AAP", "not_permitted"),
        ],
    )
    def test_only_what_is_allowed_passes(self, scope: Scope, dimension: str, allowed: str, reason: str) -> None:
        desk = gate(mandates=[MandateRef(scope, dimension, allowed)])
        verdict, _ = desk.judge(intent("buy 1", strategy_id=3, strategy_code="carry"))
        assert verdict.reason == reason
        assert replay(json.loads(json.dumps(verdict.checks)))[:2] == (verdict.approved, reason)
        if reason:
            assert str(scope) in verdict.detail

    def test_of_several_all_must_allow_it(self) -> None:
        one, other = MandateRef(Scope("firm"), "symbol", "AAPL"), MandateRef(Scope("user", "alice"), "symbol", "MSFT")
        assert gate(mandates=[one, other]).judge(intent("buy 1"))[0].reason == "not_permitted"

    def test_what_is_watched_passes_and_is_marked(self) -> None:
        verdict, _ = gate(watched={STOCK.id: AT}).judge(intent("buy 1"))
        assert verdict.approved
        assert [c["numbers"]["symbol"] for c in verdict.checks if c["check"] == "watched"] == ["AAPL"]


class TestLimitsThatBindWhereSet:
    """AAPL stands at 99 / 101, its middle is 100; the account has 10,000 USD."""

    @pytest.mark.parametrize(
        ("kind", "value", "passes", "fails", "reason"),
        [
            ("order_quantity_min", "5", "buy 5", "buy 4", "quantity_minimum"),
            ("order_notional_min", "500", "buy 5 limit 100", "buy 5 limit 99.99", "notional_minimum"),
            ("price_collar_ticks", "5", "buy 1 limit 101.05", "buy 1 limit 101.06", "price_collar"),
            ("price_collar_ticks", "5", "buy 1 limit 1", "buy 1 limit 101.06", "price_collar"),
            ("spread", "0.02", "buy 1", None, ""),
            ("spread", "0.0199", None, "buy 1", "spread_too_wide"),
            ("position_long", "10", "buy 10", "buy 11", "position_limit"),
            ("position_short", "10", "buy 11", "sell_short 11", "position_limit"),
            ("position_gross", "10", "buy 10", "buy 11", "position_limit"),
            ("gross_exposure", "1000", "buy 10", "buy 11", "position_limit"),
            ("net_exposure", "1000", "buy 10", "buy 11", "net_exposure_limit"),
            ("leverage", "0.5", "buy 50 limit 90", "buy 51 limit 90", "leverage_limit"),
            ("concentration", "0.1", "buy 10", "buy 11", "concentration_limit"),
            ("concentration_class", "0.1", "buy 10", "buy 11", "concentration_limit"),
            ("open_orders", "1", "buy 1", None, ""),
            ("open_orders", "0", None, "buy 1", "open_orders_limit"),
        ],
    )
    def test_at_the_limit_an_order_passes_and_past_it_not(
        self, kind: str, value: str, passes: str | None, fails: str | None, reason: str
    ) -> None:
        shortable = {("", STOCK.id)}
        if passes:
            assert gate(limit(kind, value), shortable=shortable).judge(intent(passes))[0].reason == ""
        if fails:
            verdict, held = gate(limit(kind, value), shortable=shortable).judge(intent(fails))
            assert (verdict.reason, held) == (reason, None)
            assert "firm" in verdict.detail
            assert replay(json.loads(json.dumps(verdict.checks))) == (False, reason, False)

    def test_the_tightest_of_several_wins_and_is_named(self) -> None:
        user, group = Scope("user", "alice"), Scope("group", "tech")
        desk = gate(
            limit("position_long", "10"),
            limit("position_long", "5", user),
            LimitRef("position_long", D(3), "", group, member=Scope("symbol", "AAPL")),
            LimitRef("position_long", D(1), "", group, member=Scope("symbol", "MSFT")),
        )
        verdict, _ = desk.judge(intent("buy 4"))
        assert verdict.reason == "position_limit"
        assert "group tech" in verdict.detail
        assert desk.judge(intent("buy 3"))[0].approved

    def test_of_two_minima_the_higher_binds(self) -> None:
        desk = gate(limit("order_quantity_min", "2"), limit("order_quantity_min", "5", Scope("user", "alice")))
        assert [desk.judge(intent(f"buy {n}"))[0].reason for n in (4, 5)] == ["quantity_minimum", ""]

    def test_a_sale_of_what_is_held_passes_limits_on_exposure(self) -> None:
        desk = gate(limit("gross_exposure", "1"), limit("daily_loss", "1"), holdings=holding(STOCK, "50"))
        assert desk.judge(intent("sell 50"))[0].approved

    def test_net_exposure_sums_with_signs(self) -> None:
        held = holding(STOCK, "-10") | holding(PAIR, "500")  # -1,000 and 550 USD
        desk = gate(limit("net_exposure", "50"), holdings=held)
        assert [desk.judge(intent(f"buy {n}", PAIR))[0].reason for n in (450, 50)] == [
            "",
            "net_exposure_limit",
        ]

    def test_orders_of_one_second_fill_a_bucket_that_runs_out(self) -> None:
        desk = gate(limit("order_rate", "2"))
        assert [desk.judge(intent("buy 1"))[0].reason for _ in range(3)] == ["", "", "rate_limit"]
        desk.facts.at += timedelta(seconds=0.5)
        assert [desk.judge(intent("buy 1"))[0].reason for _ in range(2)] == ["", "rate_limit"]
        assert desk.paced == {(7, "order_rate", "firm", "")}

    def test_replaces_count_as_messages_and_not_as_orders(self) -> None:
        desk = gate(limit("order_rate", "1"), limit("message_rate", "2"))
        assert desk.judge(intent("buy 1"))[0].approved
        assert desk.judge(intent("buy 1"), working=D(1))[0].approved
        verdict, _ = desk.judge(intent("buy 1"), working=D(1))
        assert (verdict.reason, "message" in verdict.detail) == ("rate_limit", True)

    def test_e06_runs_of_a_program_are_counted_by_strategy_and_never_run_out(self) -> None:
        desk = gate(limit("automated_runs", "2"))
        program = {"automated": True, "strategy_id": 3, "strategy_code": "carry"}
        assert [desk.judge(intent("buy 1", **program))[0].reason for _ in range(3)] == ["", "", "strategy_throttled"]
        desk.facts.at += timedelta(seconds=50)
        assert desk.judge(intent("buy 1", **program))[0].reason == "strategy_throttled"
        assert desk.judge(intent("buy 1", **program | {"automated": False}))[0].approved
        assert desk.judge(intent("buy 1", **program | {"strategy_id": 4, "strategy_code": "momentum"}))[0].approved

    def test_open_orders_are_counted_for_whom_the_limit_names(self) -> None:
        desk = gate(limit("open_orders", "1", Scope("user", "alice")), limit("open_orders", "3"))
        assert [desk.judge(intent("buy 1"))[0].reason for _ in range(2)] == ["", "open_orders_limit"]
        bob = {"user_id": 6, "user_name": "bob"}
        assert [desk.judge(intent("buy 1", **bob))[0].reason for _ in range(3)] == ["", "", "open_orders_limit"]

    def test_a_loss_of_the_day_stops_what_adds_risk(self) -> None:
        # 10 held since before the open at 99, now 100: a gain of 10; 5 more bought today at 110: a loss of 50
        part = Result(STOCK.id, D(15), D(1540), D(0), D(0), D(5), D(550))
        desk = gate(limit("daily_loss", "40"), holdings=holding(STOCK, "15"), results={7: [part]})
        assert desk.judge(intent("buy 1"))[0].approved
        desk = gate(limit("daily_loss", "39.99"), holdings=holding(STOCK, "15"), results={7: [part]})
        assert desk.judge(intent("buy 1"))[0].reason == "loss_limit"

    def test_a_drawdown_counts_from_the_highest_profit_seen(self) -> None:
        part = Result(STOCK.id, D(10), D(900), D(50), D(5), D(0), D(0))  # 45 realised, 100 not: 145
        for peak, reason in (("245", ""), ("245.01", "loss_limit")):
            desk = gate(
                limit("drawdown", "100"),
                holdings=holding(STOCK, "10"),
                results={7: [part]},
                peaks={7: D(peak)},
            )
            assert desk.judge(intent("buy 1"))[0].reason == reason

    def test_a_strategy_is_judged_by_what_it_holds_itself(self) -> None:
        desk = gate(limit("concentration_strategy", "0.1"), by_strategy={(7, 3): {STOCK.id: Holding(D(8))}})
        mine = {"strategy_id": 3, "strategy_code": "carry"}
        assert [desk.judge(intent(f"buy {n}", **mine))[0].reason for n in (3, 2, 1)] == [
            "concentration_limit",
            "",
            "concentration_limit",
        ]
        assert desk.judge(intent("buy 10", strategy_id=4, strategy_code="momentum"))[0].approved

    def test_what_can_not_be_valued_is_denied(self) -> None:
        desk = gate(limit("leverage", "9"), holdings=holding(COIN, "1"))
        assert desk.judge(intent("buy 1"))[0].reason == "no_quote"

    def test_a_soft_limit_holds_what_hard_ones_let_pass(self) -> None:
        soft = LimitRef("order_quantity", D(10), "", Scope("account", "MAIN"), soft=True)
        desk = gate(soft)
        verdict, reserved = desk.judge(intent("buy 11"))
        assert (verdict.approved, verdict.held, verdict.reason, reserved) == (False, True, "quantity_limit", None)
        assert replay(json.loads(json.dumps(verdict.checks))) == (False, "quantity_limit", True)
        assert not desk.judge(intent("buy 1001"))[0].held
        assert desk.judge(intent("buy 11"), waived=True)[0].approved


class TestScopes:
    @pytest.mark.parametrize(
        "raw",
        [None, [], {}, {"all": 1}, {"all": False}, {"account": ""}, {"planet": "x"}, {"account": "A", "all": True}],
    )
    def test_what_is_no_scope_is_refused(self, raw: object) -> None:
        with pytest.raises(Invalid, match="not_a_scope"):
            parse_scope(raw, HALT_SCOPES)

    @pytest.mark.parametrize(("text", "scope"), [("all", Scope("all")), ("account:MAIN", Scope("account", "MAIN"))])
    def test_the_command_line_spells_them_shorter(self, text: str, scope: Scope) -> None:
        assert parse_scope_text(text, HALT_SCOPES) == scope
        assert parse_scope(scope.as_json(), HALT_SCOPES) == scope

    def test_the_firm_is_no_scope_of_a_halt(self) -> None:
        assert parse_scope({"firm": True}, LIMIT_SCOPES) == Scope("firm")
        with pytest.raises(Invalid):
            parse_scope({"firm": True}, HALT_SCOPES)
