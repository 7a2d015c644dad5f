"""The venue's memory: every frame it ever sent, one line each, found again by its number."""

from __future__ import annotations

import io
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class Journal:
    """An append-only file of frames; frame n is line n. Without a path it lives in memory.

    Every append reaches the operating system at once, so a killed process loses nothing; a power cut is outside
    of what the venue promises.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.starts = array("q")  # where each frame begins
        if path is None:
            self.file: BinaryIO = io.BytesIO()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self.file = path.open("r+b", buffering=0)
        self.end = 0
        self._scan()

    def _scan(self) -> None:
        """Find the frames; a line torn by a kill was never sent and is cut off."""
        rest = b""
        start = 0
        while chunk := self.file.read(1 << 20):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                self.starts.append(start)
                start += len(line) + 1
        self.end = start
        self.file.truncate(start)

    def __len__(self) -> int:
        return len(self.starts)

    def append(self, line: bytes) -> None:
        """Keep one frame (without line end)."""
        self.file.seek(self.end)
        self.file.write(line + b"\n")
        self.starts.append(self.end)
        self.end += len(line) + 1

    def read(self, number: int) -> bytes:
        """Return frame `number`, counted from one."""
        start = self.starts[number - 1]
        stop = self.starts[number] if number < len(self.starts) else self.end
        self.file.seek(start)
        return self.file.read(stop - start - 1)

    def after(self, number: int) -> Iterator[bytes]:
        """Return all frames behind a number."""
        for found in range(max(number, 0) + 1, len(self.starts) + 1):
            yield self.read(found)

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        if not isinstance(self.file, io.BytesIO):
            os.fsync(self.file.fileno())
        self.file.close()
