"""Rows in the admin that only operations write: everybody of the desk may look, nobody may edit."""

from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from oms.runtime.roles import READ_ALL, roles_of


class Facts(ModelAdmin):  # type: ignore[misc]
    """Read-only rows. `everyone`: traders may read them too, through a queryset that the app narrows."""

    everyone = False
    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the app to whoever may read its rows."""
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Let roles that read all read, and traders where the rows are narrowed to theirs."""
        user: Any = request.user
        if not user.is_active or not user.is_staff:
            return False
        roles = roles_of(user)
        return bool(user.is_superuser or roles & READ_ALL or (self.everyone and "trader" in roles))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody adds one here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody edits one here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody deletes one here."""
        return False
