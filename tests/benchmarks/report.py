"""The table that `make bench` prints: what was measured, where its CPU went, and how it stands to the baselines."""

from typing import Any

Results = dict[str, dict[str, Any]]


def table(report: dict[str, Any]) -> str:
    """Return the whole report as text."""
    results: Results = report["results"]
    head = (
        f"{report['at'][:19]}Z, commit {report['commit']}, {report['cores']} cores, {report['memory_gib']} GiB, "
        f"Python {report['python']}, load average at the start {report['load_average']:.1f}"
    )
    parts = [head, *(_figures(name, found) for name, found in results.items()), _cpu(results), _memory(results)]
    return "\n\n".join(p for p in [*parts, _goals(results)] if p)


def _figures(name: str, found: dict[str, Any]) -> str:
    lines = [f"{name}" + (f", median of {found['rounds']} rounds" if "rounds" in found else "")]
    for key, value in found.items():
        if key in ("rounds", "runs", "memory", "cpu_us_per_order"):
            continue
        shown = ", ".join(f"{k} {_number(v)}" for k, v in value.items()) if isinstance(value, dict) else _number(value)
        spread = _spread(key, found.get("runs", ()))
        lines.append(f"  {key.replace('_', ' '):38} {shown}{spread}")
    return "\n".join(lines)


def _spread(key: str, runs: Any) -> str:
    values = [r[key] for r in runs if isinstance(r.get(key), float)]
    return f"   ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cpu(results: Results) -> str:
    """Return CPU an order by kind of process, a column a part."""
    parts = {name: found["cpu_us_per_order"] for name, found in results.items() if "cpu_us_per_order" in found}
    if not parts:
        return ""
    kinds = dict.fromkeys(kind for costs in parts.values() for kind in costs)
    lines = ["CPU an order, microseconds" + " " * 2 + "".join(f"{name:>12}" for name in parts)]
    for kind in kinds:
        row = "".join(f"{costs.get(kind, 0.0):12,.0f}" for costs in parts.values())
        lines.append(f"  {kind:26}{row}")
    return "\n".join(lines)


def _memory(results: Results) -> str:
    lines = []
    for name, found in results.items():
        if "memory" not in found:
            continue
        lines.append(
            f"private memory of processes over {name}, MiB{'before':>12}{'after':>10}{'growth a 10,000 orders':>26}"
        )
        for process, m in found["memory"].items():
            before = "new" if m["before_mib"] is None else f"{m['before_mib']:.1f}"
            grown = "" if m["growth_mib_per_10000_orders"] is None else f"{m['growth_mib_per_10000_orders']:+.2f}"
            lines.append(f"  {process:40}{before:>14}{m['after_mib']:>10.1f}{grown:>26}")
    return "\n".join(lines)


GOALS = (
    ("batch booked / setbased", ("batch", "filled_and_booked_per_second"), ("setbased", "orders_per_second"), ">=", 0.30),
    (
        "batch booked / naive booked",
        ("batch", "filled_and_booked_per_second"), ("naive", "filled_and_booked_per_second"), ">=", 25,
    ),
    ("single accepted / bare accepted", ("single", "accepted_per_second"), ("bare", "accepted_per_second"), ">=", 2),
    (
        "single booked / naive booked",
        ("single", "filled_and_booked_per_second"), ("naive", "filled_and_booked_per_second"), ">=", 10,
    ),
    ("single p99, ms", ("single", "latency_ms_p99"), None, "<=", 100),
    ("at rest, acknowledged p95, ms", ("rest", "acknowledged_ms_p95"), None, "<=", 150),
    ("flat, CPU an order late / early", ("flat", "cpu_late_to_early"), None, "<=", 1.1),
    ("risk with 50 limits, CPU an order, µs", ("risk", "risk_us_per_order"), None, "<=", 300),
    ("lists, slowest page's p95, ms", ("lists", "slowest_p95_ms"), None, "<=", 50),
    ("routing, CPU an order, us", ("routing", "cpu_us"), None, "<=", 250),
    ("learning, least gain over others, bps", ("learning", "least_gain_bps"), None, ">=", 0),
    ("quality, slowest report, ms", ("quality", "slowest_report_ms"), None, "<=", 300),
    ("quality, rebuild, s", ("quality", "rebuilt_in_seconds"), None, "<=", 30),
    ("reconcile, seconds", ("reconcile", "seconds"), None, "<=", 10),
    ("valuation, a tick, us", ("valuation", "tick_us"), None, "<=", 50),
    ("valuation, full book, ms", ("valuation", "full_book_ms"), None, "<=", 20),
    ("marks, quote to screen p95, ms", ("marks", "p95_ms"), None, "<=", 250),
    ("optimiser, 3,000 names, s", ("optimiser", "seconds_3000"), None, "<=", 0.5),
    ("optimiser, 3,000 names, dear, s", ("optimiser", "seconds_3000_dear"), None, "<=", 0.5),
    ("optimiser, 10,000 names, s", ("optimiser", "seconds_10000"), None, "<=", 3),
    ("optimiser, 10,000 names, dear, s", ("optimiser", "seconds_10000_dear"), None, "<=", 3),
    ("screens, p99, ms", ("screens", "p99_ms"), None, "<=", 100),
    ("screens, frames seen / sent", ("screens", "frames_seen"), ("screens", "frames_sent"), ">=", 1),
)  # fmt: skip
"""What is told, the figure, what it is divided by, and the mark to reach."""


def goals(results: Results) -> list[dict[str, Any]]:
    """Return each mark whose parts were measured in this run, with the figure and whether it is reached."""
    told = []
    for name, (part, key), base, sign, mark in GOALS:
        if key not in results.get(part, {}) or (base and base[1] not in results.get(base[0], {})):
            continue
        value = results[part][key] / (results[base[0]][base[1]] if base else 1)
        reached = value >= mark if sign == ">=" else value <= mark
        told.append({"what": name, "value": value, "mark": f"{sign} {mark:g}", "reached": reached})
    return told


def _goals(results: Results) -> str:
    lines = [
        f"  {g['what']:38}{_number(float(g['value'])):>10}   {g['mark']:>8}   {'reached' if g['reached'] else 'SHORT'}"
        for g in goals(results)
    ]
    return "\n".join(["marks", *lines]) if lines else ""
