"""May this trade? Limits, what is held against them, verdicts, halts."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from simple_history.models import HistoricalRecords

from brokers.models import Instrument
from oms.kernel.decimals import text
from oms.runtime.fields import ExactField, bounded
from portfolio.models import Account, Strategy
from risk.domain import compliance, rules, tripwires


class Group(models.Model):
    """Accounts, users, strategies, symbols, asset classes or sectors that a limit may name together."""

    code = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=120, blank=True)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.code


class GroupMember(models.Model):
    """One that belongs to a group: a limit of the group binds every order that a limit of the member would."""

    class Kind(models.TextChoices):
        ACCOUNT = "account"
        USER = "user"
        STRATEGY = "strategy"
        SYMBOL = "symbol"
        ASSET_CLASS = "asset_class"
        SECTOR = "sector"

    group = models.ForeignKey(Group, models.CASCADE, related_name="members")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    key = models.CharField(max_length=64)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "kind", "key"], name="group_member_unique")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Limit(models.Model):
    """A bound for a scope. The tightest active one wins; changes are new rows."""

    class Kind(models.TextChoices):
        ORDER_QUANTITY = "order_quantity"
        ORDER_QUANTITY_MIN = "order_quantity_min"
        ORDER_NOTIONAL = "order_notional"
        ORDER_NOTIONAL_MIN = "order_notional_min"
        POSITION = "position"  # units, whichever way
        POSITION_LONG = "position_long"
        POSITION_SHORT = "position_short"
        POSITION_GROSS = "position_gross"  # units held and working on both sides
        GROSS_EXPOSURE = "gross_exposure"
        NET_EXPOSURE = "net_exposure"
        LEVERAGE = "leverage"  # gross exposure over equity, e.g. 2
        CONCENTRATION = "concentration"  # of one symbol, as a fraction of the equity
        CONCENTRATION_SECTOR = "concentration_sector"
        CONCENTRATION_CLASS = "concentration_class"
        CONCENTRATION_STRATEGY = "concentration_strategy"
        PRICE_COLLAR = "price_collar"  # fraction, e.g. 0.05
        PRICE_COLLAR_TICKS = "price_collar_ticks"
        VOLUME_RECENT = "volume_recent"  # of one order, as a fraction of what was traded in the last half hour
        VOLUME_DAILY = "volume_daily"  # the same of an average day
        SPREAD = "spread"  # of the market, as a fraction of its middle
        QUOTE_AGE = "quote_age"  # seconds
        OPEN_ORDERS = "open_orders"
        ORDER_RATE = "order_rate"  # a second
        REPLACE_RATE = "replace_rate"  # a second
        MESSAGE_RATE = "message_rate"  # orders and replaces a second
        AUTOMATED_RUNS = "automated_runs"  # orders of a program for one strategy until a person enables it again
        DAILY_LOSS = "daily_loss"
        DRAWDOWN = "drawdown"  # below the highest profit seen
        DUPLICATE_WINDOW = "duplicate_window"  # seconds
        OPENING_CUTOFF = "opening_cutoff"  # seconds before the open after which nothing for it is taken
        CLOSING_CUTOFF = "closing_cutoff"  # the same for the close

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        APPROVED = "approved"  # and holds from `effective_from` on
        ACTIVE = "active"
        RETIRED = "retired"
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True)
    scope_kind = models.CharField(max_length=12)  # firm, account, user, strategy, broker, symbol, group
    scope_key = models.CharField(max_length=64, blank=True)
    kind = models.CharField(max_length=24, choices=Kind.choices)
    value = ExactField()
    currency = models.CharField(max_length=12, blank=True)
    soft = models.BooleanField(default=False)
    aggregate = models.BooleanField(default=False, db_default=False)  # binds the sum over accounts
    status = models.CharField(max_length=8, choices=Status.choices)
    effective_from = models.DateTimeField()
    reason = models.CharField(max_length=200)
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField()
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope_kind", "scope_key", "kind", "soft", "aggregate"],
                condition=models.Q(status="active"),
                name="limit_active_unique",
            ),
            *bounded("limit", not_negative=("value",)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {text(self.value)} for {self.scope_kind} {self.scope_key}"


class Hold(models.Model):
    """The worst case of one order, reserved until nothing more can come of it."""

    id = models.UUIDField(primary_key=True)  # the order's id
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    side = models.CharField(max_length=10)
    open_quantity = ExactField()
    unit_amount = ExactField()  # cash, in the instrument's currency, that one unit may take
    own_amount = ExactField(null=True)  # the same under the terms in force, while others are asked for
    currency = models.CharField(max_length=12)
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, db_index=False)
    fingerprint = models.BinaryField(max_length=16, null=True)  # of what was asked, where a repeat would be suspect
    oco = models.UUIDField(null=True)  # the set in which one cancels the others: together they hold the worst of one
    created_at = models.DateTimeField()

    class Meta:
        constraints = bounded("hold", not_negative=("open_quantity", "unit_amount"))
        indexes = [
            models.Index(fields=["account", "instrument"], condition=models.Q(open_quantity__gt=0), name="hold_open"),
            models.Index(
                fields=["fingerprint"], condition=models.Q(fingerprint__isnull=False), name="hold_fingerprint"
            ),
            models.Index(fields=["oco"], condition=models.Q(oco__isnull=False), name="hold_oco"),
        ]

    def __str__(self) -> str:
        return f"{self.side} {text(self.open_quantity)}"


class Exposure(models.Model):
    """Totals of the open holds, so that a check costs the same with one open order or a million."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    buying = ExactField(default=0)
    selling = ExactField(default=0)
    amount = ExactField(default=0)  # cash held, in the instrument's currency

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "instrument"], name="exposure_unique"),
            *bounded("exposure", not_negative=("buying", "selling", "amount")),
        ]

    def __str__(self) -> str:
        return f"+{self.buying} -{self.selling}"


