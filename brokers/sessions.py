"""Sessions that belong to one gateway: their lease, their numbers, and every message before it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from brokers.adapters.hosting import EPOCH_BITS, Fenced, Numbers, Sent, expected
from brokers.models import Broker, FixMessage
from oms.journal import operations as journal
from oms.journal.domain import Entry, broker_stream
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import in_transaction

LEASE_SECONDS = 6
SESSION_LOCK = 7307
"""Class of the advisory lock that a gateway holds with its lease, by broker: where the lease lapses because its holder is
frozen, nobody else logs on beside it."""
NUMBER_MAX = 999_999_999
_HELD = "s.broker_id = %(broker)s AND s.owner = %(owner)s AND s.fence = %(fence)s AND s.lease_until > desk_clock()"


def take_lease(broker_id: int, owner: str) -> int | None:
    """Take or renew the lease of a broker's session; return its fence, None while another has it."""
    row = sql.run(
        """
        INSERT INTO brokers_brokersession AS s (broker_id, owner, fence, lease_until, connected)
        VALUES (%(broker)s, %(owner)s, 1, desk_clock() + make_interval(secs => %(lease)s), false)
        ON CONFLICT (broker_id) DO UPDATE SET owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until,
          fence = s.fence + (s.owner <> EXCLUDED.owner)::int
        WHERE s.owner = EXCLUDED.owner OR s.lease_until IS NULL OR s.lease_until < desk_clock()
        RETURNING fence
        """,
        {"broker": broker_id, "owner": owner, "lease": LEASE_SECONDS},
    ).fetchone()
    return None if row is None else int(row[0])


def lock_session(broker_id: int) -> bool:
    """Take the lock of a broker's session for as long as this connection to the database lives; False while another has it."""
    held = sql.run(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %(class)s AND objid = %(broker)s "
        "AND pid = pg_backend_pid() AND granted) OR pg_try_advisory_lock(%(class)s, %(broker)s)",
        {"class": SESSION_LOCK, "broker": broker_id},
    ).fetchone()
    return bool(held and held[0])


def unlock_session(broker_id: int) -> None:
    """Give the lock back."""
    sql.run("SELECT pg_advisory_unlock(%s, %s)", [SESSION_LOCK, broker_id])


def note(broker_id: int, state: str, detail: str = "") -> None:
    """Tell how a session is, for people."""
    sql.run(
        "UPDATE brokers_fixsession SET state = %s, detail = %s, noted_at = desk_clock() WHERE broker_id = %s",
        [state[:40], detail[:200], broker_id],
    )


class KeptSession:
    """The `SessionStore` of one holder of a lease."""

    def __init__(self, broker_id: int, owner: str, fence: int) -> None:
        self.holder = {"broker": broker_id, "owner": owner, "fence": fence}
        self.broker_id = broker_id

    def load(self) -> Numbers:
        """See `hosting.SessionStore`."""
        sql.run(
            "INSERT INTO brokers_fixsession (broker_id, epoch, next_out, state, detail, garbled, gaps) "
            "VALUES (%s, 1, 1, '', '', 0, 0) ON CONFLICT DO NOTHING",
            [self.broker_id],
        )
        statement = "SELECT epoch, next_out, began_at FROM brokers_fixsession WHERE broker_id = %s"
        return Numbers(*sql.run(statement, [self.broker_id]).fetchall()[0])

    def begin_anew(self, at: datetime) -> Numbers:
        """See `hosting.SessionStore`."""
        return self._begin_anew(at)

    @in_transaction
    def _begin_anew(self, at: datetime) -> Numbers:
        found = sql.run(
            f"UPDATE brokers_fixsession f SET epoch = f.epoch + 1, next_out = 1, began_at = %(at)s FROM brokers_brokersession s "
            f"WHERE f.broker_id = s.broker_id AND {_HELD} RETURNING f.epoch, f.next_out, f.began_at",
            self.holder | {"at": at},
        ).fetchone()
        if found is None:
            raise Fenced
        return Numbers(*found)

    def keep(self, epoch: int, messages: Sequence[Sent]) -> None:
        """See `hosting.SessionStore`."""
        self._keep(epoch, messages)

    @in_transaction
    def _keep(self, epoch: int, messages: Sequence[Sent]) -> None:
        first = messages[0].sequence
        taken = sql.run(
            f"UPDATE brokers_fixsession f SET next_out = %(after)s FROM brokers_brokersession s "
            f"WHERE f.broker_id = s.broker_id AND f.epoch = %(epoch)s AND f.next_out = %(first)s AND {_HELD} "
            "RETURNING desk_clock()",
            self.holder | {"epoch": epoch, "first": first, "after": first + len(messages)},
        ).fetchone()
        if taken is None:
            raise Fenced
        names = ("id", "broker_id", "epoch", "sequence", "kind", "client_order_id", "raw", "sent_at")
        rows = [
            (uuid7(), self.broker_id, epoch, m.sequence, m.kind, m.client_order_id, m.raw, taken[0]) for m in messages
        ]
        sql.insert_values(FixMessage, names, rows)

    def find(self, client_order_ids: Sequence[str]) -> dict[str, Sent]:
        """See `hosting.SessionStore`."""
        found = FixMessage.objects.filter(
            broker_id=self.broker_id, client_order_id__in=list(client_order_ids), kind__in=["D", "F", "G"]
        ).order_by("epoch", "sequence")
        return {m.client_order_id: _sent(m) for m in found}

    def at(self, epoch: int, sequence: int) -> Sent | None:
        """See `hosting.SessionStore`."""
        found = FixMessage.objects.filter(broker_id=self.broker_id, epoch=epoch, sequence=sequence).first()
        return None if found is None else _sent(found)

    def confirm(self) -> None:
        """See `hosting.SessionStore`."""
        if sql.run(f"SELECT FROM brokers_brokersession s WHERE {_HELD}", self.holder).rowcount == 0:
            raise Fenced

    def note(self, state: str, detail: str = "") -> None:
        """See `hosting.SessionStore`."""
        note(self.broker_id, state, detail)

    def saw(self, heard_at: datetime | None, wrote_at: datetime | None, garbled: int, gaps: int) -> None:
        """See `hosting.SessionStore`."""
        sql.run(
            "UPDATE brokers_fixsession SET heard_at = %s, wrote_at = %s, garbled = %s, gaps = %s WHERE broker_id = %s",
            [heard_at, wrote_at, garbled, gaps, self.broker_id],
        )


