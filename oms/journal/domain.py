"""The chain: how an event's hash follows from the one before."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from oms.kernel.json import rfc3339

GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to be written: which stream, what, about which object, with which JSON body."""

    stream: str
    kind: str
    object_id: str
    body: str
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it was written: where in which stream, and what screens are told of it."""

    stream: str
    sequence: int
    frame: str
    body: str


def chain_hash(previous: bytes, stream: str, sequence: int, at: datetime, actor: str, entry: Entry) -> bytes:
    """Return SHA-256 over the previous hash and every field of the event, lengths told so that none can shift."""
    fields = (stream, str(sequence), rfc3339(at), actor, entry.kind, entry.object_id, entry.frame, entry.body)
    digest = sha256(previous)
    for field in fields:
        raw = field.encode()
        digest.update(len(raw).to_bytes(4) + raw)
    return digest.digest()


def account_stream(code: str) -> str:
    """Return the stream of an account."""
    return f"account:{code}"


def broker_stream(code: str) -> str:
    """Return the stream of a broker."""
    return f"broker:{code}"


SYSTEM_STREAM = "system"
SECURITY_STREAM = "security"
CHECKPOINT_STREAM = "checkpoint"
