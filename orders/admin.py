"""Orders in the admin: find them, cancel them, replace one. Every change asks first and runs the desk's own operation."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from unfold.widgets import UnfoldAdminTextInputWidget

from oms.kernel import decimals
from oms.kernel.decimals import text
from oms.kernel.errors import DomainError, Invalid, InvalidFields
from oms.runtime.facts import Facts, Part
from oms.runtime.roles import actor_for, require_role, roles_of
from orders import operations
from orders.domain.tickets import Terms
from orders.models import (
    Algo,
    AlgoSlice,
    Allocation,
    Block,
    BlockShare,
    Build,
    ChildOrder,
    Confirmation,
    DeadLetter,
    Execution,
    GroupLeg,
    IdempotencyKey,
    LetterDecision,
    Order,
    OrderGroup,
    ParkedReport,
    SendBudget,
    Submission,
    Trigger,
    Wait,
)
from orders.operations import letters, manual
from orders.states import OPEN
from portfolio.queries import visible_accounts

CONFIRMED = "confirmed"
LETTERS_MAX = 200


class ChildPart(Part):
    """The broker orders of an order."""

    model = ChildOrder
    show_change_link = True
    fields = [
        "broker",
        "client_order_id",
        "broker_order_id",
        "status",
        "quantity",
        "filled_quantity",
        "leaves_quantity",
    ]


class ExecutionPart(Part):
    """The executions of an order."""

    model = Execution
    show_change_link = True
    fields = ["broker", "broker_execution_id", "kind", "quantity", "price", "fees", "executed_at"]
    fk_name = "order"


class SlicePart(Part):
    """The slices of a worked order."""

    model = AlgoSlice
    fields = ["number", "due_at", "planned_quantity", "state", "quantity", "decided_at", "detail"]


class TermsForm(forms.Form):
    """What a replace may change; what stays empty stays as it is."""

    quantity = forms.CharField(required=False, max_length=30, widget=UnfoldAdminTextInputWidget)
    limit_price = forms.CharField(required=False, max_length=30, widget=UnfoldAdminTextInputWidget)
    stop_price = forms.CharField(required=False, max_length=30, widget=UnfoldAdminTextInputWidget)

    def terms(self) -> Terms:
        """Return the terms typed, or raise `Invalid` naming the field."""

        def read(name: str) -> Decimal | None:
            typed = self.cleaned_data[name].strip()
            value = decimals.parse(typed, field=name) if typed else None
            if value is not None and value <= 0:
                raise Invalid("not_positive", "The value must be above zero.", field=name)
            return value

        return Terms(quantity=read("quantity"), limit_price=read("limit_price"), stop_price=read("stop_price"))


class Working(admin.SimpleListFilter):
    """What still works at brokers, apart from what is over."""

    title = "open"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Name the choices."""
        return [("yes", "open"), ("no", "closed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        """Narrow by status."""
        if self.value() not in ("yes", "no"):
            return queryset
        return (
            queryset.filter(status__in=sorted(OPEN))
            if self.value() == "yes"
            else queryset.exclude(status__in=sorted(OPEN))
        )


@admin.register(Order)
class OrderAdmin(Facts):
    """Orders of the accounts the user may see."""

    everyone = True
    list_display = [
        "created_at", "account", "side", "quantity", "instrument", "order_type", "limit_price", "stop_price", "state",
        "filled_quantity", "note",
    ]  # fmt: skip
    list_filter = [Working, "status", ("account", admin.RelatedOnlyFieldListFilter), "side", "order_type", "unknown"]
    search_fields = ["client_order_id", "instrument__symbol"]
    list_select_related = ["account", "instrument"]
    inlines = [SlicePart, ChildPart, ExecutionPart]
    actions = ["cancel", "replace", "pause", "resume", "let_pass", "turn_down"]

    @admin.display(description="status", ordering="status")
    def state(self, order: Order) -> str:
        """Name the status, with a question mark while a broker is being asked."""
        return f"{order.status} ?" if order.unknown else str(order.status)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        """Narrow to the accounts the user may see, newest first."""
        rows = super().get_queryset(request).filter(account__in=visible_accounts(request.user))
        return rows.order_by("-id")

    @admin.action(description="Cancel", permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Order]) -> HttpResponse | None:
        """Ask, then cancel each."""
        if CONFIRMED not in request.POST:
            return self._confirm(request, queryset, "cancel", None)
        for order in queryset:
            self._attempt(
                request,
                order,
                lambda o: operations.cancel(
                    o.id, actor=_actor(request), at=timezone.now(), reason="asked in the admin"
                ),
                "cancel requested",
            )
        return redirect(request.get_full_path())

    @admin.action(description="Replace", permissions=["view"])
    def replace(self, request: HttpRequest, queryset: QuerySet[Order]) -> HttpResponse | None:
        """Ask for new terms of one order, then replace it."""
        if queryset.count() != 1:
            self.message_user(request, "Choose one order to replace.", messages.ERROR)
            return None
        form = TermsForm(request.POST if CONFIRMED in request.POST else None)
        if CONFIRMED not in request.POST or not form.is_valid():
            return self._confirm(request, queryset, "replace", form)
        for order in queryset:
            self._attempt(
                request,
                order,
                lambda o: operations.replace(o.id, form.terms(), actor=_actor(request), at=timezone.now()),
                "replace requested",
            )
        return redirect(request.get_full_path())

    @admin.action(description="Pause the work in slices", permissions=["view"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Send no more slices, and cancel those that work."""
        for order in queryset:
            self._attempt(
                request, order, lambda o: operations.pause(o.id, actor=_actor(request), at=timezone.now()), "paused"
            )

    @admin.action(description="Resume the work in slices", permissions=["view"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Go on."""
        for order in queryset:
            self._attempt(
                request, order, lambda o: operations.resume(o.id, actor=_actor(request), at=timezone.now()), "resumed"
            )

    @admin.action(description="Let pass what is held, as another person than the maker", permissions=["view"])
    def let_pass(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Judge held orders again, without the soft limits, and send them."""
        self._decide(request, queryset, "approve")

    @admin.action(description="Turn down what is held, as another person than the maker", permissions=["view"])
    def turn_down(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Deny held orders."""
        self._decide(request, queryset, "refuse")

    def _decide(self, request: HttpRequest, rows: QuerySet[Order], decision: str) -> None:
        for order in rows:
            self._attempt(
                request,
                order,
                lambda o: manual.decide(
                    o.id, decision, reason="decided in the admin", actor=_actor(request), at=timezone.now()
                ),
                "decided",
                role="risk",
            )

    def _confirm(self, request: HttpRequest, rows: QuerySet[Order], action: str, form: Any) -> HttpResponse:
        context = self.admin_site.each_context(request) | {
            "title": f"{action.capitalize()} {rows.count()} order{'s' if rows.count() != 1 else ''}",
            "lines": [{"id": o.pk, "text": _line(o)} for o in rows],
            "action": action,
            "form": form,
            "opts": self.model._meta,
        }
        return render(request, "admin/confirm_orders.html", context)

    def _attempt(self, request: HttpRequest, order: Order, change: Any, done: str, role: str = "trader") -> None:
        try:
            require_role(request.user, role)
            change(order)
            self.message_user(request, f"{order}: {done}.", messages.SUCCESS)
        except DomainError as error:
            told = error.errors[0].detail if isinstance(error, InvalidFields) else error.detail
            self.message_user(request, f"{order}: {told}", messages.ERROR)


def _line(order: Order) -> str:
    """Say what an order is and how far it came."""
    prices = [f"{n} {text(p)}" for n, p in (("stop", order.stop_price), ("limit", order.limit_price)) if p is not None]
    what = " ".join([order.side, text(order.quantity), str(order.instrument), *(prices or [order.order_type])])
    return f"{what} in {order.account}: {order.status}, {text(order.filled_quantity)} filled, {text(order.leaves_quantity)} open"


def _actor(request: HttpRequest) -> Any:
    return actor_for(request.user, automated=False)


@admin.register(Execution)
class ExecutionAdmin(Facts):
    """Executions, busts and corrections."""

    list_display = ["broker_execution_id", "broker", "kind", "side", "quantity", "price", "fees", "executed_at"]
    list_filter = ["kind", "broker"]
    search_fields = ["broker_execution_id"]


@admin.register(Confirmation)
class ConfirmationAdmin(Facts):
    """What brokers say in writing of executions."""

    list_display = [
        "reference",
        "broker",
        "state",
        "quantity",
        "price",
        "fees",
        "net",
        "settle_date",
        "differences",
        "received_at",
    ]
    list_filter = ["state", "broker"]
    list_select_related = ["broker"]
    search_fields = ["reference", "execution__broker_execution_id"]
    ordering = ["-received_at"]


@admin.register(Submission)
class SubmissionAdmin(Facts):
    """What was to be sent, and what became of it."""

    list_display = ["client_order_id", "broker", "kind", "state", "attempts", "sent_at", "due_at"]
    list_filter = ["state", "kind", "broker"]
    search_fields = ["client_order_id"]


@admin.register(ChildOrder)
class ChildOrderAdmin(Facts):
    """Broker orders."""

    list_display = ["client_order_id", "broker", "status", "quantity", "filled_quantity", "updated_at"]
    list_filter = ["status", "broker"]
    search_fields = ["client_order_id", "broker_order_id"]


class Letters(Facts):
    """What people of ops, or an administrator, decide here."""

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Tell who may decide."""
        return bool(roles_of(request.user) & {"ops", "admin"})

    def each(self, request: HttpRequest, rows: QuerySet[Any], decide: Callable[[Any], str]) -> None:
        """Decide each row by itself, and tell what came of it."""
        for row in rows.order_by("pk")[:LETTERS_MAX]:
            try:
                self.message_user(request, f"{row}: {decide(row)}")
            except DomainError as error:
                self.message_user(request, f"{row}: {error.detail}", messages.ERROR)


@admin.register(DeadLetter)
class DeadLetterAdmin(Letters):
    """Messages that could not be read: read again once the adapter has learned to, or dismissed."""

    list_display = ["broker", "sequence", "received_at", "error", "decision"]
    list_filter = ["broker", ("decision", admin.EmptyFieldListFilter)]
    list_select_related = ["broker", "decision"]
    actions = ["read_again", "dismiss"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Show what could not be read."""
        rows: QuerySet[DeadLetter] = super().get_queryset(request).exclude(error="").order_by("-received_at")
        return rows

    @admin.action(description="Read again, and apply what it tells", permissions=["decide"])
    def read_again(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Read with the adapter as it is now."""
        actor, at = _actor(request), timezone.now()
        self.each(request, queryset, lambda r: f"{letters.read_again(r.pk, actor=actor, at=at)} reports read")

    @admin.action(description="Dismiss: it means nothing for the desk", permissions=["decide"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Say that they mean nothing."""
        actor, at = _actor(request), timezone.now()

        def decide(row: DeadLetter) -> str:
            letters.dismiss(row.pk, reason="dismissed in the admin", actor=actor, at=at)
            return "dismissed"

        self.each(request, queryset, decide)


@admin.register(LetterDecision)
class LetterDecisionAdmin(Facts):
    """What people made of messages that could not be read."""

    list_display = ["message", "decision", "reason", "actor", "decided_at"]
    list_filter = ["decision"]


@admin.register(ParkedReport)
class ParkedReportAdmin(Letters):
    """Reports that wait for what they speak of: tried again at once, or dismissed."""

    list_display = ["waits_for", "broker", "received_at", "applied_at"]
    list_filter = ["broker", ("applied_at", admin.EmptyFieldListFilter)]
    actions = ["retry", "dismiss"]

    @admin.action(description="Try again now", permissions=["decide"])
    def retry(self, request: HttpRequest, queryset: QuerySet[ParkedReport]) -> None:
        """Apply them, whatever they wait for."""
        actor, at = _actor(request), timezone.now()

        def decide(row: ParkedReport) -> str:
            return "applied" if letters.retry_parked([row.pk], actor=actor, at=at) else "it still waits"

        self.each(request, queryset, decide)

    @admin.action(description="Dismiss: it belongs to nothing of ours", permissions=["decide"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[ParkedReport]) -> None:
        """Say that they belong to nothing."""
        actor, at = _actor(request), timezone.now()

        def decide(row: ParkedReport) -> str:
            letters.dismiss_parked([row.pk], reason="dismissed in the admin", actor=actor, at=at)
            return "dismissed"

        self.each(request, queryset, decide)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(Facts):
    """Keys of requests and the orders they made."""

    list_display = ["key", "user", "order"]
    search_fields = ["key"]


@admin.register(Trigger)
class TriggerAdmin(Facts):
    """What orders that the desk watches wait for."""

    list_display = ["order", "kind", "side", "price", "watermark", "starts_at", "valid_until", "fired_at"]
    list_filter = ["kind", ("fired_at", admin.EmptyFieldListFilter)]
    list_select_related = ["order"]


@admin.register(Algo)
class AlgoAdmin(Facts):
    """The work on large orders."""

    list_display = ["order", "name", "state", "end_at", "completing", "refusals"]
    list_filter = ["state", "name"]
    list_select_related = ["order"]


@admin.register(AlgoSlice)
class AlgoSliceAdmin(Facts):
    """Slices of worked orders."""

    list_display = ["order", "number", "due_at", "planned_quantity", "state", "quantity", "detail"]
    list_filter = ["state"]
    list_select_related = ["order"]


class GroupLegPart(Part):
    """The orders of a group."""

    model = GroupLeg
    fields = ["order", "role", "quantity"]


@admin.register(OrderGroup)
class OrderGroupAdmin(Facts):
    """Orders that follow each other, and what keeps a group from standing as it should."""

    list_display = ["key", "kind", "account", "partial_fills", "excess", "problem", "due_at"]
    list_filter = ["kind", ("due_at", admin.EmptyFieldListFilter)]
    search_fields = ["key"]
    list_select_related = ["account"]
    inlines = [GroupLegPart]


@admin.register(SendBudget)
class SendBudgetAdmin(Facts):
    """How much may be sent to each broker now."""

    list_display = ["__str__"]


@admin.register(Block)
class BlockAdmin(Facts):
    """Orders that trade for several accounts."""

    list_display = ["order", "state", "quantity", "allocated", "created_at", "allocated_at"]
    list_filter = ["state"]
    list_select_related = ["order"]
    ordering = ["-order"]


@admin.register(BlockShare)
class BlockShareAdmin(Facts):
    """What accounts asked for of blocks, and got."""

    list_display = ["block", "account", "quantity", "allocated"]
    list_filter = ["account"]
    list_select_related = ["block", "account"]
    ordering = ["-id"]


@admin.register(Allocation)
class AllocationAdmin(Facts):
    """The orders that stand for what was given of a block."""

    list_display = ["order", "block", "share"]
    list_select_related = ["order", "block", "share"]
    ordering = ["-order"]


@admin.register(GroupLeg)
class GroupLegAdmin(Facts):
    """Orders in their groups."""

    list_display = ["order", "group", "role", "quantity"]
    list_filter = ["role"]
    list_select_related = ["order", "group"]


@admin.register(Wait)
class WaitAdmin(Facts):
    """Orders held until another that they would trade with is gone."""

    list_display = ["order", "other", "since"]
    list_select_related = ["order", "other"]


@admin.register(Build)
class BuildAdmin(Facts):
    """Builds of the code that were released; the newest one sends."""

    list_display = ["build", "released_at"]
    ordering = ["-released_at"]
