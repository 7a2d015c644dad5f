"""Measuring executions in sets: facts of fills and broker orders, and the sums that reports are read from.

What is measured of an order is taken out of the sums, measured anew and put back, so that late fills, busts and corrections
revise everything they touch, and the sums are at any time those of the facts, to the last unit.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from analytics.domain.pairs import KEYS, PAIRS
from analytics.domain.quality import HORIZONS
from analytics.domain.statistics import BUCKETS_PER_OCTAVE
from brokers import queries as brokers
from brokers.domain.rates import Rates
from oms.kernel.ids import first_id
from oms.runtime import sql
from oms.runtime.transactions import in_transaction
from orders.states import CLOSED
from routing import operations as routing
from routing.domain.learning import Outcome

DESK_CURRENCY = "USD"
"""What sums over several instruments are told in."""
CHUNK = 2_000
OVERLAP = timedelta(seconds=10)
"""What was told so shortly before the last look is looked at again: its transaction may have ended after it."""
TICK_SECONDS = 60
"""An older tick says nothing about a moment."""
MARK_SLACK = timedelta(minutes=1)
REBUILD_MINUTES_MAX = 30
_LOCK = 7_304_551
_SUM_KEYS = ("pair", "account_id", "day", *KEYS)
_ROUTE_KEYS = ("account_id", "day", "broker_id", "instrument_id")


def _tick(at: str, instrument: str = "o.instrument_id") -> str:
    """Return the mid in force at a time, as SQL."""
    return (
        f"(SELECT (t.bid + t.ask) / 2 FROM brokers_quotetick t WHERE t.instrument_id = {instrument} AND t.at <= {at} "
        f"AND t.at > {at} - interval '{TICK_SECONDS} seconds' ORDER BY t.at DESC LIMIT 1)"
    )


def _after(seconds: int) -> str:
    return f"(e.executed_at + interval '{seconds} s')"


_ALGO = "coalesce(o.instructions -> 'algo' ->> 'name', '')"
_SIGN = "CASE o.side WHEN 'buy' THEN 1 ELSE -1 END"
_SIZE = """CASE WHEN v.volume IS NULL OR v.volume = 0 THEN 'unknown' WHEN o.quantity < v.volume * 0.001 THEN '<0.1%%'
  WHEN o.quantity < v.volume * 0.01 THEN '<1%%' WHEN o.quantity < v.volume * 0.05 THEN '<5%%' ELSE '>=5%%' END"""
_SENT = "jsonb_path_query_first(s.log, '$[*].market.sent')"
_QUOTED_MID = f"(({_SENT} ->> 0)::numeric + ({_SENT} ->> 1)::numeric) / 2"
_DECISION = f"""coalesce(
  CASE WHEN o.triggered_at IS NULL THEN (o.arrival_bid + o.arrival_ask) / 2 ELSE {_tick("o.triggered_at")} END, {_QUOTED_MID})"""
_WORLD = """
LEFT JOIN unnest(%(currencies)s::varchar[], %(rates)s::numeric[]) r(currency, rate) ON r.currency = i.currency
LEFT JOIN unnest(%(instruments)s::bigint[], %(volumes)s::numeric[]) v(id, volume) ON v.id = o.instrument_id
"""
_MARKS = ", ".join(f"mid_{h}" for h in HORIZONS)
_MARKS_NOW = ", ".join(
    f"CASE WHEN %(marks)s AND e.executed_at <= %(at)s::timestamptz - interval '{h} s' THEN {_tick(_after(h))} END"
    for h in HORIZONS
)
_FILLS = f"""
INSERT INTO analytics_fillquality AS f (execution_id, order_id, day, hour, account_id, instrument_id, broker_id, strategy_id,
  algo, size, sign, quantity, price, executed_at, rate, fees, decision_mid, sent_mid, bid, ask, {_MARKS})
SELECT e.id, o.id, (e.executed_at AT TIME ZONE 'UTC')::date, extract(hour FROM e.executed_at AT TIME ZONE 'UTC'),
  o.account_id, o.instrument_id, e.broker_id, o.strategy_id, {_ALGO}, {_SIZE}, {_SIGN}, e.quantity, e.price, e.executed_at,
  r.rate, coalesce(e.fees, 0), d.mid, CASE WHEN o.triggered_at > s.sent_at THEN d.mid ELSE {_QUOTED_MID} END,
  coalesce(e.market_bid, q.bid), coalesce(e.market_ask, q.ask),
  {_MARKS_NOW}
