"""Kill switches. Engaging one is a row in PostgreSQL: no Redis, no worker, no broker is asked."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import DatabaseError

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry, account_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction, is_conflict, require_transaction, transaction_scope
from portfolio.models import Account
from risk.domain.scopes import HALT_SCOPES, Scope
from risk.models import Halt
from risk.operations.naming import require_known
from risk.queries.halts import HALT_LOCK, halt_out

PATIENCE_MS = 200
"""How long a halt waits for somebody's transaction before it ends those that stand idle."""
TRIES_MAX = 20


def engage_halt(scope: Scope, *, mode: str = Halt.Mode.HALT, reason: str, actor: Actor, at: datetime) -> Halt:
    """Stop sending for a scope from the commit on; `reduce_only` lets pass what brings positions nearer to zero.

    Waits for claims under way (they are short) and lets none begin meanwhile. A process that froze in the middle of a
    transaction would hold it up for a minute: its session is ended, and what it had begun is undone. What is already
    at a broker is left to the caller to cancel. Raises `Invalid` for an unknown scope or mode.
    """
    for _ in range(TRIES_MAX):
        try:
            with transaction_scope():
                sql.run("SELECT set_config('lock_timeout', %s, true)", [f"{PATIENCE_MS}ms"])
                return _engage(scope, mode=mode, reason=reason, actor=actor, at=at)
        except DatabaseError as error:
            if not is_conflict(error):
                raise
            _end_idlers()
    raise Unavailable("halt_held_up", "Another transaction holds up the halt; try again, or stop the gateways.")


def _end_idlers() -> None:
    """End sessions that hold a transaction open and do nothing in it."""
    sql.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - make_interval(secs => %s)",
        [PATIENCE_MS / 1000],
    )


def _engage(scope: Scope, *, mode: str, reason: str, actor: Actor, at: datetime) -> Halt:
    if scope.kind not in HALT_SCOPES:
        raise Invalid("not_a_scope", f"Name one of: {', '.join(HALT_SCOPES)}.", field="scope")
    if mode not in Halt.Mode.values:
        raise Invalid("not_a_choice", f"Use one of: {', '.join(Halt.Mode.values)}.", field="mode")
    require_known(scope)
    sql.run("SELECT pg_advisory_xact_lock(%s)", [HALT_LOCK])
    halt = Halt(
        id=uuid7(),
        scope_kind=scope.kind,
        scope_key=scope.key,
        mode=mode,
        reason=_reason(reason),
        engaged_by=actor.name,
        engaged_user_id=actor.user_id,
        engaged_at=_now_at_the_latest(at),
    )
    halt.save(force_insert=True)
    _tell(halt, "halt.engaged", actor=actor, at=at)
    return halt


def freeze(accounts: Sequence[str], *, reason: str, actor: Actor, at: datetime) -> list[Entry]:
    """Let accounts only reduce until a person releases them, in the caller's transaction; return the entries that tell it.

    An account under a halt of its own stays as it is. Taken before the journal's heads, like every lock.
    """
    require_transaction()
    if not accounts:
        return []
    sql.run("SELECT pg_advisory_xact_lock(%s)", [HALT_LOCK])
    found = sql.run(
        "SELECT scope_key FROM risk_halt WHERE released_at IS NULL AND scope_kind = 'account' AND scope_key = ANY(%s)",
        [sorted(accounts)],
    )
    began = _now_at_the_latest(at)
    halts = [
        Halt(
            id=uuid7(), scope_kind="account", scope_key=code, mode=Halt.Mode.REDUCE_ONLY, reason=_reason(reason),
            engaged_by=actor.name, engaged_user_id=actor.user_id, engaged_at=began,
        )
        for code in sorted(set(accounts) - {r[0] for r in found})
    ]  # fmt: skip
    sql.insert(halts)
    return [entry for halt in halts for entry in _entries(halt, "halt.engaged")]


@in_transaction
def release_halt(halt_id: UUID, *, reason: str, actor: Actor, at: datetime) -> Halt:
    """Let a scope trade again, by another person than the one who stopped it.

    Raises `NotFound`, `Conflict` (already_released), `Forbidden` (not_a_person, approver_is_maker).
    """
    sql.run("SELECT pg_advisory_xact_lock(%s)", [HALT_LOCK])
    halt = Halt.objects.select_for_update(no_key=True).filter(pk=halt_id).first()
    if halt is None:
        raise NotFound("not_found", "No such halt.")
    if actor.user_id is None:
        raise Forbidden("not_a_person", "A halt is released by a named user of the desk.")
    if actor.user_id == halt.engaged_user_id:
        raise Forbidden("approver_is_maker", "Another person than the one who engaged the halt must release it.")
    if halt.released_at is not None:
        raise Conflict("already_released", f"{halt.released_by} released it at {halt.released_at:%H:%M:%S} UTC.")
    halt.released_by, halt.released_at, halt.release_reason = actor.name, at, _reason(reason)
    halt.save(update_fields=["released_by", "released_at", "release_reason"])
    _tell(halt, "halt.released", actor=actor, at=at)
    return halt


def _now_at_the_latest(at: datetime) -> datetime:
    """Return when the halt begins: under its lock no claim is under way, while at `at` one may have been."""
    row = sql.run("SELECT greatest(%s::timestamptz, desk_clock())", [at]).fetchone()
    assert row is not None  # noqa: S101 - a query of one value has one row
    began: datetime = row[0]
    return began


def _reason(text: str) -> str:
    if not text.strip():
        raise Invalid("required", "Say why.", field="reason")
    return text.strip()[:200]


def _tell(halt: Halt, kind: str, *, actor: Actor, at: datetime) -> None:
    journal.append(_entries(halt, kind), actor=actor, at=at)


def _entries(halt: Halt, kind: str) -> list[Entry]:
    """Return what tells a halt on the system's chain and, for the screens, on that of every account it binds."""
    body = json.dumps({"data": halt_out(halt)})
    entries = [Entry(SYSTEM_STREAM, kind, str(halt.id), body)]
    codes = [halt.scope_key] if halt.scope_kind == "account" else _all_accounts()
    return entries + [Entry(account_stream(code), kind, str(halt.id), body, frame="halt") for code in codes]


def _all_accounts() -> list[str]:
    return list(Account.objects.order_by("code").values_list("code", flat=True))
