"""Venues for tests, in processes of their own that end with the tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.brokers.venue import Process, Venue

POOL_SIZE = 80
"""Honest venues kept ready for the tests of a session: each test has one that nobody used before."""


def opened(process: Process, code: str, knobs: dict[str, Any]) -> Venue:
    """Return a venue whose market for AAPL is open."""
    venue = Venue(process, code, knobs)
    venue.quote("AAPL", "100.00", "100.02", "1000", "1000")
    return venue


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Venue]]:
    """Return fresh venues, quick, honest and deep."""
    process = Process(tmp_path_factory.mktemp("venues"), {f"X{n}": {} for n in range(POOL_SIZE)})
    yield (opened(process, code, {}) for code in process.ports)
    process.kill()


@pytest.fixture
def venue(pool: Iterator[Venue]) -> Iterator[Venue]:
    """Return a venue that is quick, honest and deep."""
    venue = next(pool)
    yield venue
    venue.close()


@pytest.fixture
def start_venue(tmp_path: Path) -> Iterator[Callable[..., Venue]]:
    """Start venues with the knobs of the test, each in a process that the test may kill."""
    with ExitStack() as ends:

        def start(*, fees: dict[str, Any] | None = None, **knobs: Any) -> Venue:
            process = Process(Path(mkdtemp(dir=tmp_path)), {"X": {"venue": {"seed": 7} | knobs, "fees": fees}})
            ends.callback(process.kill)
            venue = opened(process, "X", knobs)
            ends.callback(venue.close)
            return venue

        yield start
