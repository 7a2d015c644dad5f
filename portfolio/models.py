"""What the desk owns: accounts, the double-entry ledger, lots, positions and cash."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from simple_history.models import HistoricalRecords

from brokers.models import Broker, BrokerAccount, Instrument
from oms.kernel.decimals import text
from oms.kernel.errors import Invalid, InvalidFields
from oms.runtime.fields import ExactField, bounded
from portfolio.domain.families import TYPES
from portfolio.domain.options import parse_options
from portfolio.domain.policies import COMMISSIONS, EXPENSED, METHODS
from portfolio.domain.profiles import judge_profile
from portfolio.domain.settling import OPEN, PENDING, SETTLED, STATES
from portfolio.domain.targets import parse_targets
from portfolio.domain.valuation import MID, POLICIES


class Account(models.Model):
    """A book of the desk. Its row is the first lock of everything that moves it."""

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    code = models.CharField(max_length=16, unique=True)
    name = models.CharField(max_length=80, blank=True)
    base_currency = models.CharField(max_length=12)
    lot_method = models.CharField(max_length=12, default="fifo")
    valued_at = models.CharField(max_length=8, choices=[(p, p) for p in POLICIES], default=MID, db_default=MID)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.code


class LotPolicy(models.Model):
    """By what rules an account matches its trades from a UTC day on. An account without any is plain: first in, first out,
    fees an expense. What was executed before the day keeps the rules before."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="lot_policies", db_index=False)
    since = models.DateField()
    method = models.CharField(max_length=12, choices=[(m, m) for m in METHODS])
    commissions = models.CharField(max_length=8, choices=[(c, c) for c in COMMISSIONS], default=EXPENSED)
    wash_sales = models.BooleanField(default=False)
    reason = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "lot policies"
        constraints = [
            models.UniqueConstraint(fields=["account", "since"], name="lot_policy_unique"),
            models.CheckConstraint(condition=models.Q(method__in=METHODS), name="lot_policy_method_known"),
            models.CheckConstraint(
                condition=models.Q(commissions__in=COMMISSIONS), name="lot_policy_commissions_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.method} of {self.account_id} since {self.since}"


class AccountGrant(models.Model):
    """A user may trade an account, until it expires."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="account_grants")
    account = models.ForeignKey(Account, models.CASCADE, related_name="grants")
    expires_at = models.DateTimeField(null=True, blank=True)
    history = HistoricalRecords()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "account"], name="account_grant_unique")]

    def __str__(self) -> str:
        return f"{self.user_id} on {self.account_id}"


class BrokerLink(models.Model):
    """Where an account trades: its account at a broker."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="links")
    broker_account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="links")
    broker = models.ForeignKey(Broker, models.PROTECT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "broker"], name="broker_link_unique")]

    def __str__(self) -> str:
        return f"{self.account_id} at {self.broker_id}"


class Strategy(models.Model):
    """A label that orders, positions and limits can be told apart by."""

    code = models.CharField(max_length=32, unique=True)
    active = models.BooleanField(default=True)
    history = HistoricalRecords()

    class Meta:
        verbose_name_plural = "strategies"

    def __str__(self) -> str:
        return self.code


class PostingRate(models.Model):
    """The rate from a posting's currency to its account's own as it was booked: an append-only fact. Null: none was to be had."""

    transaction = models.ForeignKey("LedgerTransaction", models.PROTECT, related_name="rates", db_index=False)
    currency = models.CharField(max_length=12)
    base_currency = models.CharField(max_length=12)
    rate = ExactField(null=True)
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["transaction", "currency"], name="posting_rate_unique"),
            *bounded("posting_rate", positive=("rate",)),
        ]

    def __str__(self) -> str:
        return f"{self.currency}/{self.base_currency}"


