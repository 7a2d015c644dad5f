"""Execution quality of orders, computed from their facts when asked, and of many, read from the sums."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from analytics.domain.pairs import bits, pair_for
from analytics.domain.quality import (
    BPS,
    HORIZONS,
    PLACES,
    Filled,
    Version,
    anomalies,
    average_price,
    effective_spread,
    price_improvement,
    score,
    shortfall,
    sign_of,
    slippage_bps,
    standing,
)
from analytics.domain.statistics import SAMPLE_MIN, interval, percentile, share_interval
from analytics.models import ExecutionQuality, FillQuality, FillSum
from brokers import queries as brokers
from oms.kernel.decimals import text, text_or_none, total
from oms.kernel.errors import Invalid
from oms.kernel.ids import first_id
from oms.kernel.json import rfc3339, rfc3339_or_none
from oms.runtime import sql
from orders.models import Execution, Order, Submission
from orders.states import CLOSED
from portfolio.models import Account, Strategy
from routing import queries as routing

SCORED_SECONDS = 3_600
"""How far back the rates of a broker are counted."""
TICK_AGE = timedelta(seconds=60)
GROUPS = ("broker", "symbol", "strategy", "algo", "day", "hour", "size", "account")
"""What fills may be grouped by; `hour` is that of the fill in UTC, `size` the order's share of a usual day's volume."""
GROUPS_MAX = 2
DRIFT_DAYS, DRIFT_ALERT = 20, 3.0
"""The last day is compared with so many days before it; so many standard errors apart is worth an alert."""


# ---------------------------------------------------------------- one order


def quality_of(order: Order) -> dict[str, Any]:
    """Return an order's quality; null for what is not known (yet). Costs are above zero."""
    facts = _facts(order)
    instrument = brokers.instruments()[order.instrument_id]
    average, decision = average_price(facts.fills), facts.decision
    filled = total(f.quantity for f in facts.fills)
    arrival = slippage_bps(order.side, average, decision) if average and decision else None
    half = _half_spread_bps(order)
    fill_rate = filled / order.quantity
    marked = score(arrival_bps=arrival, half_spread_bps=half, fill_rate=fill_rate, ack_ms=facts.ack_ms)
    stored = ExecutionQuality.objects.filter(order=order).first()
    benchmarks = {n: getattr(stored, n) if stored else None for n in ("twap", "vwap")}
    benchmarks["close"] = brokers.close_of(order.instrument_id, order.decided_at)
    against = {k: slippage_bps(order.side, average, v) if average and v else None for k, v in benchmarks.items()}
    return {
        "order": str(order.id),
        "arrival_bps": text_or_none(arrival),
        "shortfall": _shortfall(order, facts, instrument.currency),
        "vwap_bps": text_or_none(against["vwap"]),
        "twap_bps": text_or_none(against["twap"]),
        "close_bps": text_or_none(against["close"]),
        "fill_rate": text(fill_rate.quantize(PLACES)),
        "ack_ms": facts.ack_ms,
        "fill_ms": facts.fill_ms,
        **_spreads(order.side, facts.executions),
        **_marks(order),
        "score": text(marked[0]) if marked else None,
        "score_parts": {k: text(v) for k, v in marked[1].items()} if marked else None,
        "anomalies": anomalies(
            order.side,
            [{"price": e.price, "bid": e.market_bid, "ask": e.market_ask} for e in facts.executions],
            ack_ms=facts.ack_ms,
            spread_bps=None if half is None else 2 * half,
            arrival_bps=arrival,
        ),
        "moments": facts.moments,
    }


class _Facts:
    """What is known of the execution of one order."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []
        self.fills: list[Filled] = []
        self.decision: Decimal | None = None
        self.end: Decimal | None = None
        self.ack_ms: float | None = None
        self.fill_ms: float | None = None
        self.moments: list[dict[str, Any]] = []


def _ack_ms(submission: Submission) -> float | None:
    """Return how long a broker took to acknowledge: in its answer, or by its session's first report."""
    for attempt in submission.log:
        if attempt.get("outcome") == "accepted":
            told: float | None = attempt["rtt_ms"]
            return told
        if attempt.get("outcome") == "pending" and submission.resolved_at and submission.sent_at:
            return max((submission.resolved_at - submission.sent_at).total_seconds() * 1000, 0.0)
    return None


