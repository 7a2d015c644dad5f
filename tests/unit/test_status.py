"""The two views of how an order stands: a broker's, by FIX's precedence, and the desk's, over all its broker orders."""

from decimal import Decimal
from itertools import permutations

import pytest

from orders.domain.status import PRECEDENCE, ChildFacts, child_status, order_status
from orders.states import OrdStatus as S

OUTRANKED = [
    (S.PENDING_CANCEL, S.PARTIALLY_FILLED), (S.PENDING_CANCEL, S.FILLED), (S.PENDING_CANCEL, S.PENDING_REPLACE),
    (S.PENDING_REPLACE, S.PARTIALLY_FILLED), (S.PENDING_REPLACE, S.FILLED), (S.DONE_FOR_DAY, S.PARTIALLY_FILLED),
    (S.DONE_FOR_DAY, S.FILLED), (S.CALCULATED, S.FILLED), (S.FILLED, S.CANCELED), (S.FILLED, S.STOPPED),
    (S.STOPPED, S.PARTIALLY_FILLED), (S.STOPPED, S.SUSPENDED), (S.SUSPENDED, S.CANCELED), (S.CANCELED, S.NEW),
    (S.CANCELED, S.PARTIALLY_FILLED), (S.EXPIRED, S.PARTIALLY_FILLED),
]  # fmt: skip


@pytest.mark.parametrize(("winner", "loser"), OUTRANKED)
def test_precedence(winner: S, loser: S) -> None:
    assert PRECEDENCE.index(winner) < PRECEDENCE.index(loser)


@pytest.mark.parametrize(
    ("filled", "more", "shown"),
    [
        (0, {}, S.NEW),
        (0, {"acknowledged": False}, S.PENDING_NEW),
        (4, {"acknowledged": False}, S.PARTIALLY_FILLED),
        (4, {"standing": "suspended"}, S.SUSPENDED),
        (4, {"standing": "stopped"}, S.STOPPED),
        (10, {"standing": "stopped"}, S.FILLED),
        (4, {"standing": "done_for_day", "cancel_pending": True}, S.PENDING_CANCEL),
        (4, {"standing": "suspended", "ended_as": "canceled"}, S.CANCELED),  # what is over is suspended no more
        (10, {"ended_as": "canceled"}, S.FILLED),
        (10, {"ended_as": "calculated"}, S.CALCULATED),
        (4, {"ended_as": "rejected"}, S.CANCELED),
        (0, {"ended_as": "rejected"}, S.REJECTED),
        (10, {"cancel_pending": True}, S.PENDING_CANCEL),
        (10, {"replace_pending": True}, S.PENDING_REPLACE),
        (4, {"cancel_pending": True, "replace_pending": True}, S.PENDING_CANCEL),
        (4, {"replace_pending": True, "ended_as": "expired"}, S.EXPIRED),
    ],
)
def test_a_broker_s_view(filled: int, more: dict[str, object], shown: S) -> None:
    facts = {"acknowledged": True, "ended_as": "", "cancel_pending": False, "replace_pending": False} | more
    assert child_status(ChildFacts(Decimal(10), Decimal(filled), **facts)) == shown


@pytest.mark.parametrize(
    ("filled", "children", "shown"),
    [
        (0, [S.PENDING_NEW], S.PENDING_NEW),
        (0, [S.REJECTED, S.PENDING_NEW], S.NEW),  # failing over
        (0, [S.REJECTED, S.REJECTED], S.REJECTED),
        (3, [S.CANCELED, S.REJECTED], S.CANCELED),
        (3, [S.PARTIALLY_FILLED, S.NEW], S.PARTIALLY_FILLED),
        (3, [S.PARTIALLY_FILLED, S.PENDING_CANCEL], S.PENDING_CANCEL),
        (0, [S.NEW, S.PENDING_REPLACE], S.PENDING_REPLACE),
        (0, [S.SUSPENDED, S.NEW], S.NEW),  # while a part works, it works
        (0, [S.SUSPENDED, S.CANCELED], S.SUSPENDED),
        (4, [S.DONE_FOR_DAY, S.PARTIALLY_FILLED], S.PARTIALLY_FILLED),
        (4, [S.DONE_FOR_DAY], S.DONE_FOR_DAY),
        (10, [S.FILLED, S.CANCELED], S.FILLED),
        (10, [S.CALCULATED], S.CALCULATED),
        (0, [S.EXPIRED, S.REJECTED], S.EXPIRED),
        (0, [S.CANCELED, S.EXPIRED], S.EXPIRED),
    ],
)
def test_the_desk_s_view(filled: int, children: list[S], shown: S) -> None:
    for order in permutations(children):
        assert order_status(Decimal(10), Decimal(filled), order) == shown