class Flow(models.Model):
    """Cash that came into an account or left it from outside, in its own currency, with what it was worth just before: an
    append-only fact. Null where a rate or a price was missing."""

    transaction = models.OneToOneField("LedgerTransaction", models.PROTECT, primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    at = models.DateTimeField()
    amount = ExactField(null=True)  # in above zero
    equity_before = ExactField(null=True)

    class Meta:
        constraints = bounded("flow", any_sign=("amount", "equity_before"))
        indexes = [models.Index(fields=["account", "at"], name="flow_account")]

    def __str__(self) -> str:
        return f"{self.amount} at {self.at}"


class DailyValue(models.Model):
    """What an account was worth on a UTC day, in its own currency, as it was looked at last that day."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    day = models.DateField()
    at = models.DateTimeField()
    currency = models.CharField(max_length=12)
    equity = ExactField(null=True)  # null where anything held has no price or no rate
    cash = ExactField(null=True)
    value = ExactField()  # of what has a price
    unrealized = ExactField()
    unpriced = models.IntegerField(default=0)
    stale = models.IntegerField(default=0)
    unrated = models.JSONField(default=list)  # currencies without a rate

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "day"], name="daily_value_unique"),
            models.CheckConstraint(
                condition=models.Q(equity=None) | models.Q(unpriced=0, cash__isnull=False), name="daily_value_whole"
            ),
            *bounded("daily_value", any_sign=("equity", "cash", "value", "unrealized")),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} on {self.day}"


class ModelPortfolio(models.Model):
    """Target weights under a name, in groups and with cash, as `portfolio.domain.targets` reads them."""

    code = models.CharField(max_length=32, unique=True)
    name = models.CharField(max_length=80, blank=True)
    targets = models.JSONField()
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.code

    def clean(self) -> None:
        """Refuse targets that can't be read, where a person edits them."""
        try:
            parse_targets(self.targets)
        except InvalidFields as error:
            raise ValidationError({"targets": "; ".join(f"{e.field}: {e.detail}" for e in error.errors)}) from error


class RebalanceRule(models.Model):
    """How and how often an account is brought back to its model portfolio, and whether another person must agree."""

    class Every(models.TextChoices):
        NEVER = "never"  # only when it is asked for, or a band is left
        DAY = "day"
        WEEK = "week"
        MONTH = "month"
        QUARTER = "quarter"
        YEAR = "year"

    account = models.OneToOneField(Account, models.PROTECT, primary_key=True, related_name="rebalance_rule")
    model = models.ForeignKey(ModelPortfolio, models.PROTECT, null=True, blank=True)
    options = models.JSONField(default=dict, blank=True)  # as `portfolio.domain.options` reads them
    every = models.CharField(max_length=8, choices=Every.choices, default=Every.NEVER)
    next_on = models.DateField(null=True, blank=True)
    second_person = models.BooleanField(default=False)
    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(every="never") | models.Q(next_on__isnull=False), name="rebalance_rule_has_a_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.account_id} to {self.model_id}"

    def clean(self) -> None:
        """Refuse options that can't be read, where a person edits them."""
        try:
            parse_options(self.options)
        except InvalidFields as error:
            raise ValidationError({"options": "; ".join(f"{e.field}: {e.detail}" for e in error.errors)}) from error


class Rebalance(models.Model):
    """A proposal to bring accounts to their targets, and what became of it. What was proposed is never changed."""

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        APPROVED = "approved"
        EXECUTING = "executing"
        CANCELING = "canceling"
        DONE = "done"
        INCOMPLETE = "incomplete"  # ended, with something of it not traded
        CANCELED = "canceled"
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PROPOSED)
    key = models.CharField(max_length=128, blank=True)  # the maker's own, where a repeat must be harmless
    method = models.CharField(max_length=12)
    targets = models.JSONField()
    options = models.JSONField()
    content_hash = models.CharField(max_length=64)  # of the trades as they were proposed
    approved_hash = models.CharField(max_length=64, blank=True)  # of what was agreed to
    second_person = models.BooleanField(default=False)
    due_on = models.DateField(null=True)  # the day of the calendar that it was made for
    reason = models.CharField(max_length=200, blank=True)
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    made_by = models.CharField(max_length=160)
    approver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    executor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    executed_by = models.CharField(max_length=160, blank=True)
    created_at = models.DateTimeField()
    approved_at = models.DateTimeField(null=True)
    executed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["made_by", "key"], condition=~models.Q(key=""), name="rebalance_key_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=["proposed", "canceled", "refused"])
                | models.Q(approved_hash=models.F("content_hash")),
                name="rebalance_approved_as_proposed",
            ),
            models.CheckConstraint(
                condition=models.Q(second_person=False)
                | models.Q(approver=None)
                | models.Q(maker=None)
                | ~models.Q(approver=models.F("maker")),
                name="rebalance_approver_is_another",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.status}"


