"""Every race of new, cancel, replace, fill, bust and correct, through a FIX session into the desk: one session for all of them."""

from collections.abc import Callable

import pytest

from tests.fix.conftest import Wired
from tests.fix.states import play_all
from tests.flows.order_states import paths, read_cases

WAYS = {
    f"{title.split()[0]}{f'-{number}' if number else ''}": way
    for title, rows in read_cases().items()
    for number, way in enumerate(paths(rows))
}


OTHERWISE = ("A.1.a", "B.1.b", "C.1.b", "D.2.b", "E.1.c", "E.1.e", "F.1.a", "G.1", "H.1.b", "J.1", "L.1")
"""What FIX.4.2 tells in other words than FIX.4.4: its fills, corrections, guarantees and answers."""


@pytest.mark.parametrize(
    ("begin", "wanted"),
    [
        pytest.param("FIX.4.4", "", id="FIX.4.4"),
        pytest.param("FIX.4.2", OTHERWISE, id="FIX.4.2"),
        pytest.param("FIX.4.2", "", id="FIX.4.2-all", marks=pytest.mark.long),
    ],
)
def test_the_desk_shows_what_the_specification_says_through_a_session(
    wire: Callable[..., Wired], begin: str, wanted: str | tuple[str, ...]
) -> None:
    wired = wire(begin)
    wired.log_on()
    assert play_all(wired, {title: way for title, way in WAYS.items() if title.startswith(wanted)}) == {}
    wired.desk.holds()
    assert {m[58] for m in wired.peer.came("3")} <= {"a fill of nothing"}
    assert wired.peer.came("j") == []
