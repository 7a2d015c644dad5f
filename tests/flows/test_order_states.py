"""The published races of new, cancel, replace, fill, bust and correct, each played against the desk."""

import pytest

from tests.conftest import Desk
from tests.flows.order_states import Play, Row, paths, read_cases, roomy

WAYS = [
    pytest.param(way, id=f"{title.split()[0]}{f'-{number}' if number else ''}")
    for title, rows in read_cases().items()
    for number, way in enumerate(paths(rows))
]


@pytest.mark.parametrize("way", WAYS)
def test_the_desk_shows_what_the_specification_says(desk: Desk, way: list[Row]) -> None:
    roomy(desk)
    Play(desk).run(way)
    desk.holds()
