"""Who was refused and who signed in, kept in a chain of its own: a flood of either never holds up the desk's events."""

from datetime import UTC, datetime
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError

from oms.journal.domain import SECURITY_STREAM, Entry
from oms.journal.operations import append
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.runtime import refusals
from oms.runtime.throttle import Window, take
from oms.runtime.transactions import in_transaction

REFUSALS = Window("refusals", 10, fallback=True)
"""Events a second written down for one user or address; beyond, only the log tells."""
PATH_MAX = 200
log = structlog.get_logger(__name__)


def listen() -> None:
    """Follow what the layer below tells."""
    refusals.refused.connect(_refused, dispatch_uid="journal")
    refusals.signed_in.connect(_signed_in, dispatch_uid="journal")
    refusals.sign_in_failed.connect(_sign_in_failed, dispatch_uid="journal")


def _refused(*, user: Any, method: str, path: str, code: str, address: str, **_: Any) -> None:
    shown = "".join(c if c.isprintable() else "?" for c in path[:PATH_MAX])
    _note(
        "access.refused", user, {"method": method, "path": shown, "code": code, "address": address}, actor=_actor(user)
    )


def _signed_in(*, user: Any, address: str, **_: Any) -> None:
    _note("login.succeeded", user, {"address": address}, actor=_actor(user))


def _sign_in_failed(*, user: Any, address: str, locked: float, **_: Any) -> None:
    # A name that is nobody's is not kept: people type passwords there.
    data = {"address": address, "locked_seconds": round(locked)}
    _note("login.failed", user, data, actor=Actor.system("login"))


def _actor(user: Any) -> Actor:
    return Actor(f"user:{user.get_username()}", user.pk)


def _note(kind: str, user: Any, data: dict[str, Any], *, actor: Actor) -> None:
    """Write one event. Trouble with the database must not change the answer that the caller gets."""
    name = user.get_username() if user is not None else ""
    if take(REFUSALS, name or data["address"]).wait > 0:
        log.warning(kind.replace(".", "_"), user=name, left_out="too many a second", **data)
        return
    entry = Entry(SECURITY_STREAM, kind, name[:64] or "unknown", json.dumps({"data": {"user": name or None, **data}}))
    try:
        _append(entry, actor, datetime.now(UTC))
    except (DatabaseError, InterfaceError) as error:
        log.error("security_event_lost", kind=kind, error=type(error).__name__, user=name, **data)


@in_transaction
def _append(entry: Entry, actor: Actor, at: datetime) -> None:
    append([entry], actor=actor, at=at)
