"""What crosses processes for live screens: batches of encoded frames, by stream and first sequence."""

from collections.abc import Sequence

import msgspec
import redis
import structlog

from oms.runtime.redis import client

CHANNEL = "oms:frames"
MARKS = "oms:marks"
log = structlog.get_logger(__name__)


class FrameBatch(msgspec.Struct, array_like=True):
    """Consecutive frames of one stream, each already the JSON text that sockets receive."""

    stream: str
    first: int
    frames: list[str]


_encoder = msgspec.msgpack.Encoder()


def publish(stream: str, first: int, frames: Sequence[str]) -> None:
    """Send frames to every process that serves sockets; without Redis they find them by asking PostgreSQL."""
    try:
        client().publish(CHANNEL, _encoder.encode(FrameBatch(stream, first, list(frames))))
    except redis.RedisError as error:
        log.warning("frames_not_published", stream=stream, first=first, error=str(error))


def publish_marks(marks: Sequence[tuple[str, str]], kind: str = "mark") -> None:
    """Send (account, frame) pairs of what prices move: the latest of a kind wins, a lost one is soon overtaken."""
    if not marks:
        return
    try:
        client().publish(MARKS, _encoder.encode([[account, kind, frame] for account, frame in marks]))
    except redis.RedisError as error:
        log.warning("marks_not_published", marks=len(marks), error=str(error))
