"""The desk: what was asked of us, what we asked of brokers, and what came of it."""

from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from brokers.models import Broker, BrokerAccount, Instrument, RawMessage
from oms.kernel.decimals import text
from oms.runtime.fields import ExactField, bounded
from oms.runtime.fsm import FSMField, StateMachineModel, transition
from orders.domain import groups
from orders.states import CLOSED, OPEN, OrdStatus, SubmissionState
from portfolio.models import Account, Strategy

STATUSES = [(s.value, s.value) for s in OrdStatus]
_LIVE = sorted(OPEN - {OrdStatus.HELD})
_ANY = sorted(OrdStatus)
_UNFILLED = sorted(frozenset(OrdStatus) - {OrdStatus.FILLED})


def _words(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(w.value, w.value) for w in words]


class Lifecycle(StateMachineModel):
    """The transitions that a desk order and a broker order share; each is named after what brought it about."""

    status = FSMField(default=OrdStatus.PENDING_NEW, choices=STATUSES, max_length=16, protected=True)

    class Meta:
        abstract = True

    @transition(
        field=status,
        source=[OrdStatus.PENDING_NEW, OrdStatus.HELD, OrdStatus.SUSPENDED],
        target=OrdStatus.NEW,
    )
    def acknowledge(self) -> None:
        """The broker took it, or a hold was lifted after one did."""

    @transition(
        field=status,
        source=[OrdStatus.HELD, OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE],
        target=OrdStatus.PENDING_NEW,
    )
    def release(self) -> None:
        """What it waited for has come, or a request about it ended before any broker took it."""

    @transition(field=status, source=[OrdStatus.PENDING_NEW, OrdStatus.HELD], target=OrdStatus.DENIED)
    def deny(self) -> None:
        """Risk, routing or an approver said no; no broker saw it."""

    @transition(field=status, source=[OrdStatus.PENDING_NEW, OrdStatus.CANCELED], target=OrdStatus.HELD)
    def hold(self) -> None:
        """It waits: for another person, as a soft limit stands against it, or for fills of its parent, once or again."""

    # What a broker says is taken from any state: an order held for ended may live, a bust may bring an old end back.
    @transition(field=status, source=_ANY, target=OrdStatus.REJECTED)
    def reject(self) -> None:
        """The broker said no, at once or after a while."""

    # A fill counts whatever state the order is in: a late one after a cancel completes it all the same.
    @transition(field=status, source=_ANY, target=OrdStatus.PARTIALLY_FILLED)
    def fill_partly(self) -> None:
        """Some of it is done and it works on."""

    @transition(field=status, source=_ANY, target=OrdStatus.FILLED)
    def fill(self) -> None:
        """All of it is done."""

    @transition(field=status, source=_ANY, target=OrdStatus.NEW)
    def reopen(self) -> None:
        """A bust took the last fill away, or a pending request ended with nothing filled."""

    @transition(field=status, source=_ANY, target=OrdStatus.PENDING_CANCEL)
    def request_cancel(self) -> None:
        """A cancel is on its way."""

    @transition(field=status, source=[*_LIVE, OrdStatus.FILLED], target=OrdStatus.PENDING_REPLACE)
    def request_replace(self) -> None:
        """A replace is on its way; a filled order may be reopened to a larger quantity."""

    # From filled and rejected too: a bust may leave a canceled order with less than it had.
    @transition(field=status, source=_ANY, target=OrdStatus.CANCELED)
    def cancel(self) -> None:
        """Ended before it was done."""

    @transition(field=status, source=_ANY, target=OrdStatus.EXPIRED)
    def expire(self) -> None:
        """Its time ran out."""

    @transition(field=status, source=_ANY, target=OrdStatus.DONE_FOR_DAY)
    def rest_for_day(self) -> None:
        """No more executions today."""

    @transition(field=status, source=_ANY, target=OrdStatus.SUSPENDED)
    def suspend(self) -> None:
        """The broker set it aside."""

    @transition(field=status, source=_ANY, target=OrdStatus.STOPPED)
    def stop(self) -> None:
        """The broker guarantees a price."""

    @transition(field=status, source=_ANY, target=OrdStatus.CALCULATED)
    def calculate(self) -> None:
        """Completed and its figures are final."""

    def become(self, target: OrdStatus) -> None:
        """Run the transition that leads to target; an undeclared one raises `TransitionNotAllowed`."""
        getattr(self, _TRANSITION[target])()


