"""Logging in by name and password, slowly for whoever guesses: each failure doubles the wait for the name and the address.

One backend serves the log-in page and the admin. Counts are kept in Redis, so that all processes share them; while
Redis is away each process counts for itself. A name that is nobody's is counted like any other, and takes as long.
"""

import threading
import time
from collections import OrderedDict
from hashlib import sha256
from typing import Any

import redis
import structlog
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from knox.auth import TokenAuthentication
from rest_framework import exceptions

from oms.runtime.redis import client
from oms.runtime.refusals import address_of, sign_in_failed, signed_in
from oms.runtime.roles import SCOPES
from oms.runtime.throttle import Window, take

FREE_TRIES = 4
"""Wrong passwords for one name before the first wait."""
ADDRESS_FREE_TRIES = 30
"""Wrong passwords from one address, whatever the names, before the first wait: many people may share one."""
WAIT_SECONDS_MAX = 900
FORGET_SECONDS = 3600
"""Without a failure for this long, counting starts anew."""
LOCAL_MAX = 10_000
TOKENS = Window("wrong-tokens", 20, fallback=True)
"""Wrong tokens a second and address before the answer becomes 429."""
log = structlog.get_logger(__name__)


def second_factor(user: Any, code: str) -> bool:
    """Tell whether a log-in with the right password may go on; the layer that keeps second factors puts its own here."""
    return True


def scopes_of(digest: str) -> frozenset[str]:
    """Return what a token may do of all that its user may; the layer that keeps their terms puts its own here."""
    return SCOPES


_local: OrderedDict[str, tuple[int, float]] = OrderedDict()
_lock = threading.Lock()


class PatientBackend(ModelBackend):
    """Django's own check of name and password, behind the wait."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """Return the user; None for a wrong password; raise `PermissionDenied` while the name or the address must wait."""
        if username is None or password is None:
            return None
        address, now = address_of(request), time.time()
        name = sha256(username.lower().encode(errors="replace")).hexdigest()[:32]
        counted = [(f"name:{name}", FREE_TRIES), *([(f"address:{address}", ADDRESS_FREE_TRIES)] if address else [])]
        locked = max(_wait(key, free, now) for key, free in counted)
        if locked > 0:
            self._tell(username, address, locked)
            raise PermissionDenied
        user = super().authenticate(request, username=username, password=password, **kwargs)
        code = str(kwargs.get("code") or (request.POST.get("code", "") if request is not None else ""))
        if user is None or not second_factor(user, code):
            for key, _ in counted:
                _fail(key, now)
            self._tell(username, address, max(_wait(key, free, now) for key, free in counted))
            return None
        _forget(counted[0][0])
        signed_in.send_robust(None, user=user, address=address)
        return user

    def _tell(self, username: str, address: str, locked: float) -> None:
        known = get_user_model().objects.filter(username=username).first() if "\0" not in username else None
        sign_in_failed.send_robust(None, user=known, address=address, locked=locked)


class Tokens(TokenAuthentication):
    """Tokens of programs; an address that guesses is answered 429."""

    def authenticate_credentials(self, token: bytes) -> Any:
        """Return user and token, or raise with the same words for every token that is not valid."""
        try:
            user, found = super().authenticate_credentials(token)
        except UnicodeError:
            raise exceptions.AuthenticationFailed from None
        found.scopes = scopes_of(found.digest)
        return user, found

    def authenticate(self, request: Any) -> Any:
        """Authenticate the request's token, counting failures by address."""
        try:
            return super().authenticate(request)
        except exceptions.AuthenticationFailed:
            budget = take(TOKENS, address_of(request))
            if budget.wait > 0:
                raise exceptions.Throttled(wait=budget.wait) from None
            raise


class TokensScheme(KnoxTokenScheme):
    """Tells the schema that these tokens are like those they are made from."""

    target_class = "oms.runtime.signin.Tokens"


def _wait(key: str, free: int, now: float) -> float:
    """Return the seconds that a name or an address must still wait: 1, 2, 4, … after the free tries."""
    count, last = _read(key)
    if count <= free:
        return 0.0
    return max(0.0, last + min(2.0 ** min(count - free - 1, 30), WAIT_SECONDS_MAX) - now)


def _read(key: str) -> tuple[int, float]:
    try:
        count, last = client().hmget(f"oms:signin:{key}", "count", "last")
        return int(count or 0), float(last or 0)
    except redis.RedisError:
        with _lock:
            return _local.get(key, (0, 0.0))


def _fail(key: str, now: float) -> None:
    try:
        pipe = client().pipeline()
        pipe.hincrby(f"oms:signin:{key}", "count", 1)
        pipe.hset(f"oms:signin:{key}", "last", f"{now:.3f}")
        pipe.expire(f"oms:signin:{key}", FORGET_SECONDS)
        pipe.execute()
    except redis.RedisError:
        with _lock:
            _local[key] = (_local.get(key, (0, 0.0))[0] + 1, now)
            while len(_local) > LOCAL_MAX:
                _local.popitem(last=False)


def _forget(key: str) -> None:
    with _lock:
        _local.pop(key, None)
    try:
        client().delete(f"oms:signin:{key}")
    except redis.RedisError as error:
        log.warning("sign_in_count_kept", error=type(error).__name__)
