"""REST plumbing for views: what the address asks, pages, throttles, and the serializers' base.

A view names its roles, reads its body or query, makes one call and returns plain values. Everything
a caller may get wrong raises a `DomainError`; `oms.runtime.problems` turns it into an answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from oms.kernel import decimals
from oms.kernel.errors import DomainError, Invalid, InvalidFields, NotFound
from oms.runtime.problems import problem, problem_from, problem_of, status_of
from oms.runtime.roles import (
    READ_ALL,
    ROLES,
    SAFE,
    Denied,
    SignedIn,
    acting,
    actor_for,
    actor_of,
    require_role,
    roles_of,
)
from oms.runtime.throttle import Window, take
from oms.runtime.wire import CsvRenderer, Parser, Renderer, decode

__all__ = [
    "READ_ALL", "ROLES", "SAFE", "Api", "CsvRenderer", "DecimalText", "Denied", "Page", "Parser", "ProblemOut", "Renderer",
    "SignedIn", "Strict", "acting", "actor_for", "actor_of", "body_of", "decode", "listed", "page_of", "page_out", "problem",
    "problem_from", "problem_of", "problems", "require_role", "roles_of", "status_of", "whole",
]  # fmt: skip

PAGE_MAX = 500
PAGE_DEFAULT = 100


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


def date_parameter(request: Request, name: str) -> date | None:
    """Return a day from the query, None when absent."""
    value = request.query_params.get(name)
    if not value:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise Invalid("not_a_date", "Use a day like 2026-01-31.", field=name) from None


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
class DecimalText(serializers.Field):
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


class Strict(serializers.Serializer):
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


class FieldErrorOut(serializers.Serializer):
    """One field to blame."""

    field = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemOut(serializers.Serializer):
    """An error (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    errors = FieldErrorOut(many=True)


@lru_cache
def listed(item: type[serializers.Serializer[Any]], name: str = "") -> type[serializers.Serializer[Any]]:
    """Return the serializer of a list body of items, for the schema."""
    title = name or item.__name__.removesuffix("Out") + "List"
    fields = {
        "results": item(many=True),
        "next": serializers.URLField(allow_null=True),
        "__module__": item.__module__,
    }
    return type(title, (serializers.Serializer,), fields)


def problems(*statuses: int) -> dict[tuple[int, str], Any]:
    """Return the schema's answers for errors of these statuses, with those every call may give."""
    return {(s, "application/problem+json"): ProblemOut for s in sorted({401, 403, 429, 503, *statuses})}
