"""What live screens read from PostgreSQL: who a socket belongs to, snapshots, and frames that were missed."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from channels.db import DatabaseSyncToAsync
from django.contrib.auth import get_user_model
from django.db import transaction
from knox.models import get_token_model
from rest_framework.exceptions import APIException

from oms.journal.domain import account_stream
from oms.journal.publishing import frame_of
from oms.kernel import json
from oms.runtime import sessions, sql
from oms.runtime.roles import READ
from oms.runtime.signin import Tokens
from orders import queries as orders
from portfolio import queries as portfolio
from portfolio.models import Account

SNAPSHOT_ORDERS = 200
REPLAY_MAX = 2_000
"""A client further behind than this gets a snapshot: cheaper for both."""


class inThread(DatabaseSyncToAsync):  # noqa: N801 - a decorator
    """Run a database function off the event loop, several at a time, leaving no connection behind."""

    def __init__(self, function: Any) -> None:
        super().__init__(function, thread_sensitive=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a socket acts for: the user, and the token or the session that it came by."""

    user_id: int
    token_digest: str | None
    session_key: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an account as of a sequence, already the text that sockets receive."""

    sequence: int
    text: str


@inThread
def identify(token: str) -> Identity | None:
    """Return whom a token belongs to; None for a token that is unknown, expired or of an inactive user."""
    try:
        found = Tokens().authenticate_credentials(token.encode())
    except (APIException, UnicodeError):
        return None
    return Identity(found[0].pk, found[1].digest) if READ in found[1].scopes else None


@inThread
def identify_session(session_key: str | None) -> Identity | None:
    """Return whom a log-in belongs to; None for one that ended, by logging out, by idling or by its age."""
    user = sessions.user_of(session_key, at=datetime.now(UTC)) if session_key else None
    return None if user is None else Identity(user.pk, None, session_key)


@inThread
def still_valid(identities: Collection[Identity]) -> set[Identity]:
    """Return those of the identities that may stay: active users, tokens and log-ins neither revoked nor expired."""
    users = get_user_model().objects.filter(pk__in={i.user_id for i in identities}, is_active=True)
    active = set(users.values_list("pk", flat=True))
    digests = {i.token_digest for i in identities if i.token_digest}
    tokens = get_token_model().objects.filter(digest__in=digests).values_list("digest", "expiry") if digests else ()
    now = datetime.now(UTC)
    alive = {digest for digest, expiry in tokens if expiry is None or expiry > now}
    there = {i for i in identities if i.user_id in active and (i.token_digest is None or i.token_digest in alive)}
    return {i for i in there if i.session_key is None or _is_logged_in(i, now)}


def _is_logged_in(identity: Identity, at: datetime) -> bool:
    user = sessions.user_of(identity.session_key or "", at=at)
    return user is not None and user.pk == identity.user_id


@inThread
def visible(user_ids: Collection[int]) -> dict[int, set[str]]:
    """Return the codes of the accounts that each user may see."""
    users = get_user_model().objects.filter(pk__in=user_ids)
    return {u.pk: set(portfolio.visible_accounts(u).values_list("code", flat=True)) for u in users}


@inThread
def snapshot(account: str) -> Snapshot:
    """Return open and recent orders and the positions of an account, all as of one moment and sequence."""
    with transaction.atomic(durable=True):
        sql.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = sql.run("SELECT sequence FROM journal_stream WHERE name = %s", [account_stream(account)]).fetchone()
        account_id = Account.objects.values_list("id", flat=True).get(code=account)
        working = orders.list_orders([account_id], {}, before=None, limit=SNAPSHOT_ORDERS, open_only=True)
        recent = orders.list_orders([account_id], {}, before=None, limit=SNAPSHOT_ORDERS)
        positions = portfolio.positions_of(account_id)
    shown = {o["id"]: o for o in [*recent, *working]}
    sequence = row[0] if row else 0
    body = {
        "type": "snapshot",
        "account": account,
        "seq": sequence,
        "orders": sorted(shown.values(), key=lambda o: str(o["id"]), reverse=True),
        "positions": positions,
    }
    return Snapshot(sequence, json.dumps(body))


@inThread
def heads(accounts: Iterable[str]) -> dict[str, int]:
    """Return the last sequence of each account's stream."""
    names = {account_stream(a): a for a in accounts}
    rows = sql.run("SELECT name, sequence FROM journal_stream WHERE name = ANY(%s)", [list(names)]).fetchall()
    return {names[name]: sequence for name, sequence in rows}


@inThread
def frames_after(account: str, sequence: int, limit: int) -> list[tuple[int, str]]:
    """Return the frames of an account after a sequence, in order, as (sequence, text)."""
    stream = account_stream(account)
    return [(e.sequence, frame_of(stream, e)) for e in orders.frames_since(stream, sequence, limit) if e.frame]
