"""Second factors, proof anew before what is dangerous, and the terms of tokens."""

import time
from base64 import b32decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from knox.models import get_token_model

from oms.access import factors, tokens
from oms.access.models import SecondFactor
from oms.journal.models import Event
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid, NotFound
from oms.runtime import sealing, sessions
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Halt
from tests import web
from tests.conftest import Desk
from tests.security.house import Program
from tests.security.test_sessions import forget_guesses
from tests.web import BUY

ADMIN = Actor.system("test")


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    forget_guesses()
    yield
    forget_guesses()


@pytest.fixture
def strict(settings: Any) -> Iterator[Any]:
    """The desk as production has it: second factors for risk and ops, proof anew after five minutes."""
    settings.SECOND_FACTOR, settings.PROOF_SECONDS = frozenset({"risk", "ops"}), 300
    return settings


def key_in(address: str) -> bytes:
    return b32decode(parse_qs(urlsplit(address).query)["secret"][0])


def enrol(user: Any) -> tuple[bytes, list[str]]:
    key = key_in(factors.begin(user))
    # the code of the half minute before: the one of now is left for the log-in
    return key, factors.confirm(user, factors.code_at(key, time.time() - 30), actor=ADMIN, at=datetime.now(UTC))


def log_in(name: str, code: str = "", path: str = "/login/") -> tuple[Client, Any]:
    browser = Client()
    return browser, browser.post(path, {"username": name, "password": "demo", "code": code})


def is_in(browser: Client) -> bool:
    return browser.get("/api/v1/accounts").status_code == 200


class TestSecondFactor:
    def test_who_has_one_gets_in_by_password_and_code_alone_of_both(self, desk: Desk) -> None:
        key, _ = enrol(desk.rita)
        for wrong in ("", "000000", "abc", factors.code_at(key, time.time() - 600)):
            assert not is_in(log_in("rita", wrong)[0])
        browser, _ = log_in("rita", factors.code_at(key, time.time()))
        assert is_in(browser)

    def test_no_code_is_taken_twice(self, desk: Desk) -> None:
        key, _ = enrol(desk.rita)
        code = factors.code_at(key, time.time())
        assert is_in(log_in("rita", code)[0])
        assert not is_in(log_in("rita", code)[0])

    def test_guessing_codes_waits_like_guessing_passwords(self, desk: Desk) -> None:
        key, _ = enrol(desk.rita)
        for n in range(8):
            log_in("rita", f"{n:06}")
        assert not is_in(log_in("rita", factors.code_at(key, time.time()))[0])

    def test_a_recovery_code_lets_in_once(self, desk: Desk) -> None:
        _, codes = enrol(desk.rita)
        assert len(set(codes)) == factors.RECOVERY_CODES
        assert is_in(log_in("rita", codes[0])[0])
        assert not is_in(log_in("rita", codes[0])[0])
        assert is_in(log_in("rita", codes[1])[0])

    def test_the_key_is_sealed_and_opens_for_its_owner_only(self, desk: Desk) -> None:
        key, _ = enrol(desk.rita)
        stored = SecondFactor.objects.get(user=desk.rita).sealed
        assert key.hex() not in stored
        about = f"second-factor:{desk.rita.pk}"
        assert sealing.open_sealed(stored, about=about) == key
        with pytest.raises(sealing.CannotOpen):
            sealing.open_sealed(stored, about=f"second-factor:{desk.oona.pk}")
        with pytest.raises(sealing.CannotOpen):
            sealing.open_sealed(stored[:-4] + "AAA=", about=about)

    def test_a_new_key_of_the_environment_opens_what_the_old_one_sealed(self, desk: Desk, settings: Any) -> None:
        settings.SEAL_KEYS = ["the old one" * 4]
        old = sealing.seal(b"secret", about="x")
        settings.SEAL_KEYS = ["the new one" * 4, "the old one" * 4]
        assert sealing.open_sealed(old, about="x") == b"secret"
        assert sealing.seal(b"secret", about="x").split(".")[0] != old.split(".")[0]
        settings.SEAL_KEYS = ["the new one" * 4]
        with pytest.raises(sealing.CannotOpen):
            sealing.open_sealed(old, about="x")

    def test_a_role_that_needs_one_can_do_nothing_but_enrol(self, desk: Desk, strict: Any) -> None:
        browser, _ = log_in("rita")
        assert browser.get("/api/v1/accounts").json()["code"] == "second_factor_required"
        assert browser.get("/risk/").url == "/second-factor/"
        assert sessions.user_of(browser.session.session_key, at=datetime.now(UTC)) is None  # no socket either
        page = browser.get("/second-factor/")
        key = key_in(page.context["address"])
        assert browser.post("/second-factor/", {"code": "000000"}).context["fault"]
        page = browser.post("/second-factor/", {"code": factors.code_at(key, time.time())})
        assert len(page.context["recovery"]) == factors.RECOVERY_CODES
        assert is_in(browser)
        assert Event.objects.filter(kind="second_factor.enrolled", object_id="rita").count() == 1
        assert is_in(log_in("alice")[0])  # her role needs none

    def test_it_is_not_replaced_but_taken_away(self, desk: Desk) -> None:
        enrol(desk.rita)
        with pytest.raises(Conflict):
            factors.begin(desk.rita)
        assert factors.take_away(desk.rita, actor=ADMIN, at=datetime.now(UTC))
        assert is_in(log_in("rita")[0])
        with pytest.raises(Invalid):
            factors.confirm(desk.rita, "123456", actor=ADMIN, at=datetime.now(UTC))

    def test_the_admin_has_no_door_beside_it(self, desk: Desk) -> None:
        enrol(desk.rita)
        browser, answer = log_in("rita", path="/admin/login/?next=/admin/")
        assert (answer.status_code, answer.url) == (302, "/login/?next=/admin/")
        assert not is_in(browser)

    def test_who_may_not_see_the_admin_is_told_and_not_sent_around(self, desk: Desk) -> None:
        browser, _ = log_in("alice")
        assert browser.get("/admin/", follow=True).status_code == 403


