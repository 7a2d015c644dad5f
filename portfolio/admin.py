"""The books in the admin: accounts, grants and strategies to edit with their history kept, all that is booked to read.

Accounts are opened, and cash is moved, by operations alone (the API): they tell the audit trail.
"""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from oms.journal.edited import Edited
from oms.runtime.facts import Facts, Part
from portfolio.models import (
    Account,
    AccountGrant,
    Break,
    BrokerCash,
    BrokerLink,
    BrokerPosition,
    CashBalance,
    CorporateAction,
    DailyValue,
    DayEndStep,
    Entitlement,
    Flow,
    LedgerEntry,
    LedgerTransaction,
    Lot,
    LotPolicy,
    ModelPortfolio,
    Position,
    PostingRate,
    Rebalance,
    RebalanceLine,
    RebalancePart,
    RebalanceRule,
    Reconciliation,
    RiskLoading,
    RiskModel,
    Settlement,
    Statement,
    StatementLine,
    StatementProfile,
    Strategy,
    Trade,
)


@admin.register(Account)
class AccountAdmin(Edited):
    """Accounts: the name, and whether one is open."""

    list_display = ["code", "name", "base_currency", "lot_method", "status", "created_at"]
    list_filter = ["status", "base_currency"]
    search_fields = ["code", "name"]
    readonly_fields = ["code", "base_currency", "lot_method", "created_at"]
    editors = frozenset({"admin", "ops"})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Accounts are opened by the operation, which links them to brokers."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """An account is closed, never deleted."""
        return False


@admin.register(LotPolicy)
class LotPolicyAdmin(Facts):
    """By what rules accounts match their trades, and since when; set by the operation, which guards what is booked."""

    list_display = ["account", "since", "method", "commissions", "wash_sales", "reason"]
    list_filter = ["account", "method"]
    list_select_related = ["account"]
    ordering = ["account", "-since"]


@admin.register(AccountGrant)
class AccountGrantAdmin(Edited):
    """Who may trade which account, and until when."""

    list_display = ["user", "account", "expires_at"]
    list_filter = ["account"]
    list_select_related = ["user", "account"]
    search_fields = ["user__username", "account__code"]


@admin.register(Strategy)
class StrategyAdmin(Edited):
    """Labels of orders."""

    editors = frozenset({"admin", "ops"})

    list_display = ["code", "active"]
    search_fields = ["code"]


@admin.register(BrokerLink)
class BrokerLinkAdmin(Facts):
    """Where accounts trade."""

    list_display = ["account", "broker", "broker_account"]
    list_filter = ["account", "broker"]
    list_select_related = ["account", "broker", "broker_account"]


@admin.register(Trade)
class TradeAdmin(Facts):
    """Booked fills, their busts and corrections."""

    list_display = [
        "executed_at",
        "account",
        "instrument",
        "broker",
        "kind",
        "quantity",
        "price",
        "fees",
        "settle_date",
    ]
    list_filter = ["account", "kind", "broker"]
    list_select_related = ["account", "instrument", "broker"]
    search_fields = ["instrument__symbol"]
    ordering = ["-id"]


class EntryInline(Part):
    """The lines of a transaction."""

    model = LedgerEntry
    fields = ["code", "currency", "amount", "instrument", "broker", "quantity"]


@admin.register(LedgerTransaction)
class LedgerTransactionAdmin(Facts):
    """Balanced sets of entries with one cause each."""

    list_display = ["at", "account", "source_kind", "source_id", "note"]
    list_filter = ["account", "source_kind"]
    list_select_related = ["account"]
    search_fields = ["note"]
    inlines = [EntryInline]
    ordering = ["-id"]


@admin.register(LedgerEntry)
class LedgerEntryAdmin(Facts):
    """Ledger lines, debits above zero."""

    list_display = ["transaction", "account", "code", "currency", "amount", "instrument", "broker", "quantity"]
    list_filter = ["account", "code", "currency"]
    list_select_related = ["transaction", "account", "instrument", "broker"]
    ordering = ["-id"]


class EntitlementInline(Part):
    """What accounts got of it."""

    model = Entitlement
    fields = ["account", "quantity", "amount", "currency", "at"]


@admin.register(CorporateAction)
class CorporateActionAdmin(Facts):
    """What issuers announced; applied and reversed by operations."""

    list_display = ["instrument", "type", "cash", "currency", "ex_date", "pay_date", "state"]
    list_filter = ["type", "state"]
    list_select_related = ["instrument"]
    inlines = [EntitlementInline]
    ordering = ["-id"]


@admin.register(Entitlement)
class EntitlementAdmin(Facts):
    """What accounts got of corporate actions, or gave back."""

    list_display = ["action", "account", "quantity", "amount", "currency", "at"]
    list_filter = ["account"]
    list_select_related = ["action", "account"]
    ordering = ["-id"]


@admin.register(Settlement)
class SettlementAdmin(Facts):
    """Deliveries of trades; told to have failed or to be done by the operation."""

    list_display = ["trade", "account", "instrument", "quantity", "amount", "currency", "due_on", "state", "reason"]
    list_filter = ["account", "state"]
    list_select_related = ["trade", "account", "instrument"]
    ordering = ["-trade_id"]


@admin.register(Lot)
class LotAdmin(Facts):
    """What is left of opening trades."""

    list_display = ["account", "instrument", "opened_at", "price", "quantity", "remaining", "closed_at"]
    list_filter = ["account", ("closed_at", admin.EmptyFieldListFilter)]
    list_select_related = ["account", "instrument"]
    ordering = ["-id"]


@admin.register(Position)
class PositionAdmin(Facts):
    """Positions, at cost."""

    list_display = ["account", "instrument", "quantity", "cost", "realized", "fees"]
    list_filter = ["account"]
    list_select_related = ["account", "instrument"]
    search_fields = ["instrument__symbol"]


@admin.register(BrokerPosition)
class BrokerPositionAdmin(Facts):
    """Positions by broker."""

    list_display = ["account", "broker", "instrument", "quantity"]
    list_filter = ["account", "broker"]
    list_select_related = ["account", "broker", "instrument"]
    search_fields = ["instrument__symbol"]


@admin.register(CashBalance)
class CashBalanceAdmin(Facts):
    """Cash by currency."""

    list_display = ["account", "currency", "balance"]
    list_filter = ["account", "currency"]
    list_select_related = ["account"]


@admin.register(BrokerCash)
class BrokerCashAdmin(Facts):
    """Cash by broker."""

    list_display = ["account", "broker", "currency", "balance"]
    list_filter = ["account", "broker", "currency"]
    list_select_related = ["account", "broker"]


@admin.register(StatementProfile)
class StatementProfileAdmin(Edited):
    """How to read the files of brokers."""

    editors = frozenset({"admin", "ops"})

    list_display = ["code", "broker"]
    list_select_related = ["broker"]
    search_fields = ["code"]


@admin.register(Statement)
class StatementAdmin(Facts):
    """What brokers say; taken in and withdrawn by operations."""

    list_display = ["created_at", "broker", "source", "name", "as_of", "lines", "rejected", "state"]
    list_filter = ["broker", "source", "state"]
    list_select_related = ["broker"]
    exclude = ["digest"]
    ordering = ["-id"]


@admin.register(StatementLine)
class StatementLineAdmin(Facts):
    """Lines of statements, as read."""

    list_display = ["statement", "line", "section", "account", "name", "side", "quantity", "price", "amount", "at"]
    list_filter = ["section", "account"]
    list_select_related = ["statement", "account"]
    search_fields = ["reference", "order_reference"]
    ordering = ["-id"]


@admin.register(Reconciliation)
class ReconciliationAdmin(Facts):
    """Comparisons of our books with what brokers say."""

    list_display = ["began_at", "broker", "source", "state", "failure", "opened", "standing", "closed", "adopted"]
    list_filter = ["broker", "state"]
    list_select_related = ["broker"]
    ordering = ["-id"]


@admin.register(Break)
class BreakAdmin(Facts):
    """Differences from what brokers say, and what became of them."""

    list_display = [
        "opened_at", "broker", "kind", "account", "subject", "ours", "theirs", "cause", "runs", "owner", "state",
    ]  # fmt: skip
    list_filter = ["state", "kind", "broker", "account"]
    list_select_related = ["broker", "account", "owner"]
    search_fields = ["subject"]
    ordering = ["-id"]


@admin.register(ModelPortfolio)
class ModelPortfolioAdmin(Edited):
    """Target weights under a name."""

    list_display = ["code", "name"]
    search_fields = ["code", "name"]
    editors = frozenset({"admin", "ops", "risk"})


@admin.register(RebalanceRule)
class RebalanceRuleAdmin(Edited):
    """How accounts are kept at their model portfolios, and whether another person must agree."""

    list_display = ["account", "model", "every", "next_on", "second_person"]
    list_filter = ["every", "second_person"]
    list_select_related = ["account", "model"]
    editors = frozenset({"admin", "ops", "risk"})


@admin.register(RebalancePart)
class RebalancePartAdmin(Facts):
    """What rebalances mean to accounts."""

    list_display = ["rebalance", "account", "equity", "cost", "tax", "turnover", "trading"]
    list_filter = ["trading", "account"]
    list_select_related = ["rebalance", "account"]
    ordering = ["-id"]


@admin.register(RebalanceLine)
class RebalanceLineAdmin(Facts):
    """What rebalances trade, and how far that is."""

    list_display = ["rebalance", "number", "account", "instrument", "side", "quantity", "filled_quantity", "outcome"]
    list_filter = ["account", "side"]
    list_select_related = ["rebalance", "account", "instrument"]
    search_fields = ["instrument__symbol"]
    ordering = ["-id"]


@admin.register(RiskLoading)
class RiskLoadingAdmin(Facts):
    """What instruments owe to the factors of a risk model."""

    list_display = ["model", "instrument", "specific_variance"]
    list_filter = ["model"]
    list_select_related = ["model", "instrument"]
    search_fields = ["instrument__symbol"]


class RebalancePartInline(Part):
    """What it means to each account."""

    model = RebalancePart
    fields = ["account", "equity", "cash_before", "cash_after", "cost", "tax", "turnover", "tracking_error_after"]


class RebalanceLineInline(Part):
    """What it trades, and how far that is."""

    model = RebalanceLine
    fields = [
        "account", "instrument", "side", "quantity", "limit_price", "weight_before", "weight_target", "weight_after",
        "skipped", "filled_quantity", "outcome",
    ]  # fmt: skip


@admin.register(Rebalance)
class RebalanceAdmin(Facts):
    """Proposals to bring accounts to their targets, and what became of them."""

    list_display = ["created_at", "method", "status", "made_by", "approver", "executed_by", "ended_at"]
    list_filter = ["status", "method"]
    list_select_related = ["approver"]
    inlines = [RebalancePartInline, RebalanceLineInline]
    ordering = ["-id"]


@admin.register(RiskModel)
class RiskModelAdmin(Facts):
    """Factor models of returns."""

    list_display = ["code", "as_of"]
    ordering = ["-as_of"]


@admin.register(DayEndStep)
class DayEndStepAdmin(Facts):
    """Steps of the ends of days."""

    list_display = ["day", "step", "state", "tries", "done_by", "ended_at"]
    list_filter = ["state", "step"]
    ordering = ["-day", "id"]


@admin.register(DailyValue)
class DailyValueAdmin(Facts):
    """What accounts were worth on days."""

    list_display = ["account", "day", "currency", "equity", "cash", "value", "unrealized", "unpriced", "stale", "at"]
    list_filter = ["account"]
    list_select_related = ["account"]
    ordering = ["-day", "account"]


@admin.register(Flow)
class FlowAdmin(Facts):
    """Cash from outside, or to it, with what accounts were worth before."""

    list_display = ["at", "account", "amount", "equity_before"]
    list_filter = ["account"]
    list_select_related = ["account"]
    ordering = ["-at"]


@admin.register(PostingRate)
class PostingRateAdmin(Facts):
    """Rates that postings were worth as they were booked."""

    list_display = ["at", "currency", "base_currency", "rate"]
    list_filter = ["currency"]
    ordering = ["-id"]
