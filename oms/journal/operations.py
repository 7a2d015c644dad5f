"""Appending to the journal, and telling the screens after the commit."""

from collections.abc import Sequence
from datetime import datetime

from oms.journal import publishing
from oms.journal.domain import Entry, Recorded, chain_hash
from oms.journal.models import Event
from oms.kernel.actor import Actor
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import after_commit, require_transaction

_EVENT = (
    "id", "stream_id", "sequence", "at", "actor", "kind", "object_id", "frame", "body", "previous_hash", "hash",
)  # fmt: skip


def append(entries: Sequence[Entry], *, actor: Actor, at: datetime) -> list[Recorded]:
    """Write events to the ends of their chains, in the order given; three statements for any number.

    Must run inside the transaction of the change told. Streams are locked in order of name and stay
    locked until the commit, which is what makes the sequence gapless: call it last.
    """
    if not entries:
        return []
    require_transaction()
    heads = _lock_heads(sorted({e.stream for e in entries}))
    events, recorded = [], []
    for entry in entries:
        stream_id, sequence, head = heads[entry.stream]
        sequence += 1
        hashed = chain_hash(head, entry.stream, sequence, at, actor.name, entry)
        events.append(
            (
                uuid7(), stream_id, sequence, at, actor.name, entry.kind, entry.object_id, entry.frame, entry.body,
                head, hashed,
            )
        )  # fmt: skip
        recorded.append(Recorded(entry.stream, sequence, entry.frame, entry.body))
        heads[entry.stream] = stream_id, sequence, hashed
    sql.insert_values(Event, _EVENT, events)
    sql.run(
        "UPDATE journal_stream t SET sequence = u.sequence, head = u.head "
        "FROM unnest(%s::bigint[], %s::bigint[], %b::bytea[]) u(id, sequence, head) WHERE t.id = u.id",
        [list(column) for column in zip(*heads.values(), strict=True)],
    )
    after_commit(lambda: publishing.publish(recorded))
    return recorded


def _lock_heads(names: list[str]) -> dict[str, tuple[int, int, bytes]]:
    """Return (id, sequence, head) by stream."""
    found = _select_heads(names)
    if missing := [n for n in names if n not in found]:
        sql.run(
            "INSERT INTO journal_stream (name, sequence, head) SELECT n, 0, %s FROM unnest(%s::varchar[]) n ON CONFLICT DO NOTHING",
            [bytes(32), missing],
        )
        found = _select_heads(names)
    return found


def _select_heads(names: list[str]) -> dict[str, tuple[int, int, bytes]]:
    rows = sql.run(
        "SELECT name, id, sequence, head FROM journal_stream WHERE name = ANY(%s) ORDER BY name FOR UPDATE",
        [names],
    )
    return {name: (pk, sequence, bytes(head)) for name, pk, sequence, head in rows}
