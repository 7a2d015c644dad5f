"""Is everything there that a desk needs before it opens: settings, servers, schema, people, limits, brokers."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor

from brokers import queries as brokers
from oms.kernel.errors import DomainError
from oms.runtime import clock, sql
from oms.runtime.redis import client
from portfolio.operations import require_usable
from risk.domain.limits import REQUIRED

POSTGRESQL_LEAST = 150_000
CLOCK_SECONDS_MAX = 1.0
DISK_BYTES_LEAST = 1 << 30
CALENDAR_AHEAD = timedelta(days=14)
PEOPLE = {"admin": 1, "risk": 2, "ops": 2}
"""Who must be there: what one of risk or ops asks for, another approves."""
FACTS = (
    "journal_event", "orders_execution", "brokers_rawmessage", "portfolio_trade", "portfolio_ledgertransaction",
    "portfolio_ledgerentry", "risk_riskcheck", "routing_routingdecision", "routing_routeleg",
)  # fmt: skip
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


class Finding(NamedTuple):
    """One thing looked at; `detail` says what is wrong, or what was found."""

    check: str
    ok: bool
    detail: str


def inspect() -> list[Finding]:
    """Look at everything; what can't be looked at counts as wrong."""
    return [_run(name, check) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[[], tuple[bool, str]]) -> Finding:
    try:
        return Finding(name, *check())
    except (DatabaseError, InterfaceError, redis.RedisError, OSError) as error:
        return Finding(
            name, False, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        )


def _settings() -> tuple[bool, str]:
    found = checks.run_checks(tags=["security"], include_deployment_checks=settings.PRODUCTION)
    wrong = [str(m.msg) for m in found if m.level >= checks.WARNING and not m.is_silenced()]
    return not wrong, "; ".join(wrong) or ("production" if settings.PRODUCTION else "demo: not for real orders")


def _postgresql() -> tuple[bool, str]:
    version = connection.pg_version
    return version >= POSTGRESQL_LEAST, f"version {version // 10_000}.{version % 10_000}"


def _durability() -> tuple[bool, str]:
    off = [name for name in DURABLE if _setting(name) == "off"]
    sums = "" if _setting("data_checksums") == "on" else "; data checksums are off"
    return not off, (f"off: {', '.join(off)}" if off else "every commit reaches the disk") + sums


def _setting(name: str) -> str:
    row = sql.run("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


def _schema() -> tuple[bool, str]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return not plan, f"run migrate: {len(plan)} to apply" if plan else "up to date"


def _facts() -> tuple[bool, str]:
    guarded = {
        name
        for (name,) in sql.run(
            "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "WHERE t.tgname = c.relname || '_append_only' AND t.tgenabled <> 'D'"
        ).fetchall()
    }
    bare = [name for name in FACTS if name not in guarded]
    return not bare, f"can be changed: {', '.join(bare)}" if bare else "append-only by trigger"


def _redis() -> tuple[bool, str]:
    policy = client().config_get("maxmemory-policy").get("maxmemory-policy", "")
    return policy == "noeviction", f"maxmemory-policy {policy}"


def _clock() -> tuple[bool, str]:
    before = time.time()
    row = sql.run("SELECT extract(epoch FROM desk_clock())").fetchone()
    apart = abs(float(row[0] if row else 0) - (before + time.time()) / 2)
    if not clock.is_real():
        return False, "desk_clock() is not the real clock: this database was made for a simulation"
    return apart <= CLOCK_SECONDS_MAX, f"{apart:.3f} s from PostgreSQL's"


def _disk() -> tuple[bool, str]:
    folder = Path(os.environ.get("OMS_DATA") or settings.BASE_DIR)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return free >= DISK_BYTES_LEAST, f"{free / (1 << 30):.1f} GiB free at {folder}"


def _people() -> tuple[bool, str]:
    active = get_user_model().objects.filter(is_active=True)
    counts = {role: active.filter(groups__name=role).count() for role in PEOPLE}
    few = [f"{role} has {counts[role]} of {least}" for role, least in PEOPLE.items() if counts[role] < least]
    return not few, "; ".join(few) or "a second person for every decision"


def _limits() -> tuple[bool, str]:
    rows = sql.run(
        "SELECT a.code, k.kind FROM portfolio_account a CROSS JOIN unnest(%s::varchar[]) k(kind) WHERE a.status = 'open' "
        "AND NOT EXISTS (SELECT 1 FROM risk_limit l WHERE l.status = 'active' AND NOT l.soft AND l.kind = k.kind "
        "AND (l.scope_kind = 'firm' OR (l.scope_kind = 'account' AND l.scope_key = a.code))) ORDER BY 1, 2",
        [list(REQUIRED)],
    ).fetchall()
    missing = ", ".join(f"{kind} of {code}" for code, kind in rows)
    return not rows, f"nothing trades without: {missing}" if rows else "every open account has its limits"


def _brokers() -> tuple[bool, str]:
    enabled = [b for b in brokers.brokers().values() if b.enabled]
    faults = list(_broker_faults(enabled)) if enabled else ["none is enabled"]
    return not faults, "; ".join(faults) or ", ".join(b.code for b in enabled)


def _broker_faults(enabled: list[Any]) -> Iterator[str]:
    linked = {pk for (pk,) in sql.run("SELECT DISTINCT broker_id FROM portfolio_brokerlink").fetchall()}
    listed = {broker_id for broker_id, _ in brokers.listings()}
    for broker in enabled:
        try:
            require_usable(broker.adapter, broker.settings)
        except DomainError as error:
            yield f"{broker.code}: {error.detail}"
        if broker.id not in linked:
            yield f"{broker.code}: no account trades there"
        if broker.id not in listed:
            yield f"{broker.code}: nothing is listed there"


def _calendars() -> tuple[bool, str]:
    """A calendar that ends soon would stop trading where hours are kept, and makes settlement count weekdays."""
    rows = sql.run(
        "SELECT i.calendar, max(s.day) FROM brokers_instrument i LEFT JOIN brokers_tradingsession s ON s.calendar = i.calendar "
        "WHERE i.active AND i.calendar <> '' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    horizon = datetime.now(UTC).date() + CALENDAR_AHEAD
    short = [f"{code} is loaded until {day or 'never'}" for code, day in rows if day is None or day < horizon]
    told = "; ".join(short) + ": run load_calendars" if short else ", ".join(code for code, _ in rows) or "none kept"
    return not short or not settings.SESSIONS, told


CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "settings": _settings,
    "postgresql": _postgresql,
    "durability": _durability,
    "schema": _schema,
    "facts": _facts,
    "redis": _redis,
    "clock": _clock,
    "disk": _disk,
    "people": _people,
    "limits": _limits,
    "brokers": _brokers,
    "calendars": _calendars,
}
