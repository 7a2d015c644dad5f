"""People and their tokens in the admin; changes of a person are journalled with the roles before and after."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from oms.journal.edited import tell
from oms.runtime.facts import Facts
from oms.runtime.roles import roles_of

for model in (User, Group, AuthToken):
    admin.site.unregister(model)


def _person(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "active": user.is_active,
        "staff": user.is_staff,
        "superuser": user.is_superuser,
        "roles": sorted(user.groups.values_list("name", flat=True)),
    }


@admin.register(User)
class PersonAdmin(UserAdmin, ModelAdmin):
    """People, and their roles (groups). Edited by superusers."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "roles", "first_name", "last_name", "is_active", "is_staff", "last_login"]
    list_filter = ["groups", "is_active", "is_staff"]

    @admin.display(description="roles")
    def roles(self, user: User) -> str:
        """Name the roles."""
        return ", ".join(sorted(g.name for g in user.groups.all()))

    def get_queryset(self, request: HttpRequest) -> Any:
        """Read the roles of all at once."""
        return super().get_queryset(request).prefetch_related("groups")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Switch a person off instead: what was done stays theirs."""
        return False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the roles, and journal the person with what stood before."""
        saved = User.objects.prefetch_related("groups").get(pk=form.instance.pk)
        before = {**_person(saved), **{k: v for k, v in form.initial.items() if k in ("is_active", "is_superuser")}}
        super().save_related(request, form, formsets, change)
        tell(
            request,
            saved,
            "edited" if change else "added",
            {"before": before if change else None, "after": _person(User.objects.get(pk=saved.pk))},
        )


@admin.register(Group)
class RoleAdmin(GroupAdmin, ModelAdmin):
    """Roles: the desk knows trader, risk, ops, auditor and admin."""


@admin.register(AuthToken)
class TokenAdmin(Facts):
    """API tokens, to see and to revoke. The token itself is kept nowhere; `manage.py token` makes one."""

    list_display = ["token_key", "user", "created", "expiry"]
    list_filter = ["user"]
    list_select_related = ["user"]
    exclude = ["digest"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators revoke a token by deleting it."""
        user: Any = request.user
        return bool(user.is_staff and (user.is_superuser or "admin" in roles_of(user)))