FROM orders_execution e JOIN orders_order o ON o.id = e.order_id JOIN brokers_instrument i ON i.id = o.instrument_id
LEFT JOIN orders_submission s ON s.child_id = e.child_id AND s.kind = 'new' {_WORLD}
CROSS JOIN LATERAL (SELECT {_DECISION} AS mid) d
LEFT JOIN LATERAL (SELECT t.bid, t.ask FROM brokers_quotetick t WHERE e.market_bid IS NULL AND t.instrument_id = o.instrument_id
  AND t.at <= e.executed_at AND t.at > e.executed_at - interval '{TICK_SECONDS} seconds' ORDER BY t.at DESC LIMIT 1) q ON true
WHERE {{which}} AND e.kind <> 'bust' AND e.quantity > 0
  AND NOT EXISTS (SELECT 1 FROM orders_execution u WHERE u.ref_id = e.id)
"""
_ROUTES = f"""
INSERT INTO analytics_routequality (child_id, order_id, day, hour, account_id, instrument_id, broker_id, strategy_id, algo, size,
  sent_at, outcome, repeated, quantity, filled, cancel_asked, canceled, over, ack_ms, fill_ms)
SELECT c.id, o.id, (s.sent_at AT TIME ZONE 'UTC')::date, extract(hour FROM s.sent_at AT TIME ZONE 'UTC'), o.account_id,
  o.instrument_id, c.broker_id, o.strategy_id, {_ALGO}, {_SIZE}, s.sent_at,
  CASE WHEN s.state IN ('accepted', 'rejected') THEN s.state WHEN s.state IN ('absent', 'not_sent') THEN 'absent' ELSE 'unknown' END,
  s.attempts > 1, c.quantity, c.filled_quantity,
  EXISTS (SELECT 1 FROM orders_submission x WHERE x.child_id = c.id AND x.kind = 'cancel'), c.ended_as = 'canceled',
  c.leaves_quantity = 0, coalesce((jsonb_path_query_first(s.log, '$[*] ? (@.outcome == "accepted").rtt_ms'))::float8,
    CASE WHEN s.log->-1->>'outcome' = 'pending' THEN greatest(extract(epoch FROM s.resolved_at - s.sent_at), 0) * 1000 END),
  greatest(extract(epoch FROM e.first - s.sent_at), 0) * 1000
FROM orders_childorder c JOIN orders_order o ON o.id = c.order_id JOIN brokers_instrument i ON i.id = o.instrument_id
JOIN orders_submission s ON s.child_id = c.id AND s.kind = 'new' AND s.sent_at IS NOT NULL {_WORLD}
LEFT JOIN (SELECT child_id, min(executed_at) AS first FROM orders_execution WHERE kind = 'trade' AND {{these}} GROUP BY child_id) e
  ON e.child_id = c.id
WHERE {{which}}
"""
_CLOSED = ", ".join(f"'{s}'" for s in sorted(CLOSED))
_END = f"coalesce({_tick('o.updated_at')}, d.mid)"
_ORDERS = f"""
INSERT INTO analytics_executionquality AS x (order_id, measured_at, closed, quantity, filled, amount, decision_mid, half_spread,
  end_mid, twap, vwap, delay, trading, opportunity, fees, ack_ms, fill_ms)
SELECT o.id, %(at)s, o.status IN ({_CLOSED}), o.quantity, coalesce(f.filled, 0), coalesce(f.amount, 0), d.mid, (o.arrival_ask - o.arrival_bid) / 2,
  CASE WHEN o.status IN ({_CLOSED}) AND coalesce(f.filled, 0) < o.quantity THEN {_END} END, w.twap, b.vwap,
  CASE WHEN d.mid IS NOT NULL THEN coalesce(f.delay, 0) END, CASE WHEN d.mid IS NOT NULL THEN coalesce(f.trading, 0) END,
  CASE WHEN d.mid IS NULL THEN NULL WHEN f.filled >= o.quantity THEN 0
    WHEN o.status IN ({_CLOSED}) THEN ({_SIGN}) * ({_END} - d.mid) * (o.quantity - coalesce(f.filled, 0)) END,
  o.fees, c.ack_ms, c.fill_ms