_TRANSITION = {
    OrdStatus.PENDING_NEW: "release",
    OrdStatus.NEW: "reopen",
    OrdStatus.PARTIALLY_FILLED: "fill_partly",
    OrdStatus.FILLED: "fill",
    OrdStatus.DONE_FOR_DAY: "rest_for_day",
    OrdStatus.CANCELED: "cancel",
    OrdStatus.PENDING_CANCEL: "request_cancel",
    OrdStatus.PENDING_REPLACE: "request_replace",
    OrdStatus.STOPPED: "stop",
    OrdStatus.SUSPENDED: "suspend",
    OrdStatus.REJECTED: "reject",
    OrdStatus.EXPIRED: "expire",
    OrdStatus.CALCULATED: "calculate",
    OrdStatus.DENIED: "deny",
    OrdStatus.HELD: "hold",
}


def _quantity_rules(table: str) -> list[models.CheckConstraint]:
    closed = sorted(CLOSED)
    return [
        models.CheckConstraint(condition=Q(status__in=_ANY), name=f"{table}_status_known"),
        models.CheckConstraint(
            condition=Q(filled_quantity__lte=F("quantity")) | Q(overfilled=True),
            name=f"{table}_not_overfilled",
        ),
        models.CheckConstraint(
            condition=Q(status__in=closed, leaves_quantity=0)
            | Q(status=OrdStatus.DONE_FOR_DAY)
            | (~Q(status__in=closed) & (Q(leaves_quantity=F("quantity") - F("filled_quantity")) | Q(overfilled=True))),
            name=f"{table}_leaves_add_up",
        ),
        *bounded(
            table,
            positive=("quantity",),
            not_negative=("filled_quantity", "leaves_quantity"),
            any_sign=("filled_amount",),
        ),
    ]


class Order(Lifecycle):
    """What the desk was asked for. Its ids stay through replaces; brokers see its child orders."""

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    client_order_id = models.CharField(max_length=64)
    body_hash = models.BinaryField(max_length=32)  # of the request, so that a reused id shows
    placed_sequence = models.BigIntegerField(default=0)  # the journal event that holds the first answer
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    side = models.CharField(max_length=10)
    quantity = ExactField()
    size_by = models.JSONField(null=True)  # what the quantity was worked out from, as asked
    order_type = models.CharField(max_length=24)
    limit_price = ExactField(null=True)
    stop_price = ExactField(null=True)
    time_in_force = models.CharField(max_length=4)
    expire_at = models.DateTimeField(null=True)
    directed_broker = models.ForeignKey(Broker, models.PROTECT, null=True, db_index=False)
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, db_index=False)
    note = models.CharField(max_length=200, blank=True)
    origin = models.CharField(max_length=12, default="desk")
    correlation_id = models.CharField(max_length=64, blank=True)  # of the request, in every log line about the order
    parent = models.ForeignKey("self", models.PROTECT, null=True)
    unknown = models.BooleanField(default=False)
    overfilled = models.BooleanField(default=False)
    filled_quantity = ExactField(default=0)
    leaves_quantity = ExactField()
    filled_amount = ExactField(default=0)  # sum of quantity times price
    fees = ExactField(default=0)
    reason = models.CharField(max_length=32, blank=True)
    reason_detail = models.CharField(max_length=200, blank=True)
    version = models.IntegerField(default=1)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, db_index=False)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    decided_at = models.DateTimeField()
    arrival_bid = ExactField(null=True)
    arrival_ask = ExactField(null=True)
    arrival_at = models.DateTimeField(null=True)
    triggered_at = models.DateTimeField(null=True)
    lots = models.JSONField(null=True)  # ids of the lots it is to close first
    instructions = models.JSONField(null=True)  # what few orders ask for besides: trail, good after; what it works as
    next_terms = models.JSONField(null=True)  # what a new broker order will ask for once the present one is canceled

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "client_order_id"], name="order_client_id_unique"),
            *_quantity_rules("order"),
        ]
        indexes = [
            # A list of an account is read off one of these, newest first. An order that is simply filled stays only in
            # the first two.
            models.Index(fields=["account", "-id"], name="order_account_newest"),
            models.Index(fields=["account", "instrument", "-id"], name="order_symbol_newest"),
            models.Index(fields=["account", "-id"], condition=Q(status__in=sorted(OPEN)), name="order_open"),
            models.Index(fields=["account", "status", "-id"], condition=Q(status__in=_UNFILLED), name="order_unfilled"),
            models.Index(
                fields=["account", "strategy", "-id"], condition=Q(strategy__isnull=False), name="order_strategy_newest"
            ),
            models.Index(fields=["account", "-id"], condition=Q(side="sell_short"), name="order_short"),
        ]

    def __str__(self) -> str:
        return f"{self.side} {text(self.quantity)} {self.client_order_id}"

    def instruction(self, name: str) -> str | None:
        """Return one of the instructions, None where it was not given."""
        return (self.instructions or {}).get(name)

    @property
    def algo(self) -> dict[str, Any] | None:
        """Return how the order is to be worked, None of one that goes out whole."""
        return self.instructions.get("algo") if self.instructions else None

    @property
    def group_told(self) -> dict[str, str]:
        """Return what it tells of its group, nothing where it belongs to none."""
        told: dict[str, str] = (self.instructions or {}).get("group") or {}
        return told if "role" in told else {}

    @property
    def cancels_others(self) -> bool:
        """Tell whether it belongs to a set in which one cancels the others."""
        return self.group_told.get("role") in groups.IN_SET

    @property
    def working_type(self) -> str:
        """Return the order type that brokers see: another than was asked for, once the desk has triggered it."""
        return self.instruction("works_as") or self.order_type


