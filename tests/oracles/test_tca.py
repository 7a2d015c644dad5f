"""Published cases of transaction cost analysis, each worked out by the desk's own measures; costs are above zero."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from analytics.domain.quality import (
    Filled,
    Version,
    average_price,
    effective_spread,
    price_impact,
    price_improvement,
    realized_spread,
    shortfall,
    slippage_bps,
    standing,
)
from routing.domain.impact import Trajectory, almgren_chriss, square_root, volume_share
from tests.oracles.reading import ABOUT, Fields, cases, same

FILE = "tca.json"
Figures = dict[str, Callable[[], Any]]


def _number(value: Any) -> Decimal:
    return Decimal(str(value))


def _agree(expected: dict[str, Any], figures: Figures, where: str) -> None:
    """Compare every figure that is expected, nested ones too, to the digits printed."""
    for name, wanted in expected.items():
        if name == "exact":
            _agree(wanted, figures, where)
            continue
        if name not in figures:
            pytest.fail(f"{where}: nothing finds {name}")
        found = figures[name]()
        if isinstance(wanted, dict):
            _agree(wanted, {k: (lambda v=v: v) for k, v in found.items()}, f"{where} {name}")
        elif isinstance(wanted, list):
            assert len(found) == len(wanted), f"{where} {name}"
            for one, other in zip(found, wanted, strict=True):
                assert _close(one, other), f"{where} {name}: {one} instead of {other}"
        else:
            assert _close(found, wanted), f"{where} {name}: {found} instead of {wanted}"


def _close(found: Any, wanted: Any) -> bool:
    """Tell whether a figure is the published one to its last digit."""
    if isinstance(found, float):
        digits = max(-_number(wanted).normalize().as_tuple().exponent, 0)
        return (
            abs(found - float(wanted))
            <= max(0.5 * 10.0**-digits if digits else 0, 1e-9 * abs(float(wanted))) * 1.0000001
        )
    return same(found, wanted)


def _shortfall(inputs: Fields) -> Figures:
    side, quantity, decision = inputs.take("side"), inputs.number("order_qty"), inputs.number("decision_price")
    fills = []
    for raw in inputs.take("fills"):
        fill = Fields(raw, "fill")
        revised = fill.take("revised_benchmark")
        fills.append(Filled(fill.number("qty"), fill.number("price"), None if revised is None else _number(revised)))
        fill.end()
    end = inputs.take("cancel_price")
    found = shortfall(
        side,
        quantity,
        fills,
        decision=decision,
        end=None if end is None else _number(end),
        fees=inputs.number("fees", "0"),
    )
    parts, bps = found.parts(), found.bps()
    figures: Figures = {name: (lambda v=value: v) for name, value in parts.items()}
    figures["paper"] = lambda: found.paper
    figures["bps"] = lambda: bps
    printed: dict[str, Any] = {
        "explicit": bps["fees"], "fees": bps["fees"], "delay": bps["delay"], "trading": bps["trading"],
        "opportunity": bps["opportunity"], "total": bps["total"], "realized": bps["trading"],
    }  # fmt: skip
    figures["printed_pct"] = lambda: {k: v / 100 for k, v in printed.items() if v is not None}
    figures["printed"] = lambda: {
        **parts, "realized": parts["trading"], "commission_pct": printed["fees"] / 100, "paper": found.paper,
    }  # fmt: skip
    return figures


def _effective(inputs: Fields) -> Figures:
    side, trades = inputs.take("side"), inputs.take("trades")
    several = trades is not None
    rows = [Fields(t, "trade") for t in trades] if several else [inputs]
    read = [(r.number("bid"), r.number("ask"), r.number("price")) for r in rows]
    for row in rows if several else ():
        row.end()
    mids = [(bid + ask) / 2 for bid, ask, _ in read]
    paid = [effective_spread(side, price, mid) for (_, _, price), mid in zip(read, mids, strict=True)]
    bid, ask, price = read[0]
    return {
        "mid": lambda: mids[0],
        "mids": lambda: mids,
        "quoted_spread": lambda: ask - bid,
        "effective_spread": lambda: paid[0],
        "effective": lambda: paid,
        "average": lambda: sum(paid) / len(paid),
        "improvement_vs_quoted_spread": lambda: ask - bid - paid[0],
        "price_improvement_per_share": lambda: price_improvement(side, price, bid, ask),
    }


def _realized(inputs: Fields) -> Figures:
    side, price = inputs.take("side"), inputs.number("price")
    before, after = inputs.number("mid_at_order"), inputs.number("mid_after")
    return {
        "realized_spread": lambda: realized_spread(side, price, after),
        "effective_spread": lambda: effective_spread(side, price, before),
        "price_impact": lambda: price_impact(side, before, after),
    }


def _improvement(inputs: Fields) -> Figures:
    side, price = inputs.take("side"), inputs.number("price")
    bid, ask = inputs.take("bid"), inputs.take("ask")
    quoted = _number(ask if side == "buy" else bid)
    return {"per_share": lambda: price_improvement(side, price, quoted, quoted)}


def _benchmark(inputs: Fields) -> Figures:
    side, average = inputs.take("side"), inputs.number("avg_fill")
    against = inputs.number("vwap")
    return {"bps": lambda: slippage_bps(side, average, against)}


def _average(inputs: Fields) -> Figures:
    kinds = {"fill": "trade", "bust": "bust", "correct": "correct"}
    told: list[Version] = []
    averages, quantities = [], []
    for number, raw in enumerate(inputs.take("events")):
        event = Fields(raw, "event")
        kind = kinds[event.take("type")]
        told.append(
            Version(
                event.take("id", f"#{number}"),
                kind,
                event.take("ref"),
                event.number("qty", "0"),
                event.number("price", "0"),
            )
        )
        event.end()
        left = standing(told)
        averages.append(average_price(left) or Decimal(0))
        quantities.append(sum((v.quantity for v in left), Decimal(0)))
    return {"avg_px_after": lambda: averages, "cum_qty_after": lambda: quantities}


def _trajectory(inputs: Fields) -> Trajectory:
    return almgren_chriss(
        shares=float(inputs.take("shares")),
        horizon=float(inputs.take("horizon_days")),
        periods=int(inputs.take("periods")),
        volatility=float(inputs.take("daily_sigma_abs")),
        epsilon=float(inputs.take("epsilon")),
        eta=float(inputs.take("eta")),
        gamma=float(inputs.take("gamma")),
        risk_aversion=float(inputs.take("lam")),
    )


def _almgren(inputs: Fields) -> Figures:
    found = _trajectory(inputs)
    return {
        "trades": lambda: found.trades,
        "holdings": lambda: [sum(found.trades[k:]) for k in range(len(found.trades) + 1)],
        "expected_cost": lambda: found.expected_cost,
        "variance": lambda: found.variance,
        "utility": lambda: found.utility,
        "half_life": lambda: found.half_life,
        "kappa": lambda: 1 / found.half_life if found.half_life else 0.0,
        "expected_cost_millions": lambda: found.expected_cost / 1e6,
        "variance_e12": lambda: found.variance / 1e12,
        "utility_millions": lambda: found.utility / 1e6,
    }


def _square_root(inputs: Fields) -> Figures:
    found = square_root(
        quantity=float(inputs.take("q")),
        daily_volume=float(inputs.take("adv")),
        spread_bps=float(inputs.take("spread_bps")),
        daily_volatility_bps=float(inputs.take("sigma_daily_bps")),
        a=float(inputs.take("a")),
        b=float(inputs.take("b")),
    )
    return {"cost_bps": lambda: found}


def _volume_share(inputs: Fields) -> Figures:
    found = volume_share(
        price=inputs.number("price"),
        quantity=inputs.number("qty"),
        volume=inputs.number("bar_volume"),
        price_impact=inputs.number("price_impact"),
        volume_limit=inputs.number("volume_limit"),
    )
    return {"slippage_per_share": lambda: found}


KINDS: dict[str, Callable[[Fields], Figures]] = {
    "implementation_shortfall": _shortfall,
    "effective_spread": _effective,
    "realized_spread": _realized,
    "price_improvement": _improvement,
    "vwap_slippage": _benchmark,
    "average_price": _average,
    "almgren_chriss": _almgren,
    "almgren_chriss_frontier": _almgren,
    "sqrt_impact": _square_root,
    "volume_share_impact": _volume_share,
}


@pytest.mark.parametrize("case", cases(FILE))
def test_published(case: dict[str, Any]) -> None:
    told = Fields(case, case["id"])
    for name in ABOUT:
        told.take(name)
    kind, inputs = told.take("kind"), Fields(told.take("inputs"), f"{case['id']} inputs")
    if kind not in KINDS:
        pytest.fail(f"{case['id']}: nothing knows the kind {kind}")
    figures = KINDS[kind](inputs)
    inputs.end()
    _agree(told.take("expected"), figures, case["id"])
    told.end()
