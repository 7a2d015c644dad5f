"""Published charges of brokers, exchanges and states, played by `brokers.domain.fees`."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.domain.calendars import Calendar
from brokers.domain.fees import EXTENDED, REGULAR, Done, cancellation, charge, judge
from tests.oracles.reading import ABOUT, Fields, cases, check, document

ZERO, MILLION = Decimal(0), Decimal(1_000_000)
Item = dict[str, Any]
Case = Callable[[Fields], dict[str, Any]]


def item(basis: str, rate: object = None, kind: str = "charge", **more: Any) -> Item:
    return {"kind": kind, "basis": basis} | ({"rate": str(rate)} if rate is not None else {}) | more


def total(items: list[Item], quantity: Decimal, price: Decimal, side: str = "buy", **more: Any) -> Decimal:
    judge(items)
    told = charge(items, side=side, quantity=quantity, price=price, currency="USD", **more)
    return sum((c.amount for c in told), ZERO)


def per_share(schedule: dict[str, Any], rate: object = None) -> Item:
    """Read a schedule of so much a share, at least so much an order and at most so much of its value."""
    rate = rate or schedule.get("per_share") or schedule.get("fixed_per_share")
    cap = schedule.get("max_pct_of_trade_value") or schedule["max_pct"]
    return item("per_share", rate, "commission", min=schedule["min_per_order"].split()[0], max_percent=percent(cap))


def percent(part: str) -> str:
    return str(Decimal(part) * 100)


def tiers(schedule: dict[str, Any]) -> list[list[str | None]]:
    told = schedule.get("monthly_tiers") or schedule["tiered"]
    return [[None if bound is None else str(bound), rate] for bound, rate in told]


def stock(name: str) -> Case:
    """Play a commission on shares, fixed or by the month's volume with what is passed through."""
    schedule = document("fees.json").get("schedules", {}).get(name, {})

    def play(inputs: Fields) -> dict[str, Any]:
        quantity, price, side = inputs.number("qty"), inputs.number("price"), inputs.take("side", "buy")
        month = Done(inputs.number("monthly_shares", "0"))
        fixed = [per_share(schedule if "min_per_order" in schedule and "monthly_tiers" not in schedule else FIXED(),
                           inputs.take("per_share"))]  # fmt: skip
        if "monthly_tiers" not in schedule and "exchange_fee_total" not in inputs:
            return {"commission": lambda: total(fixed, quantity, price, side)}
        regulators = [
            item("percent", inputs.number("sec_rate_per_million", "0") / 10_000, "sec", side="sell"),
            item(
                "per_share",
                inputs.number("taf_rate", "0.000145"),
                "taf",
                side="sell",
                max=inputs.take("taf_cap", "7.27"),
            ),
        ]
        commission = item("per_share", kind="commission", tiers=tiers(schedule))
        bounds = {"min": schedule["min_per_order"], "max_percent": percent(schedule["max_pct_of_trade_value"])}
        passed = [
            item("per_order", inputs.take("exchange_fee_total", "0"), "exchange"),
            item("per_share", inputs.take("clearing_per_share", "0"), "clearing"),
            item("percent_of", inputs.number("nyse_pass", "0") * 100, "nyse", of="commission"),
            item("percent_of", inputs.number("finra_pass", "0") * 100, "finra", of="commission"),
        ]

        def by_tier() -> list[str]:
            found, start, end = [], month.quantity, month.quantity + quantity
            for bound, _ in commission["tiers"]:
                upto = end if bound is None else min(end, Decimal(bound))
                if upto > start:
                    found.append(f"{total([commission], upto - start, price, side, month=Done(start)):.2f}")
                    start = upto
            return found

        return {
            "commission": lambda: total([commission | bounds], quantity, price, side, month=month),
            "commission_tiers": by_tier,
            "tiered_total": lambda: total(
                [commission | bounds, *passed, *regulators], quantity, price, side, month=month
            ),
            "fixed_total": lambda: total([*fixed, *regulators], quantity, price, side),
        }

    return play


def FIXED() -> dict[str, Any]:  # noqa: N802 - a schedule of the file, by its name there
    return dict(document("fees.json")["schedules"]["IBKR_US_STOCK_FIXED"])


OPTION_BANDS = [
    {"month_upto": "10000", "below": "0.05", "rate": "0.25"}, {"month_upto": "10000", "below": "0.10", "rate": "0.50"},
    {"month_upto": "10000", "rate": "0.65"}, {"month_upto": "50000", "below": "0.05", "rate": "0.25"},
    {"month_upto": "50000", "rate": "0.50"}, {"month_upto": "100000", "rate": "0.25"}, {"rate": "0.15"},
]  # fmt: skip


