"""Risk in the admin: facts to read, approvals and releases as actions, and the restricted list to edit.

Limits and halts change by operations alone (the API, the commands, the actions here), which judge who may.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from simple_history.admin import SimpleHistoryAdmin

from oms.journal.edited import Edited
from oms.kernel.errors import DomainError
from oms.runtime.facts import Facts
from oms.runtime.roles import actor_for, require_role
from oms.runtime.sessions import require_recent_proof
from risk import operations
from risk.models import (
    AccountRules,
    Approval,
    ComplianceBreach,
    ComplianceRule,
    Exposure,
    Group,
    GroupMember,
    Halt,
    Hold,
    Limit,
    Liquidation,
    Locate,
    Mandate,
    Pace,
    ProfitPeak,
    RestrictedInstrument,
    RiskCheck,
    Trip,
    Tripwire,
)


class Judged(Facts):
    """Rows that only operations write, some of them by actions here."""

    def each(
        self, request: HttpRequest, rows: QuerySet[Any], operation: Callable[[Any], object]
    ) -> HttpResponse | None:
        """Run an operation of a risk officer for every row chosen, and tell what became of each; lead to the password where it is asked for."""
        for row in rows:
            try:
                require_role(request.user, "risk")
                operation(row)
                self.message_user(request, f"{row}: done.", messages.SUCCESS)
            except DomainError as error:
                if error.code == "confirm_identity":
                    return redirect_to_login(request.get_full_path(), "/confirm/")
                self.message_user(request, f"{row}: {error.detail}", messages.ERROR)
        return None


class Decided(Judged):
    """Rows that wait for a second person, with the decision as actions."""

    actions = ["approve", "refuse"]

    def decide(self, pk: Any, decision: str, **who: Any) -> object:
        """Run the operation that decides on a row."""
        raise NotImplementedError

    @admin.action(description="Approve, as another person than the maker", permissions=["view"])
    def approve(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Let the rows hold."""
        return self._decide(request, queryset, "approve")

    @admin.action(description="Refuse, as another person than the maker", permissions=["view"])
    def refuse(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Turn the proposals down."""
        return self._decide(request, queryset, "refuse")

    def _decide(self, request: HttpRequest, rows: QuerySet[Any], decision: str) -> HttpResponse | None:
        actor, at = actor_for(request.user, automated=False), timezone.now()

        def decide(row: Any) -> None:
            require_recent_proof(request)
            self.decide(row.pk, decision, reason="decided in the admin", actor=actor, at=at)

        return self.each(request, rows, decide)


@admin.register(Limit)
class LimitAdmin(SimpleHistoryAdmin, Decided):
    """Limits, with the second person's decision as an action."""

    list_display = [
        "kind",
        "scope_kind",
        "scope_key",
        "value",
        "currency",
        "soft",
        "aggregate",
        "status",
        "effective_from",
        "maker",
        "approver",
    ]
    list_filter = ["status", "soft", "kind", "scope_kind"]
    search_fields = ["scope_key", "reason"]
    list_select_related = ["maker", "approver"]

    def decide(self, pk: Any, decision: str, **who: Any) -> object:
        """Decide on a limit."""
        return operations.decide(pk, decision, **who)


@admin.register(Halt)
class HaltAdmin(Judged):
    """Halts, with their release as an action."""

    list_display = [
        "scope_kind",
        "scope_key",
        "mode",
        "reason",
        "engaged_by",
        "engaged_at",
        "released_by",
        "released_at",
    ]
    list_filter = ["mode", "scope_kind", ("released_at", admin.EmptyFieldListFilter)]
    actions = ["release"]

    @admin.action(description="Release, as another person than the one who engaged it", permissions=["view"])
    def release(self, request: HttpRequest, queryset: QuerySet[Halt]) -> HttpResponse | None:
        """Let the scopes trade again."""
        actor, at = actor_for(request.user, automated=False), timezone.now()

        def let_go(row: Halt) -> None:
            require_recent_proof(request)
            operations.release_halt(row.pk, reason="released in the admin", actor=actor, at=at)

        return self.each(request, queryset, let_go)


@admin.register(Approval)
class ApprovalAdmin(Judged):
    """What waits, or waited, for a second person."""

    list_display = ["created_at", "object_kind", "action", "account", "status", "maker", "approver", "expires_at"]
    list_filter = ["status", "object_kind", "action"]
    list_select_related = ["account", "maker", "approver"]
    ordering = ["-id"]


class _Grown(Edited):
    """Rows that a risk officer adds and nobody takes away: less of them would loosen limits with no second person."""

    editors = frozenset({"risk"})

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Leave what stands."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Leave what stands."""
        return False


@admin.register(Group)
class GroupAdmin(_Grown):
    """Names for what limits bind together."""

    list_display = ["code", "name"]
    search_fields = ["code", "name"]


@admin.register(GroupMember)
class GroupMemberAdmin(_Grown):
    """Who belongs to which group."""

    list_display = ["group", "kind", "key"]
    list_filter = ["group", "kind"]
    list_select_related = ["group"]


@admin.register(Mandate)
class MandateAdmin(Edited):
    """Who may trade what."""

    editors = frozenset({"risk"})
    list_display = ["scope_kind", "scope_key", "dimension", "allowed", "reason"]
    list_filter = ["scope_kind", "dimension"]


@admin.register(AccountRules)
class AccountRulesAdmin(SimpleHistoryAdmin, Decided):
    """Rules of accounts, with the second person's decision as an action."""

    list_display = [
        "account",
        "since",
        "margin",
        "settled_only",
        "locates",
        "day_trading",
        "self_trade",
        "status",
        "maker",
    ]
    list_filter = ["status", "margin", "account"]
    list_select_related = ["account", "maker"]
    ordering = ["-id"]

    def decide(self, pk: Any, decision: str, **who: Any) -> object:
        """Decide on rules."""
        return operations.decide_rules(pk, decision, **who)


@admin.register(Locate)
class LocateAdmin(Judged):
    """Units located for short sales."""

    list_display = ["day", "account", "instrument", "quantity", "lender", "reference", "made_by"]
    list_filter = ["day", "account"]
    list_select_related = ["account", "instrument"]
    ordering = ["-id"]


@admin.register(Pace)
class PaceAdmin(Judged):
    """How full the buckets of rate limits are, with enabling a throttled strategy as an action."""

    list_display = ["account", "kind", "scope_kind", "scope_key", "level", "at"]
    list_filter = ["kind", "account"]
    list_select_related = ["account"]
    actions = ["enable"]

    @admin.action(description="Enable the strategy again", permissions=["view"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Pace]) -> HttpResponse | None:
        """Begin the counts of automated orders anew."""
        actor, at = actor_for(request.user, automated=False), timezone.now()
        runs = queryset.filter(kind=Limit.Kind.AUTOMATED_RUNS).select_related("account")
        return self.each(
            request,
            runs,
            lambda row: operations.enable_strategy(
                row.account.code, row.scope_key, reason="enabled in the admin", actor=actor, at=at
            ),
        )


@admin.register(Liquidation)
class LiquidationAdmin(Judged):
    """Liquidations with their steps and proofs."""

    list_display = ["began_at", "scope_kind", "scope_key", "state", "reason", "made_by", "ended_at"]
    list_filter = ["state"]
    ordering = ["-id"]


@admin.register(Tripwire)
class TripwireAdmin(Edited):
    """When the desk halts by itself, where that is not as the house has it."""

    editors = frozenset({"risk"})
    list_display = ["kind", "threshold", "window", "mode", "enabled"]


@admin.register(Trip)
class TripAdmin(Judged):
    """When it did."""

    list_display = ["began_at", "kind", "scope_kind", "scope_key", "detail", "ended_at"]
    list_filter = ["kind", ("ended_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]


@admin.register(ProfitPeak)
class ProfitPeakAdmin(Judged):
    """The highest profits seen."""

    list_display = ["account", "value", "at"]
    list_select_related = ["account"]


@admin.register(Hold)
class HoldAdmin(Judged):
    """What open orders may still take."""

    list_display = ["id", "account", "instrument", "side", "open_quantity", "unit_amount", "currency", "created_at"]
    list_filter = ["account"]
    list_select_related = ["account", "instrument"]
    show_full_result_count = False


@admin.register(Exposure)
class ExposureAdmin(Judged):
    """Totals of the open holds."""

    list_display = ["account", "instrument", "buying", "selling", "amount"]
    list_filter = ["account"]
    list_select_related = ["account", "instrument"]


@admin.register(RiskCheck)
class RiskCheckAdmin(Judged):
    """Verdicts with the numbers used."""

    list_display = ["id", "account", "approved", "held", "reason", "at"]
    list_filter = ["approved", "held", "reason"]
    list_select_related = ["account"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(RestrictedInstrument)
class RestrictedInstrumentAdmin(Edited):
    """The restricted list and the watch list."""

    editors = frozenset({"risk"})
    list_display = ["instrument", "since", "until", "watched", "reason"]
    list_select_related = ["instrument"]

    def save_model(self, request: HttpRequest, obj: RestrictedInstrument, form: Any, change: bool) -> None:
        """Save through the operation that journals it."""
        operations.restrict(obj, actor=actor_for(request.user, automated=False), at=timezone.now())

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """An entry ends by its `until`, so that what was restricted when stays known."""
        return False


@admin.register(ComplianceRule)
class ComplianceRuleAdmin(Facts):
    """Dated rules of compliance; proposed and approved by two persons through the API."""

    list_display = [
        "code",
        "kind",
        "severity",
        "context",
        "source",
        "clause",
        "effective_from",
        "effective_to",
        "status",
    ]
    list_filter = ["status", "severity", "context", "kind"]
    search_fields = ["code", "source"]


@admin.register(ComplianceBreach)
class ComplianceBreachAdmin(Facts):
    """Where a rule was broken, and what was decided about it."""

    list_display = ["rule", "account", "instrument", "day", "disposition", "disposed_by", "disposed_at"]
    list_filter = ["disposition", "rule"]
    list_select_related = ["rule", "account", "instrument"]
    date_hierarchy = "day"