def unproved(user: Any) -> Client:
    """A browser whose log-in, good otherwise, was long ago."""
    browser = Client()
    browser.force_login(user)
    session = browser.session
    session.pop(sessions.BARE, None)
    session[sessions.PROVED] = int(time.time()) - 301
    session.save()
    return browser


class TestProof:
    def halted(self, desk: Desk) -> str:
        at = datetime.now(UTC)
        return str(risk.engage_halt(Scope("account", "MAIN"), reason="x", actor=desk.actor(desk.oona), at=at).id)

    def asked(self, browser: Client, path: str, body: dict[str, Any]) -> Any:
        return browser.post(f"/api/v1/{path}", body, content_type="application/json")

    def test_what_is_dangerous_wants_the_password_once_more(self, desk: Desk, strict: Any) -> None:
        halt = self.halted(desk)
        browser = unproved(desk.rita)
        dangerous = [
            (f"risk/halts/{halt}/release", {"reason": "calm"}),
            ("risk/liquidations", {"scope": {"account": "MAIN"}, "reason": "x"}),
            ("risk/approvals", {"object": halt, "decision": "approve", "reason": "x"}),
        ]
        for path, body in dangerous:
            answer = self.asked(browser, path, body)
            assert (answer.status_code, answer.json()["code"]) == (403, "confirm_identity"), path
        assert browser.post("/confirm/", {"password": "wrong"}).status_code == 403
        assert self.asked(browser, *dangerous[0]).status_code == 403
        assert browser.post("/confirm/", {"password": "demo"}).status_code == 204
        assert self.asked(browser, *dangerous[0]).status_code == 200

    def test_another_s_password_proves_nothing(self, desk: Desk, strict: Any) -> None:
        browser = Client()
        browser.force_login(desk.alice)
        desk.rita.set_password("another")
        desk.rita.save()
        assert browser.post("/confirm/", {"username": "rita", "password": "another"}).status_code == 403
        assert Client().post("/confirm/", {"password": "demo"}).status_code == 302

    def test_enrolling_a_device_is_no_proof(self, desk: Desk, strict: Any) -> None:
        halt, browser = self.halted(desk), unproved(desk.rita)
        key = key_in(browser.get("/second-factor/").context["address"])
        assert browser.post("/second-factor/", {"code": factors.code_at(key, time.time())}).context["recovery"]
        answer = self.asked(browser, f"risk/halts/{halt}/release", {"reason": "calm"})
        assert answer.json()["code"] == "confirm_identity"

    def test_the_admin_leads_to_the_password_and_back(self, desk: Desk, strict: Any) -> None:
        User.objects.filter(pk=desk.rita.pk).update(is_staff=True)
        halt = self.halted(desk)
        rules = risk.propose_rules(account="MAIN", reason="x", actor=desk.actor(desk.oona), at=datetime.now(UTC))
        browser = unproved(desk.rita)
        for path, action, row in (("halt", "release", halt), ("accountrules", "approve", rules.pk)):
            chosen = {"action": action, "_selected_action": [str(row)]}
            answer = browser.post(f"/admin/risk/{path}/", chosen)
            assert answer.url == f"/confirm/?next=/admin/risk/{path}/", path
        assert browser.get(answer.url).context["next"] == "/admin/risk/accountrules/"
        wrong = browser.post("/confirm/", {"password": "wrong", "next": "/admin/risk/halt/"})
        assert (wrong.status_code, wrong.context["next"]) == (403, "/admin/risk/halt/")
        assert browser.post("/confirm/", {"password": "demo", "next": "https://elsewhere.example/"}).url == "/"
        assert browser.post("/confirm/", {"password": "demo", "next": "/admin/risk/halt/"}).url == "/admin/risk/halt/"
        browser.post("/admin/risk/halt/", {"action": "release", "_selected_action": [halt]})
        assert Halt.objects.get(pk=halt).released_by == "user:rita"

    def test_engaging_a_halt_never_waits_for_it(self, desk: Desk, strict: Any) -> None:
        answer = self.asked(
            unproved(desk.rita), "risk/halts", {"scope": {"account": "MAIN"}, "mode": "halt", "reason": "x"}
        )
        assert answer.status_code == 201