class Pace(models.Model):
    """How full a bucket of orders was when one was last put in; see `risk.domain.pacing`."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    kind = models.CharField(max_length=24)  # of the limit
    scope_kind = models.CharField(max_length=12)
    scope_key = models.CharField(max_length=64, blank=True)
    level = ExactField()
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "kind", "scope_kind", "scope_key"], name="pace_unique"),
            *bounded("pace", not_negative=("level",)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.scope_kind} {self.scope_key}: {text(self.level)}"


class ProfitPeak(models.Model):
    """The highest profit that an account was seen at since it exists, in its base currency; drawdowns count from here."""

    account = models.OneToOneField(Account, models.PROTECT, primary_key=True, related_name="+")
    value = ExactField()
    at = models.DateTimeField()

    class Meta:
        constraints = bounded("peak", any_sign=("value",))

    def __str__(self) -> str:
        return text(self.value)


class RiskCheck(models.Model):
    """A verdict with every check's numbers, as they were. An order that was held, or is replaced, is judged again."""

    id = models.UUIDField(primary_key=True)  # the order's id, of its first verdict
    again_of = models.UUIDField(null=True)  # the order's id, of a later one
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    approved = models.BooleanField()
    held = models.BooleanField(default=False, db_default=False)  # only a soft limit stood against it
    reason = models.CharField(max_length=32, blank=True)
    checks = models.JSONField()
    at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["again_of"], condition=models.Q(again_of__isnull=False), name="risk_check_again")
        ]

    def __str__(self) -> str:
        return self.reason or "approved"


class Halt(models.Model):
    """A kill switch, engaged until another person releases it."""

    class Mode(models.TextChoices):
        HALT = "halt"
        REDUCE_ONLY = "reduce_only"

    id = models.UUIDField(primary_key=True)
    scope_kind = models.CharField(max_length=12)  # all, account, broker, symbol, strategy, user
    scope_key = models.CharField(max_length=64, blank=True)
    mode = models.CharField(max_length=12, choices=Mode.choices)
    reason = models.CharField(max_length=200)
    engaged_by = models.CharField(max_length=80)
    engaged_user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    engaged_at = models.DateTimeField()
    released_by = models.CharField(max_length=80, blank=True)
    released_at = models.DateTimeField(null=True)
    release_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes = [models.Index(fields=["scope_kind"], condition=models.Q(released_at=None), name="halt_engaged")]

    def __str__(self) -> str:
        return f"{self.mode} {self.scope_kind} {self.scope_key}"


class Liquidation(models.Model):
    """Bringing everything in a scope to zero, step by step; whoever finds it running may go on with it."""

    class State(models.TextChoices):
        RUNNING = "running"
        FLAT = "flat"
        INCOMPLETE = "incomplete"

    id = models.UUIDField(primary_key=True)
    scope_kind = models.CharField(max_length=12)  # all, account, symbol
    scope_key = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=200)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING)
    halt = models.ForeignKey(Halt, models.PROTECT, null=True, related_name="+")
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    made_by = models.CharField(max_length=80)
    opened = models.JSONField()  # the positions as they stood
    steps = models.JSONField(default=list)  # at, step, detail
    proof = models.JSONField(null=True)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope_kind", "scope_key"], condition=models.Q(state="running"), name="liquidation_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.scope_kind} {self.scope_key}: {self.state}"


