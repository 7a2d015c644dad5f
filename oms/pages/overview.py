"""The front page of the admin: what needs attention now, counted, with the way there."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from oms import monitoring
from oms.runtime.roles import READ_ALL, roles_of
from orders.models import Order
from orders.states import OPEN
from portfolio.queries import visible_accounts
from risk.models import Halt, Limit


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the tiles: for traders their own orders, for officers the whole desk."""
    officer = bool(request.user.is_superuser or roles_of(request.user) & READ_ALL)
    mine = Order.objects.filter(account__in=visible_accounts(request.user), status__in=sorted(OPEN))
    tiles = [
        _tile("Open orders", mine.count(), "admin:orders_order_changelist", "open=yes"),
        _tile(
            "Of unknown fate", mine.filter(unknown=True).count(), "admin:orders_order_changelist", "unknown__exact=1"
        ),
    ]
    if officer:
        tiles += [
            _tile("Exceptions", len(monitoring.exceptions(at=timezone.now())), "operations"),
            _tile("Halts engaged", Halt.objects.filter(released_at=None).count(), "admin:risk_halt_changelist", "released_at__isempty=1"),
            _tile("Limits proposed", Limit.objects.filter(status=Limit.Status.PROPOSED).count(), "admin:risk_limit_changelist", "status__exact=proposed"),
        ]  # fmt: skip
    return context | {"tiles": tiles}


def _tile(title: str, count: int, address: str, query: str = "") -> dict[str, Any]:
    return {"title": title, "count": count, "href": reverse(address) + (f"?{query}" if query else "")}