class RebalancePart(models.Model):
    """What a rebalance means to one account; amounts in its base currency. Only one may trade in an account at a time."""

    rebalance = models.ForeignKey(Rebalance, models.PROTECT, related_name="parts", db_index=False)
    account = models.ForeignKey(Account, models.PROTECT)
    trading = models.BooleanField(default=False)
    equity = ExactField()
    cash_before = ExactField()
    cash_after = ExactField()
    cost = ExactField()
    tax = ExactField()
    turnover = ExactField()  # what is bought and sold, as a part of equity
    tracking_error_before = ExactField(null=True)  # a year's, as a part of equity; null without a risk model
    tracking_error_after = ExactField(null=True)
    notes = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rebalance", "account"], name="rebalance_part_unique"),
            models.UniqueConstraint(
                fields=["account"], condition=models.Q(trading=True), name="rebalance_one_at_a_time"
            ),
            *bounded("rebalance_part", any_sign=("equity", "cash_before", "cash_after", "cost", "tax", "turnover")),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} of {self.rebalance_id}"


class RebalanceLine(models.Model):
    """One instrument of one account in a rebalance: the trade proposed and how it went, or why it is left as it is."""

    id = models.UUIDField(primary_key=True)
    rebalance = models.ForeignKey(Rebalance, models.PROTECT, related_name="lines", db_index=False)
    number = models.IntegerField()
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    side = models.CharField(max_length=10, blank=True)  # empty where nothing is traded
    quantity = ExactField(default=0)
    price = ExactField(null=True)  # of the market as it was proposed
    limit_price = ExactField(null=True)
    quantity_before = ExactField()
    weight_before = ExactField()
    weight_target = ExactField()
    weight_after = ExactField()
    value = ExactField(default=0)
    cost = ExactField(default=0)
    tax = ExactField(default=0)
    sales = models.JSONField(null=True)  # the parts of lots that it closes, with gain, tax and washed loss
    skipped = models.CharField(max_length=20, blank=True)
    order_id = models.UUIDField(null=True)  # of the desk's order, whose rows lie above these
    placed_quantity = ExactField(null=True)  # less than the quantity where cash did not pay for all of it
    filled_quantity = ExactField(default=0)
    outcome = models.CharField(max_length=200, blank=True)  # the order's status, or why there is none

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rebalance", "number"], name="rebalance_line_unique"),
            models.UniqueConstraint(fields=["order_id"], name="rebalance_line_order_unique"),
            models.CheckConstraint(
                condition=models.Q(side="", quantity=0, order_id=None)
                | (~models.Q(side="") & models.Q(quantity__gt=0)),
                name="rebalance_line_trades_or_not",
            ),
            models.CheckConstraint(
                condition=models.Q(placed_quantity=None) | models.Q(placed_quantity__lte=models.F("quantity")),
                name="rebalance_line_within_proposal",
            ),
            *bounded("rebalance_line", not_negative=("quantity", "filled_quantity"), any_sign=("value", "cost", "tax")),
        ]

    def __str__(self) -> str:
        return f"{self.side} {text(self.quantity)} of {self.instrument_id}"


class RiskModel(models.Model):
    """A factor model of returns: a year's covariance of the factors. Statistics, so floats: nothing is booked by them."""

    code = models.CharField(max_length=32)
    as_of = models.DateField()
    factors = models.JSONField()  # names
    covariance = models.JSONField()  # rows of floats

    class Meta:
        constraints = [models.UniqueConstraint(fields=["code", "as_of"], name="risk_model_unique")]

    def __str__(self) -> str:
        return f"{self.code} {self.as_of}"


