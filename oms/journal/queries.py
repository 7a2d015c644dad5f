"""Checking that the journal is what was written."""

from collections.abc import Iterator

from oms.journal.domain import GENESIS, Entry, chain_hash
from oms.journal.models import Event, Stream


def faults() -> Iterator[str]:
    """Yield a sentence for every event that is missing, changed or out of its chain; none means intact."""
    for stream in Stream.objects.order_by("name"):
        previous, expected = GENESIS, 1
        for event in Event.objects.filter(stream=stream).order_by("sequence").iterator(chunk_size=2000):
            if event.sequence != expected:
                yield f"{stream.name}: events {expected} to {event.sequence - 1} are missing"
            entry = Entry(stream.name, event.kind, event.object_id, event.body, event.frame)
            wanted = chain_hash(previous, stream.name, event.sequence, event.at, event.actor, entry)
            if bytes(event.previous_hash) != previous:
                yield f"{stream.name} #{event.sequence}: does not follow the event before it"
            elif bytes(event.hash) != wanted:
                yield f"{stream.name} #{event.sequence}: was changed after it was written"
            previous, expected = bytes(event.hash), event.sequence + 1
        if stream.sequence != expected - 1 or bytes(stream.head) != previous:
            yield f"{stream.name}: its tail was cut; the head says {stream.sequence}, the last event is {expected - 1}"