def _sent(row: FixMessage) -> Sent:
    return Sent(row.sequence, row.kind, row.client_order_id, bytes(row.raw))


@dataclass(frozen=True, slots=True)
class _Standing:
    """A FIX session's numbers as they are kept, its rows locked."""

    broker_id: int
    epoch: int
    next_in: int
    next_out: int


@in_transaction
def set_numbers(
    code: str, *, next_in: int | None, next_out: int | None, reason: str, actor: Actor, at: datetime
) -> tuple[int, int]:
    """Set the numbers of a FIX session by hand, as agreed with the broker; whoever has the session logs on anew with them.

    Returns the next number in and out. Raises `Invalid` for one out of range, `NotFound` and `Conflict` for a broker that has
    no such session.
    """
    was = _standing(code, next_in, next_out)
    after = (next_in or was.next_in, next_out or was.next_out)
    epoch = was.epoch + 1
    sql.run(
        "UPDATE brokers_fixsession SET epoch = %s, next_out = %s WHERE broker_id = %s", [epoch, after[1], was.broker_id]
    )
    sql.run(
        "UPDATE brokers_brokersession SET cursor = %s, fence = fence + 1 WHERE broker_id = %s",
        [(epoch << EPOCH_BITS) | (after[0] - 1), was.broker_id],
    )
    data = {
        "broker": code, "reason": reason, "before": {"next_in": was.next_in, "next_out": was.next_out},
        "after": {"next_in": after[0], "next_out": after[1]},
    }  # fmt: skip
    entry = Entry(broker_stream(code), "session.numbers_set", code, json.dumps({"data": data}))
    journal.append([entry], actor=actor, at=at)
    return after


@in_transaction
def judge_numbers(code: str, *, next_in: int | None, next_out: int | None, **_: object) -> tuple[int, int]:
    """Return the numbers that `set_numbers` would set, or raise as it would."""
    was = _standing(code, next_in, next_out)
    return next_in or was.next_in, next_out or was.next_out


def _standing(code: str, next_in: int | None, next_out: int | None) -> _Standing:
    for name, number in (("next_in", next_in), ("next_out", next_out)):
        if number is not None and not 1 <= number <= NUMBER_MAX:
            raise Invalid("out_of_range", f"Use a number from 1 to {NUMBER_MAX}.", field=name)
    broker = Broker.objects.filter(code=code).first()
    if broker is None:
        raise NotFound("not_found", "There is no such broker.")
    if broker.adapter != "fix":
        raise Conflict("not_a_fix_session", "Only FIX sessions have numbers to set.")
    held = sql.run("SELECT cursor FROM brokers_brokersession WHERE broker_id = %s FOR UPDATE", [broker.id]).fetchone()
    kept = sql.run(
        "SELECT epoch, next_out FROM brokers_fixsession WHERE broker_id = %s FOR UPDATE", [broker.id]
    ).fetchone()
    if held is None or kept is None:
        raise Conflict("never_connected", "This session was never begun: there are no numbers yet.")
    return _Standing(broker.id, kept[0], expected(held[0], kept[0]), kept[1])
