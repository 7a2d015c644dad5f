"""Is the desk well: readiness, figures for Prometheus, and what needs a person."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import redis
from django.db import DatabaseError, InterfaceError
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from oms.kernel.json import rfc3339
from oms.runtime import sql
from oms.runtime.doorbell import SWEPT
from oms.runtime.redis import client

SWEEP_AGE_MAX = 15.0
EXCEPTIONS_MAX = 500

_FAILURES = (DatabaseError, InterfaceError, redis.RedisError, OSError)


def readiness() -> dict[str, dict[str, Any]]:
    """Return each part with whether it serves and, if not, why."""
    return {
        "postgresql": _checked(_postgresql),
        "redis": _checked(_redis),
        "workers": _checked(_sweeper),
        "gateways": _checked(_gateways),
    }


def _checked(check: Callable[[], str]) -> dict[str, Any]:
    try:
        fault = check()
    except _FAILURES as error:
        fault = type(error).__name__
    return {"ok": not fault, "detail": fault or "ok"}


def _postgresql() -> str:
    sql.run("SELECT 1").fetchone()
    return ""


def _redis() -> str:
    client().ping()
    return ""


def _sweeper() -> str:
    age = sweep_age()
    if age is None:
        return "no sweep has run yet"
    return "" if age <= SWEEP_AGE_MAX else f"the last sweep ran {age:.0f} s ago"


def sweep_age() -> float | None:
    """Return the seconds since the last sweep, None when none is known."""
    raw = client().get(SWEPT)
    return None if raw is None else max(0.0, time.time() - float(raw))


def _gateways() -> str:
    """A gateway is well when it holds its lease; whether its broker answers is the broker's matter."""
    rows = sql.run(
        "SELECT b.code FROM brokers_broker b LEFT JOIN brokers_brokersession s ON s.broker_id = b.id "
        "WHERE b.enabled AND coalesce(s.lease_until < desk_clock(), true) ORDER BY b.code"
    ).fetchall()
    return f"no gateway for {', '.join(code for (code,) in rows)}" if rows else ""


