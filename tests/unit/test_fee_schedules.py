"""Fee schedules of brokers, exchanges and states, against figures that these published."""

from decimal import Decimal
from typing import Any

import pytest

from brokers.domain.fees import Done, FeeCharge, charge, judge

Item = dict[str, Any]


def schedule(*items: Item) -> list[Item]:
    return [{"kind": f"charge {n}"} | i for n, i in enumerate(items)]


def per_share(rate: str, **more: Any) -> Item:
    return {"basis": "per_share", "rate": rate, **more}


FIXED = schedule(per_share("0.005", min="1.00", max_percent="1"))
TIERS = [["300000", "0.0035"], ["3000000", "0.0020"], ["20000000", "0.0015"], ["100000000", "0.0010"], [None, "0.0005"]]
REGULATORY = [
    {"kind": "sec", "basis": "percent", "rate": "0.0008", "side": "sell"},
    {"kind": "taf", "basis": "per_share", "rate": "0.000145", "max": "7.27", "side": "sell"},
]


def tiered(exchange: str) -> list[Item]:
    """Return commission by the month's volume with what is passed through, the exchange at so much a share."""
    return [
        {"kind": "commission", "basis": "per_share", "tiers": TIERS, "min": "0.35", "max_percent": "1"},
        {"kind": "exchange", "basis": "per_share", "rate": exchange},
        {"kind": "clearing", "basis": "per_share", "rate": "0.0002"},
        {"kind": "nyse", "basis": "percent_of", "of": "commission", "rate": "0.0175"},
        {"kind": "finra", "basis": "percent_of", "of": "commission", "rate": "0.056"},
        *REGULATORY,
    ]


OPTIONS = schedule(
    {
        "basis": "per_contract",
        "bands": [{"below": "0.05", "rate": "0.25"}, {"below": "0.10", "rate": "0.50"}, {"rate": "0.65"}],
        "min": "1",
    }
)
STAMP_PAPER = schedule(
    {"basis": "percent", "rate": "0.5", "side": "buy", "above": "1000", "round": {"to": "5", "mode": "up"}}
)
STAMP = schedule({"basis": "percent", "rate": "0.5", "side": "buy", "round": {"to": "0.01", "mode": "half_up"}})
BY_VALUE = schedule(
    {
        "basis": "per_order",
        "by": "value",
        "above": "0",
        "bands": [
            {"upto": "10", "rate": "0.49"},
            {"upto": "25", "rate": "0.69"},
            {"upto": "50", "rate": "1.19"},
            {"rate": "9"},
        ],
    }
)


def total(items: list[Item], quantity: str, price: str, side: str = "sell", **more: Any) -> Decimal:
    judge(items)
    told = charge(items, side=side, quantity=Decimal(quantity), price=Decimal(price), currency="USD", **more)
    return sum((c.amount for c in told), Decimal(0))


@pytest.mark.parametrize(
    ("items", "quantity", "price", "side", "expected"),
    [
        (FIXED, "1000", "25", "buy", "5.00"),
        (schedule(per_share("0.0075", min="1.00", max_percent="0.5")), "500", "25", "buy", "3.75"),
        (FIXED, "1", "100", "buy", "1"),
        (tiered("-0.0021"), "30000000", "5", "sell", "-13811.90"),
        (tiered("0.0030"), "30000000", "5", "sell", "139188.10"),
        (tiered("0.0030"), "200000", "5", "sell", "1355.78"),
        ([*FIXED, *REGULATORY], "30000000", "5", "sell", "151207.27"),
        ([*FIXED, *REGULATORY], "200000", "5", "sell", "1015.27"),
        (OPTIONS, "1000", "0.07", "buy", "500"),
        (OPTIONS, "1000", "0.2", "buy", "650"),
        (OPTIONS, "100", "0.10", "buy", "65.00"),
        (schedule({"basis": "percent", "rate": "0.002", "min": "1"}), "100", "100", "buy", "1"),
        (schedule({"basis": "percent", "rate": "0.002", "min": "2"}), "1", "100", "buy", "2.00"),
        (schedule({"basis": "percent", "rate": "0.002", "min": "10"}), "6000", "100", "buy", "12"),
        (schedule({"basis": "per_contract", "rate": "2.15"}), "1000", "4300", "buy", "2150.00"),
        (REGULATORY[1:], "1000", "50", "sell", "0.145"),
        (schedule(per_share("0.000166", max="8.30", side="sell")), "1000", "50", "sell", "0.166"),
        (schedule(per_share("0.000166", max="8.30", round={"to": "0.01", "mode": "half_up"})), "1000", "50", "sell", "0.17"),
        (schedule(per_share("0.00083", round={"to": "0.01", "mode": "up"})), "1", "50", "sell", "0.01"),
        (REGULATORY, "1000", "50", "buy", "0"),
        (STAMP_PAPER, "1", "2001", "buy", "15"),
        (STAMP_PAPER, "1", "1000", "buy", "0"),
        (STAMP, "1", "2691", "buy", "13.46"),
        (STAMP, "1", "2689", "buy", "13.45"),
        (STAMP, "1", "10000", "buy", "50"),
        (BY_VALUE, "1", "5", "buy", "0.49"),
        (BY_VALUE, "1", "20", "buy", "0.69"),
        (BY_VALUE, "1", "40", "buy", "1.19"),
        (BY_VALUE, "1", "50", "buy", "1.19"),
    ],
)  # fmt: skip
def test_what_is_charged(items: list[Item], quantity: str, price: str, side: str, expected: str) -> None:
    assert total(items, quantity, price, side).quantize(Decimal(expected)) == Decimal(expected)


