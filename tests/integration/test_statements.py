"""Statements through the command and through REST: whole, or not at all with each bad line told, or exactly the good ones."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from portfolio.models import Break, Statement, StatementLine
from tests.conftest import Desk
from tests.web import token

pytestmark = pytest.mark.django_db
GOOD = "section,account,symbol,quantity,currency,amount\nposition,A1,AAPL,12,,\ncash,MAIN,,,USD,-5\n"
BAD = GOOD + "position,A1,NOPE,1,,\nposition,A1,AAPL,12,,\nposition,A1,MSFT,=1+1,,\n"


def take(*words: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and what it told."""
    out = StringIO()
    try:
        call_command("import_statement", *words, "--json", stdout=out)
    except SystemExit as stop:
        return int(stop.code or 0), json.loads(out.getvalue())
    return 0, json.loads(out.getvalue())


def saved(tmp_path: Path, text: str, name: str = "NEAR-2026-11-20.csv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


class TestCommand:
    def test_the_name_of_the_file_tells_whose_and_of_when_and_a_repeat_is_none(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        file = saved(tmp_path, GOOD)
        code, told = take(file)
        assert (code, told["repeated"]) == (0, False)
        statement = Statement.objects.get()
        assert (statement.broker.code, statement.as_of.date().isoformat()) == ("NEAR", "2026-11-20")
        assert (statement.lines, StatementLine.objects.count()) == ({"position": 1, "cash": 1}, 2)
        assert take(file)[1]["repeated"] is True
        assert Statement.objects.count() == 1

    def test_bad_lines_take_nothing_or_leave_exactly_the_good_ones(self, desk: Desk, tmp_path: Path) -> None:
        file = saved(tmp_path, BAD)
        code, told = take(file)
        assert (code, told["bad_lines"]) == (1, 3)
        assert [(f["line"], f["code"]) for f in told["faults"]] == [
            ("line 4", "unknown_symbol"), ("line 5", "duplicate_line"), ("line 6", "formula_cell"),
        ]  # fmt: skip
        assert not Statement.objects.exists()
        assert take(file, "--dry-run")[0] == 1
        code, told = take(file, "--partial")
        assert (code, told["statement"]["rejected"], told["statement"]["lines"]) == (0, 3, {"position": 1, "cash": 1})
        assert StatementLine.objects.count() == 2

    def test_what_can_not_be_read_at_all_is_another_exit(self, desk: Desk, tmp_path: Path) -> None:
        for words in (
            [saved(tmp_path, GOOD, "unknown.csv")], [saved(tmp_path, "a,b\n", "NEAR-2.csv")], [str(tmp_path / "none.csv"), "--broker", "NEAR"],
            [saved(tmp_path, GOOD), "--profile", "none"], [],
        ):  # fmt: skip
            with pytest.raises(CommandError) as refused:
                call_command("import_statement", *words)
            assert refused.value.returncode == 2
        assert not Statement.objects.exists()


class TestRest:
    def post(self, user: Any, body: Any, path: str = "statements", **more: Any) -> Any:
        given = {"headers": {"Authorization": f"Token {token(user)}"}} | more
        return Client().post(f"/api/v1/{path}", body, **given)

    def test_a_file_is_sent_as_text_or_as_a_form_and_once(self, desk: Desk) -> None:
        sent = self.post(desk.oona, {"broker": "NEAR", "content": GOOD}, content_type="application/json")
        assert sent.status_code == 201, sent.content
        file = SimpleUploadedFile("day.csv", GOOD.encode(), "text/csv")
        again = self.post(desk.oona, {"broker": "NEAR", "file": file})
        assert (again.status_code, again.json()["id"], again["Idempotent-Replayed"]) == (200, sent.json()["id"], "true")
        bad = self.post(desk.oona, {"broker": "NEAR", "content": BAD}, content_type="application/json")
        assert (bad.status_code, bad.json()["code"]) == (400, "bad_lines")
        assert [e["field"] for e in bad.json()["errors"]] == ["line 4", "line 5", "line 6"]

    def test_from_the_file_to_the_break_to_its_approval(self, desk: Desk) -> None:
        kind = {"content_type": "application/json"}
        sent = self.post(desk.oona, {"broker": "NEAR", "content": GOOD}, **kind).json()
        day = sent["as_of"][:10]
        run = self.post(desk.oona, {"broker": "NEAR", "date": day}, "reconciliations", **kind)
        assert (run.status_code, run.json()["status"], run.json()["opened"]) == (201, "done", 2)
        headers = {"Authorization": f"Token {token(desk.alice)}"}
        [cash, position] = Client().get("/api/v1/breaks?open=true", headers=headers).json()["results"]
        assert (position["kind"], position["ours"], position["theirs"], position["status"]) == (
            "position",
            "0",
            "12",
            "open",
        )
        assert self.post(desk.alice, {}, f"breaks/{position['id']}/resolve", **kind).status_code == 403
        wrong = self.post(desk.oona, {"action": "bust", "reason": "x"}, f"breaks/{position['id']}/resolve", **kind)
        assert (wrong.status_code, wrong.json()["code"]) == (400, "not_a_choice")
        asked = self.post(desk.oona, {"action": "adjust", "reason": "x"}, f"breaks/{position['id']}/resolve", **kind)
        assert (asked.status_code, asked.json()["approval"]["object"]) == (202, position["id"])
        own = self.post(desk.oona, _decision(position), "risk/approvals", **kind)
        assert (own.status_code, own.json()["code"]) == (403, "approver_is_maker")
        assert self.post(desk.omar, _decision(position), "risk/approvals", **kind).status_code == 200
        assert self.post(desk.oona, {"owner": "omar"}, f"breaks/{cash['id']}/assign", **kind).json()["owner"] == "omar"
        gone = self.post(desk.oona, {"reason": "wrong file"}, f"statements/{sent['id']}/reverse", **kind)
        assert (gone.status_code, gone.json()["status"]) == (200, "reversed")
        assert set(Break.objects.values_list("state", flat=True)) == {"closed"}
        desk.holds()


def _decision(row: dict[str, Any]) -> dict[str, str]:
    return {"object": row["id"], "decision": "approve", "reason": "seen"}
