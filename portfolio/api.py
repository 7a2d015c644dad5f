"""REST of the books: accounts, positions, lots, ledger, P&L, transfers, grants."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from brokers import api as reference
from brokers import queries as market
from brokers.adapters import ADAPTERS
from oms.kernel.decimals import text
from oms.kernel.errors import Invalid, NotFound
from oms.runtime.rest import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    Api,
    DecimalText,
    Strict,
    body_of,
    date_parameter,
    listed,
    page_of,
    page_out,
    parse_id,
    problems,
    refuse_unknown_parameters,
    text_parameter,
    time_parameter,
    whole,
)
from oms.runtime.roles import SignedIn, acting, actor_of
from portfolio import corporate, ladder, operations, queries, settlement
from portfolio.domain.cash_rules import MEANING
from portfolio.domain.entitlement import DUE_BILL, RETURN_CLAIM
from portfolio.domain.matching import POOL, SAME_DAY, THIRTY_DAYS
from portfolio.domain.policies import COMMISSIONS, EXPENSED, FIFO, METHODS
from portfolio.domain.settling import MARKS, STATES
from portfolio.domain.valuation import BROKER, MID, POLICIES, STRATEGY, SYMBOL
from portfolio.models import Account
from portfolio.valuing import performance_out, valuation_out


class AccountIn(Strict):
    """An account to be opened."""

    code = serializers.RegexField(r"^[A-Z0-9_-]{1,16}$")
    name = serializers.CharField(max_length=80, required=False, default="")
    base_currency = serializers.RegexField(r"^[A-Z]{3,12}$")
    lot_method = serializers.ChoiceField(choices=METHODS, required=False, default=FIFO)
    commissions = serializers.ChoiceField(choices=COMMISSIONS, required=False, default=EXPENSED)
    wash_sales = serializers.BooleanField(required=False, default=False)
    valued_at = serializers.ChoiceField(
        choices=POLICIES, required=False, default=MID, help_text="The middle of the market, or what closing brings."
    )


class LotPolicyIn(Strict):
    """Rules of lots from a UTC day on, tomorrow or later. `commissions`: an expense, or part of what lots cost."""

    since = serializers.DateField()
    method = serializers.ChoiceField(choices=METHODS)
    commissions = serializers.ChoiceField(choices=COMMISSIONS, required=False, default=EXPENSED)
    wash_sales = serializers.BooleanField(required=False, default=False)
    reason = serializers.CharField(max_length=150)


class LotPolicyOut(serializers.Serializer):
    """Rules of lots; `since` is null where the account was opened with them."""

    since = serializers.DateField(allow_null=True)
    method = serializers.ChoiceField(choices=METHODS)
    commissions = serializers.ChoiceField(choices=COMMISSIONS)
    wash_sales = serializers.BooleanField()
    reason = serializers.CharField(allow_blank=True)


class AccountOut(serializers.Serializer):
    """An account."""

    code = serializers.CharField()
    name = serializers.CharField()
    base_currency = serializers.CharField()
    lot_method = serializers.ChoiceField(choices=METHODS, help_text="In force now.")
    commissions = serializers.ChoiceField(choices=COMMISSIONS)
    wash_sales = serializers.BooleanField()
    status = serializers.ChoiceField(choices=["open", "closed"])
    valued_at = serializers.ChoiceField(choices=POLICIES)
    created_at = serializers.DateTimeField()


class PositionOut(serializers.Serializer):
    """A position valued as its account is; what hangs on a missing price is null. By broker, gain and fees are null: they are
    the account's own."""

    symbol = serializers.CharField()
    broker = serializers.CharField(required=False)
    quantity = DecimalText()
    average_cost = DecimalText(allow_null=True)
    cost = DecimalText()
    market_price = DecimalText(allow_null=True)
    market_value = DecimalText(allow_null=True)
    unrealized_pnl = DecimalText(allow_null=True)
    realized_pnl = DecimalText(allow_null=True)
    day_pnl = DecimalText(allow_null=True)
    fees = DecimalText(allow_null=True)
    currency = serializers.CharField()
    price_at = serializers.DateTimeField(allow_null=True)
    stale = serializers.BooleanField()


