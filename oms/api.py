"""REST of the whole desk: is it well, what needs a person, who did what."""

import hmac
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework import serializers
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from oms import monitoring
from oms.journal.models import Event
from oms.kernel import json
from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    listed,
    page_of,
    page_out,
    problems,
    refuse_unknown_parameters,
    text_parameter,
    time_parameter,
    whole,
)
from oms.runtime.roles import acting, roles_of

OFFICERS = ("risk", "ops", "auditor", "admin")


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    return HttpResponse(json.dump_bytes(body), status=status, content_type="application/json")


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer that this process lives; asks nothing of any other."""
    return _json({"status": "alive"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 when every part that the desk needs is there, else 503 with what is missing."""
    checks = monitoring.readiness()
    ready = all(c["ok"] for c in checks.values())
    response = _json({"status": "ready" if ready else "not_ready", "checks": checks}, 200 if ready else 503)
    response._has_been_logged = True  # an answer, not a failure of this process
    return response


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Serve the desk's figures to Prometheus: to a signed-in officer, to a scraper with the token set, or on loopback."""
    if not _may_scrape(request):
        return HttpResponse(
            "Sign in, or send the metrics token.\n", status=401, content_type="text/plain; charset=utf-8"
        )
    return HttpResponse(monitoring.exposition(), content_type=CONTENT_TYPE_LATEST)


def _may_scrape(request: HttpRequest) -> bool:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.METRICS_TOKEN and hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
        return True
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated and roles_of(user) & set(OFFICERS):
        return True
    return (
        not settings.PRODUCTION
        and not settings.METRICS_TOKEN
        and request.META.get("REMOTE_ADDR") in ("127.0.0.1", "::1")
    )


class EventOut(serializers.Serializer):
    """One entry of the journal, with its place in the chain."""

    id = serializers.UUIDField()
    stream = serializers.CharField()
    sequence = serializers.IntegerField()
    at = serializers.DateTimeField()
    actor = serializers.CharField()
    kind = serializers.CharField()
    object = serializers.CharField()
    body = serializers.DictField()
    hash = serializers.CharField()


class Docs(SpectacularSwaggerSplitView):
    """The API's pages; a person who is not signed in is asked to, a program gets its 401."""

    def handle_exception(self, exc: Exception) -> Any:
        """Lead a browser to the log-in and back."""
        if isinstance(exc, NotAuthenticated) and "text/html" in self.request.headers.get("Accept", ""):
            return redirect_to_login(self.request.get_full_path())
        return super().handle_exception(exc)


class Audit(Api):
    """GET audit."""

    permission_classes = [acting(reading=("auditor",))]

    @extend_schema(
        parameters=[
            *PAGE_SCHEMA,
            OpenApiParameter("object"),
            OpenApiParameter("actor"),
            OpenApiParameter("from", datetime),
            OpenApiParameter("to", datetime),
            OpenApiParameter("kind"),
            OpenApiParameter("stream"),
        ],
        responses={200: listed(EventOut), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """List what happened, newest first."""
        refuse_unknown_parameters(request, (*PAGE_PARAMETERS, "object", "actor", "from", "to", "kind", "stream"))
        page = page_of(request)
        wanted = {
            "object_id": text_parameter(request, "object"),
            "actor": text_parameter(request, "actor"),
            "kind": text_parameter(request, "kind"),
            "stream__name": text_parameter(request, "stream"),
            "at__gte": time_parameter(request, "from"),
            "at__lt": time_parameter(request, "to"),
            "id__lt": page.before,
        }
        rows = Event.objects.select_related("stream").filter(**{k: v for k, v in wanted.items() if v is not None})
        return Response(page_out(request, page, [_event(e) for e in rows.order_by("-id")[: page.limit + 1]]))


def _event(event: Event) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "stream": event.stream.name,
        "sequence": event.sequence,
        "at": json.rfc3339(event.at),
        "actor": event.actor,
        "kind": event.kind,
        "object": event.object_id,
        "body": json.loads(event.body),
        "hash": bytes(event.hash).hex(),
    }


class ExceptionOut(serializers.Serializer):
    """Something that needs a person, or will if it stays."""

    kind = serializers.ChoiceField(
        choices=[
            "unknown_submission",
            "parked_report",
            "unreadable_message",
            "overfilled_order",
            "order_group",
            "settlement",
            "break",
            "reconciliation",
            "approval",
        ]
    )
    object = serializers.CharField()
    broker = serializers.CharField(allow_null=True)
    account = serializers.CharField(allow_null=True)
    detail = serializers.CharField()
    since = serializers.DateTimeField()
    age_seconds = serializers.IntegerField()


class Exceptions(Api):
    """GET exceptions."""

    permission_classes = [acting(reading=OFFICERS)]

    @extend_schema(responses={200: listed(ExceptionOut), **problems()})
    def get(self, request: Request) -> Response:
        """List what is unresolved: submissions of unknown fate, reports waiting, messages nobody could read,
        overfills, what waits for a second person."""
        refuse_unknown_parameters(request, ())
        return Response(whole(monitoring.exceptions(at=self.now())))