def _facts(order: Order) -> _Facts:
    facts = _Facts()
    told = {e.id: e for e in Execution.objects.filter(order=order).order_by("executed_at", "id")}
    versions = [Version(e.id, e.kind, e.ref_id, e.quantity, e.price) for e in told.values()]
    facts.executions = [told[v.id] for v in standing(versions) if v.quantity]
    sent = list(Submission.objects.filter(child__order=order, kind="new").order_by("id"))
    ended = order.status in CLOSED and total(e.quantity for e in facts.executions) < order.quantity
    wanted = [t for t in (order.triggered_at, order.updated_at if ended else None) if t]
    mids = dict(zip(wanted, brokers.mids_at([(order.instrument_id, t) for t in wanted], TICK_AGE), strict=True))
    first = next((m for s in sent if (m := _sent_mid(s))), None)
    facts.decision = mids.get(order.triggered_at) if order.triggered_at else _arrival_mid(order)
    facts.decision = first if facts.decision is None else facts.decision
    by_child = {s.child_id: s for s in sent}
    for execution in facts.executions:
        submission = by_child.get(execution.child_id)
        late = order.triggered_at and submission and submission.sent_at and order.triggered_at > submission.sent_at
        mid = facts.decision if late else (_sent_mid(submission) if submission else None)
        facts.fills.append(Filled(execution.quantity, execution.price, mid))
    facts.end = (mids.get(order.updated_at) or facts.decision) if ended else None
    facts.ack_ms = next((ms for s in sent if (ms := _ack_ms(s)) is not None), None)
    began = next((s.sent_at for s in sent if s.sent_at), None)
    trades = [e.executed_at for e in told.values() if e.kind == Execution.Kind.TRADE]
    if began and trades:
        facts.fill_ms = max((min(trades) - began).total_seconds() * 1000, 0.0)
    facts.moments = _moments(order, sent, facts.executions)
    return facts


def _arrival_mid(order: Order) -> Decimal | None:
    if order.arrival_bid is None or order.arrival_ask is None:
        return None
    return (order.arrival_bid + order.arrival_ask) / 2


def _half_spread_bps(order: Order) -> Decimal | None:
    mid = _arrival_mid(order)
    return None if not mid else ((order.arrival_ask - order.arrival_bid) / 2 / mid * BPS).quantize(PLACES)


def _sent_mid(submission: Submission) -> Decimal | None:
    quoted = next((e["market"]["sent"] for e in submission.log if e.get("market")), None)
    return (Decimal(quoted[0]) + Decimal(quoted[1])) / 2 if quoted else None


def _moments(order: Order, sent: Sequence[Submission], executions: Sequence[Execution]) -> list[dict[str, Any]]:
    """Return the market at the decision, at each sending and answer, and at each fill, by time."""
    told = [_moment("decided", order.decided_at, order.arrival_bid, order.arrival_ask)]
    for submission in sent:
        for entry in submission.log:
            market = entry.get("market")
            if market:
                told.append(_moment("sent", entry["at"], *map(Decimal, market["sent"])))
                if market["answered"]:
                    told.append(_moment("answered", entry["at"], *map(Decimal, market["answered"])))
    told += [
        _moment("filled", e.executed_at, e.market_bid, e.market_ask)
        | {"price": text(e.price), "quantity": text(e.quantity)}
        for e in executions
    ]
    return sorted(told, key=lambda m: m["at"])


def _moment(what: str, at: datetime | str, bid: Decimal | None, ask: Decimal | None) -> dict[str, Any]:
    when = at if isinstance(at, str) else rfc3339(at)
    return {"what": what, "at": when, "bid": text_or_none(bid), "ask": text_or_none(ask)}


