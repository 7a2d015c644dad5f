"""Second factors: enrolled by their owner, asked at every log-in from then on, taken away by an administrator."""

import secrets
import time
from base64 import b32encode
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.conf import settings

from oms.access.models import SecondFactor
from oms.journal import operations as journal
from oms.journal.domain import SECURITY_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Conflict, Invalid
from oms.runtime.roles import roles_of
from oms.runtime.sealing import open_sealed, seal
from oms.runtime.transactions import in_transaction

STEP_SECONDS = 30
SLACK_STEPS = 1
"""How many half minutes a device's clock may be off."""
RECOVERY_CODES = 8
ISSUER = "Desk"


def required(user: Any) -> bool:
    """Tell whether a user's roles ask for a second factor (`OMS_SECOND_FACTOR`)."""
    return bool(settings.SECOND_FACTOR and roles_of(user) & settings.SECOND_FACTOR)


def lacks(user: Any) -> bool:
    """Tell whether a user must have a second factor and has none yet: then nothing but enrolling is open."""
    return required(user) and not SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists()


def check(user: Any, code: str) -> bool:
    """Tell whether a log-in may go on: by the right code where the user has a second factor, without one elsewhere."""
    if not SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists():
        return True
    return _use(user, code)


@in_transaction
def _use(user: Any, code: str) -> bool:
    """Take a code, once: of the device, or one of those for who lost it."""
    factor = SecondFactor.objects.select_for_update().get(user=user)
    word = code.replace(" ", "").strip()
    step = _step_of(factor, word)
    if step is not None and step > factor.last_step:
        factor.last_step = step
    elif (hashed := _hashed(word)) in factor.recovery:
        factor.recovery = [h for h in factor.recovery if h != hashed]
    else:
        return False
    factor.save(update_fields=["last_step", "recovery"])
    return True


@in_transaction
def begin(user: Any) -> str:
    """Make a new key for a user who has none confirmed, and return the address that devices read it from.

    Raises `Conflict` where one is confirmed: an administrator takes it away first.
    """
    factor = SecondFactor.objects.select_for_update().filter(user=user).first()
    if factor is not None and factor.confirmed_at is not None:
        raise Conflict("second_factor_there", "You have a second factor; an administrator can take it away.")
    key = secrets.token_bytes(20)
    SecondFactor.objects.update_or_create(
        user=user, defaults={"sealed": seal(key, about=_about(user)), "last_step": -1, "recovery": []}
    )
    name = quote(f"{ISSUER}:{user.get_username()}")
    return f"otpauth://totp/{name}?secret={b32encode(key).decode()}&issuer={ISSUER}"


@in_transaction
def confirm(user: Any, code: str, *, actor: Actor, at: datetime) -> list[str]:
    """Take a first code as proof that the device has the key; return the recovery codes, which are never shown again."""
    factor = SecondFactor.objects.select_for_update().filter(user=user, confirmed_at=None).first()
    step = None if factor is None else _step_of(factor, code.replace(" ", "").strip())
    if factor is None or step is None:
        raise Invalid(
            "wrong_code", "This is not the code that the key gives now; look at the device's clock.", field="code"
        )
    codes = [secrets.token_hex(5) for _ in range(RECOVERY_CODES)]
    factor.confirmed_at, factor.last_step, factor.recovery = at, step, [_hashed(c) for c in codes]
    factor.save()
    _tell("second_factor.enrolled", user, actor, at)
    return codes


@in_transaction
def take_away(user: Any, *, actor: Actor, at: datetime) -> bool:
    """Remove a user's second factor, for who lost device and codes; tell whether there was one."""
    removed, _ = SecondFactor.objects.filter(user=user).delete()
    if removed:
        _tell("second_factor.removed", user, actor, at)
    return bool(removed)


def code_at(key: bytes, at: float) -> str:
    """Return the code that a key gives at a time in Unix seconds."""
    return _totp(key).generate(int(at)).decode()


def _totp(key: bytes) -> TOTP:
    return TOTP(key, 6, SHA1(), STEP_SECONDS)  # noqa: S303 - what devices speak, RFC 6238


def _step_of(factor: SecondFactor, code: str) -> int | None:
    """Return the half minute that a code belongs to, None for a wrong one."""
    if len(code) != 6 or not code.isascii() or not code.isdigit():
        return None
    totp = _totp(open_sealed(factor.sealed, about=_about(factor.user)))
    now = int(time.time()) // STEP_SECONDS
    for step in range(now - SLACK_STEPS, now + SLACK_STEPS + 1):
        try:
            totp.verify(code.encode(), step * STEP_SECONDS)
        except InvalidToken:
            continue
        return step
    return None


def _about(user: Any) -> str:
    return f"second-factor:{user.pk}"


def _hashed(word: str) -> str:
    return sha256(f"recovery:{word}".encode()).hexdigest()


def _tell(kind: str, user: Any, actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"user": user.get_username()}})
    journal.append([Entry(SECURITY_STREAM, kind, user.get_username()[:64], body)], actor=actor, at=at)