def option(inputs: Fields) -> dict[str, Any]:
    month = Done(inputs.number("monthly_contracts", "0"))
    items = [item("per_contract", bands=OPTION_BANDS, min="1")]
    quantity, premium = inputs.number("contracts"), inputs.number("premium")
    return {"commission": lambda: total(items, quantity, premium, month=month)}


def allocation(inputs: Fields) -> dict[str, Any]:
    items = [item("percent", "0.05", max=inputs.take("cap"))]
    quantity, price = inputs.number("qty"), inputs.number("price")
    return {"minimum": lambda: total(items, quantity, price)}


def forex(inputs: Fields) -> dict[str, Any]:
    items, notional = [item("percent", "0.002", min="2")], inputs.number("notional_usd")
    return {"commission": lambda: total(items, Decimal(1), notional)}


def cfd(inputs: Fields) -> dict[str, Any]:
    least = {"JPY": "40", "HKD": "10"}.get(inputs.take("currency"), "1")
    items, notional = [item("percent", "0.002", min=least)], inputs.number("notional")
    return {"commission": lambda: total(items, Decimal(1), notional)}


def future(inputs: Fields, expected: dict[str, Any], currency: str = "USD", rate: object = None) -> dict[str, Any]:
    """Play a charge a contract, published as a rate beside its product with the number of contracts."""
    inputs.take("date")
    contracts, price, multiplier = (
        inputs.number("contracts"),
        inputs.number("price", "1"),
        inputs.number("multiplier", "1"),
    )
    items = [item("percent", rate) if rate else item("per_contract", expected.get("per_contract", "40"))]
    return {
        "per_contract": lambda: total(items, Decimal(1), price * multiplier),
        "commission": lambda: total(items, contracts, price * multiplier),
        "currency": lambda: currency,
    }


def free(inputs: Fields) -> dict[str, Any]:
    quantity, price = inputs.number("qty"), inputs.number("price")
    return {"commission": lambda: total([], quantity, price)}


def crypto(inputs: Fields) -> dict[str, Any]:
    items = [
        item("percent", rate, f"{role} {side}", side=side, liquidity=role, **more)
        for role, rate in (("maker", "0.15"), ("taker", "0.25"))
        for side, more in (("buy", {"currency": "base"}), ("sell", {}))
    ]
    judge(items)
    quantity = inputs.number("qty")
    [told] = charge(
        items, side=inputs.take("side"), quantity=quantity, price=inputs.number("price"), currency="USD",
        liquidity=inputs.take("role"), base_currency="BTC",
    )  # fmt: skip
    return {
        "fee": lambda: told.amount,
        "fee_currency": lambda: told.currency,
        "net_qty_received": lambda: quantity - told.amount,
    }


UP = {"round": {"to": "0.01", "mode": "up"}}
PENNY = {"round": {"to": "0.01", "mode": "half_up"}}


def regulatory(inputs: Fields) -> dict[str, Any]:
    """Play what regulators take: a day's total of one kind, or what a sale makes of the rates told or published."""
    if "taf_accrued" in inputs:
        accrued = inputs.number("taf_accrued")
        return {"charged": lambda: total([item("per_order", accrued, **UP)], Decimal(1), Decimal(1))}
    side, price = inputs.take("side", "sell"), inputs.number("price", "1")
    quantity = inputs.number("qty", "0") or inputs.number("contracts", "0")
    cap = inputs.take("taf_cap", "8.30")
    taf = [item("per_share", inputs.take("taf_rate", "0.000166"), side="sell", max=cap)]
    sec = [item("percent", inputs.number("sec_rate_per_million", "27.80") / 10_000, side="sell")]
    return {
        "taf_exact": lambda: total(taf, quantity, price, side),
        "taf": lambda: total([taf[0] | PENNY], quantity, price, side),
        "sec_exact": lambda: total(sec, quantity, price, side),
        "sec_fee": lambda: total([sec[0] | PENNY], quantity, price, side),
        "occ": lambda: total([item("per_contract", "0.02", max="55")], quantity, price, side),
        "orf": lambda: total([item("per_contract", "0.02685")], quantity, price, side),
        "cat": lambda: total([item("per_share", "0.000046")], quantity, price, side),
    }


def stamp(rounding: dict[str, Any], **more: Any) -> Case:
    def play(inputs: Fields) -> dict[str, Any]:
        worth = inputs.number("raw") * 200 if "raw" in inputs else inputs.number("consideration")
        return {"duty": lambda: total([item("percent", "0.5", side="buy", **more, round=rounding)], Decimal(1), worth)}

    return play


INDEX_OPTIONS = {
    "SPX": [{"below": "1", "rate": "0.57"}, {"rate": "0.66"}], "SPXW": [{"below": "1", "rate": "0.50"}, {"rate": "0.59"}],
    "VIX": [{"upto": "0.10", "rate": "0.10"}, {"upto": "0.99", "rate": "0.25"}, {"upto": "1.99", "rate": "0.40"},
            {"rate": "0.45"}],
    "DJX": [{"rate": "0.18"}], "NDX": [{"below": "25", "rate": "0.50"}, {"rate": "0.75"}],
    "XSP": [{"below": "10", "rate": "0"}, {"rate": "0.07"}],
}  # fmt: skip