class Trigger(models.Model):
    """What the desk itself waits for before an order goes to any broker: a price, a time. See `orders.domain.triggers`.

    `price` is what the market must reach now; where it trails, it follows the `watermark`, the best price seen. Kept here,
    so that whoever watches next goes on where the last one stopped.
    """

    class Kind(models.TextChoices):
        STOP = "stop"
        TOUCH = "touch"
        TRAIL = "trail"
        TIME = "time"

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    side = models.CharField(max_length=10)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    price = ExactField(null=True)
    trail_amount = ExactField(null=True)
    trail_percent = ExactField(null=True)
    watermark = ExactField(null=True)
    limit_offset = ExactField(null=True)  # of a limit that trails: its distance from the price
    starts_at = models.DateTimeField(null=True)
    valid_until = models.DateTimeField(null=True)
    seen_at = models.DateTimeField()  # time of the newest quote looked at
    fired_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["instrument"], condition=Q(fired_at=None), name="trigger_waiting")]
        constraints = [
            models.CheckConstraint(condition=Q(kind="time") | Q(price__isnull=False), name="trigger_has_a_price"),
            models.CheckConstraint(condition=~Q(kind="time") | Q(starts_at__isnull=False), name="trigger_has_a_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.order_id}"


class Build(models.Model):
    """A build of the code that was released; the newest one alone may send. See `oms.runtime.build`."""

    build = models.CharField(max_length=64)
    released_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.build


class Wait(models.Model):
    """A held order that would trade with another of its account, and waits until that one is provably gone."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="waits")
    other = models.ForeignKey(Order, models.PROTECT, related_name="+", db_index=False)
    since = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["order", "other"], name="wait_unique")]

    def __str__(self) -> str:
        return f"{self.order_id} for {self.other_id}"


class Algo(models.Model):
    """The work on one large order: whether it goes on, until when, and what it ends as. Its terms stand in the order.

    Its slices are the order's own broker orders, so its hold covers them and its fills are theirs.
    """

    class State(models.TextChoices):
        WAITING = "waiting"  # the order is held; nothing is planned yet
        WORKING = "working"
        PAUSED = "paused"
        OVER = "over"

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True, related_name="work")
    name = models.CharField(max_length=8)
    state = models.CharField(max_length=8, choices=State.choices)
    end_at = models.DateTimeField(null=True)
    stop_at = models.DateTimeField(null=True)  # when the order's own day or date ends, whatever was planned
    completing = models.BooleanField(default=False)  # the time is over, and all that is left is asked for at once
    ended_as = models.CharField(max_length=16, blank=True)  # what the order becomes once nothing of it works
    refusals = models.PositiveIntegerField(default=0)  # slices in a row that nobody took
    volume_from = models.DateTimeField(null=True)  # the first bar that counts
    volume_before = ExactField(default=0)  # what that bar held before the start

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state="over", ended_as__in=["canceled", "expired"]) | (~Q(state="over") & Q(ended_as="")),
                name="algo_ends_as_something",
            ),
        ]
        indexes = [models.Index(fields=["order"], condition=Q(state__in=["working", "paused"]), name="algo_working")]

    def __str__(self) -> str:
        return f"{self.name} of {self.order_id}"


class AlgoSlice(models.Model):
    """A part of a worked order: planned, then claimed by one worker, then sent as a broker order, or given back."""

    class State(models.TextChoices):
        PLANNED = "planned"
        CLAIMED = "claimed"  # by a worker that may have died since: the lease tells
        SENT = "sent"
        SKIPPED = "skipped"  # nothing was asked for
        DENIED = "denied"  # risk or routing said no; its quantity is given back

    id = models.UUIDField(primary_key=True)
    order = models.ForeignKey(Order, models.PROTECT, related_name="slices", db_index=False)
    number = models.PositiveIntegerField()
    due_at = models.DateTimeField()
    planned_quantity = ExactField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.PLANNED)
    quantity = ExactField(null=True)  # what was asked for, once it is sent
    child = models.OneToOneField("ChildOrder", models.PROTECT, null=True, related_name="slice")
    owner = models.CharField(max_length=80, blank=True)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    decided_at = models.DateTimeField(null=True)
    detail = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "number"], name="slice_number_unique"),
            models.CheckConstraint(
                condition=Q(state="sent", child__isnull=False, quantity__gt=0)
                | (~Q(state="sent") & Q(child__isnull=True, quantity__isnull=True)),
                name="slice_sent_has_a_child",
            ),
            *bounded("slice", not_negative=("planned_quantity",)),
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(state__in=["planned", "claimed"]), name="slice_due")]

    def __str__(self) -> str:
        return f"slice {self.number} of {self.order_id}"


class OrderGroup(models.Model):
    """Orders that depend on each other, see `orders.domain.groups`. Whoever changes one of them leaves the group due."""

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    kind = models.CharField(max_length=8, choices=_words(groups.Kind))
    key = models.CharField(max_length=64)  # as the client names it; a bracket goes by its entry's id
    partial_fills = models.CharField(max_length=10, choices=_words(groups.Policy), default=groups.Policy.PRO_RATA.value)
    excess = ExactField(default=0)  # filled beyond what one cancels the others for, as a person was told
    problem = models.CharField(max_length=200, blank=True)  # what keeps it from standing as it should
    left_since = models.DateTimeField(null=True)  # since when a broker is given time to reduce a sibling by itself
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True)  # when its orders are to be brought in line, None while they are

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "key"], name="group_key_unique"),
            models.CheckConstraint(condition=Q(kind__in=[k.value for k in groups.Kind]), name="group_kind_known"),
            models.CheckConstraint(
                condition=Q(partial_fills__in=[p.value for p in groups.Policy]), name="group_policy_known"
            ),
            *bounded("group", not_negative=("excess",)),
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="group_due")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class GroupLeg(models.Model):
    """An order's place in its group, and the whole quantity that was asked of it."""

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True, related_name="leg")
    group = models.ForeignKey(OrderGroup, models.PROTECT, related_name="legs")
    role = models.CharField(max_length=12, choices=_words(groups.Role))
    quantity = ExactField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group", "role"],
                condition=Q(role__in=[groups.Role.PARENT.value, *sorted(r.value for r in groups.EXITS)]),
                name="group_role_once",
            ),
            models.CheckConstraint(condition=Q(role__in=[r.value for r in groups.Role]), name="leg_role_known"),
            *bounded("leg", positive=("quantity",)),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.order_id}"


