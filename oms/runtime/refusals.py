"""Who was turned away: told by whoever refuses, written down by the journal, which stands above this layer."""

from typing import Any

from django.dispatch import Signal

refused = Signal()
"""Sent with `user`, `method`, `path`, `code` and `address` when someone signed in may not do what they asked for."""

signed_in = Signal()
"""Sent with `user` and `address` after a log-in by name and password."""

sign_in_failed = Signal()
"""Sent with `user` (None where the name is nobody's), `address` and `locked` (seconds) after a wrong password."""


def tell_refusal(request: Any, code: str) -> None:
    """Tell that the signed-in user of a request was refused; a listener that fails changes nothing for the caller."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return
    refused.send_robust(
        None, user=user, method=request.method, path=request.path, code=code, address=address_of(request)
    )


def address_of(request: Any) -> str:
    """Return where a request came from; the server has already put the proxy's word for its own address."""
    return str(request.META.get("REMOTE_ADDR") or "") if request is not None else ""
