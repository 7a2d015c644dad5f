"""Which limits and halts a user may see: a trader those that can bind their own orders."""

from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from oms.runtime.roles import READ_ALL, roles_of
from portfolio.queries import visible_accounts

Row = TypeVar("Row", bound=Model)
PERSONAL = ("account", "user")
"""Scopes that name somebody; all others bind everyone."""


def in_sight(rows: QuerySet[Row], user: Any, *, at: datetime) -> QuerySet[Row]:
    """Narrow limits or halts to those of the accounts the user may see, of the user, and of everyone."""
    if user.is_superuser or roles_of(user) & READ_ALL:
        return rows
    codes = visible_accounts(user, at=at).values("code")
    mine = Q(scope_kind="account", scope_key__in=codes) | Q(scope_kind="user", scope_key=user.get_username())
    return rows.filter(~Q(scope_kind__in=PERSONAL) | mine)