class RiskLoading(models.Model):
    """What an instrument's return owes to the factors of a model, and the variance that is its own."""

    model = models.ForeignKey(RiskModel, models.CASCADE, related_name="loadings", db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    loadings = models.JSONField()
    specific_variance = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "instrument"], name="risk_loading_unique"),
            models.CheckConstraint(condition=models.Q(specific_variance__gte=0), name="risk_loading_variance"),
        ]

    def __str__(self) -> str:
        return f"{self.instrument_id} in {self.model_id}"


class Trade(models.Model):
    """One booked fill, or the undoing of one: an append-only fact named by its source."""

    class Kind(models.TextChoices):
        TRADE = "trade"
        BUST = "bust"
        CORRECT = "correct"

    id = models.UUIDField(primary_key=True)
    source_kind = models.CharField(max_length=12)
    source_id = models.UUIDField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    ref = models.OneToOneField("self", models.PROTECT, null=True)  # the trade this one undoes or corrects
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    quantity = ExactField()  # signed: buys above zero
    price = ExactField()
    fees = ExactField(default=0)
    executed_at = models.DateTimeField()
    settle_date = models.DateField()
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, db_index=False)
    chosen = models.JSONField(null=True)  # ids of the lots that it closes first, where its order named any

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source_kind", "source_id"], name="trade_source_unique"),
            *bounded("trade", any_sign=("quantity", "price", "fees")),
        ]
        indexes = [
            models.Index(fields=["account", "instrument", "executed_at"], name="trade_book"),
        ]

    def __str__(self) -> str:
        return f"{text(self.quantity)} @ {text(self.price)}"


class LedgerTransaction(models.Model):
    """A balanced set of entries with one cause. Never changed; undone by another."""

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    source_kind = models.CharField(max_length=12)
    source_id = models.UUIDField()
    at = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source_kind", "source_id"], name="ledger_source_unique")]
        indexes = [models.Index(fields=["account", "id"], name="ledger_account")]

    def __str__(self) -> str:
        return f"{self.source_kind} {self.source_id}"


class LedgerEntry(models.Model):
    """One line: debit above zero, credit below. Securities are carried at cost, with their quantity beside."""

    class Code(models.TextChoices):
        CASH = "cash"
        SECURITIES = "securities"
        REALIZED = "realized_pnl"
        FEES = "fees"
        CAPITAL = "capital"
        TRANSFER = "transfer"
        DIVIDENDS = "dividends"
        ADJUSTMENT = "adjustment"  # what was posted to agree with somebody else's books

    id = models.UUIDField(primary_key=True)
    transaction = models.ForeignKey(LedgerTransaction, models.PROTECT, related_name="entries")
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    code = models.CharField(max_length=12, choices=Code.choices)
    currency = models.CharField(max_length=12)
    amount = ExactField()
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False)
    broker = models.ForeignKey(Broker, models.PROTECT, null=True, db_index=False)
    quantity = ExactField(default=0)

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = bounded("ledger_entry", any_sign=("amount", "quantity"))

    def __str__(self) -> str:
        return f"{self.code} {text(self.amount)} {self.currency}"


