"""Appending to the journal, and telling the screens after the commit."""

from collections.abc import Sequence
from datetime import datetime

from oms.journal import publishing
from oms.journal.domain import Entry, chain_hash
from oms.journal.models import Event, Stream
from oms.kernel.actor import Actor
from oms.kernel.ids import uuid7
from oms.runtime import sql
from oms.runtime.transactions import after_commit, require_transaction


def append(entries: Sequence[Entry], *, actor: Actor, at: datetime) -> list[Event]:
    """Write events to the ends of their chains, in the order given; three statements for any number.

    Must run inside the transaction of the change told. Streams are locked in order of name and stay
    locked until the commit, which is what makes the sequence gapless: call it last.
    """
    if not entries:
        return []
    require_transaction()
    heads = _lock_heads(sorted({e.stream for e in entries}))
    events = []
    for entry in entries:
        stream = heads[entry.stream]
        stream.sequence += 1
        hashed = chain_hash(bytes(stream.head), stream.name, stream.sequence, at, actor.name, entry)
        events.append(
            Event(
                id=uuid7(),
                stream=stream,
                sequence=stream.sequence,
                at=at,
                actor=actor.name,
                kind=entry.kind,
                object_id=entry.object_id,
                frame=entry.frame,
                body=entry.body,
                previous_hash=bytes(stream.head),
                hash=hashed,
            )
        )
        stream.head = hashed
    sql.insert(events)
    sql.update(list(heads.values()), ["sequence", "head"])
    after_commit(lambda: publishing.publish(events))
    return events


def _lock_heads(names: list[str]) -> dict[str, Stream]:
    found = _select_heads(names)
    if missing := [n for n in names if n not in found]:
        sql.run(
            "INSERT INTO journal_stream (name, sequence, head) SELECT n, 0, %s FROM unnest(%s::varchar[]) n ON CONFLICT DO NOTHING",
            [bytes(32), missing],
        )
        found = _select_heads(names)
    return found


def _select_heads(names: list[str]) -> dict[str, Stream]:
    rows = sql.run(
        "SELECT id, name, sequence, head FROM journal_stream WHERE name = ANY(%s) ORDER BY name FOR UPDATE",
        [names],
    )
    return {name: Stream(id=pk, name=name, sequence=sequence, head=head) for pk, name, sequence, head in rows}