class Tripwire(models.Model):
    """How a trigger of automatic halts is set, where it isn't as the house has it (`risk.domain.tripwires.DEFAULTS`)."""

    kind = models.CharField(max_length=16, unique=True, choices=list(tripwires.KINDS.items()))
    threshold = ExactField()
    window = ExactField(default=0)  # seconds
    mode = models.CharField(max_length=12, choices=Halt.Mode.choices)
    enabled = models.BooleanField(default=True)
    history = HistoricalRecords()

    class Meta:
        constraints = bounded("tripwire", not_negative=("threshold", "window"))

    def __str__(self) -> str:
        return self.kind


class Trip(models.Model):
    """A trigger that was crossed, from when until when; a halt was engaged at its beginning."""

    kind = models.CharField(max_length=16)
    scope_kind = models.CharField(max_length=12)
    scope_key = models.CharField(max_length=64, blank=True)
    detail = models.CharField(max_length=200)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "scope_kind", "scope_key"], condition=models.Q(ended_at=None), name="trip_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.scope_kind} {self.scope_key}"


class RestrictedInstrument(models.Model):
    """An instrument that nobody may trade from a time until another, or that is only watched: its orders are marked."""

    instrument = models.ForeignKey(Instrument, models.PROTECT)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)
    watched = models.BooleanField(default=False, db_default=False)
    reason = models.CharField(max_length=200)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return f"{self.instrument_id} since {self.since}"


class Mandate(models.Model):
    """What a firm, account, user or strategy may trade: only these asset classes, currencies, countries or symbols.

    Of several all must allow an order; without any, everything may be traded.
    """

    class Scope(models.TextChoices):
        FIRM = "firm"
        ACCOUNT = "account"
        USER = "user"
        STRATEGY = "strategy"

    class Dimension(models.TextChoices):
        ASSET_CLASS = "asset_class"
        CURRENCY = "currency"
        COUNTRY = "country"
        SECTOR = "sector"
        SYMBOL = "symbol"

    scope_kind = models.CharField(max_length=12, choices=Scope.choices)
    scope_key = models.CharField(max_length=64, blank=True)  # empty for the firm
    dimension = models.CharField(max_length=12, choices=Dimension.choices)
    allowed = models.TextField(
        validators=[RegexValidator(r"^[^,\s][^,]*(,[^,\s][^,]*)*$", "Values with commas between them.")]
    )
    reason = models.CharField(max_length=200)
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope_kind", "scope_key", "dimension"], name="mandate_unique"),
            models.CheckConstraint(
                condition=models.Q(scope_kind="firm", scope_key="")
                | (~models.Q(scope_kind="firm") & ~models.Q(scope_key="")),
                name="mandate_names_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope_kind} {self.scope_key}: {self.dimension} {self.allowed}"


class AccountRules(models.Model):
    """By which rules an account trades from a UTC day on; without any, the house's. See `risk.domain.rules`.

    A row is never changed: what holds is the newest one that was approved and whose day has come.
    """

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        ACTIVE = "active"
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="rules", db_index=False)
    since = models.DateField()
    margin = models.CharField(max_length=8, choices=[(m, m) for m in rules.MARGINS], default=rules.HOUSE)
    borrowing = models.BooleanField(default=False)  # of a cash account
    haircuts = models.JSONField(default=dict)  # fractions of the market value by asset class
    settled_only = models.BooleanField(default=False)
    locates = models.BooleanField(default=False)
    day_trading = models.BooleanField(default=False)
    migrated_on = models.DateField(null=True)  # when its broker put intraday margin in place of the pattern rule
    self_trade = models.CharField(
        max_length=13, blank=True, choices=[(m, m) for m in rules.SELF_TRADE_MODES], default=""
    )
    reason = models.CharField(max_length=200)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PROPOSED)
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField()
    history = HistoricalRecords()

    class Meta:
        verbose_name_plural = "account rules"
        constraints = [
            models.CheckConstraint(condition=models.Q(margin__in=rules.MARGINS), name="account_rules_margin_known"),
            models.CheckConstraint(
                condition=models.Q(self_trade__in=["", *rules.SELF_TRADE_MODES]), name="account_rules_self_trade_known"
            ),
            models.CheckConstraint(
                condition=models.Q(borrowing=False) | models.Q(margin=rules.CASH),
                name="account_rules_borrowing_of_cash",
            ),
            models.CheckConstraint(
                condition=models.Q(status="active", approver__isnull=False) | ~models.Q(status="active"),
                name="account_rules_approved_by_someone",
            ),
        ]
        indexes = [
            models.Index(
                fields=["account", "-since", "-id"], condition=models.Q(status="active"), name="account_rules_in_force"
            )
        ]

    def __str__(self) -> str:
        return f"{self.margin} of {self.account_id} since {self.since}"


