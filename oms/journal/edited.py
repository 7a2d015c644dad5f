"""Rows that people edit in the admin: history beside the row, and an event in the journal with what stood before."""

from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from simple_history.admin import SimpleHistoryAdmin

from oms.journal import operations as journal
from oms.journal.domain import SYSTEM_STREAM, Entry
from oms.kernel import json
from oms.runtime.facts import Readable
from oms.runtime.roles import actor_for, roles_of


def tell(request: HttpRequest, row: Model, happened: str, data: dict[str, Any]) -> None:
    """Journal that a person changed a row in the admin; inside the transaction of the change."""
    entry = Entry(
        SYSTEM_STREAM, f"{row._meta.model_name}.{happened}", str(row.pk), json.dumps({"row": str(row), "data": data})
    )
    journal.append([entry], actor=actor_for(request.user, automated=False), at=timezone.now())


class Edited(SimpleHistoryAdmin, Readable):
    """Whoever reads all may look; the roles named may edit. `exclude` keeps secrets out of the page and the journal."""

    editors: ClassVar[frozenset[str]] = frozenset({"admin"})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the editors add."""
        return self._may_edit(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Let the editors change."""
        return self._may_edit(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Let the editors delete what nothing points at."""
        return self._may_edit(request)

    def _may_edit(self, request: HttpRequest) -> bool:
        user: Any = request.user
        if not user.is_active or not user.is_staff:
            return False
        return bool(user.is_superuser or roles_of(user) & self.editors)

    def shown(self, row: Model) -> dict[str, str]:
        """Return the row's columns as text, but those that are not shown."""
        hidden = set(self.exclude or ())
        return {f.name: f.value_to_string(row) for f in row._meta.concrete_fields if f.name not in hidden}

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Save, and journal the row with what stood before."""
        with transaction.atomic():
            before = self.model._default_manager.filter(pk=obj.pk).first() if change else None
            super().save_model(request, obj, form, change)
            old = self.shown(before) if before else None
            tell(request, obj, "edited" if change else "added", {"before": old, "after": self.shown(obj)})

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Journal the row, and delete it."""
        with transaction.atomic():
            told, pk = self.shown(obj), obj.pk
            super().delete_model(request, obj)
            obj.pk = pk
            tell(request, obj, "deleted", {"before": told, "after": None})

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete each as if alone, so that each is told."""
        with transaction.atomic():
            for row in queryset:
                self.delete_model(request, row)