FROM orders_order o
LEFT JOIN LATERAL (SELECT s.log FROM orders_submission s JOIN orders_childorder c ON c.id = s.child_id
  WHERE c.order_id = o.id AND s.kind = 'new' AND (o.arrival_bid IS NULL OR o.triggered_at IS NOT NULL) ORDER BY s.id LIMIT 1) s ON true
CROSS JOIN LATERAL (SELECT {_DECISION} AS mid) d
LEFT JOIN (SELECT f.order_id, sum(f.quantity) AS filled, sum(f.quantity * f.price) AS amount,
    sum(f.sign * (coalesce(f.sent_mid, f.decision_mid) - f.decision_mid) * f.quantity) AS delay,
    sum(f.sign * (f.price - coalesce(f.sent_mid, f.decision_mid)) * f.quantity) AS trading, max(f.executed_at) AS last
  FROM analytics_fillquality f WHERE {{these}} GROUP BY f.order_id) f ON f.order_id = o.id
LEFT JOIN (SELECT c.order_id, min(c.sent_at) AS sent_at, min(c.ack_ms) AS ack_ms, min(c.fill_ms) AS fill_ms
  FROM analytics_routequality c WHERE {{these}} GROUP BY c.order_id) c ON c.order_id = o.id
LEFT JOIN LATERAL (SELECT avg((t.bid + t.ask) / 2) AS twap FROM brokers_quotetick t WHERE %(benchmarks)s
  AND t.instrument_id = o.instrument_id AND t.at BETWEEN c.sent_at AND f.last) w ON true
LEFT JOIN LATERAL (SELECT sum(b.volume * (b.high + b.low + b.close) / 3) / nullif(sum(b.volume), 0) AS vwap FROM brokers_bar b
  WHERE %(benchmarks)s AND b.instrument_id = o.instrument_id AND b.at BETWEEN date_trunc('minute', c.sent_at) AND f.last) b ON true
WHERE {{which}}
ON CONFLICT (order_id) DO UPDATE SET measured_at = EXCLUDED.measured_at, closed = EXCLUDED.closed, quantity = EXCLUDED.quantity,
  filled = EXCLUDED.filled, amount = EXCLUDED.amount, decision_mid = EXCLUDED.decision_mid, half_spread = EXCLUDED.half_spread,
  end_mid = EXCLUDED.end_mid, twap = coalesce(EXCLUDED.twap, x.twap), vwap = coalesce(EXCLUDED.vwap, x.vwap),
  delay = EXCLUDED.delay, trading = EXCLUDED.trading, opportunity = EXCLUDED.opportunity, fees = EXCLUDED.fees,
  ack_ms = EXCLUDED.ack_ms, fill_ms = EXCLUDED.fill_ms
"""

_MONEY = "quantity * rate"


def _millionths(amount: str) -> str:
    return f"round(({amount}) * 1000000)::bigint"


def _bps_sums(count: str, bps: str, squares: str, cost: str) -> dict[str, str]:
    """Return the sums that a mean and its interval are told from; `cost` is a share of the price, NULL where it isn't known."""
    return {
        count: f"CASE WHEN {cost} IS NOT NULL THEN 1 END",
        bps: f"round({cost} * 100000000)::bigint",
        squares: f"round(({cost} * 10000) ^ 2 * 10000)::bigint",
    }


_FILL_SUMS = {
    "fills": "1",
    "unrated": "CASE WHEN rate IS NULL THEN 1 END",
    "notional": _millionths(f"{_MONEY} * price"),
    "fees": _millionths("fees * rate"),
    "measured_notional": f"CASE WHEN decision_mid IS NOT NULL THEN {_millionths(f'{_MONEY} * price')} END",
    "arrival": _millionths(f"sign * (price - decision_mid) * {_MONEY}"),
    "delay": _millionths(f"sign * (coalesce(sent_mid, decision_mid) - decision_mid) * {_MONEY}"),
    "trading": _millionths(f"sign * (price - coalesce(sent_mid, decision_mid)) * {_MONEY}"),
    **_bps_sums("measured", "arrival_bps", "arrival_bps_squares", "(sign * (price - decision_mid) / decision_mid)"),
    "quoted": "CASE WHEN bid IS NOT NULL THEN 1 END",
    "quoted_notional": f"CASE WHEN bid IS NOT NULL THEN {_millionths(f'{_MONEY} * price')} END",
    "half_spread": _millionths(f"(ask - bid) / 2 * {_MONEY}"),
    "effective": _millionths(f"2 * sign * (price - (bid + ask) / 2) * {_MONEY}"),
    "improvement": _millionths(f"(CASE WHEN sign > 0 THEN ask - price ELSE price - bid END) * {_MONEY}"),
}


