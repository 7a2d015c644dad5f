"""A desk in a test database whose processes may be killed, with one venue that may lie."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.benchmarks.desk import free_port
from tests.brokers.conftest import start_venue  # noqa: F401 - a fixture
from tests.brokers.venue import Venue
from tests.conftest import Desk
from tests.faults.client import Client
from tests.faults.nursery import Nursery


def database_url() -> str:
    """Return the address of the test's own database."""
    told = connection.settings_dict
    return f"postgresql://{told['USER']}:{told['PASSWORD']}@{told['HOST']}:{told['PORT']}/{told['NAME']}"


@pytest.fixture
def nursery(live_desk: Desk, tmp_path: Path) -> Iterator[Nursery]:
    """Processes on the test's own database."""
    one = Nursery(database_url(), tmp_path / "processes.log")
    yield one
    one.close()


@pytest.fixture
def client(live_desk: Desk) -> Iterator[Client]:
    """Alice's program."""
    from knox.models import get_token_model

    _, token = get_token_model().objects.create(live_desk.alice)
    one = Client(free_port(), token)
    yield one
    one.close()


@pytest.fixture
def join(live_desk: Desk, start_venue: Callable[..., Venue]) -> Callable[..., Venue]:  # noqa: F811 - the fixture
    """Start a venue and make it the one broker of the desk."""

    def start(**knobs: Any) -> Venue:
        from brokers import queries
        from brokers.models import Broker

        venue = start_venue(**knobs)
        Broker.objects.filter(code="NEAR").update(adapter="simulated", settings=venue.settings)
        Broker.objects.filter(code="FAR").update(adapter="simulated", enabled=False)
        queries.forget_cache()
        return venue

    return start