class LotOut(serializers.Serializer):
    """What is left of an opening trade, or of all of them in a pool. `cost` is of what remains; `held_since` differs
    from `opened_at` where a wash sale lengthened the holding period."""

    id = serializers.UUIDField()
    symbol = serializers.CharField()
    opened_at = serializers.DateTimeField()
    held_since = serializers.DateTimeField()
    long_term = serializers.BooleanField()
    price = DecimalText()
    quantity = DecimalText()
    remaining = DecimalText()
    cost = DecimalText()


class GainOut(serializers.Serializer):
    """What closing a part of a lot gained; quantities of longs above zero. `gain` is without what a wash sale
    `disallowed`; `match` is the rule that found the purchase, in a section 104 holding."""

    symbol = serializers.CharField()
    lot = serializers.UUIDField()
    trade = serializers.UUIDField()
    held_since = serializers.DateTimeField()
    closed_at = serializers.DateTimeField()
    long_term = serializers.BooleanField()
    quantity = DecimalText()
    cost = DecimalText()
    proceeds = DecimalText()
    gain = DecimalText()
    disallowed = DecimalText()
    match = serializers.ChoiceField(choices=[SAME_DAY, THIRTY_DAYS, POOL], allow_null=True)


class LedgerLineOut(serializers.Serializer):
    """One ledger line; debits above zero."""

    id = serializers.UUIDField()
    transaction = serializers.UUIDField()
    source_kind = serializers.CharField()
    source_id = serializers.UUIDField()
    at = serializers.DateTimeField()
    account_code = serializers.CharField()
    currency = serializers.CharField()
    amount = DecimalText()
    symbol = serializers.CharField(allow_null=True)
    broker = serializers.CharField(allow_null=True)
    quantity = DecimalText()
    note = serializers.CharField()


class SettlementOut(serializers.Serializer):
    """The delivery of one trade, and how far it is. `days_late` counts from `due_on` while something is open."""

    id = serializers.UUIDField(help_text="Of the execution.")
    symbol = serializers.CharField()
    broker = serializers.CharField()
    executed_at = serializers.DateTimeField()
    quantity = DecimalText()
    amount = DecimalText(help_text="Cash, in above zero.")
    currency = serializers.CharField()
    due_on = serializers.DateField()
    state = serializers.ChoiceField(choices=STATES)
    settled_quantity = DecimalText()
    settled_amount = DecimalText()
    settled_on = serializers.DateField(allow_null=True)
    failed_at = serializers.DateTimeField(allow_null=True)
    days_late = serializers.IntegerField()
    reason = serializers.CharField(allow_blank=True)


class SettlementIn(Strict):
    """What became of a delivery. `quantity`: all that was delivered so far, with `partial` alone."""

    state = serializers.ChoiceField(choices=MARKS)
    quantity = DecimalText(positive=True, required=False, default=None)
    reason = serializers.CharField(max_length=150)


@extend_schema_field(
    {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2, "examples": [[2, 1]]}
)
class RatioField(serializers.Field):
    """Two whole numbers: units after, for units before; or what comes, for what is held."""

    def to_internal_value(self, data: Any) -> tuple[int, int]:
        """Return the two."""
        whole_numbers = isinstance(data, list) and len(data) == 2 and all(type(n) is int for n in data)
        if not whole_numbers:
            raise Invalid("not_a_ratio", "Send two whole numbers, for example [2, 1].", field=self.field_name or "")
        return data[0], data[1]

    def to_representation(self, value: Any) -> Any:
        """Return the two as a list."""
        return list(value)