def _mark_sums(seconds: int) -> dict[str, str]:
    cost = f"(sign * (price - mid_{seconds}) / price)"
    return _bps_sums(f"marks_{seconds}", f"mark_bps_{seconds}", f"mark_squares_{seconds}", cost)


_ALL_MARKS = {name: e for seconds in HORIZONS for name, e in _mark_sums(seconds).items()}
_ROUTE_SUMS = {
    "sent": "1",
    **{name: f"CASE WHEN outcome = '{name}' THEN 1 END" for name in ("accepted", "rejected", "unknown")},
    "repeated": "CASE WHEN repeated THEN 1 END",
    "over": "CASE WHEN over THEN 1 END",
    "filled_share": f"CASE WHEN over THEN {_millionths('least(filled / quantity, 1)')} END",
    "cancels_asked": "CASE WHEN cancel_asked THEN 1 END",
    "cancels_done": "CASE WHEN cancel_asked AND canceled THEN 1 END",
}
_BUCKET = f"greatest(0, ceil({BUCKETS_PER_OCTAVE} * ln(greatest({{ms}}, 1)) / ln(2)))::smallint"
_TIMES = " UNION ALL ".join(
    f"SELECT order_id, day, account_id, broker_id, instrument_id, '{what}' AS what, {_BUCKET.format(ms=ms)} AS bucket "
    f"FROM analytics_routequality WHERE {ms} IS NOT NULL"
    for what, ms in (("ack", "ack_ms"), ("fill", "fill_ms"))
)
_TIME_KEYS = ("day", "account_id", "broker_id", "instrument_id", "what", "bucket")


def _add(table: str, facts: str, keys: Sequence[str], sums: Mapping[str, str], sign: int, where: str) -> str:
    """Return the statement that adds facts to their sums, or takes them out again."""
    columns = ", ".join([*keys, *sums])
    values = ", ".join([*keys, *(f"{sign} * coalesce(sum({e}), 0)" for e in sums.values())])
    moved = ", ".join(f"{name} = r.{name} + EXCLUDED.{name}" for name in sums)
    return (
        f"INSERT INTO {table} AS r ({columns}) SELECT {values} FROM {facts} WHERE {where} "
        f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {moved}"
    )


def _add_pairs(facts: str, sums: Mapping[str, str], sign: int, where: str) -> str:
    """Return the statement that adds fills to the sums of every pair of keys: each fill is worked out once."""
    worked = ", ".join(f"{e} AS {name}" for name, e in sums.items())
    values = ", ".join(f"{sign} * coalesce(sum({name}), 0)" for name in sums)
    moved = ", ".join(f"{name} = r.{name} + EXCLUDED.{name}" for name in sums)
    sets = ", ".join(f"(account_id, day, {first}, {second})" for first, second in PAIRS)
    keys = ", ".join(KEYS)
    return (
        f"INSERT INTO analytics_fillsum AS r (pair, account_id, day, {keys}, {', '.join(sums)}) "
        f"SELECT GROUPING({keys}) AS pair, account_id, day, {keys}, {values} FROM ("
        f"SELECT account_id, day, {keys}, {worked} FROM {facts} WHERE {where} OFFSET 0) worked "
        f"GROUP BY GROUPING SETS ({sets}) ON CONFLICT ({', '.join(_SUM_KEYS)}) DO UPDATE SET {moved}"
    )


def _all_sums(sign: int, where: str) -> list[str]:
    """Return the statements that add what was measured, or take it out; marks by themselves, as most fills of a day have none yet."""
    marked = " OR ".join(f"mid_{h} IS NOT NULL" for h in HORIZONS)
    return [
        _add_pairs("analytics_fillquality", _FILL_SUMS, sign, where),
        _add_pairs("analytics_fillquality", _ALL_MARKS, sign, f"{where} AND ({marked})"),
        _add("analytics_routesum", "analytics_routequality", _ROUTE_KEYS, _ROUTE_SUMS, sign, where),
        _add("analytics_routetime", f"({_TIMES}) times", _TIME_KEYS, {"count": "1"}, sign, where),
    ]