def _shortfall(order: Order, facts: _Facts, currency: str) -> dict[str, Any] | None:
    if facts.decision is None:
        return None
    found = shortfall(order.side, order.quantity, facts.fills, decision=facts.decision, end=facts.end, fees=order.fees)
    parts = {k: text_or_none(v) for k, v in found.parts().items()}
    return {**parts, "currency": currency, "bps": {k: text_or_none(v) for k, v in found.bps().items()}}


def _spreads(side: str, executions: Sequence[Execution]) -> dict[str, Any]:
    """Return effective spread and price improvement, weighed by quantity, of an order whose every fill met a known market."""
    known = [
        (e, e.market_bid, e.market_ask) for e in executions if e.market_bid is not None and e.market_ask is not None
    ]
    if not executions or len(known) < len(executions):
        return {"effective_spread_bps": None, "price_improvement_bps": None}
    amount = total(e.quantity * e.price for e in executions)
    spread = total(effective_spread(side, e.price, (bid + ask) / 2) * e.quantity for e, bid, ask in known)
    gained = total(price_improvement(side, e.price, bid, ask) * e.quantity for e, bid, ask in known)
    return {
        "effective_spread_bps": text((spread / amount * BPS).quantize(PLACES)),
        "price_improvement_bps": text((gained / amount * BPS).quantize(PLACES)),
    }


def _marks(order: Order) -> dict[str, Any]:
    """Return mark-outs, and what follows of them, of an order whose every fill has been marked."""
    fills = list(FillQuality.objects.filter(order=order))
    amount = total(f.quantity * f.price for f in fills)
    sign = sign_of(order.side)

    def bps(seconds: int) -> Decimal | None:
        mids = [getattr(f, f"mid_{seconds}") for f in fills]
        if not fills or None in mids:
            return None
        lost = total(sign * (f.price - m) * f.quantity for f, m in zip(fills, mids, strict=True))
        return (lost / amount * BPS).quantize(PLACES)

    marks = {h: bps(h) for h in HORIZONS}
    realized, soon, late = marks[60], marks[10], marks[300]
    return {
        "markouts": {f"{h}s": text_or_none(v) for h, v in marks.items()},
        "realized_spread_bps": None if realized is None else text(2 * realized),
        "reversion_bps": None if soon is None or late is None else text(late - soon),
    }


def evidence_of(order: Order) -> dict[str, Any]:
    """Return what best execution of an order is shown by: why it went where it went, and how that came out."""
    return {"order": str(order.id), "routing": routing.decisions_of(order.id), "quality": quality_of(order)}


# ---------------------------------------------------------------- many, from the sums


def broker_scores(*, at: datetime) -> list[dict[str, Any]]:
    """Return what is known of each broker by its own conduct in the last hour, by code.

    Rates are null where nothing was sent. Ids bear their time, so the hour is a range of the primary key.
    """
    since = at - timedelta(seconds=SCORED_SECONDS)
    counts = {
        broker_id: rest
        for broker_id, *rest in sql.run(
            """
            SELECT broker_id, count(*), count(*) FILTER (WHERE state = 'accepted'), count(*) FILTER (WHERE state = 'rejected'),
                   count(*) FILTER (WHERE state = 'unknown'), count(*) FILTER (WHERE attempts > 1)
            FROM orders_submission WHERE id >= %s AND kind = 'new' AND sent_at IS NOT NULL GROUP BY broker_id
            """,
            [first_id(since)],
        ).fetchall()
    }
    ids = {b.code: b.id for b in brokers.brokers().values()}
    rows = []
    for health in brokers.health():
        sent, accepted, rejected, unknown, repeated = counts.get(ids.get(health["code"], 0), (0, 0, 0, 0, 0))
        rows.append(
            {
                "broker": health["code"],
                "enabled": health["enabled"],
                "connected": health["connected"],
                "failures_in_row": health["failures_in_row"],
                "open_until": health["open_until"],
                "ack_ms": health["ack_ms"],
                "sent": sent,
                "accepted": accepted,
                "rejected": rejected,
                "unknown": unknown,
                "repeated": repeated,
                "reject_rate": text((Decimal(rejected) / sent).quantize(PLACES)) if sent else None,
                "since": rfc3339(since),
            }
        )
    return rows


