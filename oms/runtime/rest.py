"""REST plumbing: strict JSON in, exact JSON out, roles, problems, keyset pages, throttles.

A view names its roles, reads its body or query, makes one call and returns plain values. Everything
a caller may get wrong raises a `DomainError`; `problem_from` turns it into application/problem+json.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
import structlog
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import exceptions, serializers
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from oms.kernel import decimals, json
from oms.kernel.actor import Actor
from oms.kernel.errors import DomainError, Forbidden, Invalid, InvalidFields, NotFound
from oms.runtime.bodies import BODY_BYTES_MAX
from oms.runtime.throttle import Window, take

DEPTH_MAX = 20
PAGE_MAX = 500
PAGE_DEFAULT = 100
ROLES = frozenset({"trader", "risk", "ops", "auditor", "admin"})
READ_ALL = frozenset({"risk", "ops", "auditor", "admin"})
SAFE = ("GET", "HEAD", "OPTIONS")
log = structlog.get_logger(__name__)


# ---------------------------------------------------------------- bodies


class BodyTooLarge(DomainError):
    """The request body is above the bound."""

    kind = "too_large"


def decode(raw: bytes) -> Any:
    """Return the value of a JSON text, or raise `Invalid` for one that is malformed, too deep, or holds a float or a NUL.

    An amount never comes as a JSON number with a fraction: what a float loses can't be won back.
    """
    if len(raw) > BODY_BYTES_MAX:
        raise BodyTooLarge("body_too_large", f"Send at most {BODY_BYTES_MAX} bytes.")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("malformed_json", f"The body is not JSON: {error}") from None
    except RecursionError:
        raise Invalid("too_deep", f"Nest at most {DEPTH_MAX} levels.") from None
    _inspect(value, "", 0)
    return value


def _inspect(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise Invalid("control_character", "A NUL character can't be kept.", field=path)
    elif kind is float:
        raise Invalid("float_refused", 'Send decimals as JSON strings, for example "10.5".', field=path)
    elif kind is dict or kind is list:
        if depth >= DEPTH_MAX:
            raise Invalid("too_deep", f"Nest at most {DEPTH_MAX} levels.")
        items = value.items() if kind is dict else enumerate(value)
        for key, item in items:
            inner = type(item)
            if inner is float or inner is dict or inner is list or (inner is str and "\0" in item):
                _inspect(item, f"{path}.{key}" if path else str(key), depth + 1)
            if kind is dict and "\0" in key:
                raise Invalid("control_character", "A NUL character can't be kept.", field=path)


class Parser(BaseParser):
    """JSON of at most 1 MB, read no further than that."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return the decoded body; an empty one counts as an empty object."""
        raw = stream.read(BODY_BYTES_MAX + 1)
        return decode(raw) if raw.strip() else {}


class Renderer(BaseRenderer):
    """Compact JSON with decimals as strings."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None) -> bytes:
        """Return the JSON text; a response without a body stays empty."""
        return b"" if data is None else json.dump_bytes(data)


class CsvRenderer(BaseRenderer):
    """The rows of a list as a table, for spreadsheets."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None) -> str:
        """Write one line a row; nested values become JSON, and text that a spreadsheet would run is quoted."""
        rows = data.get("results", [data]) if isinstance(data, dict) else data
        if not rows:
            return ""
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
        return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value[:1] and not _is_number(value):
        return "'" + value
    return value


def _is_number(value: str) -> bool:
    try:
        decimals.parse(value)
    except DomainError:
        return False
    return True


# ---------------------------------------------------------------- problems

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
    elif isinstance(error, PermissionDenied):
        body = problem(403, "forbidden", "Your role does not allow this.")
    elif isinstance(error, OperationalError | InterfaceError):
        log.warning("database_unavailable", error=str(error))
        body, headers = problem(503, "database_unavailable", "Try the same call again in a moment."), {"Retry-After": "1"}
    else:
        log.exception("request_failed", exc_info=error, database=isinstance(error, DatabaseError))
        body = problem(500, "internal_error", "Something went wrong here; the correlation id leads to the log.")
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


# ---------------------------------------------------------------- who may do what


