"""What the supervisor says, and what it passes on from the logs."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

WORTH_SEEING = re.compile(
    r"\[(warning|error|critical)\s*\]|(?<!%)\b(WARNING|ERROR|CRITICAL|FATAL|PANIC)\b|^\w*(Error|Exception)\b"
)
LINE_MAX = 240
LINES_A_LOOK_MAX = 5
KINDS_MAX = 1_000
REPEAT_SECONDS = 60.0
"""The same words, whatever their time and numbers, are shown once in so long."""
EXPECTED = "Service Unavailable: /readyz"
"""The answer to our own question while the desk starts."""
VARYING = re.compile(r"\d[\w:.+-]*|correlation_id=\S+")
LOG_BYTES_MAX = 50_000_000


def say(text: str) -> None:
    print(text, flush=True)


def passed_on(name: str, line: str) -> str:
    """One short line with its source before it."""
    return f"{name:>14} | {line[:LINE_MAX]}"


@dataclass
class Tail:
    """Follows one log: shows warnings and errors, keeps the file small."""

    name: str
    path: Path
    position: int = 0
    partial: bytes = b""
    told_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.position = self.path.stat().st_size if self.path.exists() else 0

    def look(self) -> list[str]:
        """New lines worth seeing, a few at most: a flood stays in the file."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self.position:  # turned over by a start
            self.position = 0
        if size == self.position:
            return []
        with self.path.open("rb") as log:
            log.seek(self.position)
            *lines, self.partial = (self.partial + log.read(1_000_000)).split(b"\n")
            self.position = log.tell()
        if self.position > LOG_BYTES_MAX:
            self._turn_over()
        found = [text for text in (line.decode(errors="replace").rstrip() for line in lines) if self._new(text)]
        shown = [passed_on(self.name, text) for text in found[:LINES_A_LOOK_MAX]]
        if len(found) > LINES_A_LOOK_MAX:
            shown.append(passed_on(self.name, f"... and {len(found) - LINES_A_LOOK_MAX} more in {self.path}"))
        return shown

    def _new(self, text: str) -> bool:
        if not WORTH_SEEING.search(text) or EXPECTED in text:
            return False
        words, now = VARYING.sub("", text), time.monotonic()
        if now - self.told_at.get(words, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        if len(self.told_at) > KINDS_MAX:
            self.told_at.clear()
        self.told_at[words] = now
        return True

    def _turn_over(self) -> None:
        """Copy and cut: the process appends to the same open file and needs no signal."""
        self.path.with_suffix(".log.1").write_bytes(self.path.read_bytes())
        with self.path.open("r+b") as log:
            log.truncate(0)
        self.position = 0
