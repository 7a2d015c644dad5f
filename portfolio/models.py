"""What the desk owns: accounts, the double-entry ledger, lots, positions and cash."""

from django.conf import settings
from django.db import models
from simple_history.models import HistoricalRecords

from brokers.models import Broker, BrokerAccount, Instrument
from oms.kernel.decimals import text
from oms.runtime.fields import ExactField, bounded
from portfolio.domain.policies import COMMISSIONS, EXPENSED, METHODS
from portfolio.domain.settling import OPEN, PENDING, SETTLED, STATES


class Account(models.Model):
    """A book of the desk. Its row is the first lock of everything that moves it."""

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    code = models.CharField(max_length=16, unique=True)
    name = models.CharField(max_length=80, blank=True)
    base_currency = models.CharField(max_length=12)
    lot_method = models.CharField(max_length=12, default="fifo")
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
    """What an issuer announced for an instrument: per unit held when the ex date began."""

    class Type(models.TextChoices):
        CASH_DIVIDEND = "cash_dividend"

    class State(models.TextChoices):
        ANNOUNCED = "announced"
        APPLIED = "applied"
        REVERSED = "reversed"

    id = models.UUIDField(primary_key=True)
    type = models.CharField(max_length=20, choices=Type.choices)
    instrument = models.ForeignKey(Instrument, models.PROTECT, db_index=False)
    cash = ExactField()  # per unit
    currency = models.CharField(max_length=12)
    ex_date = models.DateField()
    record_date = models.DateField(null=True)
    pay_date = models.DateField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.ANNOUNCED)
    reason = models.CharField(max_length=150, blank=True)  # why it was reversed
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    applied_at = models.DateTimeField(null=True)

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
            *bounded("corporate_action", positive=("cash",)),
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
