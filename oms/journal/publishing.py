"""Frames for live screens: sent through Redis after the commit, fetched from PostgreSQL when one is missed."""

from collections.abc import Sequence

import structlog

from oms.journal.domain import Recorded
from oms.journal.models import Event
from oms.kernel.batching import group_by
from oms.runtime import live

log = structlog.get_logger(__name__)


def frame_of(stream: str, event: Event | Recorded) -> str:
    """Return the WebSocket frame of an account's event: its body, with type, account and sequence in front."""
    account = stream.partition(":")[2]
    return f'{{"type":"{event.frame}","account":"{account}","seq":{event.sequence},{event.body[1:]}'


def publish(events: Sequence[Recorded]) -> None:
    """Send the frames of account streams; a dead Redis costs the screens a second, never a fact."""
    for name, group in group_by(events, lambda e: e.stream).items():
        for run in _runs(group):
            live.publish(name, run[0].sequence, [frame_of(name, e) for e in run])


def _runs(events: Sequence[Recorded]) -> list[list[Recorded]]:
    """Return followed events in runs without a gap: a batch names its first sequence only."""
    runs: list[list[Recorded]] = []
    for event in events:
        if not event.frame:
            continue
        if runs and runs[-1][-1].sequence + 1 == event.sequence:
            runs[-1].append(event)
        else:
            runs.append([event])
    return runs
