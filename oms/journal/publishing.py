"""Frames for live screens: sent through Redis after the commit, fetched from PostgreSQL when one is missed."""

from collections.abc import Sequence

import structlog

from oms.journal.models import Event
from oms.kernel.batching import group_by
from oms.runtime import live

log = structlog.get_logger(__name__)


def frame_of(stream: str, event: Event) -> str:
    """Return the WebSocket frame of an account's event: its body, with type, account and sequence in front."""
    account = stream.partition(":")[2]
    return f'{{"type":"{event.frame}","account":"{account}","seq":{event.sequence},{event.body[1:]}'


def publish(events: Sequence[Event]) -> None:
    """Send the frames of account streams; a dead Redis costs the screens a second, never a fact."""
    followed = [e for e in events if e.frame]
    for name, group in group_by(followed, lambda e: e.stream.name).items():
        live.publish(name, group[0].sequence, [frame_of(name, e) for e in group])
