"""Log-ins of people end: half an hour after the last request, and twelve hours after they began whatever happens."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, logout
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.crypto import constant_time_compare

from oms.kernel import json
from oms.kernel.errors import Forbidden
from oms.runtime.problems import problem

BEGAN, SEEN = "_began", "_seen"
"""Unix seconds of the log-in and of the last request that was written down."""
PROVED, BARE = "_proved", "_bare"
"""Unix seconds of the last proof of who sits there, and whether the second factor is still to be enrolled."""
NOTE_SECONDS = 60
"""A request within this time after the last one written down writes nothing: screens that poll cost no write."""


OPEN_TO_BARE = ("/second-factor/", "/logout/", "/login/")


class SessionLimits:
    """End what is too old before a view sees its user; keep alive what is used."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request, as nobody when the log-in is over."""
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            now = time.time()
            if _is_over(request.session, now):
                logout(request)
            elif now - request.session.get(SEEN, 0) > NOTE_SECONDS:
                request.session[SEEN] = int(now)  # saving it moves the cookie's and the row's expiry
            if request.session.get(BARE) and request.path not in OPEN_TO_BARE:
                return _to_enrolment(request)
        return self.get_response(request)


def begin(sender: object, request: HttpRequest | None, user: Any = None, **_: Any) -> None:
    """Write down when a person logged in."""
    if request is not None and hasattr(request, "session"):
        now = int(time.time())
        request.session[BEGAN] = request.session[SEEN] = request.session[PROVED] = now
        if user is not None and lacks_second_factor(user):
            request.session[BARE] = True


def lacks_second_factor(user: Any) -> bool:
    """Tell whether nothing but enrolling is open to a user; the layer that keeps second factors puts its own here."""
    return False


def prove(request: HttpRequest) -> None:
    """Write down that who sits there has just proved who they are."""
    request.session[PROVED] = int(time.time())


def require_recent_proof(request: Any) -> None:
    """Raise `Forbidden` (confirm_identity) where a person's last proof is too old for what they ask; programs have scopes."""
    if getattr(request, "auth", None) is not None or not settings.PROOF_SECONDS:
        return
    if time.time() - request.session.get(PROVED, 0) > settings.PROOF_SECONDS:
        raise Forbidden("confirm_identity", "Enter your password once more at /confirm/, then ask again.")


user_logged_in.connect(begin, dispatch_uid="session-limits")


def user_of(session_key: str, *, at: datetime) -> Any | None:
    """Return the active user that a session belongs to at a time; None once it ended or the password changed."""
    row = Session.objects.filter(session_key=session_key, expire_date__gt=at).first()
    if row is None:
        return None
    data = SessionStore().decode(row.session_data)
    if BACKEND_SESSION_KEY not in data or data.get(BARE) or _is_over(data, at.astimezone(UTC).timestamp()):
        return None
    user = get_user_model().objects.filter(pk=data[SESSION_KEY], is_active=True).first()
    if user is None or not constant_time_compare(data.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()):
        return None
    return user


def _to_enrolment(request: HttpRequest) -> HttpResponse:
    """Lead a person to the page that enrols the second factor; tell a script why it gets nothing."""
    if request.path.startswith("/api/"):
        told = problem(403, "second_factor_required", "Enrol your second factor at /second-factor/ first.")
        return HttpResponse(json.dump_bytes(told), status=403, content_type="application/problem+json")
    return HttpResponseRedirect("/second-factor/")


def _is_over(session: Any, now: float) -> bool:
    """Tell whether a log-in is too old or idle; one that nobody dated is over."""
    began, seen = session.get(BEGAN, 0), session.get(SEEN, 0)
    return bool(now - began > settings.SESSION_AGE_MAX or now - seen > settings.SESSION_COOKIE_AGE + NOTE_SECONDS)