class CorporateActionIn(Strict):
    """What an issuer announced. Who held when the ex date began takes part.

    `cash` is for one unit: of a `cash_dividend` or `return_of_capital`, the price in a `merger`, a `delisting` or of
    `rights`. `ratio`: new units for old ones in a `split`, `reverse_split` or `merger`; what comes for what is held in a
    `stock_dividend`, a `spin_off` or of `rights`. `target`: the instrument that comes. `cash_in_lieu`: what a whole unit of
    it is worth where a fraction is paid for. `cost_share`: of the cost, what goes with a spin-off; or `price` of what comes
    and `own_price` after it. `elections`: how many units accounts subscribe to, where not to all that they may.
    """

    type = serializers.ChoiceField(choices=corporate.TYPES)
    symbol = serializers.CharField(max_length=32)
    ratio = RatioField(required=False, default=None)
    cash = DecimalText(required=False, default=None)
    currency = serializers.RegexField(r"^[A-Z]{3,12}$", required=False, default=None, allow_null=True)
    target = serializers.CharField(max_length=32, required=False, default="")
    cash_in_lieu = DecimalText(required=False, default=None)
    cost_share = DecimalText(required=False, default=None)
    price = DecimalText(positive=True, required=False, default=None)
    own_price = DecimalText(positive=True, required=False, default=None)
    new_symbol = serializers.RegexField(r"^([A-Z0-9./_-]{1,32})?$", required=False, allow_blank=True, default="")
    elections = serializers.DictField(child=DecimalText(), required=False, default=dict)
    declared_on = serializers.DateField(required=False, default=None, allow_null=True)
    ex_date = serializers.DateField(
        required=False, default=None, allow_null=True, help_text="From the record date by the market's cycle if absent."
    )
    record_date = serializers.DateField(required=False, default=None, allow_null=True)
    pay_date = serializers.DateField(required=False, default=None, allow_null=True, help_text="The ex date if absent.")


class NothingIn(Strict):
    """No fields: the address says it all."""


class CorporateActionOut(serializers.Serializer):
    """A corporate action."""

    id = serializers.UUIDField()
    type = serializers.ChoiceField(choices=corporate.TYPES)
    symbol = serializers.CharField()
    ratio = RatioField(allow_null=True)
    cash = DecimalText(allow_null=True)
    currency = serializers.CharField()
    target = serializers.CharField(allow_null=True)
    cash_in_lieu = DecimalText(allow_null=True)
    cost_share = DecimalText(allow_null=True)
    price = DecimalText(allow_null=True)
    new_symbol = serializers.CharField(allow_blank=True, help_text="The old one once it is applied.")
    elections = serializers.DictField(child=DecimalText())
    declared_on = serializers.DateField(allow_null=True)
    ex_date = serializers.DateField()
    record_date = serializers.DateField(allow_null=True)
    pay_date = serializers.DateField()
    state = serializers.ChoiceField(choices=["announced", "applied", "reversed"])
    reason = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    applied_at = serializers.DateTimeField(allow_null=True)


class UnitsOut(serializers.Serializer):
    """Units that come, or go below zero."""

    symbol = serializers.CharField()
    quantity = DecimalText()


class ClaimOut(serializers.Serializer):
    """Trades around the ex date whose delivery the register misses: a `due_bill` passes it on to the buyer, a
    `return_claim` gives it back to the seller."""

    kind = serializers.ChoiceField(choices=[DUE_BILL, RETURN_CLAIM])
    quantity = DecimalText()


class EntitlementOut(serializers.Serializer):
    """What an account is entitled to: cash as `amount`, below zero where it pays, `units`, and what of it is `gain`.
    `posted` is the cash it has got so far, before this call."""

    account = serializers.CharField()
    quantity = DecimalText(help_text="Held when the ex date began.")
    amount = DecimalText()
    posted = DecimalText()
    currency = serializers.CharField()
    units = UnitsOut(many=True)
    gain = DecimalText()
    claims = ClaimOut(many=True)


class PnlLineOut(serializers.Serializer):
    """P&L in one currency."""

    currency = serializers.CharField()
    realized = DecimalText()
    unrealized = DecimalText()
    day = DecimalText()
    fees = DecimalText()
    dividends = DecimalText()


