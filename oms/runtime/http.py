"""Around every request: a correlation id, security headers, and errors in the form the caller reads."""

import re
from collections.abc import Callable
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from oms.kernel import json
from oms.kernel.ids import uuid7

CORRELATION = "X-Correlation-ID"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_SHUT = "base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"

PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    f"connect-src 'self'; manifest-src 'self'; {_SHUT}"
)
"""Our own pages: nothing inline, nothing from elsewhere."""

ADMIN = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; font-src 'self'; connect-src 'self'; {_SHUT}"
)
"""The admin's components evaluate attributes and style inline; it stays within this origin all the same."""

DOCUMENTATION = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    f"font-src 'self'; connect-src 'self'; {_SHUT}"
)
DATA = "default-src 'none'; frame-ancestors 'none'"

_POLICIES = (("/admin/", ADMIN), ("/api/docs/", DOCUMENTATION), ("/api/", DATA))


class SecurityHeaders:
    """Bind the correlation id to the logs of the request; set policy and caching on the answer."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request."""
        if request.path_info.startswith("/api/v1/"):
            request.path_info = request.path_info.rstrip("/")  # a trailing slash is forgiven
        given = request.headers.get(CORRELATION, "")
        correlation = given if _ACCEPTABLE.fullmatch(given) else str(uuid7())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation)
        response = self.get_response(request)
        response.headers[CORRELATION] = correlation
        response.headers.setdefault("Content-Security-Policy", policy_of(request.path))
        response.headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response


def policy_of(path: str) -> str:
    """Return the content security policy for a path."""
    return next((policy for prefix, policy in _POLICIES if path.startswith(prefix)), PAGES)


def correlation_id() -> str:
    """Return the correlation id of the request or task being run, empty outside of one."""
    return str(structlog.contextvars.get_contextvars().get("correlation_id", ""))


def _answer(request: HttpRequest, status: int, code: str, title: str, detail: str) -> HttpResponse:
    if request.path.startswith(("/api/", "/healthz", "/readyz", "/metrics")):
        body: dict[str, Any] = {
            "type": f"urn:oms:problem:{code}", "title": title, "status": status, "code": code, "detail": detail, "errors": [],
        }  # fmt: skip
        return HttpResponse(json.dump_bytes(body), status=status, content_type="application/problem+json")
    return render(request, "error.html", {"title": title, "detail": detail}, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400."""
    return _answer(request, 400, "bad_request", "Bad Request", "The request can't be read.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403."""
    return _answer(request, 403, "forbidden", "Forbidden", "Your role does not allow this.")


def forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 for a request without a valid CSRF token."""
    return _answer(request, 403, "csrf_failed", "Forbidden", "Load the page again and repeat what you did.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404."""
    return _answer(request, 404, "not_found", "Not Found", "There is no such page or object.")


def failed(request: HttpRequest) -> HttpResponse:
    """Answer 500 without a trace."""
    return _answer(
        request, 500, "internal_error", "Internal Server Error", "Something went wrong here; the log has it."
    )