def exceptions(*, at: datetime) -> list[dict[str, Any]]:
    """Return what is unresolved, oldest first."""
    found = sql.rows(
        """
        SELECT * FROM (
          SELECT 'unknown_submission' AS kind, s.id::text AS object, b.code AS broker, a.code AS account,
                 s.kind || ' ' || s.client_order_id || ' ' || s.detail AS detail, coalesce(s.sent_at, s.created_at) AS since
          FROM orders_submission s JOIN brokers_broker b ON b.id = s.broker_id JOIN portfolio_account a ON a.id = s.account_id
          WHERE s.state = 'unknown'
          UNION ALL
          SELECT 'parked_report', p.id::text, b.code, NULL, 'waits for ' || p.waits_for, p.received_at
          FROM orders_parkedreport p JOIN brokers_broker b ON b.id = p.broker_id WHERE p.applied_at IS NULL
          UNION ALL
          SELECT 'unreadable_message', r.id::text, b.code, NULL, r.error, r.received_at
          FROM brokers_rawmessage r JOIN brokers_broker b ON b.id = r.broker_id
          WHERE r.error <> '' AND NOT EXISTS (SELECT FROM orders_letterdecision d WHERE d.message_id = r.id)
          UNION ALL
          SELECT 'overfilled_order', o.id::text, NULL, a.code, 'filled ' || o.filled_quantity || ' of ' || o.quantity, o.updated_at
          FROM orders_order o JOIN portfolio_account a ON a.id = o.account_id WHERE o.overfilled
          UNION ALL
          SELECT 'order_group', g.id::text, NULL, a.code, g.kind || ' ' || g.key || ': ' || CASE g.problem
                 WHEN '' THEN trim_scale(g.excess) || ' filled beyond what it may' ELSE g.problem END,
                 coalesce((SELECT max(e.at) FROM journal_event e WHERE e.object_id = g.id::text AND e.kind = 'group.alert'), g.created_at)
          FROM orders_ordergroup g JOIN portfolio_account a ON a.id = g.account_id
          WHERE g.problem <> '' OR g.excess > coalesce((
            SELECT sum(CASE o.reason WHEN 'approval_refused' THEN o.quantity ELSE o.filled_quantity END)
            FROM orders_groupleg l JOIN orders_order o ON o.id = l.order_id WHERE l.group_id = g.id AND l.role = 'flatten'), 0)
          UNION ALL
          SELECT 'settlement', s.trade_id::text, b.code, a.code,
                 s.state || ', due ' || s.due_on || CASE s.reason WHEN '' THEN '' ELSE ': ' || s.reason END,
                 coalesce(s.failed_at, s.due_on::timestamp AT TIME ZONE 'UTC')
          FROM portfolio_settlement s JOIN portfolio_account a ON a.id = s.account_id
          JOIN portfolio_trade t ON t.id = s.trade_id JOIN brokers_broker b ON b.id = t.broker_id
          WHERE s.state IN ('failed', 'partial') OR (s.state = 'pending' AND s.due_on < %s::date - 1)
          UNION ALL
          SELECT 'break', k.id::text, b.code, a.code,
                 k.kind || ' ' || k.subject || ': ours ' || coalesce(trim_scale(k.ours)::text, 'none') || ', theirs '
                 || coalesce(trim_scale(k.theirs)::text, 'none') || ', ' || k.cause, k.opened_at
          FROM portfolio_break k JOIN brokers_broker b ON b.id = k.broker_id LEFT JOIN portfolio_account a ON a.id = k.account_id
          WHERE k.state IN ('open', 'proposed')
          UNION ALL
          SELECT 'reconciliation', r.id::text, b.code, NULL, r.failure || ': ' || r.detail, r.began_at
          FROM brokers_broker b JOIN LATERAL (
            SELECT * FROM portfolio_reconciliation x WHERE x.broker_id = b.id ORDER BY x.id DESC LIMIT 1) r ON true
          WHERE r.state = 'failed'
          UNION ALL
          SELECT 'approval', p.object_id::text, NULL, a.code, p.action || ' ' || p.object_kind || ' waits for a second person',
                 p.created_at
          FROM risk_approval p LEFT JOIN portfolio_account a ON a.id = p.account_id
          WHERE p.status = 'pending' AND p.expires_at > %s
        ) x ORDER BY since LIMIT %s
        """,
        [at, at, EXCEPTIONS_MAX],
    )
    return [
        {**r, "since": rfc3339(r["since"]), "age_seconds": max(0, int((at - r["since"]).total_seconds()))}
        for r in found
    ]


_FIGURES = {
    "oms_submissions_due": "SELECT count(*) FROM orders_submission WHERE state = 'prepared' AND due_at < desk_clock()",
    "oms_submissions_unknown": "SELECT count(*) FROM orders_submission WHERE state = 'unknown'",
    "oms_submission_oldest_due_seconds": (
        "SELECT coalesce(extract(epoch FROM desk_clock() - min(due_at)), 0) FROM orders_submission WHERE state = 'prepared' AND due_at < desk_clock()"
    ),
    "oms_reports_parked": "SELECT count(*) FROM orders_parkedreport WHERE applied_at IS NULL",
    "oms_halts_engaged": "SELECT count(*) FROM risk_halt WHERE released_at IS NULL",
    "oms_breaks_open": "SELECT count(*) FROM portfolio_break WHERE state IN ('open', 'proposed')",
    "oms_holds_open": "SELECT count(*) FROM risk_hold WHERE open_quantity > 0",
    "oms_gateways_connected": "SELECT count(*) FROM brokers_brokersession WHERE connected AND lease_until > desk_clock()",
    "oms_journal_events": "SELECT coalesce(sum(sequence), 0) FROM journal_stream",
}
"""Gauge to query; each answers from an index or a small table."""


def exposition() -> bytes:
    """Return the figures of the desk in Prometheus' text form; what can't be read is left out and counted."""
    registry = CollectorRegistry()
    failed = 0
    for name, query in _FIGURES.items():
        try:
            [value] = sql.run(query).fetchone() or (0,)
        except _FAILURES:
            failed += 1
            continue
        Gauge(name, name.replace("_", " "), registry=registry).set(float(value))
    try:
        age = sweep_age()
        if age is not None:
            Gauge("oms_sweep_age_seconds", "Since the last sweep", registry=registry).set(age)
    except redis.RedisError:
        failed += 1
    Gauge("oms_figures_failed", "Figures that could not be read", registry=registry).set(failed)
    return generate_latest(registry)