class PnlOut(serializers.Serializer):
    """An account's P&L, with the number of open positions that have no price."""

    currencies = PnlLineOut(many=True)
    unpriced_positions = serializers.IntegerField()


class TransferIn(Strict):
    """Cash to be moved; `key` makes a repeat harmless."""

    kind = serializers.ChoiceField(choices=operations.TRANSFER_KINDS)
    currency = serializers.RegexField(r"^[A-Z]{3,12}$")
    amount = DecimalText(positive=True)
    to = serializers.CharField(max_length=16, required=False, default="")
    broker = serializers.CharField(
        max_length=16, required=False, default="", help_text="Where it is kept, if anywhere."
    )
    reason = serializers.CharField(max_length=150)
    key = serializers.CharField(max_length=128)


class TransferOut(serializers.Serializer):
    """The ledger transaction that moved it."""

    id = serializers.UUIDField()


class ReasonIn(Strict):
    """Why."""

    reason = serializers.CharField(max_length=150)


class GrantIn(Strict):
    """Who may trade, and until when."""

    user = serializers.CharField(max_length=150)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class GrantOut(serializers.Serializer):
    """A grant."""

    account = serializers.CharField()
    user = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class BrokerIn(Strict):
    """A broker to be added. Settings may hold `listings` (symbols; default all), `accounts` (code to the broker's name;
    default all) and `fees`; secrets are never shown again."""

    code = serializers.RegexField(r"^[A-Z0-9_-]{1,16}$")
    name = serializers.CharField(max_length=80, required=False, default="")
    adapter = serializers.ChoiceField(choices=sorted(ADAPTERS))
    settings = serializers.DictField()


def account_of(request: Request, code: str, at: Any) -> Account:
    """Return the account if the caller may see it, else raise `NotFound`."""
    seen: QuerySet[Account] = queries.visible_accounts(request.user, at=at)
    found = seen.filter(code=code).first()
    if found is None:
        raise NotFound("not_found", "There is no such account.")
    return found


class Accounts(Api):
    """GET and POST accounts."""

    permission_classes = [acting("ops")]

    @extend_schema(responses={200: listed(AccountOut), **problems()})
    def get(self, request: Request) -> Response:
        """List the accounts the caller may see."""
        refuse_unknown_parameters(request, ())
        at = self.now()
        return Response(whole([queries.account_out(a, at=at) for a in queries.visible_accounts(request.user, at=at)]))

    @extend_schema(request=AccountIn, responses={201: AccountOut, **problems(400, 409)})
    def post(self, request: Request) -> Response:
        """Open an account."""
        body, at = body_of(request, AccountIn), self.now()
        account = operations.open_account(**body, actor=actor_of(request), at=at)
        return Response(queries.account_out(account, at=at), status=201)


class Brokers(reference.Brokers):
    """GET and POST brokers."""

    permission_classes = [acting("admin")]

    @extend_schema(
        operation_id="brokers_add",
        request=BrokerIn,
        responses={201: reference.BrokerOut, **problems(400, 409)},
        description="Makes the listings and broker accounts that the settings imply; its gateway starts within seconds.",
    )
    def post(self, request: Request) -> Response:
        """Add a broker."""
        body = body_of(request, BrokerIn)
        operations.add_broker(**body, actor=actor_of(request), at=self.now(), known=False)
        return Response(market.health_of(body["code"]), status=201)