class CorporateAction(models.Model):
    """What an issuer announced for an instrument; who held when the ex date began takes part.

    `cash` is for one unit: a dividend, a return of capital, the price of a merger, a delisting or a right. Ratios are
    two integers, units after for units before; of a dividend, a spin-off or rights, what comes for what is held.
    """

    class State(models.TextChoices):
        ANNOUNCED = "announced"
        APPLIED = "applied"
        REVERSED = "reversed"

    id = models.UUIDField(primary_key=True)
    type = models.CharField(max_length=20, choices=[(t, t) for t in TYPES])
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    target = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False, related_name="+")  # what comes
    ratio_new = models.PositiveIntegerField(null=True)
    ratio_old = models.PositiveIntegerField(null=True)
    cash = ExactField(null=True)
    currency = models.CharField(max_length=12)
    cash_in_lieu = ExactField(null=True)  # for a whole unit of what comes
    cost_share = ExactField(null=True)  # of the cost, that goes with what comes
    price = ExactField(null=True)  # of a unit of what comes, for the gain of a merger with cash
    new_symbol = models.CharField(max_length=32, db_default="", default="")
    elections = models.JSONField(db_default={}, default=dict)  # account to units it subscribes to, where not to all
    declared_on = models.DateField(null=True)
    ex_date = models.DateField()
    record_date = models.DateField(null=True)
    pay_date = models.DateField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.ANNOUNCED)
    reason = models.CharField(max_length=150, blank=True)  # why it was reversed
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    applied_at = models.DateTimeField(null=True)
    orders_restated_at = models.DateTimeField(null=True)  # when open orders were put into the terms after it

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["instrument", "type", "ex_date"],
                condition=~models.Q(state="reversed"),
                name="corporate_action_once",
            ),
            models.CheckConstraint(
                condition=models.Q(pay_date__gte=models.F("ex_date")), name="corporate_action_paid_after_ex"
            ),
            models.CheckConstraint(condition=models.Q(type__in=TYPES), name="corporate_action_type_known"),
            models.CheckConstraint(
                condition=models.Q(ratio_new=None, ratio_old=None) | models.Q(ratio_new__gt=0, ratio_old__gt=0),
                name="corporate_action_ratio_whole",
            ),
            models.CheckConstraint(
                condition=models.Q(cost_share=None) | models.Q(cost_share__gte=0, cost_share__lte=1),
                name="corporate_action_share_of_one",
            ),
            *bounded("corporate_action", positive=("price",), not_negative=("cash", "cash_in_lieu")),
        ]
        indexes = [
            models.Index(fields=["instrument"], condition=models.Q(state="applied"), name="corporate_action_applied"),
            models.Index(fields=["target"], condition=models.Q(state="applied"), name="corporate_action_target"),
        ]

    def __str__(self) -> str:
        return f"{self.type} of {self.instrument_id}, ex {self.ex_date}"


class Entitlement(models.Model):
    """What an account got of a corporate action, or gave back: an append-only fact with its ledger transaction."""

    id = models.UUIDField(primary_key=True)
    action = models.ForeignKey(CorporateAction, models.PROTECT, related_name="entitlements")
    account = models.ForeignKey(Account, models.PROTECT)
    quantity = ExactField()  # held when the ex date began, as known then
    amount = ExactField()
    currency = models.CharField(max_length=12)
    transaction = models.OneToOneField(LedgerTransaction, models.PROTECT)
    at = models.DateTimeField()

    class Meta:
        constraints = bounded("entitlement", any_sign=("quantity", "amount"))

    def __str__(self) -> str:
        return f"{text(self.amount)} {self.currency}"


class Settlement(models.Model):
    """The delivery of one trade in force, of its securities against its cash; bears the trade's id.

    A trade that is undone has its settlement `canceled`, whatever had moved; a correction has one of its own.
    """

    trade = models.OneToOneField(Trade, models.PROTECT, primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    currency = models.CharField(max_length=12)
    quantity = ExactField()  # signed like the trade
    amount = ExactField()  # cash, in above zero, with the fees of its currency
    due_on = models.DateField()
    state = models.CharField(max_length=8, choices=[(s, s) for s in STATES])
    settled_quantity = ExactField()
    settled_amount = ExactField()
    settled_on = models.DateField(null=True)
    failed_at = models.DateTimeField(null=True)  # when it was first told to have failed
    reason = models.CharField(max_length=150, db_default="", default="")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=STATES), name="settlement_state_known"),
            models.CheckConstraint(
                condition=~models.Q(state=SETTLED)
                | models.Q(
                    settled_quantity=models.F("quantity"), settled_amount=models.F("amount"), settled_on__isnull=False
                ),
                name="settlement_settled_in_full",
            ),
            models.CheckConstraint(
                condition=~models.Q(state=PENDING) | models.Q(settled_quantity=0, settled_amount=0),
                name="settlement_pending_untouched",
            ),
            *bounded("settlement", any_sign=("quantity", "amount", "settled_quantity", "settled_amount")),
        ]
        indexes = [
            models.Index(
                fields=["account", "due_on"], condition=models.Q(state__in=OPEN), name="settlement_open",
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{text(self.quantity)} {self.state}, due {self.due_on}"


class Lot(models.Model):
    """What is left of one opening trade: long above zero, short below. Bears its trade's id; rebuildable from the trades."""

    id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    trade = models.ForeignKey(Trade, models.PROTECT, db_index=False)
    opened_at = models.DateTimeField()
    price = ExactField()
    quantity = ExactField()  # what the trade opened
    remaining = ExactField()
    closed_at = models.DateTimeField(null=True)  # when the trade that consumed the rest was executed
    basis = ExactField(null=True)  # cost of what is left, where that is not the remaining quantity at the price
    held_since = models.DateTimeField(null=True)  # where a wash sale lengthened the holding period

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(remaining=0, closed_at__isnull=False)
                | (~models.Q(remaining=0) & models.Q(closed_at=None)),
                name="lot_closed_when_empty",
            ),
            *bounded("lot", any_sign=("quantity", "remaining", "price", "basis")),
        ]
        indexes = [models.Index(fields=["account", "instrument", "closed_at", "opened_at"], name="lot_queue")]

    def __str__(self) -> str:
        return f"{text(self.remaining)} @ {text(self.price)}"