def test_the_month_decides_where_the_tiers_begin() -> None:
    items = schedule({"basis": "per_share", "tiers": [["100", "0.02"], ["300", "0.01"], [None, "0"]]})
    assert total(items, "100", "5") == 2
    assert total(items, "100", "5", month=Done(Decimal(50))) == Decimal("1.5")
    assert total(items, "100", "5", month=Done(Decimal(250))) == Decimal("0.5")
    assert total(items, "100", "5", month=Done(Decimal(300))) == 0
    halves = [total(items, "100", "5", month=Done(Decimal(n))) for n in (0, 100, 200)]
    assert sum(halves) == total(items, "300", "5")


@pytest.mark.parametrize("parts", [("100",), ("1", "99"), ("30", "30", "40"), ("1",) * 100])
@pytest.mark.parametrize("items", [tiered("0.003"), STAMP, STAMP_PAPER, BY_VALUE, OPTIONS])
def test_an_order_is_charged_once_however_it_fills(items: list[Item], parts: tuple[str, ...]) -> None:
    done, charged = Done(), Decimal(0)
    for part in map(Decimal, parts):
        charged += total(items, str(part), "13.7", "buy", done=done, month=Done(Decimal(299_950)))
        done = Done(done.quantity + part, done.value + part * Decimal("13.7"))
    assert charged == total(items, "100", "13.7", "buy", month=Done(Decimal(299_950)))


def test_makers_and_takers_pay_their_own() -> None:
    items = schedule(
        {"basis": "percent", "rate": "0.15", "liquidity": "maker"},
        {"basis": "percent", "rate": "0.25", "liquidity": "taker"},
    )
    assert [total(items, "1", "1000", liquidity=x) for x in ("maker", "taker")] == [Decimal("1.5"), Decimal("2.5")]
    assert total(items, "1", "1000") == Decimal("2.5")


def test_a_fee_may_be_taken_in_the_units_bought() -> None:
    items = schedule(
        {"basis": "percent", "rate": "0.25", "side": "buy", "currency": "base"},
        {"basis": "percent", "rate": "0.25", "side": "sell"},
    )
    judge(items)
    more: Any = {"quantity": Decimal(2), "price": Decimal(40_000), "currency": "USD", "base_currency": "BTC"}
    assert charge(items, side="buy", **more) == [FeeCharge("charge 0", Decimal("0.005"), "BTC")]
    assert charge(items, side="sell", **more) == [FeeCharge("charge 1", Decimal(200), "USD")]


@pytest.mark.parametrize(
    "items",
    [
        {}, [1], [{"basis": "percent", "rate": "1"}], schedule({"basis": "per_moon", "rate": "1"}), schedule({"basis": "percent"}),
        schedule(per_share("1", typo="x")), schedule(per_share("x")), schedule(per_share("1", tiers=TIERS)),
        schedule({"basis": "percent_of", "of": "nothing", "rate": "1"}), schedule(per_share("1", currency="base")),
        schedule(per_share("1", liquidity="odd")), schedule({"basis": "per_share", "tiers": [["1", "1"]]}),
        schedule({"basis": "per_order", "bands": [{"below": "1", "rate": "1"}]}), schedule(per_share("1", round={"to": "0", "mode": "up"})),
        schedule(per_share("1", round={"to": "1", "mode": "odd"})), schedule({"rate": "1"}),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_no_schedule(items: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, ArithmeticError)):
        judge(items)