class Positions(Api):
    """GET accounts/{code}/positions."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[OpenApiParameter("by", enum=["broker"])], responses={200: listed(PositionOut), **problems(400, 404)}
    )
    def get(self, request: Request, code: str) -> Response:
        """List positions, in total or by broker."""
        refuse_unknown_parameters(request, ("by",))
        account = account_of(request, code, self.now())
        by_broker = text_parameter(request, "by", choices=("broker",))
        read = queries.positions_by_broker if by_broker else queries.positions_of
        return Response(whole(read(account.pk)))


class Lots(Api):
    """GET accounts/{code}/lots."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: listed(LotOut), **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """List open lots, oldest first."""
        refuse_unknown_parameters(request, ())
        at = self.now()
        return Response(whole(queries.lots_of(account_of(request, code, at).pk, at=at)))


class LotPolicies(Api):
    """GET and POST accounts/{code}/lot-policies."""

    permission_classes = [acting("ops")]

    @extend_schema(responses={200: listed(LotPolicyOut), **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """List the rules of lots by their first day."""
        refuse_unknown_parameters(request, ())
        return Response(whole(queries.lot_policies_of(account_of(request, code, self.now()).pk)))

    @extend_schema(request=LotPolicyIn, responses={201: LotPolicyOut, **problems(400, 404, 409)})
    def post(self, request: Request, code: str) -> Response:
        """Match trades by other rules from a day on; what was executed before keeps its own."""
        account, body = account_of(request, code, self.now()), body_of(request, LotPolicyIn)
        kept = operations.set_lot_policy(account=account.code, **body, actor=actor_of(request), at=self.now())
        return Response(LotPolicyOut(kept).data, status=201)


class Gains(Api):
    """GET accounts/{code}/gains."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[
            OpenApiParameter("symbol"),
            *(OpenApiParameter(n, OpenApiTypes.DATETIME) for n in ("from", "to")),
        ],
        responses={200: listed(GainOut), **problems(400, 404)},
    )
    def get(self, request: Request, code: str) -> Response:
        """List what sales and covers gained, lot by lot."""
        refuse_unknown_parameters(request, ("symbol", "from", "to"))
        account = account_of(request, code, self.now())
        symbol = text_parameter(request, "symbol")
        instrument = market.instruments_by_symbol().get(symbol) if symbol else None
        if symbol and instrument is None:
            raise Invalid("unknown_symbol", "No such instrument.", field="symbol")
        start, end = time_parameter(request, "from"), time_parameter(request, "to")
        return Response(whole(queries.gains_of(account.pk, instrument and instrument.id, start=start, end=end)))


class Ledger(Api):
    """GET accounts/{code}/ledger."""

    permission_classes = [SignedIn]

    @extend_schema(parameters=PAGE_SCHEMA, responses={200: listed(LedgerLineOut), **problems(400, 404)})
    def get(self, request: Request, code: str) -> Response:
        """List ledger lines, newest first."""
        refuse_unknown_parameters(request, PAGE_PARAMETERS)
        page, account = page_of(request), account_of(request, code, self.now())
        rows = queries.ledger_of(account.pk, before=page.before, limit=page.limit + 1)
        return Response(page_out(request, page, rows))


