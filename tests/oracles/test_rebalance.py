"""Published cases of allocation, targets and drift, read from `$ORACLES_DIR`; the suite's own stand in tests/unit/test_targets.py."""

import json
import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from portfolio.domain.allocating import allocate, weight_error, without_zeros
from portfolio.domain.targets import (
    Band,
    amounts_to_trade,
    drift,
    five_twenty_five,
    flow_to_targets,
    target_quantity,
    worth_following,
)

FILE = Path(os.environ.get("ORACLES_DIR", "../shared/oracles")) / "rebalance.json"
LONG = "REB-PPO-long"
"""The case whose weights and prices the cases of properties and validation speak of."""
WORDS = {"two": 2, "five": 5, "ten": 10, "fifteen": 15, "twenty": 20, "twenty_five": 25, "twentyfive": 25, "fifty": 50}


def cases() -> list[Any]:
    found = json.loads(FILE.read_text(), parse_float=Decimal, parse_int=Decimal)["cases"] if FILE.exists() else []
    return [pytest.param(case, id=case["id"]) for case in found]


def number(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value)


class Fields:
    """The fields of an object, each to be taken; what nobody took fails the case."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.left = dict(raw)

    def take(self, *names: str, default: Any = ...) -> Any:
        """Return the field under the first of its names that is there."""
        for name in names:
            if name in self.left:
                return self.left.pop(name)
        assert default is not ..., f"a case without {names[0]}: {self.left}"
        return default

    def number(self, *names: str, default: Any = ...) -> Any:
        found = self.take(*names, default=default)
        return found if found is None or found is default else number(found)


def _weights(raw: dict[str, Any]) -> dict[str, Decimal]:
    return {n: number(w) for n, w in raw.items()}


def _greedy(given: Fields, expected: Fields) -> None:
    given.take("price_date", default=None)
    prices = _weights(given.take("prices"))
    got = allocate(
        given.number("portfolio_value"),
        _weights(given.take("weights")),
        prices,
        short_ratio=given.number("short_ratio", default=None),
        reinvest=given.take("reinvest", default=False),
    )
    if "shares" in expected.left:
        assert got.units == expected.take("shares")
    if "leftover" in expected.left:
        assert got.leftover == pytest.approx(expected.number("leftover"), abs=Decimal("1e-6"))
    if "gross_plus_leftover" in expected.left:
        gross = sum(abs(u) * prices[n] for n, u in got.units.items())
        assert gross + got.leftover == expected.number("gross_plus_leftover")


def _clean(given: Fields, expected: Fields) -> None:
    assert without_zeros(given.take("raw")) == expected.take("shares")


def _long_case() -> dict[str, Any]:
    return next(p.values[0]["inputs"] for p in cases() if p.values[0]["id"] == LONG)


def _invalid(given: Fields, expected: Fields) -> None:
    assert "rejected" in expected.take("all")
    long = _long_case()
    for case in given.take("cases"):
        value, weights, prices = number(long["portfolio_value"]), _weights(long["weights"]), _weights(long["prices"])
        fields = Fields(case)
        value = fields.number("portfolio_value", default=value)
        ratio = fields.number("short_ratio", default=None)
        if name := fields.take("weight_nan", default=None):
            weights[next(iter(weights)) if name == "first" else name] = Decimal("NaN")
        if name := fields.take("price_nan", default=None):
            prices[next(iter(prices)) if name == "first" else name] = Decimal("NaN")
        assert not fields.left
        with pytest.raises(ValueError, match=r"is|has"):
            allocate(value, weights, prices, short_ratio=ratio)


def _property(given: Fields, expected: Fields) -> None:
    long = _long_case()
    weights, prices = _weights(long["weights"]), _weights(long["prices"])
    errors = {v: weight_error(allocate(v, weights, prices).units, weights, prices) for v in given.take("values")}
    least, most = re.fullmatch(r"rmse\((\d+)\) < rmse\((\d+)\)", expected.take("property")).groups()
    assert errors[Decimal(least)] < errors[Decimal(most)]
    for name in [n for n in expected.left if n.startswith("rmse_")]:
        value = Decimal(name.split("_")[1])
        assert errors[value] == pytest.approx(expected.number(name), rel=Decimal("1e-9"))


def _target(given: Fields, expected: Fields, *, may_short: bool = True) -> None:
    holding, price = given.number("holding", default=Decimal(0)), given.number("price")
    final = target_quantity(
        equity=given.number("cash", default=Decimal(0)) + holding * price,
        weight=given.number("target_weight"),
        price=price,
        lot=given.number("lot", default=Decimal(1)),
        buffer=given.number("cash_buffer_pct", default=Decimal(0)),
        fee=given.number("flat_fee", default=Decimal(0)),
        may_short=may_short,
    )
    if "order" in expected.left:
        assert (None if final is None else final - holding) == expected.number("order")
        return
    assert final is not None
    assert final - holding == expected.number("order_qty")
    if "final_qty" in expected.left:
        assert final == expected.number("final_qty")


def _sanity(given: Fields, expected: Fields) -> None:
    if "price" in given.left:
        _target(given, expected)
        return
    least, most = given.number("min_abs", default=Decimal(0)), given.number("max_abs", default=Decimal("Infinity"))
    followed = worth_following(given.number("target_weight"), least=least, most=most)
    assert followed is not expected.take("ignored")


def _band(given: Fields, expected: Fields) -> None:
    target = given.number("target")
    band = Band(given.number("abs_band", default=None), given.number("rel_band", default=None))
    _outside(band, target, given, expected)


def _five_twenty_five(given: Fields, expected: Fields) -> None:
    target = given.number("target")
    _outside(five_twenty_five(target), target, given, expected)


def _outside(band: Band, target: Decimal, given: Fields, expected: Fields) -> None:
    assert band.breached(target, given.number("weight")) is expected.take("rebalance")
    lower, upper = band.edges(target)
    assert expected.number("lower", default=lower) == lower
    assert expected.number("upper", default=upper) == upper


def _amounts(given: Fields, expected: Fields) -> None:
    holdings = [(n, number(v), number(t)) for n, v, t in given.take("holdings")]
    values, targets = [v for _, v, _ in holdings], [t for _, _, t in holdings]
    flow = given.number("cash_flow", default=Decimal(0))
    band = Band(
        given.number("band", "abs_band", "drift_band", "threshold", default=None),
        given.number("rel_band", default=None),
    )
    if given.take("cash_flow_only", default=False):
        trades = flow_to_targets(values, targets, flow)
    else:
        trades = amounts_to_trade(values, targets, cash_flow=flow, band=None if band == Band() else band)
    got = {n: t for (n, _, _), t in zip(holdings, trades, strict=True)}
    wanted = expected.take("trades")
    assert got == {n: number(wanted.get(n, 0)) for n in got}
    assert wanted.keys() <= got.keys()


def _drift(given: Fields, expected: Fields) -> None:
    targets, weights = [number(t) for t in given.take("targets")], [number(w) for w in given.take("weights")]
    moved = [drift(t, w) for t, w in zip(targets, weights, strict=True)]
    if "abs_drift" in expected.left:
        assert [m for m, _ in moved] == [number(a) for a in expected.take("abs_drift")]
    if "rel_drift" in expected.left:
        wanted = [number(r) for r in expected.take("rel_drift")]
        assert [r.quantize(w) for (_, r), w in zip(moved, wanted, strict=True) if r is not None] == wanted
    for name in list(expected.left):
        points = re.fullmatch(r"([a-z_]+)_points_breached", name)
        relative = re.fullmatch(r"([a-z_]+)_pct_relative_breached", name)
        found = points or relative
        assert found, f"an unknown field: {name}"
        width = Decimal(WORDS[found[1]]) / 100
        band = Band(absolute=width) if points else Band(relative=width)
        breached = any(band.breached(t, w) for t, w in zip(targets, weights, strict=True))
        assert breached is expected.take(name)


KINDS: dict[str, Callable[[Fields, Fields], None]] = {
    "discrete_allocation_greedy": _greedy,
    "discrete_allocation_clean": _clean,
    "validation": _invalid,
    "property": _property,
    "target_percent_order": _target,
    "lot_rounding": _target,
    "no_short_cash_account": lambda given, expected: _target(given, expected, may_short=False),
    "target_sanity": _sanity,
    "band_absolute": _band,
    "band_relative": _band,
    "band_5_25": _five_twenty_five,
    "dollar_targets": _amounts,
    "drift": _drift,
}


@pytest.mark.skipif(not FILE.exists(), reason=f"there is no {FILE}: set ORACLES_DIR to play the published cases")
@pytest.mark.parametrize("case", cases())
def test_the_published_answer(case: dict[str, Any]) -> None:
    given, expected = Fields(case["inputs"]), Fields(case["expected"])
    for name in case.get("do_not_assert", []):
        expected.left.pop(name, None)
    KINDS[case["kind"]](given, expected)
    assert not given.left, f"inputs that nobody read: {given.left}"
    assert not expected.left, f"expectations that nobody checked: {expected.left}"