class IdempotencyKey(models.Model):
    """A user's `Idempotency-Key` and the order it made. Kept as long as the order: for good."""

    id = models.UUIDField(primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, db_index=False)
    key = models.CharField(max_length=128)
    order = models.OneToOneField(Order, models.PROTECT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_unique")]

    def __str__(self) -> str:
        return self.key


class Block(models.Model):
    """An order that trades for several accounts; what it fills is given to them at one average price."""

    class State(models.TextChoices):
        WORKING = "working"
        ALLOCATED = "allocated"  # all that was filled
        BROKEN = "broken"  # less is filled now than was allocated: a bust, which a person must undo in the accounts

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True, related_name="block")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WORKING)
    quantity = ExactField()
    allocated = ExactField(default=0)
    allocated_amount = ExactField(default=0)  # quantity times price of what was allocated, as it was filled
    allocated_fees = models.JSONField(default=dict)  # by currency
    body_hash = models.BinaryField(max_length=32)
    created_at = models.DateTimeField()
    allocated_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(allocated__lte=F("quantity")) & Q(allocated__gte=0), name="block_allocates_no_more"
            ),
            *bounded("block", positive=("quantity",), any_sign=("allocated_amount",)),
        ]
        indexes = [models.Index(fields=["state"], condition=Q(state="working"), name="block_working")]

    def __str__(self) -> str:
        return f"{text(self.quantity)} {self.state}"