class Settlements(Api):
    """GET accounts/{code}/settlements."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[OpenApiParameter("state", enum=STATES), *PAGE_SCHEMA],
        responses={200: listed(SettlementOut), **problems(400, 404)},
    )
    def get(self, request: Request, code: str) -> Response:
        """List settlements, the newest trade first."""
        refuse_unknown_parameters(request, ("state", *PAGE_PARAMETERS))
        at = self.now()
        page, account = page_of(request), account_of(request, code, at)
        state = text_parameter(request, "state", choices=STATES) or ""
        rows = queries.settlements_of(
            account.pk, today=at.date(), state=state, before=page.before, limit=page.limit + 1
        )
        return Response(page_out(request, page, rows))


class LadderDayOut(serializers.Serializer):
    """What comes and goes on a day, and what will have settled by its end."""

    due_on = serializers.DateField()
    settlements = serializers.IntegerField()
    coming = DecimalText()
    going = DecimalText()
    settled_after = DecimalText()


class LadderCurrencyOut(serializers.Serializer):
    """The ladder of one currency; what is late stands on today."""

    currency = serializers.CharField()
    ledger = DecimalText()
    settled = DecimalText()
    days = LadderDayOut(many=True)


class LateOut(serializers.Serializer):
    """Settlements that are late, by age and state; a failed one and a part of one count with what is open of them."""

    age = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    currency = serializers.CharField()
    settlements = serializers.IntegerField()
    amount = DecimalText()
    oldest_days = serializers.IntegerField()


class ViolationOut(serializers.Serializer):
    """A sale that came too early in a cash account: of which purchase, and until when it had to wait (null: until paid)."""

    kind = serializers.ChoiceField(choices=sorted(MEANING))
    detail = serializers.CharField()
    symbol = serializers.CharField()
    sale = serializers.UUIDField()
    purchase = serializers.UUIDField()
    on = serializers.DateField()
    amount = DecimalText()
    currency = serializers.CharField()
    wait_until = serializers.DateField(allow_null=True)


class LadderOut(serializers.Serializer):
    """The settlement ladder; `violations` of the last year as they would be in a cash account, which brokers would then
    restrict to settled cash until `restricted_until`."""

    currencies = LadderCurrencyOut(many=True)
    late = LateOut(many=True)
    violations = ViolationOut(many=True)
    restricted_until = serializers.DateField(allow_null=True)


class SettlementLadder(Api):
    """GET accounts/{code}/settlement-ladder."""

    permission_classes = [SignedIn]

    @extend_schema(responses={200: LadderOut, **problems(404)})
    def get(self, request: Request, code: str) -> Response:
        """Show what settles when, what is late, and what was sold before it was paid for."""
        refuse_unknown_parameters(request, ())
        at = self.now()
        account, today = account_of(request, code, at), at.date()
        return Response({**ladder.ladder_of(account.pk, today=today), **ladder.violations_of(account.pk, today=today)})


class SettlementMark(Api):
    """POST accounts/{code}/settlements/{id}."""

    permission_classes = [acting("ops")]

    @extend_schema(request=SettlementIn, responses={200: SettlementOut, **problems(400, 404, 409)})
    def post(self, request: Request, code: str, id: str) -> Response:  # noqa: A002 - the address's own name
        """Record that a delivery failed, came in part, or came after all."""
        at = self.now()
        account, body = account_of(request, code, at), body_of(request, SettlementIn)
        row = settlement.mark_settlement(parse_id(id), account=account.code, **body, actor=actor_of(request), at=at)
        return Response(queries.settlement_out(row, today=at.date()))


class Pnl(Api):
    """GET accounts/{code}/pnl."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[OpenApiParameter(n, OpenApiTypes.DATETIME) for n in ("from", "to")],
        responses={200: PnlOut, **problems(400, 404)},
    )
    def get(self, request: Request, code: str) -> Response:
        """Show P&L by currency: realised and fees of the time asked for, unrealised as of now."""
        refuse_unknown_parameters(request, ("from", "to"))
        account = account_of(request, code, self.now())
        start, end = time_parameter(request, "from"), time_parameter(request, "to")
        return Response(queries.pnl_of(account.pk, start=start, end=end))


class Transfers(Api):
    """POST accounts/{code}/transfers."""

    permission_classes = [acting("ops")]

    @extend_schema(request=TransferIn, responses={201: TransferOut, **problems(400, 404, 409, 422)})
    def post(self, request: Request, code: str) -> Response:
        """Move cash."""
        account = account_of(request, code, self.now())
        body = body_of(request, TransferIn)
        moved = operations.transfer(account=account.code, **body, actor=actor_of(request), at=self.now())
        return Response({"id": str(moved)}, status=201)


class TransferReversal(Api):
    """POST accounts/{code}/transfers/{id}/reverse."""

    permission_classes = [acting("ops")]

    @extend_schema(request=ReasonIn, responses={201: TransferOut, **problems(400, 404, 409)})
    def post(self, request: Request, code: str, id: str) -> Response:  # noqa: A002 - the address's own name
        """Undo a transfer by its opposite."""
        account = account_of(request, code, self.now())
        reason, at = body_of(request, ReasonIn)["reason"], self.now()
        done = operations.reverse_transfer(
            parse_id(id), reason=reason, actor=actor_of(request), at=at, account=account.code
        )
        return Response({"id": str(done)}, status=201)


