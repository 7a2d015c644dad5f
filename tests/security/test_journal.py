"""The audit trail against whoever owns the database (G10), and decisions of a second person (G11)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from oms.journal import checkpoints, queries, tasks
from oms.journal.models import Event, Stream
from oms.kernel.actor import Actor
from risk.models import Limit
from tests.conftest import Desk
from tests.security.house import House, Program
from tests.web import token

ACTOR = Actor.system("checkpoint")


@contextmanager
def superuser() -> Iterator[Any]:
    """Write as the owner of the database: triggers are off."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE journal_event DISABLE TRIGGER ALL")
        yield cursor
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE journal_event ENABLE TRIGGER ALL")


@pytest.fixture
def chain(desk: Desk) -> Stream:
    """The chain of MAIN with a dozen events."""
    desk.place(*["buy 1 AAPL"] * 8)
    desk.send()
    assert list(queries.faults()) == []
    return Stream.objects.get(name="account:MAIN")


EDITS = {
    "body": "body = replace(body, 'MAIN', 'MAIM') || ' '",
    "actor": "actor = 'user:nobody'",
    "kind": "kind = 'order.canceled'",
    "object": "object_id = 'x'",
    "time": "at = at + interval '1 microsecond'",
    "frame": "frame = 'risk'",
    "hash": "hash = decode(repeat('00', 32), 'hex')",
    "previous hash": "previous_hash = decode(repeat('11', 32), 'hex')",
    "sequence": "sequence = sequence + 1000",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_g10_every_edit_of_any_single_event_is_found(chain: Stream, edit: str) -> None:
    events = list(Event.objects.filter(stream=chain).order_by("sequence"))
    found = 0
    for event in events:
        with connection.cursor() as cursor:
            cursor.execute("SAVEPOINT tamper")
        with superuser() as cursor:
            cursor.execute(f"UPDATE journal_event SET {edit} WHERE id = %s", [event.id])
        found += bool(list(queries.faults()))
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT tamper")
    assert found == len(events) > 5
    assert list(queries.faults()) == []


def test_g10_every_deleted_event_is_found(chain: Stream) -> None:
    for event in Event.objects.filter(stream=chain):
        with connection.cursor() as cursor:
            cursor.execute("SAVEPOINT tamper")
        with superuser() as cursor:
            cursor.execute("DELETE FROM journal_event WHERE id = %s", [event.id])
        assert list(queries.faults()), event.sequence
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT tamper")


def test_g10_every_pair_of_swapped_events_is_found(chain: Stream) -> None:
    sequences = list(Event.objects.filter(stream=chain).order_by("sequence").values_list("sequence", flat=True))
    for one, other in pairwise(sequences):
        with connection.cursor() as cursor:
            cursor.execute("SAVEPOINT tamper")
        with superuser() as cursor:
            for old, new in ((one, -1), (other, one), (-1, other)):
                cursor.execute(
                    "UPDATE journal_event SET sequence = %s WHERE stream_id = %s AND sequence = %s",
                    [new, chain.id, old],
                )
        assert list(queries.faults()), (one, other)
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT tamper")


def test_g10_a_forged_event_behind_the_head_is_found(chain: Stream) -> None:
    with superuser() as cursor:
        cursor.execute(
            "INSERT INTO journal_event (id, stream_id, sequence, at, actor, kind, object_id, frame, body, previous_hash, hash) "
            "SELECT gen_random_uuid(), stream_id, sequence + 1, at, actor, kind, object_id, frame, body, "
            "hash, hash FROM (SELECT stream_id, sequence, at, actor, kind, object_id, frame, body, hash FROM journal_event "
            "WHERE stream_id = %s ORDER BY sequence DESC LIMIT 1) last",
            [chain.id],
        )
    assert any("behind its head" in f for f in queries.faults())


def test_g10_the_application_itself_can_not_change_an_event(chain: Stream) -> None:
    from django.db import DatabaseError, transaction

    for statement in ("UPDATE journal_event SET body = '{}'", "DELETE FROM journal_event"):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def cut(stream: Stream, count: int) -> None:
    """Cut a chain's tail as its owner would: the head's row is made to fit."""
    keep = stream.sequence - count
    with superuser() as cursor:
        cursor.execute("DELETE FROM journal_event WHERE stream_id = %s AND sequence > %s", [stream.id, keep])
        cursor.execute(
            "UPDATE journal_stream SET sequence = %s, head = coalesce((SELECT hash FROM journal_event WHERE stream_id = %s "
            "AND sequence = %s), decode(repeat('00', 32), 'hex')) WHERE id = %s",
            [keep, stream.id, keep, stream.id],
        )


def test_g10_a_cut_tail_shows_against_the_exported_checkpoint_alone(chain: Stream, tmp_path: Path) -> None:
    event = checkpoints.take(actor=ACTOR, at=datetime.now(UTC))
    assert event is not None
    checkpoints.export(event, tmp_path)
    assert list(queries.faults(checkpoints.anchors(tmp_path))) == []
    cut(chain, 2)
    cut(Stream.objects.get(name="checkpoint"), 1)
    assert list(queries.faults()) == []  # within the database everything fits again
    found = list(queries.faults(checkpoints.anchors(tmp_path)))
    assert any(f.startswith("account:MAIN: its tail was cut") for f in found)
    assert any(f.startswith("checkpoint: its tail was cut") for f in found)


def test_g10_a_chain_written_anew_shows_against_the_checkpoint(chain: Stream, desk: Desk, tmp_path: Path) -> None:
    event = checkpoints.take(actor=ACTOR, at=datetime.now(UTC))
    assert event is not None
    checkpoints.export(event, tmp_path)
    from oms.journal.domain import Entry, chain_hash

    previous = bytes(32)
    with superuser() as cursor:
        for e in Event.objects.filter(stream=chain).order_by("sequence"):
            entry = Entry(chain.name, e.kind, e.object_id, e.body, e.frame)
            hashed = chain_hash(previous, chain.name, e.sequence, e.at, "user:nobody", entry)
            cursor.execute(
                "UPDATE journal_event SET actor = 'user:nobody', previous_hash = %s, hash = %s WHERE id = %s",
                [previous, hashed, e.id],
            )
            previous = hashed
        cursor.execute("UPDATE journal_stream SET head = %s WHERE id = %s", [previous, chain.id])
    assert list(queries.faults()) == []
    assert any("a checkpoint saw another event" in f for f in queries.faults(checkpoints.anchors(tmp_path)))


def test_g10_a_changed_file_of_checkpoints_shows(chain: Stream, tmp_path: Path) -> None:
    event = checkpoints.take(actor=ACTOR, at=datetime.now(UTC))
    assert event is not None
    checkpoints.export(event, tmp_path)
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    line = json.loads(path.read_text())
    line["heads"]["account:MAIN"][0] -= 1
    path.write_text(json.dumps(line) + "\nnonsense\n")
    assert [f.partition(": ")[2] for f in checkpoints.anchors(tmp_path).faults] == [
        "was not written by this desk, or was changed",
        "can't be read",
    ]


def test_g10_the_tick_exports_what_happened_and_the_command_finds_the_cut(
    chain: Stream, desk: Desk, tmp_path: Path, settings: Any
) -> None:
    settings.CHECKPOINTS = str(tmp_path / "outside")
    tasks.checkpoint()
    tasks.checkpoint()
    [path] = Path(settings.CHECKPOINTS).iterdir()
    assert len(path.read_text().splitlines()) == 1  # nothing happened in between
    desk.place("buy 1 AAPL")
    tasks.checkpoint()
    assert len(path.read_text().splitlines()) == 2
    call_command("verify_audit", stdout=StringIO())
    cut(Stream.objects.get(name="account:MAIN"), 1)
    told = StringIO()
    with pytest.raises(SystemExit):
        call_command("verify_audit", json=True, stdout=told)
    assert "its tail was cut" in json.loads(told.getvalue())["faults"][0]


# ---------------------------------------------------------------- G11

LIMIT = {"scope": {"account": "MAIN"}, "kind": "order_quantity", "value": "9000", "reason": "more"}


@pytest.fixture
def rolf(house: House, django_user_model: Any) -> Program:
    """A second risk officer."""
    user = django_user_model.objects.create_user("rolf")
    user.groups.add(*house.people["risk"].groups.all())
    return Program(token(user))


def test_g11_nobody_approves_their_own_limit_however_they_come(house: House, rolf: Program) -> None:
    rita = house.clients["risk"]
    limit = rita.post("risk/limits", LIMIT).json()
    assert limit["status"] == "proposed"
    decision = {"object": limit["id"], "decision": "approve", "reason": "mine"}
    for client in (rita, Program(token(house.people["risk"]))):
        answer = client.post("risk/approvals", decision)
        assert (answer.status_code, answer.json()["code"]) == (403, "approver_is_maker")
    assert Event.objects.filter(kind="access.refused", body__contains="approver_is_maker").count() == 2
    assert rolf.post("risk/approvals", decision).status_code == 200


def test_g11_an_approval_is_of_what_was_shown_and_counts_once(house: House, rolf: Program) -> None:
    limit = house.clients["risk"].post("risk/limits", LIMIT).json()
    decision = {"object": limit["id"], "decision": "approve", "reason": "fine"}
    shown = next(a for a in rolf.get("risk/approvals").json()["results"] if a["object"] == limit["id"])
    with connection.cursor() as cursor:  # the maker changes what is waiting, behind the approver's back
        cursor.execute("SAVEPOINT edit")
        cursor.execute("UPDATE risk_limit SET value = 99999 WHERE id = %s", [limit["id"]])
    changed = rolf.post("risk/approvals", decision | {"content_hash": shown["content_hash"]})
    assert (changed.status_code, changed.json()["code"]) == (409, "content_changed")
    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK TO SAVEPOINT edit")
    assert rolf.post("risk/approvals", decision | {"content_hash": shown["content_hash"]}).status_code == 200
    for replay in (decision, decision | {"decision": "refuse"}):
        again = rolf.post("risk/approvals", replay)
        assert again.status_code in (404, 409), again.content
    assert Limit.objects.get(id=limit["id"]).status == "active"


def test_g11_an_approval_that_nobody_gave_in_time_is_gone(house: House, rolf: Program) -> None:
    limit = house.clients["risk"].post("risk/limits", LIMIT).json()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE risk_approval SET expires_at = %s WHERE object_id = %s",
            [datetime.now(UTC) - timedelta(seconds=1), limit["id"]],
        )
    answer = rolf.post("risk/approvals", {"object": limit["id"], "decision": "approve", "reason": "late"})
    assert answer.status_code == 409
    assert Limit.objects.get(id=limit["id"]).status != "active"


