"""The period's report as one page that needs nothing else: tables, and charts drawn as SVG."""

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

WIDTH, BAR, LEFT = 720, 22, 150
STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1a1d21, #e6e8ea); --dim: light-dark(#5b6570, #98a2ad);
  --line: light-dark(#d9dee3, #333a41); --cost: light-dark(#b3261e, #ff8a80); --gain: light-dark(#1b6e3c, #7fd8a0); --page: light-dark(#fff, #14171a); }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } p.note { color: var(--dim); margin: .25rem 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums } th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } th { color: var(--dim); font-weight: 500 }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: var(--ink) } svg .dim { fill: var(--dim) }
.axis { stroke: var(--line) } .cost { fill: var(--cost) } .gain { fill: var(--gain) } .whisker { stroke: var(--ink); stroke-width: 1.5 } .curve { fill: none; stroke-width: 2 }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } table, svg { break-inside: avoid } }
"""
INKS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2")


def page(
    *,
    since: date,
    until: date,
    accounts: Sequence[str],
    cards: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    undone: Sequence[Mapping[str, Any]],
    made_at: str,
    measured_until: str | None,
) -> str:
    """Return the report as HTML. `groups` holds rows of `analytics.queries.tca` by what they are grouped by."""
    parts = [
        f"<h1>Execution quality, {since} to {until}</h1>",
        (
            f'<p class="note">Accounts {escape(", ".join(accounts) or "none")} · made {escape(made_at)} · measured until '
            f"{escape(measured_until or 'never')}. Costs are above zero; money is in US dollars, bps are weighed by value "
            "unless told otherwise.</p>"
        ),
    ]
    if not any(c["fills"] for c in cards):
        return _document([*parts, "<p>Nothing was filled in this period.</p>"])
    parts += ["<h2>Where the cost came from</h2>", _waterfall(groups["broker"])]
    parts += [
        "<h2>Brokers compared</h2>",
        '<p class="note">Mean cost against the mid at the decision, each fill once, with its 95 % interval. Below 30 fills nobody is ranked.</p>',
        _intervals(cards),
        _scorecards(cards),
    ]
    parts += [
        "<h2>After the fill</h2>",
        '<p class="note">Mark-outs: what fills had cost by the mid some time later. A curve that rises was bought too late; one that falls paid for haste.</p>',
        _markouts(cards),
    ]
    for name, title in (("symbol", "By instrument"), ("size", "By share of a day's volume"), ("hour", "By hour (UTC)")):
        parts += [f"<h2>{title}</h2>", _bars(groups[name], name), _table(groups[name], name)]
    parts += ["<h2>What was never done</h2>", _undone(undone)]
    return _document(parts)


def _document(parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Execution quality</title><style>{STYLE}</style><body>\n{body}\n</body></html>\n"
    )


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", dim: bool = False) -> str:
    kind = ' class="dim"' if dim else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _scale(values: Sequence[float], left: float, right: float) -> Any:
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    return lambda v: left + (v - low) / span * (right - left)


def _bps(value: Any) -> str:
    return "–" if value is None else f"{float(value):+.2f}"


def _money(value: Any) -> str:
    return "–" if value is None else f"{float(value):,.2f}"


def _waterfall(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ("spread", "impact", "timing", "fees")
    sums = {n: sum(float(r["attribution"][n]) for r in rows) for n in names}
    steps, level = [], 0.0
    for name in names:
        steps.append((name, level, level + sums[name]))
        level += sums[name]
    steps.append(("total", 0.0, level))
    at = _scale([v for _, a, b in steps for v in (a, b)], LEFT, WIDTH - 110)
    parts = [f'<line class="axis" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{len(steps) * BAR + 6}"/>']
    for i, (name, start, end) in enumerate(steps):
        y, x, wide = i * BAR + 4, min(at(start), at(end)), abs(at(end) - at(start))
        parts.append(_text(LEFT - 8, y + 13, name, anchor="end", dim=name != "total"))
        parts.append(
            f'<rect class="{"cost" if end >= start else "gain"}" x="{x:.1f}" y="{y}" width="{max(wide, 1):.1f}" height="{BAR - 6}"/>'
        )
        parts.append(_text(max(at(start), at(end)) + 6, y + 13, _money(end - start)))
    return _svg(len(steps) * BAR + 8, parts, "Cost by part, in dollars")


def _intervals(cards: Sequence[Mapping[str, Any]]) -> str:
    shown = [c for c in cards if c["mean_arrival_bps"]["mean"] is not None]
    if not shown:
        return "<p>Too few fills for an interval.</p>"
    means = [c["mean_arrival_bps"] for c in shown]
    at = _scale([m[k] for m in means for k in ("low", "high")], LEFT, WIDTH - 90)
    parts = [f'<line class="axis" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{len(shown) * BAR + 4}"/>']
    for i, (card, mean) in enumerate(zip(shown, means, strict=True)):
        y = i * BAR + 12
        kind = "cost" if mean["mean"] > 0 else "gain"
        parts += [
            _text(LEFT - 8, y + 4, f"{card['broker']} (n {mean['n']})", anchor="end"),
            f'<line class="whisker" x1="{at(mean["low"]):.1f}" x2="{at(mean["high"]):.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="{kind}" cx="{at(mean["mean"]):.1f}" cy="{y}" r="4"/>',
            _text(at(mean["high"]) + 8, y + 4, f"{_bps(mean['mean'])} bps"),
        ]
    return _svg(len(shown) * BAR + 8, parts, "Mean cost by broker with its interval")


def _scorecards(cards: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "Broker",
        "Rank",
        "Fills",
        "Notional",
        "Arrival",
        "Fees",
        "Eff. spread",
        "Rejected",
        "Fill rate",
        "Ack p50 / p95 ms",
    )
    rows = [
        (
            c["broker"], c["rank"] or "–", c["fills"], _money(c["notional"]), _bps(c["arrival_bps"]), _bps(c["fees_bps"]),
            _bps(c["effective_spread_bps"]), _percent(c["rejected"]["share"]), _percent(c["fill_rate"]),
            f"{_ms(c['ack_ms']['p50'])} / {_ms(c['ack_ms']['p95'])}",
        )
        for c in cards
    ]  # fmt: skip
    return _grid(head, rows)


def _percent(value: Any) -> str:
    return "–" if value is None else f"{float(value) * 100:.1f} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _markouts(cards: Sequence[Mapping[str, Any]]) -> str:
    curves = [(c["broker"], [(h, m["mean"]) for h, m in c["markouts"].items() if m["mean"] is not None]) for c in cards]
    curves = [(name, points) for name, points in curves if points]
    if not curves:
        return "<p>No mark-out is due yet.</p>"
    horizons = list(next(iter(cards))["markouts"])
    place = {h: LEFT + i * (WIDTH - LEFT - 90) / (len(horizons) - 1) for i, h in enumerate(horizons)}
    at = _scale([v for _, points in curves for _, v in points], 170, 12)
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 90}" y1="{at(0):.1f}" y2="{at(0):.1f}"/>']
    parts.append(_text(LEFT - 8, at(0) + 4, "0 bps", anchor="end", dim=True))
    parts += [_text(place[h], 190, h, anchor="middle", dim=True) for h in horizons]
    for i, (name, points) in enumerate(curves):
        ink = INKS[i % len(INKS)]
        path = " ".join(f"{place[h]:.1f},{at(v):.1f}" for h, v in points)
        parts.append(f'<polyline class="curve" stroke="{ink}" points="{path}"/>')
        last_h, last = points[-1]
        parts.append(_text(place[last_h] + 6, at(last) + 4, f"{name} {_bps(last)}"))
    return _svg(200, parts, "Mark-outs by broker, basis points")


def _bars(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    shown = [r for r in rows if r["arrival_bps"] is not None]
    shown = sorted(shown, key=lambda r: r[key]) if key == "hour" else shown[:20]
    if not shown:
        return ""
    at = _scale([float(r["arrival_bps"]) for r in shown], LEFT, WIDTH - 90)
    parts = [f'<line class="axis" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{len(shown) * BAR + 4}"/>']
    for i, row in enumerate(shown):
        y, value = i * BAR + 3, float(row["arrival_bps"])
        x, wide = min(at(0), at(value)), abs(at(value) - at(0))
        parts += [
            _text(LEFT - 8, y + 13, _spelled(row[key]), anchor="end"),
            f'<rect class="{"cost" if value >= 0 else "gain"}" x="{x:.1f}" y="{y}" width="{max(wide, 1):.1f}" height="{BAR - 6}"/>',
            _text(max(at(0), at(value)) + 6, y + 13, f"{_bps(value)} bps"),
        ]
    return _svg(len(shown) * BAR + 8, parts, f"Cost against the decision by {key}")


def _table(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    head = (key.capitalize(), "Fills", "Notional", "Arrival", "Delay", "Trading", "Fees", "Eff. spread", "Improvement")
    names = ("arrival_bps", "delay_bps", "trading_bps", "fees_bps", "effective_spread_bps", "price_improvement_bps")
    return _grid(
        head, [(_spelled(r[key]), r["fills"], _money(r["notional"]), *(_bps(r[n]) for n in names)) for r in rows]
    )


def _undone(rows: Sequence[Mapping[str, Any]]) -> str:
    lost = [r for r in rows if r["undone"]]
    if not lost:
        return "<p>Every order was done in full.</p>"
    head = ("Instrument", "Orders", "Not done in full", "Opportunity cost", "Currency")
    return _grid(head, [(r["symbol"], r["orders"], r["undone"], _money(r["opportunity"]), r["currency"]) for r in lost])


def _spelled(value: Any) -> str:
    return "none" if value is None else str(value)


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    heads = "".join(f"<th scope=col>{escape(h)}" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}" for v in row) for row in rows)
    return f"<table><thead><tr>{heads}</thead><tbody>{body}</tbody></table>"