class Grants(Api):
    """POST accounts/{code}/grants."""

    permission_classes = [acting("admin")]

    @extend_schema(request=GrantIn, responses={201: GrantOut, **problems(400, 404)})
    def post(self, request: Request, code: str) -> Response:
        """Let a user trade an account."""
        account = account_of(request, code, self.now())
        body = body_of(request, GrantIn)
        row = operations.grant(account=account.code, **body, actor=actor_of(request), at=self.now())
        return Response({"account": code, "user": body["user"], "expires_at": row.expires_at}, status=201)


def entitlements_out(due: list[corporate.Due]) -> dict[str, Any]:
    """Return what accounts are entitled to, as a list in the REST shape."""
    return whole(
        [
            {
                "account": d.account,
                "quantity": text(d.quantity),
                "amount": text(d.amount),
                "posted": text(d.posted),
                "currency": d.currency,
                "units": [{"symbol": s, "quantity": text(q)} for s, q in sorted(d.units.items())],
                "gain": text(d.gain),
                "claims": [{"kind": k, "quantity": text(q)} for k, q in sorted(d.claims.items())],
            }
            for d in due
        ]
    )


class CorporateActions(Api):
    """GET and POST corporate-actions."""

    permission_classes = [acting("ops")]

    @extend_schema(parameters=PAGE_SCHEMA, responses={200: listed(CorporateActionOut), **problems(400)})
    def get(self, request: Request) -> Response:
        """List corporate actions, the last announced first."""
        refuse_unknown_parameters(request, PAGE_PARAMETERS)
        page = page_of(request)
        rows = queries.corporate_actions(before=page.before, limit=page.limit + 1)
        return Response(page_out(request, page, [queries.corporate_action_out(a) for a in rows]))

    @extend_schema(request=CorporateActionIn, responses={201: CorporateActionOut, **problems(400, 409)})
    def post(self, request: Request) -> Response:
        """Record what an issuer announced; nothing is booked before it is applied."""
        body = body_of(request, CorporateActionIn)
        told = corporate.Announcement(**body)
        action = corporate.announce(told, actor=actor_of(request), at=self.now())
        return Response(queries.corporate_action_out(action), status=201)


class CorporateActionPreview(Api):
    """POST corporate-actions/{id}/preview."""

    permission_classes = [acting("ops")]

    @extend_schema(request=NothingIn, responses={200: listed(EntitlementOut), **problems(400, 404, 409)})
    def post(self, request: Request, id: str) -> Response:  # noqa: A002 - the address's own name
        """Show what every account is entitled to, and change nothing."""
        body_of(request, NothingIn)
        return Response(entitlements_out(corporate.preview(queries.corporate_action(parse_id(id)))))


class ValuePartOut(serializers.Serializer):
    """A part of an account at the market, in the account's currency. `key` is null for what has no strategy."""

    key = serializers.CharField(allow_null=True)
    value = DecimalText()
    cost = DecimalText()
    unrealized = DecimalText()
    day = DecimalText()
    positions = serializers.IntegerField()
    unpriced = serializers.IntegerField()
    stale = serializers.IntegerField()
    unrated = serializers.ListField(child=serializers.CharField())


class ValuationOut(serializers.Serializer):
    """An account at the market, in its own currency. `unpriced` positions and `unrated` currencies are left out of the sums,
    which makes the equity null; `stale` ones count at an old price."""

    account = serializers.CharField()
    currency = serializers.CharField()
    valued_at = serializers.ChoiceField(choices=POLICIES)
    at = serializers.DateTimeField()
    equity = DecimalText(allow_null=True)
    cash = DecimalText(allow_null=True)
    value = DecimalText()
    cost = DecimalText()
    unrealized = DecimalText()
    day = DecimalText(help_text="Since the UTC day began.")
    month = DecimalText(allow_null=True, help_text="Growth of equity less flows since the UTC month began.")
    realized = DecimalText(allow_null=True, help_text="Each posting at the rate of its day; null where one had none.")
    positions = serializers.IntegerField()
    unpriced = serializers.IntegerField()
    stale = serializers.IntegerField()
    unrated = serializers.ListField(child=serializers.CharField())
    parts = ValuePartOut(many=True)