def _of(statement: str, orders: str, their_facts: str) -> str:
    """Return a statement for some orders, by a condition on them and the same on the facts measured of them."""
    return statement.replace("{which}", orders).replace("{these}", their_facts)


_THESE = "order_id = ANY(%(ids)s)"
_FORGET = [
    *_all_sums(-1, _THESE),
    f"DELETE FROM analytics_fillquality WHERE {_THESE}",
    f"DELETE FROM analytics_routequality WHERE {_THESE}",
]
_MEASURE = [_of(q, "o.id = ANY(%(ids)s)", _THESE) for q in (_FILLS, _ROUTES, _ORDERS)]


def measure(*, at: datetime) -> int:
    """Measure the orders of which something was told since the last look; return how many."""
    row = sql.run("SELECT until FROM analytics_measured").fetchone()
    since = row[0] if row else None
    changed = _changed(since, at)
    for chunk in _chunks(changed):
        began = time.monotonic()
        measure_orders(chunk, at=at)
        if len(changed) > CHUNK:  # after a burst: those who trade need the machine, too
            time.sleep(time.monotonic() - began)
    sql.run(
        "INSERT INTO analytics_measured AS m (id, until, marked_until) VALUES (1, %(at)s, %(at)s) "
        "ON CONFLICT (id) DO UPDATE SET until = greatest(m.until, EXCLUDED.until)",
        {"at": at},
    )
    return len(changed)


def _changed(since: datetime | None, at: datetime) -> list[UUID]:
    """Return the orders that events were told of; ids bear their time, so it reads no more than those events."""
    lower = first_id(since - OVERLAP) if since else UUID(int=0)
    found = sql.run(
        "SELECT DISTINCT object_id::uuid FROM journal_event WHERE id >= %s AND id < %s AND frame IN ('order', 'execution')",
        [lower, first_id(at)],
    )
    return [pk for (pk,) in found]


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


@in_transaction
def measure_orders(order_ids: Iterable[UUID], *, at: datetime) -> None:
    """Measure these orders anew, whatever was measured of them before. Nine statements for any number of them."""
    told = {"ids": sql.uuids(sorted(order_ids)), **_world(at), "benchmarks": True, "marks": True}
    _lock()
    for statement in [*_FORGET, *_MEASURE, *_all_sums(1, _THESE)]:
        sql.run(statement, told)
    routing.learn([_lesson(*row) for row in sql.run(_LESSONS, told)])


# What is over teaches routing; what rests teaches only of answers and refusals, as nobody is to blame for a price that never came.
_LESSONS = f"""
SELECT r.child_id, r.order_id, r.broker_id, r.instrument_id, r.size, r.sent_at, r.ack_ms, r.outcome = 'rejected',
  CASE WHEN o.order_type = 'market' OR o.time_in_force IN ('ioc', 'fok') THEN least(r.filled / r.quantity, 1)
    WHEN r.outcome = 'rejected' THEN 0 ELSE 1 END,
  CASE WHEN o.order_type = 'market' THEN (f.cost / nullif(f.value, 0) - h.half / nullif(h.mid, 0)) * 10000 END,
  f.fees / nullif(f.value, 0) * 10000
FROM analytics_routequality r JOIN orders_order o ON o.id = r.order_id
JOIN orders_submission s ON s.child_id = r.child_id AND s.kind = 'new'
CROSS JOIN LATERAL (SELECT {_QUOTED_MID} AS mid, (({_SENT} ->> 1)::numeric - ({_SENT} ->> 0)::numeric) / 2 AS half) h
CROSS JOIN LATERAL (SELECT sum(f.sign * (f.price - f.sent_mid) * f.quantity) AS cost, sum(f.sent_mid * f.quantity) AS value,
    sum(f.fees) AS fees
  FROM orders_execution e JOIN analytics_fillquality f ON f.execution_id = e.id WHERE e.child_id = r.child_id) f
WHERE r.order_id = ANY(%(ids)s) AND r.over AND r.outcome IN ('accepted', 'rejected')
  AND NOT EXISTS (SELECT 1 FROM routing_routeoutcome x WHERE x.child_id = r.child_id)
"""


def _lesson(
    child_id: UUID, order_id: UUID, broker_id: int, instrument_id: int, size: str, at: datetime, ack_ms: float | None,
    rejected: bool, share: Decimal, cost: Decimal | None, fees: Decimal | None,
) -> routing.Lesson:  # fmt: skip
    outcome = Outcome(None if cost is None else float(cost), float(share), rejected, ack_ms)
    return routing.Lesson(
        child_id, order_id, broker_id, instrument_id, size, at, outcome, None if fees is None else float(fees)
    )