_NAMES = {"broker": "broker_id", "symbol": "instrument_id", "strategy": "strategy_id", "account": "account_id"}


def parse_groups(value: str | None) -> tuple[str, ...]:
    """Return the keys of `group_by`: one or two of them."""
    keys = tuple(k.strip() for k in (value or "broker").split(","))
    if not 1 <= len(keys) <= GROUPS_MAX or len(set(keys)) < len(keys) or not set(keys) <= set(GROUPS):
        raise Invalid("unknown_choice", f"Group by one or two of {', '.join(GROUPS)}.", field="group_by")
    return keys


def tca(account_ids: Iterable[int], *, since: date, until: date, group_by: Sequence[str]) -> list[dict[str, Any]]:
    """Return what fills cost by group, largest first; days from `since` to `until`, both in.

    Sums of money are in the desk's currency; basis points of them are weighed by it. `mean` counts each fill once and bears a
    95 % interval; below 30 fills a group is not `ranked`.
    """
    columns = [_NAMES.get(k, k) for k in group_by]
    rows = sql.rows(
        f"SELECT {', '.join(columns)}, {_SUMMED} FROM analytics_fillsum "
        "WHERE pair = %s AND account_id = ANY(%s) AND day BETWEEN %s AND %s "
        f"GROUP BY {', '.join(columns)} HAVING sum(fills) > 0 ORDER BY sum(notional) DESC, {', '.join(columns)}",
        [bits(pair_for(columns)), sorted(account_ids), since, until],
    )
    named = _named(group_by)
    return [{**{k: named[k](row[c]) for k, c in zip(group_by, columns, strict=True)}, **_costs(row)} for row in rows]


_SUMMED = ", ".join(
    [
        *(f"sum({n}) AS {n}" for n in FillSum.COUNTS),
        *(f"sum({n}) / 1000000.0 AS {n}" for n in FillSum.MONEY),
        *(f"sum({n}) / 10000.0 AS {n}" for n in FillSum.BPS),
    ]
)


def _named(group_by: Sequence[str]) -> dict[str, Any]:
    """Return how to spell each key."""
    spellings: dict[str, Any] = {
        "day": lambda v: v.isoformat(), "hour": int, "size": str, "algo": lambda v: v or None,
    }  # fmt: skip
    if "broker" in group_by:
        codes = {b.id: b.code for b in brokers.brokers().values()}
        spellings["broker"] = codes.get
    if "symbol" in group_by:
        symbols = {i.id: i.symbol for i in brokers.instruments().values()}
        spellings["symbol"] = symbols.get
    if "account" in group_by:
        spellings["account"] = dict(Account.objects.values_list("id", "code")).get
    if "strategy" in group_by:
        strategies = dict(Strategy.objects.values_list("id", "code"))
        spellings["strategy"] = lambda v: strategies.get(v) if v else None
    return spellings


def _per(amount: Decimal, notional: Decimal) -> str | None:
    return text((amount / notional * BPS).quantize(PLACES)) if notional else None


