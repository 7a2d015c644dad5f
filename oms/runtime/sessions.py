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
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

BEGAN, SEEN = "_began", "_seen"
"""Unix seconds of the log-in and of the last request that was written down."""
NOTE_SECONDS = 60
"""A request within this time after the last one written down writes nothing: screens that poll cost no write."""


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
        return self.get_response(request)


def begin(sender: object, request: HttpRequest | None, **_: Any) -> None:
    """Write down when a person logged in."""
    if request is not None and hasattr(request, "session"):
        request.session[BEGAN] = request.session[SEEN] = int(time.time())


user_logged_in.connect(begin, dispatch_uid="session-limits")


def user_of(session_key: str, *, at: datetime) -> Any | None:
    """Return the active user that a session belongs to at a time; None once it ended or the password changed."""
    row = Session.objects.filter(session_key=session_key, expire_date__gt=at).first()
    if row is None:
        return None
    data = SessionStore().decode(row.session_data)
    if BACKEND_SESSION_KEY not in data or _is_over(data, at.astimezone(UTC).timestamp()):
        return None
    user = get_user_model().objects.filter(pk=data[SESSION_KEY], is_active=True).first()
    if user is None or not constant_time_compare(data.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()):
        return None
    return user


def _is_over(session: Any, now: float) -> bool:
    """Tell whether a log-in is too old or idle; one that nobody dated is over."""
    began, seen = session.get(BEGAN, 0), session.get(SEEN, 0)
    return bool(now - began > settings.SESSION_AGE_MAX or now - seen > settings.SESSION_COOKIE_AGE + NOTE_SECONDS)
