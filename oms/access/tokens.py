"""Tokens of programs: made with scopes and an end, listed by their first characters, rotated and revoked."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from knox.models import get_token_model

from oms.access.models import TokenTerms
from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.kernel.actor import Actor
from oms.kernel.errors import Invalid, NotFound
from oms.runtime.roles import SCOPES
from oms.runtime.transactions import in_transaction


def scopes_of(digest: str) -> frozenset[str]:
    """Return what a token may do, of all that its user may."""
    row = TokenTerms.objects.filter(pk=digest).values_list("scopes", flat=True).first()
    return SCOPES if row is None else frozenset(row) & SCOPES


@in_transaction
def make(
    owner: Any,
    *,
    scopes: Collection[str] = (),
    lives: timedelta | None = None,
    name: str = "",
    actor: Actor,
    at: datetime,
) -> str:
    """Make a token and return it; only its hash is kept, and the journal knows that there is one.

    Without `scopes` it may do all that its owner may; without `lives` it ends as the settings say. Raises `Invalid`.
    """
    return _make(owner, frozenset(scopes) or SCOPES, lives, name, "", actor, at)


@in_transaction
def rotate(first: str, *, owner: Any, overlap: timedelta, actor: Actor, at: datetime) -> str:
    """Make a token with the terms of another and the length of its life; the old one ends after the overlap.

    Raises `NotFound` unless exactly one living token of the owner begins so.
    """
    old = _living(first, owner, at)
    terms = TokenTerms.objects.filter(pk=old.digest).first()
    lives = None if old.expiry is None else old.expiry - old.created
    scopes = frozenset(terms.scopes) if terms else SCOPES
    secret = _make(owner, scopes, lives, terms.name if terms else "", old.token_key, actor, at)
    end = at + overlap
    if old.expiry is None or old.expiry > end:
        get_token_model().objects.filter(pk=old.pk).update(expiry=end)
    return secret


@in_transaction
def revoke(first: str, *, owner: Any, actor: Actor, at: datetime) -> None:
    """End a token now. Raises `NotFound` unless exactly one living token of the owner begins so."""
    old = _living(first, owner, at)
    TokenTerms.objects.filter(pk=old.digest).delete()
    old.delete()
    _tell("token.revoked", owner, {"token": first[:8]}, actor, at)


def listed(owner: Any) -> list[dict[str, Any]]:
    """Return a user's tokens: how each begins, what it may do, when it ends."""
    terms = {t.digest: t for t in TokenTerms.objects.filter(user=owner)}
    return [
        {
            "token": row.token_key,
            "name": terms[row.digest].name if row.digest in terms else "",
            "scopes": sorted(terms[row.digest].scopes if row.digest in terms else SCOPES),
            "created_at": json.rfc3339(row.created),
            "expires_at": json.rfc3339_or_none(row.expiry),
        }
        for row in get_token_model().objects.filter(user=owner).order_by("created")
    ]


def _make(
    owner: Any, scopes: frozenset[str], lives: timedelta | None, name: str, replaces: str, actor: Actor, at: datetime
) -> str:
    if unknown := scopes - SCOPES:
        raise Invalid(
            "not_a_choice", f"There is no scope {', '.join(sorted(unknown))}; use {', '.join(sorted(SCOPES))}."
        )
    options = {} if lives is None else {"expiry": lives}
    row, secret = get_token_model().objects.create(user=owner, **options)
    TokenTerms.objects.create(
        digest=row.digest, user=owner, name=name[:64], scopes=sorted(scopes), created_at=at, replaces=replaces[:32]
    )
    told = {"token": row.token_key, "scopes": sorted(scopes), "expires_at": json.rfc3339_or_none(row.expiry)}
    _tell("token.made", owner, told | ({"replaces": replaces} if replaces else {}), actor, at)
    return str(secret)


def _living(first: str, owner: Any, at: datetime) -> Any:
    found = [t for t in get_token_model().objects.filter(user=owner) if t.token_key.startswith(first[:15])]
    living = [t for t in found if t.expiry is None or t.expiry > at]
    if not first or len(living) != 1:
        raise NotFound("not_found", f"{len(living)} living tokens of this user begin so; name one.")
    return living[0]


def _tell(kind: str, owner: Any, data: dict[str, Any], actor: Actor, at: datetime) -> None:
    body = json.dumps({"data": {"user": owner.get_username(), **data}})
    journal.append([Entry(SYSTEM_STREAM, kind, owner.get_username(), body)], actor=actor, at=at)
