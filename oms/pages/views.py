"""The desk's pages: each is a frame that its script fills from the API and the WebSocket."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from oms.runtime.roles import READ_ALL, roles_of
from portfolio.queries import visible_accounts


class SignIn(LoginView):
    """Log in with name and password."""

    template_name = "login.html"
    redirect_authenticated_user = True


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
