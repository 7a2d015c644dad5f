"""Checking that the journal is what was written."""

from collections.abc import Iterator

from django.db.models import Max

from oms.journal.checkpoints import Anchors
from oms.journal.domain import GENESIS, Entry, chain_hash
from oms.journal.models import Event, Stream


def faults(anchors: Anchors | None = None) -> Iterator[str]:
    """Yield a sentence for every event that is missing, changed or out of its chain; none means intact.

    `anchors` are what checkpoints saw: against them a cut tail and a chain written anew show as well.
    """
    known = anchors or Anchors()
    yield from known.faults
    there = set()
    for stream in Stream.objects.order_by("name"):
        there.add(stream.name)
        yield from _faults_of(stream, known.hashes.get(stream.name, {}))
    for name in sorted(set(known.hashes) - there):
        yield f"{name}: the whole chain is gone; a checkpoint saw {max(known.hashes[name])} events"


def _faults_of(stream: Stream, seen: dict[int, str]) -> Iterator[str]:
    previous, expected = GENESIS, 1
    events = Event.objects.filter(stream=stream)
    # What a desk at work appends meanwhile is left to the next time.
    for event in events.filter(sequence__lte=stream.sequence).order_by("sequence").iterator(chunk_size=2000):
        if event.sequence != expected:
            yield f"{stream.name}: events {expected} to {event.sequence - 1} are missing"
        entry = Entry(stream.name, event.kind, event.object_id, event.body, event.frame)
        wanted = chain_hash(previous, stream.name, event.sequence, event.at, event.actor, entry)
        if bytes(event.previous_hash) != previous:
            yield f"{stream.name} #{event.sequence}: does not follow the event before it"
        elif bytes(event.hash) != wanted:
            yield f"{stream.name} #{event.sequence}: was changed after it was written"
        elif seen.get(event.sequence, wanted.hex()) != wanted.hex():
            yield f"{stream.name} #{event.sequence}: a checkpoint saw another event here"
        previous, expected = bytes(event.hash), event.sequence + 1
    if stream.sequence != expected - 1 or bytes(stream.head) != previous:
        yield f"{stream.name}: its tail was cut; the head says {stream.sequence}, the last event is {expected - 1}"
    last = events.aggregate(last=Max("sequence"))["last"] or 0
    if last > (head := Stream.objects.get(pk=stream.pk).sequence):  # read after it: an honest head is never behind
        yield f"{stream.name}: events {head + 1} to {last} lie behind its head"
    if seen and max(seen) >= expected:
        yield f"{stream.name}: its tail was cut; a checkpoint saw {max(seen)} events, the last is {expected - 1}"
