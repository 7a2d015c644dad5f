"""Checkpoints: each minute the heads of all chains are chained themselves and written to a file outside of the database.

A chain shows what was changed inside of it. That its tail was cut, or all of it written anew by someone who owns the
database, shows only against what was written down elsewhere: those files, best on a machine that the database's people
don't own. What was cut within the last minute, before the next checkpoint, no one can see.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from django.utils.crypto import constant_time_compare, salted_hmac

from oms.journal.domain import CHECKPOINT_STREAM, Entry
from oms.journal.models import Event
from oms.journal.operations import append
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.runtime import sql
from oms.runtime.transactions import in_transaction

KIND = "journal.checkpoint"
_SALT = "oms.journal.checkpoint"
Heads = dict[str, tuple[int, str]]


class _Body(msgspec.Struct):
    heads: Heads


class _Event(msgspec.Struct):
    data: _Body


class _Line(msgspec.Struct):
    """One line of an exported file: a checkpoint event and the heads that it chains."""

    at: str
    sequence: int
    hash: str
    heads: Heads
    signature: str = ""

    def signed(self) -> str:
        """Return the signature that belongs here; whoever changes the file lacks the desk's key."""
        told = json.dumps([self.at, self.sequence, self.hash, self.heads])
        return str(salted_hmac(_SALT, told, algorithm="sha256").hexdigest())


@dataclass
class Anchors:
    """What checkpoints say: the hash that a stream must have at a sequence; and what is wrong with the files themselves."""

    hashes: dict[str, dict[int, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, heads: Heads) -> None:
        """Take in one checkpoint; two that disagree about a place are a fault."""
        for stream, (sequence, hashed) in heads.items():
            if self.hashes.setdefault(stream, {}).setdefault(sequence, hashed) != hashed:
                self.faults.append(f"{stream} #{sequence}: two checkpoints saw different events there")


@in_transaction
def take(*, actor: Actor, at: datetime) -> Event | None:
    """Chain the heads of all streams into a checkpoint event; None when nothing happened since the last one."""
    rows = sql.run(
        "SELECT name, sequence, head FROM journal_stream WHERE name <> %s AND sequence > 0 ORDER BY name",
        [CHECKPOINT_STREAM],
    ).fetchall()
    heads = {name: (sequence, bytes(head).hex()) for name, sequence, head in rows}
    last = _last()
    if not heads or (last is not None and _heads_of(last) == heads):
        return None
    body = json.dumps({"data": {"heads": heads}})
    append([Entry(CHECKPOINT_STREAM, KIND, "heads", body)], actor=actor, at=at)
    return _last()


def _last() -> Event | None:
    return Event.objects.filter(stream__name=CHECKPOINT_STREAM).order_by("-sequence").first()


def export(event: Event, folder: Path) -> None:
    """Append a checkpoint to today's file of this host, and wait until it is on disk."""
    line = _Line(json.rfc3339(event.at), event.sequence, bytes(event.hash).hex(), _heads_of(event))
    line.signature = line.signed()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{event.at:%Y-%m-%d}-{socket.gethostname()}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def anchors(folder: Path | None) -> Anchors:
    """Return what the checkpoints in the database and those exported to a folder say."""
    found = Anchors()
    for event in Event.objects.filter(stream__name=CHECKPOINT_STREAM).order_by("sequence").iterator(chunk_size=2000):
        try:
            found.add(_heads_of(event))
        except msgspec.MsgspecError:
            found.faults.append(f"{CHECKPOINT_STREAM} #{event.sequence}: can't be read")
    for path in sorted(folder.glob("*.jsonl")) if folder is not None else ():
        for line in _lines(path, found):
            found.add(line.heads | {CHECKPOINT_STREAM: (line.sequence, line.hash)})
    return found


def _lines(path: Path, found: Anchors) -> Iterator[_Line]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = msgspec.json.decode(raw, type=_Line)
            except msgspec.MsgspecError:
                found.faults.append(f"{path.name} line {number}: can't be read")
                continue
            if not constant_time_compare(line.signature, line.signed()):
                found.faults.append(f"{path.name} line {number}: was not written by this desk, or was changed")
                continue
            yield line


def _heads_of(event: Event) -> Heads:
    return msgspec.json.decode(event.body, type=_Event).data.heads
