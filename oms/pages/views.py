"""The desk's pages: each is a frame that its script fills from the API and the WebSocket."""

from textwrap import wrap
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth import authenticate
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from oms.access import factors
from oms.kernel import json
from oms.kernel.errors import DomainError
from oms.runtime import sessions
from oms.runtime.problems import problem
from oms.runtime.roles import READ_ALL, actor_for, roles_of
from portfolio.queries import visible_accounts


class SignIn(LoginView):
    """Log in with name and password, and with the code of a device where the user has one enrolled."""

    template_name = "login.html"
    redirect_authenticated_user = True


@login_required
def second_factor(request: HttpRequest) -> HttpResponse:
    """Enrol a second factor: show the key, take a first code, show the recovery codes once."""
    told: dict[str, Any] = {}
    try:
        if request.method == "POST":
            user = request.user
            actor = actor_for(user, automated=False)
            told["recovery"] = factors.confirm(user, request.POST.get("code", ""), actor=actor, at=timezone.now())
            request.session.pop(sessions.BARE, None)
            request.session.cycle_key()
        else:
            request.session["_enrolling"] = told["address"] = factors.begin(request.user)
    except DomainError as error:
        told = {"fault": error.detail, "address": request.session.get("_enrolling", "")}
    if told.get("recovery") or not told.get("address"):
        request.session.pop("_enrolling", None)
    else:
        told["key"] = " ".join(wrap(parse_qs(urlsplit(told["address"]).query)["secret"][0], 4))
    return render(request, "second_factor.html", told)


@login_required
@require_http_methods(["GET", "POST"])
def confirm(request: HttpRequest) -> HttpResponse:
    """Take the password (and code) of who is logged in once more; what is dangerous is open to them then for a while.

    A script posts and is answered 204 or a problem. The form on the page names in `next` where to go back to.
    """
    if request.method == "GET":
        return render(request, "confirm.html", {"next": request.GET.get("next", "/")})
    back = request.POST.get("next")
    user = authenticate(request, username=request.user.get_username(), password=request.POST.get("password", ""))
    if user is None or user.pk != request.user.pk:
        fault = "Password and code do not match, or were tried too often: wait a moment. A code is good once."
        if back is not None:
            return render(request, "confirm.html", {"next": back, "fault": fault}, status=403)
        told = problem(403, "wrong_password", fault)
        return HttpResponse(json.dump_bytes(told), status=403, content_type="application/problem+json")
    sessions.prove(request)
    if back is None:
        return HttpResponse(status=204)
    here = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(back if here else "/")


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Lead the admin's own log-in to the desk's, which knows second factors; who is logged in already may not see the admin."""
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next", "/admin/"))


def _page(request: HttpRequest, template: str) -> HttpResponse:
    codes = list(visible_accounts(request.user).order_by("id").values_list("code", flat=True))
    roles = roles_of(request.user)
    desk = {"accounts": codes, "roles": sorted(roles)}
    page = template.removesuffix(".html")
    return render(request, template, {"page": page, "desk": desk, "officer": bool(roles & READ_ALL)})


@login_required
def blotter(request: HttpRequest) -> HttpResponse:
    """Show live orders, and the ticket."""
    return _page(request, "blotter.html")


@login_required
def positions(request: HttpRequest) -> HttpResponse:
    """Show positions with P&L."""
    return _page(request, "positions.html")


@login_required
def risk(request: HttpRequest) -> HttpResponse:
    """Show limits, headroom and halts."""
    return _page(request, "risk.html")


@login_required
def execution(request: HttpRequest) -> HttpResponse:
    """Show what execution cost, how brokers compare, and what routing learned."""
    return _page(request, "execution.html")


@login_required
def operations(request: HttpRequest) -> HttpResponse:
    """Show what needs a person, how the brokers are, and the transfer of cash; for officers only."""
    if not roles_of(request.user) & READ_ALL:
        raise PermissionDenied
    return _page(request, "operations.html")
