"""Secrets that must be kept and read again: sealed with a key that only the environment has.

AES-256-GCM. Keys are words of `OMS_SEAL_KEYS` (the first seals, all open), else the secret key of the settings; the text
names its key, so that a new one may be put in front and the old taken away once everything was sealed anew.
"""

import base64
import os
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings


class CannotOpen(Exception):
    """No key of the environment opens what was sealed, or it was changed."""


def seal(secret: bytes, *, about: str) -> str:
    """Return a secret sealed; `about` says whose it is, and opens nothing of anybody else's."""
    name, key = next(iter(_keys().items()))
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, secret, about.encode())
    return f"{name}.{base64.b64encode(nonce + sealed).decode()}"


def open_sealed(text: str, *, about: str) -> bytes:
    """Return what was sealed. Raises `CannotOpen`."""
    name, _, body = text.partition(".")
    key = _keys().get(name)
    if key is None:
        raise CannotOpen(f"The key {name} is not in OMS_SEAL_KEYS.")
    raw = base64.b64decode(body)
    try:
        return AESGCM(key).decrypt(raw[:12], raw[12:], about.encode())
    except InvalidTag:
        raise CannotOpen("What was sealed is not what stands here, or not of this owner.") from None


def _keys() -> dict[str, bytes]:
    words = settings.SEAL_KEYS or [settings.SECRET_KEY]
    keys = [sha256(b"seal:" + w.encode()).digest() for w in words]
    return {sha256(k).hexdigest()[:8]: k for k in keys}