def _costs(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's costs; `attribution` splits what fills cost against the decision, and its parts sum exactly."""
    weight, spread = row["measured_notional"], row["half_spread"]
    timing, impact = row["delay"], row["trading"] - spread
    return {
        "fills": int(row["fills"]),
        "unrated": int(row["unrated"]),
        "notional": text(row["notional"]),
        "arrival_bps": _per(row["arrival"], weight),
        "delay_bps": _per(row["delay"], weight),
        "trading_bps": _per(row["trading"], weight),
        "fees_bps": _per(row["fees"], row["notional"]),
        "effective_spread_bps": _per(row["effective"], row["quoted_notional"]),
        "price_improvement_bps": _per(row["improvement"], row["quoted_notional"]),
        "mean_arrival_bps": _interval(row["measured"], row["arrival_bps"], row["arrival_bps_squares"]),
        "markouts": {f"{h}s": _interval(row[f"marks_{h}"], row[f"mark_bps_{h}"], row[f"mark_squares_{h}"]) for h in HORIZONS},
        "attribution": {
            "spread": text(spread), "impact": text(impact), "timing": text(timing), "fees": text(row["fees"]),
            "total": text(spread + impact + timing + row["fees"]),
        },
        "ranked": int(row["measured"]) >= SAMPLE_MIN,
    }  # fmt: skip


def _interval(n: Any, sum_: Any, squares: Any) -> dict[str, Any]:
    found = interval(int(n), float(sum_), float(squares))
    if found is None:
        return {"n": int(n), "mean": None, "low": None, "high": None}
    mean, low, high = (round(v, 4) for v in found)
    return {"n": int(n), "mean": mean, "low": low, "high": high}


def scorecards(account_ids: Iterable[int], *, since: date, until: date) -> list[dict[str, Any]]:
    """Return how each broker did: costs with intervals, rates with theirs, and times; the cheapest first, the unranked last.

    `rank` counts from 1 by mean cost against the decision and fees together; None below 30 measured fills. `drift` compares the
    last day with the 20 before it.
    """
    ids = sorted(account_ids)
    costs = {row["broker"]: row for row in tca(ids, since=since, until=until, group_by=["broker"])}
    routes = {r["broker_id"]: r for r in sql.rows(_ROUTES, [ids, since, until])}
    times = _times(ids, since, until)
    drifts = _drifts(ids, until)
    told = []
    for broker in sorted(brokers.brokers().values(), key=lambda b: b.code):
        cost, route = costs.get(broker.code), routes.get(broker.id)
        if cost is None and route is None:
            continue
        told.append(
            {
                "broker": broker.code,
                "rank": None,
                **_cost_part(cost),
                **_rates(route),
                "ack_ms": times.get((broker.id, "ack"), {"p50": None, "p95": None}),
                "fill_ms": times.get((broker.id, "fill"), {"p50": None, "p95": None}),
                "drift": drifts.get(broker.id),
            }
        )
    ranked = sorted((r for r in told if r["ranked"]), key=_expense)
    for place, row in enumerate(ranked, 1):
        row["rank"] = place
    return ranked + [r for r in told if not r["ranked"]]


def _expense(row: Mapping[str, Any]) -> Decimal:
    return Decimal(repr(row["mean_arrival_bps"]["mean"])) + Decimal(row["fees_bps"] or 0)


_NO_COST = dict.fromkeys(("notional", "arrival_bps", "fees_bps", "effective_spread_bps", "price_improvement_bps"), None)


def _cost_part(cost: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a scorecard shows of costs, also of a broker that filled nothing."""
    if cost is None:
        empty = _interval(0, 0, 0)
        return {
            "fills": 0,
            **_NO_COST,
            "mean_arrival_bps": empty,
            "markouts": {f"{h}s": empty for h in HORIZONS},
            "ranked": False,
        }
    return {k: cost[k] for k in ("fills", *_NO_COST, "mean_arrival_bps", "markouts", "ranked")}


_ROUTE_NAMES = (
    "sent", "accepted", "rejected", "unknown", "repeated", "over", "filled_share", "cancels_asked", "cancels_done",
)  # fmt: skip
_ROUTES = (
    f"SELECT broker_id, {', '.join(f'sum({n}) AS {n}' for n in _ROUTE_NAMES)} FROM analytics_routesum "
    "WHERE account_id = ANY(%s) AND day BETWEEN %s AND %s GROUP BY broker_id HAVING sum(sent) > 0"
)


def _rates(route: Mapping[str, Any] | None) -> dict[str, Any]:
    counts = {n: int(route[n]) if route else 0 for n in _ROUTE_NAMES if n != "filled_share"}
    over = counts["over"]
    return {
        "sent": counts["sent"],
        "rejected": _share(counts["rejected"], counts["sent"]),
        "unknown": _share(counts["unknown"], counts["sent"]),
        "repeated": _share(counts["repeated"], counts["sent"]),
        "canceled_when_asked": _share(counts["cancels_done"], counts["cancels_asked"]),
        "fill_rate": text((route["filled_share"] / 1_000_000 / over).quantize(PLACES)) if route and over else None,
    }


def _share(hits: int, n: int) -> dict[str, Any]:
    bounds = share_interval(hits, n)
    low, high = (round(b, 4) for b in bounds) if bounds else (None, None)
    return {"n": n, "share": round(hits / n, 4) if n else None, "low": low, "high": high}


def _times(ids: Sequence[int], since: date, until: date) -> dict[tuple[int, str], dict[str, float | None]]:
    found: dict[tuple[int, str], dict[int, int]] = {}
    for broker_id, what, bucket, count in sql.run(
        "SELECT broker_id, what, bucket, sum(count)::bigint FROM analytics_routetime "
        "WHERE account_id = ANY(%s) AND day BETWEEN %s AND %s GROUP BY 1, 2, 3",
        [ids, since, until],
    ):
        found.setdefault((broker_id, what), {})[bucket] = count
    return {k: {"p50": percentile(counts, 0.5), "p95": percentile(counts, 0.95)} for k, counts in found.items()}


def _drifts(ids: Sequence[int], until: date) -> dict[int, dict[str, Any]]:
    """Return for each broker how far its costs of the last day are from those of the days before, in standard errors."""
    rows = sql.run(
        "SELECT broker_id, day = %(day)s, sum(measured)::bigint, sum(arrival_bps) / 10000.0, sum(arrival_bps_squares) / 10000.0 "
        "FROM analytics_fillsum WHERE pair = %(pair)s AND account_id = ANY(%(ids)s) AND day BETWEEN %(day)s - %(days)s AND %(day)s GROUP BY 1, 2",
        {"ids": ids, "day": until, "days": DRIFT_DAYS, "pair": bits(pair_for(["broker_id"]))},
    )
    found: dict[int, dict[bool, tuple[int, float, float]]] = {}
    for broker_id, today, n, sum_, squares in rows:
        found.setdefault(broker_id, {})[today] = (n, float(sum_), float(squares))
    return {pk: drift for pk, parts in found.items() if (drift := _drift(parts.get(False), parts.get(True)))}


def _drift(before: tuple[int, float, float] | None, now: tuple[int, float, float] | None) -> dict[str, Any] | None:
    if not before or not now or min(before[0], now[0]) < SAMPLE_MIN:
        return None
    means = [s / n for n, s, _ in (before, now)]
    errors = [max(q / n - (s / n) ** 2, 0.0) / (n - 1) for n, s, q in (before, now)]
    error = sum(errors) ** 0.5
    z = (means[1] - means[0]) / error if error else 0.0
    return {"before_bps": round(means[0], 4), "now_bps": round(means[1], 4), "z": round(z, 2), "alert": z > DRIFT_ALERT}


def undone(account_ids: Iterable[int], *, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Return what orders decided in a time lost by what was never done, by instrument; in the instrument's currency."""
    return sql.rows(
        "SELECT o.instrument_id, count(*) AS orders, count(*) FILTER (WHERE q.filled < q.quantity) AS undone, "
        "sum(q.opportunity) AS opportunity FROM analytics_executionquality q JOIN orders_order o ON o.id = q.order_id "
        "WHERE o.account_id = ANY(%s) AND o.decided_at >= %s AND o.decided_at < %s AND q.closed GROUP BY 1",
        [sorted(account_ids), since, until],
    )


def measured_until() -> str | None:
    """Return how far measuring has come."""
    row = sql.run("SELECT until FROM analytics_measured").fetchone()
    return rfc3339_or_none(row[0]) if row else None


def fills_of(order_id: UUID) -> list[FillQuality]:
    """Return the fills of an order as they were measured."""
    return list(FillQuality.objects.filter(order_id=order_id).order_by("executed_at"))