def _lock() -> None:
    """Let one measure at a time: sums are taken out and put back."""
    sql.run("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _world(at: datetime) -> dict[str, object]:
    """Return what no order tells: rates into the desk's currency, and what is usually traded in a day."""
    instruments = brokers.instruments()
    rates = Rates(brokers.quotes(), instruments)
    currencies = sorted({i.currency for i in instruments.values()})
    found = {c: rates.convert(Decimal(1), c, DESK_CURRENCY) for c in currencies}
    volumes = brokers.daily_volumes(at)
    return {
        "at": at,
        "currencies": list(found),
        "rates": list(found.values()),
        "instruments": list(volumes),
        "volumes": list(volumes.values()),
    }


@in_transaction
def mark(*, at: datetime) -> int:
    """Take the mark-outs that have become due; return how many. One statement a horizon."""
    _lock()
    row = sql.run("SELECT marked_until FROM analytics_measured FOR UPDATE").fetchone()
    if row is None:
        return 0
    marked: int = sum(
        count
        for h in HORIZONS
        for (count,) in sql.run(
            _MARK[h], {"from": row[0] - timedelta(seconds=h) - MARK_SLACK, "until": at - timedelta(seconds=h)}
        )
    )
    sql.run("UPDATE analytics_measured SET marked_until = %s", [at])
    return marked


def _mark_statement(seconds: int) -> str:
    later = f"(f.executed_at + interval '{seconds} s')"
    summed = _add_pairs("due", _mark_sums(seconds), 1, f"mid_{seconds} IS NOT NULL")
    return f"""
    WITH due AS MATERIALIZED (
      SELECT f.execution_id, f.sign, f.price, f.account_id, f.day, {", ".join(f"f.{k}" for k in KEYS)}, {_tick(later, "f.instrument_id")} AS mid_{seconds}
      FROM analytics_fillquality f
      WHERE f.executed_at > %(from)s AND f.executed_at <= %(until)s AND f.mid_{seconds} IS NULL
    ), written AS (
      UPDATE analytics_fillquality f SET mid_{seconds} = due.mid_{seconds} FROM due
      WHERE f.execution_id = due.execution_id AND due.mid_{seconds} IS NOT NULL
    ), summed AS ({summed})
    SELECT count(*) FROM due WHERE mid_{seconds} IS NOT NULL
    """


_MARK = {h: _mark_statement(h) for h in HORIZONS}
_KEPT = ", ".join(f"mid_{h} = k.mid_{h}" for h in HORIZONS)


@in_transaction
def rebuild(*, at: datetime, benchmarks: bool = True) -> int:
    """Measure everything again from the orders' facts; return how many fills.

    Mids whose ticks are pruned by now are kept as they were measured; without `benchmarks` all of them are, with TWAP and VWAP.
    """
    _lock()
    sql.run(f"SET LOCAL statement_timeout = '{REBUILD_MINUTES_MAX}min'")
    sql.run("SET LOCAL work_mem = '256MB'")
    sql.run(
        f"CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT execution_id, {_MARKS} FROM analytics_fillquality WHERE mid_1 IS NOT NULL"
    )
    sql.run(
        "TRUNCATE analytics_fillquality, analytics_routequality, analytics_fillsum, analytics_routesum, analytics_routetime"
    )
    told = {**_world(at), "benchmarks": benchmarks, "marks": benchmarks}
    for statement in (_FILLS, _ROUTES, _ORDERS):
        sql.run(_of(statement, "true", "true"), told)
    sql.run(
        f"UPDATE analytics_fillquality f SET {_KEPT} FROM kept k WHERE k.execution_id = f.execution_id AND f.mid_1 IS NULL"
    )
    for statement in _all_sums(1, "true"):
        sql.run(statement)
    sql.run(
        "INSERT INTO analytics_measured (id, until, marked_until) VALUES (1, %(at)s, %(at)s) "
        "ON CONFLICT (id) DO UPDATE SET until = EXCLUDED.until, marked_until = EXCLUDED.marked_until",
        {"at": at},
    )
    row = sql.run("SELECT count(*) FROM analytics_fillquality").fetchone()
    return int(row[0]) if row else 0