class Locate(models.Model):
    """Units of an instrument that somebody found to lend an account for short sales of one UTC day."""

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    quantity = ExactField()
    day = models.DateField()
    lender = models.CharField(max_length=80)
    reference = models.CharField(max_length=64)  # the lender's
    made_by = models.CharField(max_length=80)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["lender", "reference"], name="locate_reference_unique"),
            *bounded("locate", positive=("quantity",)),
        ]
        indexes = [models.Index(fields=["account", "day", "instrument"], name="locate_day")]

    def __str__(self) -> str:
        return f"{text(self.quantity)} of {self.instrument_id} from {self.lender}"


class ComplianceRule(models.Model):
    """A rule of a kind with its parameters, from a day until another; see `risk.domain.compliance`. Changes are new rows."""

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        ACTIVE = "active"
        RETIRED = "retired"
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True)
    code = models.CharField(max_length=40)
    kind = models.CharField(max_length=24)
    parameters = models.JSONField()
    scope_kind = models.CharField(max_length=12)  # firm, account, user, strategy
    scope_key = models.CharField(max_length=64, blank=True)
    context = models.CharField(max_length=10, choices=[(c, c) for c in compliance.CONTEXTS])
    severity = models.CharField(max_length=5, choices=[(s, s) for s in compliance.SEVERITIES])
    source = models.CharField(max_length=200)  # where it is written
    clause = models.CharField(max_length=80)
    effective_from = models.DateField()
    effective_to = models.DateField(null=True)  # the last day
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PROPOSED)
    reason = models.CharField(max_length=200)
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField()
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["code", "context"], condition=models.Q(status="active"), name="compliance_rule_active_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(effective_to=None) | models.Q(effective_to__gte=models.F("effective_from")),
                name="compliance_rule_has_days",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.code} ({self.clause})"


class ComplianceBreach(models.Model):
    """A rule that was passed: by an order, or by what an account held at the end of a day; and what came of it."""

    class Disposition(models.TextChoices):
        OPEN = "open"
        PREVENTED = "prevented"  # the order was denied
        CORRECTED = "corrected"
        ACCEPTED = "accepted"
        REPORTED = "reported"  # to a regulator

    id = models.UUIDField(primary_key=True)
    rule = models.ForeignKey(ComplianceRule, models.PROTECT, related_name="breaches", db_index=False)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False)
    order_id = models.UUIDField(null=True)
    day = models.DateField()
    figure = ExactField(null=True)
    limit = ExactField()
    disposition = models.CharField(max_length=9, choices=Disposition.choices, default=Disposition.OPEN)
    disposed_by = models.CharField(max_length=80, blank=True)
    disposed_at = models.DateTimeField(null=True)
    disposition_reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "compliance breaches"
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "account", "instrument", "day"],
                condition=models.Q(order_id=None),
                name="compliance_breach_of_day_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=models.Q(disposition__in=["open", "prevented"]) | models.Q(disposed_at__isnull=False),
                name="compliance_breach_disposed_by_someone",
            ),
            *bounded("compliance_breach", any_sign=("figure", "limit")),
        ]
        indexes = [
            models.Index(
                fields=["account", "-id"], condition=models.Q(disposition="open"), name="compliance_breach_open"
            )
        ]

    def __str__(self) -> str:
        return f"{self.rule_id} by {self.account_id} on {self.day}"


class Approval(models.Model):
    """What waits, or waited, for a second person: which object, what would be done to it, and who said what."""

    class Kind(models.TextChoices):
        LIMIT = "limit"
        ORDER = "order"
        EXECUTION = "execution"
        TRADE = "trade"
        BREAK = "break"
        RULES = "rules"
        REBALANCE = "rebalance"
        COMPLIANCE = "compliance"

    class Status(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        REFUSED = "refused"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True)
    object_kind = models.CharField(max_length=12, choices=Kind.choices)
    object_id = models.UUIDField()
    action = models.CharField(max_length=12)  # activate, release, bust, correct, book, reverse
    account = models.ForeignKey(Account, models.PROTECT, null=True, db_index=False)
    key = models.CharField(max_length=128, blank=True)  # the maker's own, where a repeat must be harmless
    content = models.JSONField()
    content_hash = models.CharField(max_length=64)  # of the content as it was shown
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.PENDING)
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decision_reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["object_id"], condition=models.Q(status="pending"), name="approval_pending_unique"
            ),
            models.UniqueConstraint(
                fields=["account", "object_kind", "key"], condition=~models.Q(key=""), name="approval_key_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(approver=None) | models.Q(maker=None) | ~models.Q(approver=models.F("maker")),
                name="approver_is_another",
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=["approved", "refused"], approver__isnull=False, decided_at__isnull=False)
                | models.Q(status__in=["pending", "expired"], approver=None),
                name="approval_decided_by_someone",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_kind} {self.object_id}"