class BlockShare(models.Model):
    """One account's part of a block. Its id is that of the hold in the account, too. Shares add up to their block, asked for
    and allocated: a deferred trigger sees to it."""

    id = models.UUIDField(primary_key=True)
    block = models.ForeignKey(Block, models.PROTECT, related_name="shares", db_index=False)
    number = models.IntegerField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    quantity = ExactField()
    allocated = ExactField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["block", "account"], name="block_share_unique"),
            models.CheckConstraint(
                condition=Q(allocated__lte=F("quantity")) & Q(allocated__gte=0), name="block_share_within_its_part"
            ),
            *bounded("block_share", positive=("quantity",)),
        ]

    def __str__(self) -> str:
        return f"{text(self.quantity)} for {self.account_id}"


class Allocation(models.Model):
    """An order of origin allocation: what an account got of a block at one time, or the other side of all that in the
    block's own account (no share)."""

    order = models.OneToOneField(Order, models.PROTECT, primary_key=True)
    block = models.ForeignKey(Block, models.PROTECT, related_name="allocations")
    share = models.ForeignKey(BlockShare, models.PROTECT, null=True)

    def __str__(self) -> str:
        return f"{self.order_id} of {self.block_id}"


class ChildOrder(Lifecycle):
    """What one broker was asked for. The sum of what children may fill never passes the order's quantity."""

    id = models.UUIDField(primary_key=True)
    order = models.ForeignKey(Order, models.PROTECT, related_name="children")
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    broker_account = models.ForeignKey(BrokerAccount, models.PROTECT, db_index=False)
    client_order_id = models.CharField(max_length=36)  # as the broker names it now
    broker_order_id = models.CharField(max_length=64, blank=True)
    quantity = ExactField()
    limit_price = ExactField(null=True)
    stop_price = ExactField(null=True)
    time_in_force = models.CharField(max_length=4)
    expire_at = models.DateTimeField(null=True)
    filled_quantity = ExactField(default=0)
    leaves_quantity = ExactField()
    filled_amount = ExactField(default=0)
    overfilled = models.BooleanField(default=False)
    ended_as = models.CharField(max_length=16, blank=True)  # how the broker closed it, under later fills and busts
    standing = models.JSONField(null=True)  # what it told besides, see `orders.domain.standing`; None of most
    version = models.IntegerField(default=1)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [*_quantity_rules("child")]
        indexes = [
            models.Index(fields=["broker", "broker_order_id"], name="child_broker_order"),
            models.Index(fields=["broker", "-order"], name="child_broker_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.client_order_id} at {self.broker_id}"


class Submission(models.Model):
    """One intent to tell a broker something. The rows that are due are the queue."""

    class Kind(models.TextChoices):
        NEW = "new"
        CANCEL = "cancel"
        REPLACE = "replace"

    id = models.UUIDField(primary_key=True)
    child = models.ForeignKey(ChildOrder, models.PROTECT, related_name="submissions")
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    client_order_id = models.CharField(max_length=36)
    message = models.JSONField()  # the adapter's message, complete
    unit_amount = ExactField(null=True)  # of a replace: what risk holds a unit at under its terms
    correlation_id = models.CharField(max_length=64, blank=True)  # of the request that asked for it
    reduces = models.BooleanField(default=False)  # lowers exposure: passes a reduce-only halt
    state = models.CharField(
        max_length=8, choices=[(s.value, s.value) for s in SubmissionState], default=SubmissionState.PREPARED
    )
    attempts = models.PositiveIntegerField(default=0)
    fence = models.BigIntegerField(default=0)
    owner = models.CharField(max_length=64, blank=True)
    lease_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField()
    judged_at = models.DateTimeField()  # when risk last let it pass; too old a verdict is asked for again
    valid_until = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    detail = models.CharField(max_length=200, blank=True)
    denials = models.JSONField(default=list)  # times of authoritative "not found" answers
    log = models.JSONField(default=list)  # each attempt: at, delay, outcome

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["broker", "client_order_id"], name="submission_client_id_unique"),
            models.UniqueConstraint(
                fields=["child"],
                condition=Q(kind="new", state__in=["prepared", "sent", "unknown"]),
                name="one_new_in_flight",
            ),
            models.CheckConstraint(
                condition=Q(state="prepared") | Q(sent_at__isnull=False) | Q(state="not_sent"),
                name="sent_has_a_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["broker", "due_at"], condition=Q(state="prepared") & ~Q(kind="cancel"), name="submission_due"
            ),
            models.Index(
                fields=["broker", "due_at"], condition=Q(state="prepared", kind="cancel"), name="submission_due_cancel"
            ),
            models.Index(
                fields=["broker", "due_at"],
                condition=Q(state__in=["sent", "unknown"]),
                name="submission_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.client_order_id}"


class SendBudget(models.Model):
    """How many messages may go to a broker now, where it documents a rate: refilled by it, at most a second's worth."""

    broker = models.OneToOneField(Broker, models.PROTECT, primary_key=True)
    tokens = models.FloatField()
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.tokens:.1f} at {self.broker_id}"


class Execution(models.Model):
    """An execution, or the bust or correction of one. Append-only."""

    class Kind(models.TextChoices):
        TRADE = "trade"
        BUST = "bust"
        CORRECT = "correct"

    id = models.UUIDField(primary_key=True)
    child = models.ForeignKey(ChildOrder, models.PROTECT, related_name="executions")
    order = models.ForeignKey(Order, models.PROTECT, related_name="executions")
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    broker_account = models.ForeignKey(BrokerAccount, models.PROTECT, db_index=False)
    broker_execution_id = models.CharField(max_length=64)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    ref = models.OneToOneField("self", models.PROTECT, null=True)  # the execution undone or corrected
    side = models.CharField(max_length=10)
    quantity = ExactField()
    price = ExactField()
    fees = ExactField(null=True, default=0)  # in the instrument's currency, None where a rate was missing
    fee_items = models.JSONField(default=list)
    settle_date = models.DateField()
    executed_at = models.DateTimeField()
    received_at = models.DateTimeField()
    market_bid = ExactField(null=True)  # what was quoted when it was executed; None where it is told too late to know
    market_ask = ExactField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["broker_account", "broker_execution_id"], name="execution_unique"),
            *bounded("execution", not_negative=("quantity",), any_sign=("price", "fees")),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {text(self.quantity)} @ {text(self.price)}"

    def signed_quantity(self) -> Any:
        """Return the quantity with the side's sign: buys above zero."""
        return self.quantity if self.side == "buy" else -self.quantity


