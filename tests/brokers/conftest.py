"""Venues for tests: one process each, ended with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.venue import Venue


@pytest.fixture
def start_venue(tmp_path: Path) -> Iterator[Callable[..., Venue]]:
    """Start venues with the knobs of the test."""
    started: list[Venue] = []

    def start(**knobs: Any) -> Venue:
        venue = Venue(tmp_path, **knobs)
        started.append(venue)
        venue.quote("AAPL", "100.00", "100.02", "1000", "1000")
        return venue

    yield start
    for venue in started:
        venue.kill()


@pytest.fixture
def venue(start_venue: Callable[..., Venue]) -> Venue:
    """Return a venue that is quick, honest and deep."""
    return start_venue()
