"""Rows in the admin: who may look, who may edit, and how numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from oms.kernel import decimals
from oms.runtime.roles import READ_ALL, roles_of

PLAIN = "plain_"


def _plain(field: models.Field[Any, Any]) -> Callable[[Any], str]:
    """Return a column that shows a decimal as it is meant: 10, not 10.0000000000."""

    @admin.display(description=field.verbose_name, ordering=field.name, empty_value="-")
    def shown(row: Any) -> str:
        value = getattr(row, field.name)
        return "-" if value is None else decimals.text(value)

    return shown


class _Shown:
    """Rows nobody edits here: decimals without needless zeros, in lists and on the page of a row."""

    model: type[Model]

    def _decimals(self) -> dict[str, str]:
        """Return the names of our columns by those of the decimals; the columns stand on this admin."""
        fields = [f for f in self.model._meta.get_fields() if isinstance(f, models.DecimalField)]
        for field in fields:
            setattr(self, PLAIN + field.name, _plain(field))
        return {f.name: PLAIN + f.name for f in fields}

    def _written(self, names: Sequence[str]) -> list[str]:
        ours = self._decimals()
        return list(dict.fromkeys(ours.get(n, n) for n in names))

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Write the decimals of a row's page."""
        return self._written(super().get_fields(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Keep our columns out of the form."""
        return [*super().get_readonly_fields(request, obj), *self._decimals().values()]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody adds one here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody edits one here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody deletes one here."""
        return False


class Readable(ModelAdmin):
    """Rows that all may read whose role reads all. `everyone`: traders too, through a queryset that the app narrows."""

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


class Facts(_Shown, Readable):
    """Rows that only operations write: everybody of the desk may look, nobody may edit."""

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Write the decimals of the list."""
        return self._written(super().get_list_display(request))


class Part(_Shown, TabularInline):
    """Rows of another row, to read with it."""

    extra = 0
    can_delete = False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Show them to whoever sees the row that they belong to."""
        return True