class Denied(BasePermission):
    """Nobody may: the answer for a view that forgot to say who may."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Refuse."""
        return False


class SignedIn(BasePermission):
    """Every active user of the desk may read; nobody writes by this alone."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Judge by the method alone: a body is never read for someone who may not act."""
        return bool(request.user and request.user.is_active) and request.method in SAFE


def roles_of(user: Any) -> frozenset[str]:
    """Return the roles of a user (Django groups by name), read once a request."""
    known = getattr(user, "_desk_roles", None)
    if known is None:
        known = user._desk_roles = ROLES & set(user.groups.values_list("name", flat=True))
    return known  # type: ignore[no-any-return]


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
                return True
            require_role(request.user, *allowed)
            return True

    return Acting


def actor_of(request: Request) -> Actor:
    """Return who is acting: a token acts as a program, a session as a person."""
    return actor_for(request.user, automated=request.auth is not None)


def actor_for(user: Any, *, automated: bool) -> Actor:
    """Return a user as an actor."""
    return Actor(f"user:{user.get_username()}", user.pk, automated)


# ---------------------------------------------------------------- queries in the address


def text_parameter(request: Request, name: str, *, choices: Iterable[str] | None = None) -> str | None:
    """Return a query parameter, or None when it is absent or empty; a value outside of choices is `Invalid`."""
    value = request.query_params.get(name) or None
    if value is not None and "\0" in value:
        raise Invalid("control_character", "A NUL character can't be kept.", field=name)
    if value is not None and choices is not None and value not in (known := sorted(choices)):
        raise Invalid("unknown_choice", f"Use one of {', '.join(known)}.", field=name)
    return value


def integer_parameter(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    """Return a whole number between least and most from the query."""
    value = request.query_params.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 18 and least <= int(value) <= most):
        raise Invalid("out_of_range", f"Use a whole number from {least} to {most}.", field=name)
    return int(value)


def time_parameter(request: Request, name: str) -> datetime | None:
    """Return an RFC 3339 time from the query, in UTC."""
    value = request.query_params.get(name)
    return parse_time(value, field=name) if value else None


def flag_parameter(request: Request, name: str) -> bool | None:
    """Return true or false from the query, None when absent."""
    value = text_parameter(request, name, choices=("true", "false"))
    return None if value is None else value == "true"


def parse_time(value: object, *, field: str) -> datetime:
    """Return an RFC 3339 time with an offset as UTC; anything else is `Invalid`."""
    try:
        at = parse_datetime(value.replace(" ", "+")) if isinstance(value, str) and len(value) <= 40 else None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid("not_a_time", "Use RFC 3339 with an offset, for example 2026-01-31T09:30:00Z.", field=field)


def parse_id(value: str, *, field: str = "") -> UUID:
    """Return a UUID; in a path anything else is simply not there, in a field it is `Invalid`."""
    try:
        return UUID(value)
    except (ValueError, AttributeError):
        if field:
            raise Invalid("not_an_id", "Ids are UUIDs.", field=field) from None
        raise NotFound("not_found", "There is no such object.") from None


def refuse_unknown_parameters(request: Request, known: Iterable[str]) -> None:
    """Raise `InvalidFields` for query parameters nobody reads: a mistyped filter must not return everything."""
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise InvalidFields([Invalid("unknown_field", "There is no such parameter.", field=n) for n in unknown])


# ---------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest first: rows with an id below `before`, `limit` of them."""

    limit: int
    before: UUID | None


PAGE_PARAMETERS = ("limit", "cursor")
PAGE_SCHEMA = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}),
    OpenApiParameter("cursor", OpenApiTypes.UUID, description="From the `next` address of the page before."),
]


def page_of(request: Request) -> Page:
    """Read the page asked for."""
    cursor = request.query_params.get("cursor")
    limit = integer_parameter(request, "limit", default=PAGE_DEFAULT, least=1, most=PAGE_MAX)
    return Page(limit, parse_id(cursor, field="cursor") if cursor else None)