class Confirmation(models.Model):
    """What a broker says in writing of an execution; the last word stands. The execution never changes by it."""

    class State(models.TextChoices):
        MATCHED = "matched"
        MISMATCHED = "mismatched"

    id = models.UUIDField(primary_key=True)
    execution = models.OneToOneField(Execution, models.PROTECT)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    reference = models.CharField(max_length=64)  # the broker's: of the execution, or of all that it confirms together
    state = models.CharField(max_length=10, choices=State.choices)
    quantity = ExactField()
    price = ExactField()
    fees = ExactField(null=True)
    net = ExactField(null=True)  # the cash that changes hands, as told
    settle_date = models.DateField(null=True)
    differences = models.JSONField(default=dict)  # what is told otherwise: both words by name
    source = models.CharField(max_length=100)  # the file's name, or `answers`
    received_at = models.DateTimeField()
    received_by = models.CharField(max_length=150)

    class Meta:
        constraints = bounded("confirmation", not_negative=("quantity",), any_sign=("price", "fees", "net"))
        indexes = [
            models.Index(fields=["broker"], condition=Q(state="mismatched"), name="confirmation_mismatched"),
        ]

    def __str__(self) -> str:
        return f"{self.reference}: {self.state}"


class DeadLetter(RawMessage):
    """A message of a broker that could not be read, for people to decide."""

    class Meta:
        proxy = True


class LetterDecision(models.Model):
    """What a person made of a message that could not be read."""

    id = models.UUIDField(primary_key=True)
    message = models.OneToOneField(RawMessage, models.PROTECT, related_name="decision")
    decision = models.CharField(max_length=12, choices=[("read", "read again"), ("dismissed", "dismissed")])
    reason = models.CharField(max_length=200)
    actor = models.CharField(max_length=80)
    decided_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.decision}: {self.reason}"


class ParkedReport(models.Model):
    """A broker's report that can't be applied yet: what it speaks of has not arrived. Tried again with each batch."""

    id = models.UUIDField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    waits_for = models.CharField(max_length=80)  # execution:<id> or order:<client id>
    report = models.JSONField()
    received_at = models.DateTimeField()
    applied_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["broker", "waits_for"], condition=Q(applied_at=None), name="report_parked")]

    def __str__(self) -> str:
        return self.waits_for