class Position(models.Model):
    """Cache of the ledger: what an account holds of an instrument over all brokers."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT)
    quantity = ExactField(default=0)
    cost = ExactField(default=0)  # of what is open, signed like the quantity
    realized = ExactField(default=0)
    fees = ExactField(default=0)
    day = models.DateField(null=True)  # the UTC day that the next two belong to
    day_quantity = ExactField(default=0)  # signed quantity traded that day
    day_amount = ExactField(default=0)  # signed quantity times price of it
    lots_chosen = models.BooleanField(default=False, db_default=False)  # an order has named the lots that it closes
    adjusted = models.BooleanField(default=False, db_default=False)  # a corporate action has changed its lots

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "instrument"], name="position_unique"),
            *bounded("position", any_sign=("quantity", "cost", "realized", "fees", "day_quantity", "day_amount")),
        ]

    def __str__(self) -> str:
        return f"{text(self.quantity)} of {self.instrument_id}"


class BrokerPosition(models.Model):
    """Cache of the ledger: the part of a position that one broker holds."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    quantity = ExactField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "instrument", "broker"], name="broker_position_unique"),
            *bounded("broker_position", any_sign=("quantity",)),
        ]

    def __str__(self) -> str:
        return f"{text(self.quantity)} of {self.instrument_id} at {self.broker_id}"


class CashBalance(models.Model):
    """Cache of the ledger's cash entries."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    currency = models.CharField(max_length=12)
    balance = ExactField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "currency"], name="cash_unique"),
            *bounded("cash", any_sign=("balance",)),
        ]

    def __str__(self) -> str:
        return f"{self.balance} {self.currency}"


class BrokerCash(models.Model):
    """Cache of the ledger's cash entries that name a broker: what an account should own there, whatever came from elsewhere."""

    account = models.ForeignKey(Account, models.PROTECT, db_index=False)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    currency = models.CharField(max_length=12)
    balance = ExactField(default=0)

    class Meta:
        verbose_name_plural = "broker cash"
        constraints = [
            models.UniqueConstraint(fields=["account", "currency", "broker"], name="broker_cash_unique"),
            *bounded("broker_cash", any_sign=("balance",)),
        ]

    def __str__(self) -> str:
        return f"{text(self.balance)} {self.currency} at {self.broker_id}"


class StatementProfile(models.Model):
    """How to read a broker's files: which of its columns are what, and how it writes numbers and times.

    See `portfolio.domain.profiles` for what the settings may hold, and for the templates that need no row here.
    """

    code = models.CharField(max_length=32, unique=True)
    broker = models.ForeignKey(Broker, models.PROTECT, null=True, blank=True)  # whose files alone it may read
    settings = models.JSONField(default=dict)
    history = HistoricalRecords()

    def __str__(self) -> str:
        return self.code

    def clean(self) -> None:
        """Refuse settings that no file can be read by, where a person edits them."""
        try:
            judge_profile(self.settings)
        except Invalid as error:
            raise ValidationError({"settings": error.detail}) from error