class Valuation(Api):
    """GET accounts/{code}/valuation."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[OpenApiParameter("by", enum=[BROKER, SYMBOL, STRATEGY])],
        responses={200: ValuationOut, **problems(400, 404)},
    )
    def get(self, request: Request, code: str) -> Response:
        """Show what an account is worth now, whole or split by broker, symbol or strategy."""
        refuse_unknown_parameters(request, ("by",))
        account, at = account_of(request, code, self.now()), self.now()
        by = text_parameter(request, "by", choices=(BROKER, SYMBOL, STRATEGY)) or ""
        return Response(valuation_out(account, by=by, at=at))


class DrawdownOut(serializers.Serializer):
    """The deepest fall of growth, as a part of its peak."""

    depth = DecimalText()
    peak_at = serializers.DateTimeField()
    trough_at = serializers.DateTimeField()
    recovered_at = serializers.DateTimeField(allow_null=True)


class CurvePointOut(serializers.Serializer):
    """Equity, growth of one unit since the beginning without flows, and how far that lies below its highest."""

    at = serializers.DateTimeField()
    equity = DecimalText()
    index = DecimalText()
    drawdown = DecimalText()


class FlowOut(serializers.Serializer):
    """A deposit (above zero) or a withdrawal, in the account's currency at the rate of its moment."""

    at = serializers.DateTimeField()
    amount = DecimalText()


class _PerformanceOut(serializers.Serializer):
    """How an account did. Rates are parts of one: 0.05 is five percent. Null is what is not known: without any worth, with a
    flow that had no rate (`unknown_flows`), or over less than a year for yearly rates."""

    account = serializers.CharField()
    currency = serializers.CharField()
    to = serializers.DateField()
    start_equity = DecimalText(allow_null=True)
    end_equity = DecimalText(allow_null=True)
    deposits = DecimalText()
    withdrawals = DecimalText()
    gain = DecimalText(allow_null=True)
    time_weighted = DecimalText(allow_null=True)
    time_weighted_annual = DecimalText(allow_null=True)
    money_weighted = DecimalText(allow_null=True, help_text="Over the whole time, as is `time_weighted`.")
    money_weighted_annual = DecimalText(allow_null=True)
    max_drawdown = DrawdownOut(allow_null=True)
    unknown_flows = serializers.IntegerField()
    missing_days = serializers.IntegerField(help_text="Days whose worth was not known.")
    curve = CurvePointOut(many=True)
    flows = FlowOut(many=True)


PerformanceOut = type(
    "PerformanceOut",
    (_PerformanceOut,),
    {"from": serializers.DateField(allow_null=True), "__doc__": _PerformanceOut.__doc__, "__module__": __name__},
)
"""`from` is a word that Python keeps for itself."""


class Performance(Api):
    """GET accounts/{code}/performance."""

    permission_classes = [SignedIn]

    @extend_schema(
        parameters=[OpenApiParameter("from", OpenApiTypes.DATE), OpenApiParameter("to", OpenApiTypes.DATE)],
        responses={200: PerformanceOut, **problems(400, 404)},
    )
    def get(self, request: Request, code: str) -> Response:
        """Show time- and money-weighted returns, the deepest drawdown and the equity curve, by the values of days."""
        refuse_unknown_parameters(request, ("from", "to"))
        account, at = account_of(request, code, self.now()), self.now()
        start, end = date_parameter(request, "from"), date_parameter(request, "to")
        return Response(performance_out(account, start=start, end=end, at=at))
