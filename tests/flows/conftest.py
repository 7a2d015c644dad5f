"""The floor of flows that need real venues and a clock."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import Desk
from tests.flows.floor import Floor, unheard


@pytest.fixture
def open_floor(desk: Desk) -> Iterator[Callable[..., Floor]]:
    """Open two venues with the knobs of the test."""
    with ExitStack() as ends:
        ends.enter_context(unheard())

        def start(far: dict[str, Any] | None = None, **near: Any) -> Floor:
            return Floor(desk, near, far or {})

        yield start


@pytest.fixture
def floor(open_floor: Callable[..., Floor]) -> Floor:
    """Two honest venues."""
    return open_floor()