class Statement(models.Model):
    """What a broker says we hold, own, did and have working there: a file of it, or its answers to our questions."""

    class Source(models.TextChoices):
        FILE = "file"
        ADAPTER = "adapter"

    class State(models.TextChoices):
        STAGED = "staged"
        REVERSED = "reversed"  # withdrawn: no reconciliation reads it any more

    id = models.UUIDField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    source = models.CharField(max_length=8, choices=Source.choices)
    name = models.CharField(max_length=200)
    profile = models.CharField(max_length=32, blank=True)
    digest = models.BinaryField(max_length=32)  # of the file's bytes: the same file is taken once
    since = models.DateTimeField()  # fills between these two times are all told
    as_of = models.DateTimeField()
    lines = models.JSONField(default=dict)  # staged, by section
    rejected = models.PositiveIntegerField(default=0)  # bad lines left out
    faults = models.JSONField(default=list)  # the first of them: line, code, detail
    state = models.CharField(max_length=8, choices=State.choices, default=State.STAGED)
    reason = models.CharField(max_length=150, blank=True)  # why it was reversed
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["broker", "digest"],
                condition=models.Q(source="file", state="staged"),
                name="statement_file_once",
            ),
            models.CheckConstraint(condition=models.Q(since__lte=models.F("as_of")), name="statement_has_a_time"),
        ]
        indexes = [models.Index(fields=["broker", "as_of"], name="statement_broker")]

    def __str__(self) -> str:
        return f"{self.name} of {self.broker_id} as of {self.as_of:%Y-%m-%d %H:%M}"


class StatementLine(models.Model):
    """One line of a statement, read: quantities signed for positions, unsigned with a side for fills and orders.

    What it names was looked up when it was read, and is never deleted; no constraint looks it up again a million times.
    """

    class Section(models.TextChoices):
        POSITION = "position"
        CASH = "cash"
        FILL = "fill"
        ORDER = "order"

    statement = models.ForeignKey(Statement, models.CASCADE, related_name="staged", db_index=False, db_constraint=False)
    line = models.IntegerField()  # in the file, counted from one
    section = models.CharField(max_length=8, choices=Section.choices)
    account = models.ForeignKey(Account, models.PROTECT, db_index=False, db_constraint=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False, db_constraint=False)
    name = models.CharField(max_length=64)  # as the broker has it: symbol or currency
    reference = models.CharField(max_length=64, blank=True)  # the broker's id of the fill, or of the order
    order_reference = models.CharField(max_length=64, blank=True)  # our id of the order
    action = models.CharField(max_length=16, blank=True)  # of a fill: trade, bust, correct; of an order: its status
    undoes = models.CharField(max_length=64, blank=True)  # the fill that a bust or a correction is about
    side = models.CharField(max_length=10, blank=True)
    quantity = ExactField(null=True)  # of an order: what is left to fill
    price = ExactField(null=True)
    amount = ExactField(null=True)  # of cash
    fees = ExactField(null=True)
    currency = models.CharField(max_length=12, blank=True)
    at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["statement", "section"], name="statement_line_section")]
        constraints = bounded("statement_line", any_sign=("quantity", "price", "amount", "fees"))

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


class Reconciliation(models.Model):
    """One comparison of our books with what a broker says. A failed one has changed nothing: silence is no fact."""

    class State(models.TextChoices):
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    source = models.CharField(max_length=8, choices=Statement.Source.choices)
    as_of = models.DateTimeField()
    state = models.CharField(max_length=8, choices=State.choices)
    failure = models.CharField(max_length=32, blank=True)  # code; why nothing of it was believed
    detail = models.CharField(max_length=300, blank=True)
    sections = models.JSONField(default=dict)  # by section: the statement, how many lines on each side, how many agree
    opened = models.IntegerField(default=0)  # breaks that this run saw first
    standing = models.IntegerField(default=0)  # breaks seen before that it saw again
    closed = models.IntegerField(default=0)  # breaks that were gone
    adopted = models.IntegerField(default=0)  # fills that we had missed, booked by this run
    in_flight = models.IntegerField(default=0)  # differences too young to be breaks
    overridden_by = models.CharField(max_length=160, blank=True)  # who had a shrunken answer believed
    override_reason = models.CharField(max_length=150, blank=True)
    created_by = models.CharField(max_length=160)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["broker", "-id"], name="reconciliation_newest")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state="failed") | models.Q(failure=""), name="reconciliation_failed_for_a_reason"
            )
        ]

    def __str__(self) -> str:
        return f"{self.broker_id} as of {self.as_of:%Y-%m-%d %H:%M}: {self.state}"


