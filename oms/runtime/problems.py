"""Errors as answers: application/problem+json, whatever went wrong (RFC 9457)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestAborted, SuspiciousOperation
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from oms.kernel.errors import DomainError, InvalidFields
from oms.runtime.refusals import tell_refusal

log = structlog.get_logger(__name__)

_STATUS_OF_KIND = {
    "invalid": 400,
    "not_found": 404,
    "forbidden": 403,
    "conflict": 409,
    "too_large": 413,
    "refused": 422,
    "unavailable": 503,
}


def status_of(error: DomainError) -> int:
    """Return the HTTP status a domain error answers with."""
    return _STATUS_OF_KIND[error.kind]


def problem(status: int, code: str, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Return the body of a problem (RFC 9457)."""
    return {
        "type": f"urn:oms:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": list(errors),
    }


def problem_of(error: DomainError) -> dict[str, Any]:
    """Return a domain error as a problem, with one entry for each field to blame."""
    faults = error.errors if isinstance(error, InvalidFields) else [error] if error.field else []
    errors = [{"field": f.field, "code": f.code, "detail": f.detail} for f in faults]
    code = errors[0]["code"] if isinstance(error, InvalidFields) and len(errors) == 1 else error.code
    return problem(status_of(error), code, error.detail, errors)


def problem_from(error: Exception, context: Mapping[str, Any]) -> Response:
    """Answer any exception of a view; what nobody expected is logged with its trace and told without it."""
    headers: dict[str, str] = {}
    if isinstance(error, DomainError):
        body = problem_of(error)
    elif isinstance(error, exceptions.APIException):
        body, headers = _framework_problem(error)
    elif isinstance(error, Http404):
        body = problem(404, "not_found", "There is no such object.")
    elif isinstance(error, SuspiciousOperation | RequestAborted):
        body = problem(400, "bad_request", "The request can't be read.")
    elif isinstance(error, PermissionDenied):
        body = problem(403, "forbidden", "Your role does not allow this.")
    elif isinstance(error, OperationalError | InterfaceError):
        log.warning("database_unavailable", error=str(error))
        body, headers = (
            problem(503, "database_unavailable", "Try the same call again in a moment."),
            {"Retry-After": "1"},
        )
    else:
        log.error("request_failed", exc_info=error, database=isinstance(error, DatabaseError))
        body = problem(500, "internal_error", "Something went wrong here; the correlation id leads to the log.")
    if body["status"] == 403 and "request" in context:
        tell_refusal(context["request"], body["code"])
    return Response(body, status=body["status"], headers=headers, content_type="application/problem+json")


def _framework_problem(error: exceptions.APIException) -> tuple[dict[str, Any], dict[str, str]]:
    if isinstance(error, exceptions.ValidationError):
        errors = list(_flat(error.detail, ""))
        code = errors[0]["code"] if len(errors) == 1 else "invalid"
        return problem(400, code, "Correct the fields named.", errors), {}
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, exceptions.Throttled) and error.wait is not None:
        headers["Retry-After"] = str(math.ceil(error.wait))
    codes = error.get_codes()
    return problem(error.status_code, codes if isinstance(codes, str) else "invalid", str(error.detail)), headers


def _flat(detail: Any, path: str) -> Iterable[dict[str, str]]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _flat(value, path if key == "non_field_errors" else f"{path}.{key}" if path else str(key))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            yield from _flat(value, f"{path}.{index}" if isinstance(value, Mapping) and value else path)
    else:
        yield {"field": path, "code": getattr(detail, "code", "invalid"), "detail": str(detail)}