class TestTokens:
    def made(self, user: Any, *scopes: str, **more: Any) -> Program:
        return Program(tokens.make(user, scopes=scopes, actor=ADMIN, at=datetime.now(UTC), **more))

    def test_a_token_does_what_it_was_made_for_and_no_more(self, desk: Desk) -> None:
        reading, trading = self.made(desk.alice, "read"), self.made(desk.alice, "trade")
        assert reading.get("orders").status_code == 200
        assert reading.post("orders", BUY).json()["code"] == "scope_required"
        assert trading.post("orders", BUY).status_code == 201
        assert trading.get("orders").json()["code"] == "scope_required"
        assert self.made(desk.alice, "office").post("orders", BUY).status_code == 403
        assert self.made(desk.alice).post("orders", BUY).status_code == 201

    def test_no_scope_gives_more_than_the_user_has(self, desk: Desk) -> None:
        body = {"scope": {"account": "MAIN"}, "mode": "halt", "reason": "x"}
        assert self.made(desk.alice, "office", "read", "trade").post("risk/halts", body).status_code == 403
        assert self.made(desk.rita, "read").post("risk/halts", body).json()["code"] == "scope_required"
        assert self.made(desk.rita, "office").post("risk/halts", body).status_code == 201

    @pytest.mark.django_db(transaction=True)
    def test_the_quick_way_in_asks_for_the_scope_too(self, live_desk: Desk, door: Any) -> None:
        reading = tokens.make(live_desk.alice, scopes=["read"], actor=ADMIN, at=datetime.now(UTC))
        assert web.Client(door, reading).post("orders", BUY).status_code == 403
        trading = tokens.make(live_desk.alice, scopes=["trade"], actor=ADMIN, at=datetime.now(UTC))
        assert web.Client(door, trading).post("orders", BUY).status_code == 201

    def test_a_token_ends_when_it_was_to(self, desk: Desk) -> None:
        short = self.made(desk.alice, "read", lives=timedelta(days=1))
        assert short.get("orders").status_code == 200
        get_token_model().objects.update(expiry=datetime.now(UTC) - timedelta(seconds=1))
        assert short.get("orders").status_code == 401

    def test_rotation_keeps_the_terms_and_ends_the_old_one_after_the_overlap(self, desk: Desk) -> None:
        at = datetime.now(UTC)
        first = tokens.make(desk.alice, scopes=["read"], lives=timedelta(days=30), name="bot", actor=ADMIN, at=at)
        second = tokens.rotate(first[:8], owner=desk.alice, overlap=timedelta(hours=1), actor=ADMIN, at=at)
        assert [Program(t).get("orders").status_code for t in (first, second)] == [200, 200]
        assert Program(second).post("orders", BUY).status_code == 403
        old, new = tokens.listed(desk.alice)
        assert (old["scopes"], new["scopes"], new["name"]) == (["read"], ["read"], "bot")
        assert datetime.fromisoformat(old["expires_at"]) <= at + timedelta(hours=1)
        assert datetime.fromisoformat(new["expires_at"]) > at + timedelta(days=29)
        with pytest.raises(NotFound):
            tokens.rotate("nothing", owner=desk.alice, overlap=timedelta(0), actor=ADMIN, at=at)
        with pytest.raises(NotFound):
            tokens.rotate(second[:8], owner=desk.otto, overlap=timedelta(0), actor=ADMIN, at=at)
        tokens.revoke(second[:8], owner=desk.alice, actor=ADMIN, at=at)
        assert Program(second).get("orders").status_code == 401
        kinds = (
            Event.objects.filter(object_id="alice", kind__startswith="token.")
            .order_by("sequence")
            .values_list("kind", flat=True)
        )
        assert list(kinds) == ["token.made", "token.made", "token.revoked"]

    def test_an_unknown_scope_makes_no_token(self, desk: Desk) -> None:
        with pytest.raises(Invalid):
            tokens.make(desk.alice, scopes=["all"], actor=ADMIN, at=datetime.now(UTC))
        assert tokens.listed(desk.alice) == []
