"""Who may do what: roles are Django groups, judged before a body is read."""

from collections.abc import Sequence
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from oms.kernel.actor import Actor
from oms.kernel.errors import Forbidden

ROLES = frozenset({"trader", "risk", "ops", "auditor", "admin"})
READ_ALL = frozenset({"risk", "ops", "auditor", "admin"})
READ, TRADE, OFFICE = "read", "trade", "office"
SCOPES = frozenset({READ, TRADE, OFFICE})
"""What a token may be made for: reading; what traders do; what everybody else does, each only as far as its user may."""
SAFE = ("GET", "HEAD", "OPTIONS")


class Denied(BasePermission):
    """Nobody may: the answer for a view that forgot to say who may."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Refuse."""
        return False


class SignedIn(BasePermission):
    """Every active user of the desk may read; nobody writes by this alone."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Judge by the method alone: a body is never read for someone who may not act."""
        if not (request.user and request.user.is_active) or request.method not in SAFE:
            return False
        require_scope(request, READ)
        return True


def require_scope(request: Request, *wanted: str) -> None:
    """Raise `Forbidden` for a token that was made for none of what is wanted; a person's log-in is made for all."""
    scopes = getattr(request.auth, "scopes", SCOPES)
    if not scopes & set(wanted):
        raise Forbidden("scope_required", f"This token was not made for it; it needs the scope {' or '.join(wanted)}.")


def roles_of(user: Any) -> frozenset[str]:
    """Return the roles of a user (Django groups by name), read once a request."""
    known = getattr(user, "_desk_roles", None)
    if known is None:
        known = user._desk_roles = ROLES & set(user.groups.values_list("name", flat=True))
    return known


def require_role(user: Any, *allowed: str) -> None:
    """Raise `Forbidden` unless the user has one of the roles."""
    if not roles_of(user) & set(allowed):
        raise Forbidden("role_required", f"This needs the role {' or '.join(allowed)}.")


def acting(*allowed: str, reading: Sequence[str] | None = None) -> type[BasePermission]:
    """Return a permission: reading for everyone signed in (or the roles given), all else for the roles named."""

    class Acting(BasePermission):
        def has_permission(self, request: Request, view: Any) -> bool:
            if not (request.user and request.user.is_active):
                return False
            if request.method in SAFE:
                if reading is not None:
                    require_role(request.user, *reading)
                require_scope(request, READ)
                return True
            require_role(request.user, *allowed)
            as_trader, as_officer = "trader" in allowed, bool(set(allowed) - {"trader"})
            require_scope(request, *[s for s, fits in ((TRADE, as_trader), (OFFICE, as_officer)) if fits])
            return True

    return Acting


def actor_of(request: Request) -> Actor:
    """Return who is acting: a token acts as a program, a session as a person."""
    return actor_for(request.user, automated=request.auth is not None)


def actor_for(user: Any, *, automated: bool) -> Actor:
    """Return a user as an actor."""
    return Actor(f"user:{user.get_username()}", user.pk, automated)
