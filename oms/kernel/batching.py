"""Work in bounded pieces."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of at most `size` rows, in order."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def group_by(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return rows by key, keys and rows in order of first appearance."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