def index_option(inputs: Fields) -> dict[str, Any]:
    underlying = inputs.take("underlying")
    bands = INDEX_OPTIONS[{"VIXW": "VIX", "NDXP": "NDX"}.get(underlying, underlying)]
    exchange = item("per_contract", kind="exchange", bands=bands, by="quantity" if underlying == "XSP" else "price")
    items, quantity, premium = (
        [item("per_contract", "0.50"), exchange],
        inputs.number("contracts"),
        inputs.number("premium"),
    )
    return {"fee": lambda: total(items, quantity, premium)}


BY_VALUE = [("10", "0.49"), ("25", "0.69"), ("50", "1.19"), ("100", "1.69"), ("250", "3.29"), ("500", "6.29")]
FLAT_AND_MORE = [
    item("per_order", kind="flat", by="value", bands=[*({"upto": u, "rate": r} for u, r in BY_VALUE), {"rate": "0"}]),
    item("percent", "1.25", "share", above="500"),
]


def by_value(inputs: Fields) -> dict[str, Any]:
    quantity, price = inputs.number("qty"), inputs.number("price")
    return {"fee": lambda: total(FLAT_AND_MORE, quantity, price)}


def extended(inputs: Fields) -> dict[str, Any]:
    """Play a charge outside of the exchange's session, here of the day that the case names."""
    at = datetime.fromisoformat(inputs.take("time_utc"))
    opens, closes = at.replace(hour=14, minute=30), at.replace(hour=21, minute=0)
    day = Calendar([at.date()], [opens], [closes]) if at.weekday() < 5 else Calendar([], [], [])
    hours = REGULAR if day.is_open(at) else EXTENDED
    quantity = inputs.number("qty")
    items = [item("per_order", "2.99", hours="extended")]
    return {"fee": lambda: total(items, quantity, inputs.number("price", "10"), hours=hours)}


def cancels(inputs: Fields) -> dict[str, Any]:
    assert inputs.take("orders") >= inputs.raw["cancelled"]
    canceled, executed = int(inputs.take("cancelled")), int(inputs.take("executed_later"))
    fee, credit = inputs.number("cancel_fee"), inputs.number("execution_credit")
    return {
        "cancel_fees": lambda: cancellation(canceled=canceled, executed=0, fee=fee, credit=credit),
        "credits": lambda: executed * credit,
        "charged": lambda: cancellation(canceled=canceled, executed=executed, fee=fee, credit=credit),
    }


PLAYED: dict[str, Case] = {
    **{
        n: stock(n) for n in ("IBKR_US_STOCK_FIXED", "IBKR_US_STOCK_FIXED_OLD", "IBKR_US_STOCK_TIERED", "IBKR_CA_STOCK")
    },
    "IBKR_ALLOCATION_MIN": allocation,
    "IBKR_US_OPTION": option,
    "IBKR_FOREX": forex,
    "IBKR_CFD": cfd,
    "ALPACA_EQUITY": free,
    "ALPACA_CRYPTO": crypto,
    **dict.fromkeys(("ALPACA_REGULATORY", "FINRA_TAF_EQUITY", "SEC_SECTION_31"), regulatory),
    "UK_STAMP_DUTY_PAPER": stamp({"to": "5", "mode": "up"}, above="1000"),
    **dict.fromkeys(("UK_SDRT", "UK_STAMP_DUTY"), stamp(PENNY["round"])),
    "WEBULL_INDEX_OPTION": index_option,
    "PUBLIC_CRYPTO_TIER": by_value,
    "PUBLIC_EXTENDED_HOURS": extended,
    "IBKR_CANCEL_FEE": cancels,
}
FUTURES: dict[str, dict[str, Any]] = {
    "IBKR_US_FUTURE": {},
    "IBKR_HK_FUTURE": {"currency": "HKD"},
    "IBKR_KR_FUTURE": {"currency": "KRW", "rate": "0.004"},
}


@pytest.mark.parametrize("case", cases("fees.json"))
def test_a_published_charge(case: dict[str, Any]) -> None:
    assert case.keys() <= ABOUT | {"schedule", "inputs", "expected"}
    if case.get("do_not_assert"):
        pytest.skip("published as not to be asserted")
    inputs, expected, name = Fields(case["inputs"], "inputs"), case["expected"], case["schedule"]
    if name in FUTURES:
        figures = future(inputs, expected, **FUTURES[name])
    elif name in PLAYED:
        figures = PLAYED[name](inputs)
    else:
        pytest.fail(f"nothing knows the schedule {name}")
    check(expected, figures, name)
    inputs.end()