def page_out(request: Request, page: Page, rows: Sequence[Any], *, key: str = "id") -> dict[str, Any]:
    """Return the list body. Give at most `page.limit + 1` rows: the extra one tells that there is a next page."""
    shown = rows[: page.limit]
    following = None
    if len(rows) > page.limit:
        kept = {k: v for k, v in request.query_params.items() if k != "cursor"}
        following = request.build_absolute_uri(f"{request.path}?{urlencode({**kept, 'cursor': str(shown[-1][key])})}")
    return {"results": shown, "next": following}


def whole(rows: Sequence[Any]) -> dict[str, Any]:
    """Return a list that is short by nature as one page."""
    return {"results": rows, "next": None}


# ---------------------------------------------------------------- throttles

READING = Window("read", 1_000, fallback=True)
ENTRY = Window("entry", 20_000, fallback=True)
ENDING = Window("cancel", 3_000, fallback=False)


class Api(APIView):
    """A view of the REST API: throttled by user, with the budget told in the headers of every answer."""

    window: ClassVar[Window | None] = None
    """The budget writes take from; reads take from their own, so that a busy screen never stops an order."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and judge the role, then take from the budget; the body is still unread."""
        super().initial(request, *args, **kwargs)
        window = READING if request.method in SAFE else (self.window or ENTRY)
        self._budget = take(window, request.user.pk)
        if self._budget.wait > 0:
            raise exceptions.Throttled(wait=self._budget.wait)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Tell the budget left."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        if budget := getattr(self, "_budget", None):
            answer["RateLimit-Limit"] = str(budget.limit)
            answer["RateLimit-Remaining"] = str(budget.remaining)
            answer["RateLimit-Reset"] = "1"
        return answer

    def now(self) -> datetime:
        """Return the time of this request, read once by the entry point and passed on."""
        return timezone.now()


# ---------------------------------------------------------------- serializers: the schema, and small bodies


@extend_schema_field({"type": "string", "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,10})?$", "examples": ["10.5"]})
class DecimalText(serializers.Field):  # type: ignore[type-arg]
    """A decimal as a JSON string, exact and bounded; `positive` refuses zero and below."""

    def __init__(self, *, positive: bool = False, **kwargs: Any) -> None:
        self.positive = positive
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> Any:
        """Return the Decimal."""
        try:
            value = decimals.parse(data)
        except DomainError as error:
            raise serializers.ValidationError(error.detail, code=error.code) from None
        if self.positive and value <= 0:
            raise serializers.ValidationError("The value must be above zero.", code="not_positive")
        return value

    def to_representation(self, value: Any) -> str:
        """Return the plain spelling."""
        return decimals.text(value)


class Strict(serializers.Serializer):  # type: ignore[type-arg]
    """A serializer that refuses what it doesn't know, so that a mistyped field never goes unnoticed."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values; unknown fields are errors of their own."""
        if isinstance(data, Mapping):
            writable = {n for n, f in self.fields.items() if not f.read_only}
            if unknown := sorted(set(data) - writable):
                raise serializers.ValidationError(
                    {n: [exceptions.ErrorDetail("There is no such field.", "unknown_field")] for n in unknown}
                )
        return super().to_internal_value(data)


def body_of(request: Request, serializer: Callable[..., Any]) -> Any:
    """Return the validated body of a request, or raise with every field to blame."""
    form = serializer(data=request.data)
    form.is_valid(raise_exception=True)
    return form.validated_data


class FieldErrorOut(serializers.Serializer):  # type: ignore[type-arg]
    """One field to blame."""

    field = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemOut(serializers.Serializer):  # type: ignore[type-arg]
    """An error (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    errors = FieldErrorOut(many=True)


def listed(item: type[serializers.Serializer[Any]], name: str = "") -> type[serializers.Serializer[Any]]:
    """Return the serializer of a list body of items, for the schema."""
    title = name or item.__name__.removesuffix("Out") + "List"
    fields = {"results": item(many=True), "next": serializers.URLField(allow_null=True), "__module__": item.__module__}
    return type(title, (serializers.Serializer,), fields)


def problems(*statuses: int) -> dict[tuple[int, str], Any]:
    """Return the schema's answers for errors of these statuses, with those every call may give."""
    return {(s, "application/problem+json"): ProblemOut for s in sorted({401, 403, 429, 503, *statuses})}