def test_g11_whoever_stopped_trading_does_not_let_it_go_on(house: House, rolf: Program) -> None:
    rita = house.clients["risk"]
    halt = rita.post("risk/halts", {"scope": {"all": True}, "mode": "halt", "reason": "x"}).json()
    mine = rita.post(f"risk/halts/{halt['id']}/release", {"reason": "x"})
    assert mine.status_code == 403
    assert rolf.post(f"risk/halts/{halt['id']}/release", {"reason": "x"}).status_code == 200
    assert rolf.post(f"risk/halts/{halt['id']}/release", {"reason": "x"}).status_code in (404, 409)


def test_g11_an_execution_is_undone_by_two_people_of_ops_and_once(house: House, desk: Desk) -> None:
    oona, omar = house.clients["ops"], Program(token(desk.omar))
    asked = oona.post(f"executions/{house.things['execution']}/bust", {"reason": "wrong"})
    assert asked.status_code == 202, asked.content
    approval = asked.json()["approval"]
    decision = {
        "object": approval["object"],
        "decision": "approve",
        "reason": "x",
        "content_hash": approval["content_hash"],
    }
    assert oona.post("risk/approvals", decision).status_code == 403
    assert house.clients["risk"].post("risk/approvals", decision).status_code == 403
    assert omar.post("risk/approvals", decision | {"content_hash": "0" * 64}).status_code == 409
    assert omar.post("risk/approvals", decision).status_code == 200
    assert omar.post("risk/approvals", decision).status_code in (404, 409)
    from orders.models import Execution

    assert Execution.objects.filter(kind="bust").count() == 1