class Break(models.Model):
    """A difference between our books and what somebody else says. It keeps its id from run to run until it is gone.

    `ours` and `theirs` are what each side has of the one number that differs most tellingly: the quantity, the amount of
    cash, the leaves of an order; null where a side knows nothing of it. `detail` holds the rest of both.
    """

    class Kind(models.TextChoices):
        POSITION = "position"
        CASH = "cash"
        MISSING_FILL = "missing_fill"  # the broker has it, we don't
        UNKNOWN_FILL = "unknown_fill"  # we have it, the broker doesn't
        FILL = "fill"  # both have it, with other terms
        MISSING_ORDER = "missing_order"  # works there, and we know nothing of it
        UNKNOWN_ORDER = "unknown_order"  # works here, and the broker knows nothing of it
        ORDER = "order"
        CONFIRMATION = "confirmation"  # a trade confirmation says otherwise than the execution

    class State(models.TextChoices):
        OPEN = "open"
        PROPOSED = "proposed"  # a correction waits for a second person
        RESOLVED = "resolved"  # corrected or accepted; the next run must agree
        CLOSED = "closed"

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    broker = models.ForeignKey(Broker, models.PROTECT, db_index=False)
    account = models.ForeignKey(Account, models.PROTECT, null=True, db_index=False)
    instrument = models.ForeignKey(Instrument, models.PROTECT, null=True, db_index=False)
    currency = models.CharField(max_length=12, blank=True)
    subject = models.CharField(
        max_length=80
    )  # what it is about: a symbol, a currency, the broker's id of a fill or an order
    ours = ExactField(null=True)
    theirs = ExactField(null=True)
    detail = models.JSONField(default=dict)
    cause = models.CharField(max_length=24, blank=True)  # likely one, see `portfolio.domain.breaks`
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, db_index=False, related_name="+")
    proposal = models.JSONField(null=True)  # the correcting entry: action and what it would book
    resolution = models.JSONField(null=True)  # the one carried out, with what it booked
    runs = models.PositiveIntegerField(default=1)  # in a row that saw it
    opened_at = models.DateTimeField()
    opened_by = models.ForeignKey(Reconciliation, models.PROTECT, null=True, db_index=False, related_name="+")
    seen_at = models.DateTimeField()
    seen_by = models.ForeignKey(Reconciliation, models.PROTECT, null=True, db_index=False, related_name="+")
    closed_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(Reconciliation, models.PROTECT, null=True, db_index=False, related_name="+")
    closed_as = models.CharField(max_length=16, blank=True)  # gone, adopted, adjusted, accepted
    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["broker", "kind", "account", "subject"],
                condition=~models.Q(state="closed"),
                nulls_distinct=False,
                name="break_once",
            ),
            models.CheckConstraint(
                condition=models.Q(state="closed", closed_at__isnull=False)
                | (~models.Q(state="closed") & models.Q(closed_at=None)),
                name="break_closed_at_a_time",
            ),
            *bounded("break", any_sign=("ours", "theirs")),
        ]
        indexes = [
            models.Index(fields=["broker", "kind"], condition=~models.Q(state="closed"), name="break_open"),
            models.Index(fields=["opened_at"], name="break_opened"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} at {self.broker_id}"


class DayEndStep(models.Model):
    """One step of the end of a day: done once, or failed until it is tried again."""

    class State(models.TextChoices):
        DONE = "done"
        FAILED = "failed"

    day = models.DateField()
    step = models.CharField(max_length=20)
    state = models.CharField(max_length=8, choices=State.choices)
    detail = models.JSONField(default=dict)
    tries = models.PositiveIntegerField(default=1)
    done_by = models.CharField(max_length=160)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "step"], name="day_end_step_once")]

    def __str__(self) -> str:
        return f"{self.day} {self.step}: {self.state}"
